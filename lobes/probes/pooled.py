"""Classifiers of pooled layers that settle their layer and their options without a validation split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from lobes.encoders import EncoderOutput
from lobes.errors import ConfigError, DataError
from lobes.evaluation import label_records
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


class PooledProbe(ABC):
    """A classifier of the features of one layer.

    Which layer, and which of the classifier's options, is what classifies best the groups (speakers, recorders) of the
    training set that are left out, one at a time, or in `parts` of whole groups where there are many. So every encoder,
    and every number of labels, has what suits it, and no test label is seen.

    Attributes
    ----------
    classes : list of str
        Labels, sorted.
    layer, strength : int, float
        What was chosen.
    n_parameters : int
        What was fitted.
    held_out : list of dict
        Records of the decisions on the training utterances, each by a model of the other groups: layer and option were
        chosen by them, so that their score flatters a little.
    """

    balanced = False

    def __init__(self, strengths: Sequence[float], parts: int | None = None) -> None:
        if parts is not None and parts < 2:
            raise ConfigError(f"parts is {parts}: expected 2 or more, or null to leave out one group at a time")
        self.strengths, self.parts = tuple(strengths), parts
        self.layer, self.strength, self.n_parameters = 0, self.strengths[0], 0
        self.classes: list[str] = []
        self.held_out: list[dict[str, Any]] = []

    def fit(self, features: np.ndarray, labels: Sequence[str], groups: Sequence[str]) -> PooledProbe:
        """Choose layer and option, and fit.

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
                    f"{name}: {len(np.unique(values))} distinct, expected two or more to choose a probe's options by "
                    "leaving groups out; train on more"
                )
        if self.parts is not None:
            g = _in_parts(g, self.parts)
        best = -1.0
        for strength in self.strengths:
            for layer in range(x.shape[1]):
                score, decided = self._left_out(x[:, layer], y, g, strength)
                if score > best:  # of equals the first option, and the lowest layer
                    best, self.layer, self.strength, self.held_out = score, layer, strength, decided
        self._model = self._solve(x[:, self.layer], y, self.strength)
        self.classes = self._model.classes_.tolist()
        self.n_parameters = self._count()
        return self

    def predict(self, features: np.ndarray) -> list[str]:
        """Labels of M utterances, from features (M, L, F)."""
        return self._model.predict(np.asarray(features, dtype=np.float64)[:, self.layer]).tolist()

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of each of `classes`, (M, C), for M utterances with features (M, L, F)."""
        return self._model.predict_proba(np.asarray(features, dtype=np.float64)[:, self.layer])

    def _left_out(
        self, x: np.ndarray, y: np.ndarray, g: np.ndarray, strength: float
    ) -> tuple[float, list[dict[str, Any]]]:
        """How well each group is told by a model of the others: mean accuracy of the groups, or recall of the classes.

        Beside it the records of these decisions.

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
        records = label_records(y[tested].tolist(), decided[tested].tolist())
        return float(np.mean(scores)) if scores else 0.0, records

    @abstractmethod
    def _solve(self, x: np.ndarray, y: np.ndarray, strength: float) -> Any:
        """A classifier like scikit-learn's, fitted to features (N, F) and labels (N,)."""

    @abstractmethod
    def _count(self) -> int:
        """Parameters of the one that is kept."""


def _in_parts(groups: np.ndarray, parts: int) -> np.ndarray:
    """Whole groups (N,) put together in so many parts, of about as many items: the largest first, to the smallest."""
    names, counts = np.unique(groups, return_counts=True)
    sizes, part_of = np.zeros(parts, dtype=int), {}
    for place in np.argsort(-counts, kind="stable"):
        part = int(sizes.argmin())
        part_of[names[place]], sizes[part] = part, sizes[part] + counts[place]
    return np.array([part_of[name] for name in groups])
