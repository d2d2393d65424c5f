"""Logistic regression on pooled layers, which settles its layer and its penalty without a validation split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from lobes.encoders import EncoderOutput
from lobes.errors import DataError
from lobes.probes.pooling import MeanStdPool


class PooledLayers(nn.Module):
    """An encoder whose utterances have one frame: mean and deviation over time of each layer.

    Keeps the Encoder contract, so that `cache_features` can compute and keep these few numbers in place of all frames.

    Parameters
    ----------
    encoder : nn.Module
        Keeps the Encoder contract.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """Layers (B, 1, 2·D)."""
        output = self.encoder(waveform, lengths)
        layers = [MeanStdPool(layer.shape[-1])(layer, output.valid).unsqueeze(1) for layer in output.layers]
        return EncoderOutput(layers[-1], output.valid.any(1, keepdim=True), layers)


class LogisticProbe:
    """Multinomial logistic regression on the features of one layer, standardised over the training set.

    Which layer, and how strong an L2 penalty, is what classifies best the groups (speakers, recorders) of the training
    set that are left out, one at a time. So every encoder, and every number of labels, has the penalty that suits it,
    and no test label is seen. The solution is unique: no seed, learning rate or number of epochs. (A linear layer
    trained by gradient steps with the same settings for all is kinder to some features than to others.)

    Parameters
    ----------
    strengths : sequence of float
        Inverse penalties to choose from (scikit-learn's ``C``), smallest first; the smaller of two equals is taken.
    max_iter : int
        Of the L-BFGS solver.
    balanced : bool
        Give every class the same weight, however few examples it has, in fitting and in choosing: for classes of very
        different sizes, where `uar` is the metric.

    Attributes
    ----------
    classes : list of str
        Labels, sorted.
    layer, strength : int, float
        What was chosen.
    n_parameters : int
        Weights and biases fitted.

    Example
    -------
    >>> features = np.array([[[-1.0]], [[1.0]], [[-2.0]], [[2.0]]])  # four utterances, one layer, one feature
    >>> probe = LogisticProbe().fit(features, ["no", "yes", "no", "yes"], ["ann", "ann", "bob", "bob"])
    >>> probe.predict([[[3.0]], [[-3.0]]]), probe.layer
    (['yes', 'no'], 0)
    """

    def __init__(
        self, strengths: Sequence[float] = (0.001, 0.01, 0.1, 1.0), max_iter: int = 500, balanced: bool = False
    ) -> None:
        self.strengths, self.max_iter, self.balanced = tuple(strengths), max_iter, balanced
        self.layer, self.strength, self.n_parameters = 0, self.strengths[0], 0
        self.classes: list[str] = []

    def fit(self, features: np.ndarray, labels: Sequence[str], groups: Sequence[str]) -> LogisticProbe:
        """Choose layer and penalty, and fit.

        Parameters
        ----------
        features : array (N, L, F)
            Of N utterances, for each of L layers.
        labels, groups : sequence of str
            N each.

        Raises
        ------
        DataError
            If there are fewer than two groups or labels.
        """
        x, y, g = np.asarray(features, dtype=np.float64), np.asarray(labels), np.asarray(groups)
        for name, values in (("labels", y), ("groups", g)):
            if len(np.unique(values)) < 2:
                raise DataError(
                    f"{name}: {len(np.unique(values))} distinct, expected two or more to choose a probe's penalty by "
                    "leaving groups out; train on more"
                )
        scores = {
            (layer, strength): self._left_out(x[:, layer], y, g, strength)
            for strength in self.strengths
            for layer in range(x.shape[1])
        }
        # The best; of equals the first strength, which is the smallest, and the lowest layer.
        self.layer, self.strength = max(scores, key=lambda choice: scores[choice])
        self._model = self._solve(x[:, self.layer], y, self.strength)
        logistic = self._model[-1]
        self.classes = logistic.classes_.tolist()
        self.n_parameters = logistic.coef_.size + logistic.intercept_.size
        return self

    def predict(self, features: np.ndarray) -> list[str]:
        """Labels of M utterances, from features (M, L, F)."""
        return self._model.predict(np.asarray(features, dtype=np.float64)[:, self.layer]).tolist()

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of each of `classes`, (M, C), for M utterances with features (M, L, F)."""
        return self._model.predict_proba(np.asarray(features, dtype=np.float64)[:, self.layer])

    def _left_out(self, x: np.ndarray, y: np.ndarray, g: np.ndarray, strength: float) -> float:
        """How well each group is told by a model of the others: mean accuracy of the groups, or recall of the classes.

        A group may lack some classes, so that recalls are of all groups' decisions together.
        """
        decided = np.full(len(y), None, dtype=object)
        for group in np.unique(g):
            out = g == group
            if len(np.unique(y[~out])) > 1:
                decided[out] = self._solve(x[~out], y[~out], strength).predict(x[out])
        tested = np.array([decision is not None for decision in decided])
        parts = y if self.balanced else g
        right = decided == y
        scores = [right[tested & (parts == part)].mean() for part in np.unique(parts[tested])]
        return float(np.mean(scores)) if scores else 0.0

    def _solve(self, x: np.ndarray, y: np.ndarray, strength: float):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        weight = "balanced" if self.balanced else None
        logistic = LogisticRegression(C=strength, max_iter=self.max_iter, class_weight=weight)
        model = make_pipeline(StandardScaler(), logistic)
        with warnings.catch_warnings():
            # Not converged to 1e-4 after so many steps: good enough to score.
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            return model.fit(x, y)
