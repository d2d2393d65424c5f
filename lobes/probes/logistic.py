"""Logistic regression on pooled layers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from lobes.probes.pooled import PooledProbe


class LogisticProbe(PooledProbe):
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
    parts : int, optional
        Leave out so many parts of the training groups, instead of one group at a time: for corpora of many groups.
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
        self,
        strengths: Sequence[float] = (0.001, 0.01, 0.1, 1.0),
        max_iter: int = 500,
        balanced: bool = False,
        parts: int | None = None,
    ) -> None:
        super().__init__(strengths, parts)
        self.max_iter, self.balanced = max_iter, balanced

    def _solve(self, x: np.ndarray, y: np.ndarray, strength: float) -> Any:
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

    def _count(self) -> int:
        logistic = self._model[-1]
        return logistic.coef_.size + logistic.intercept_.size
