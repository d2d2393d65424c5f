"""Nearest neighbours of pooled layers: what an encoder tells apart by itself, without anything trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lobes.probes.pooled import PooledProbe


class KNNProbe(PooledProbe):
    """The k nearest neighbours, by the cosine of features that are standardised over the training set.

    Layer and k are chosen by leaving training groups out, as for every `PooledProbe`; ties of the vote go to the
    likelier, then to the first label. X-ARES (2025) ranks encoders by it beside a trained probe, and otherwise.

    Parameters
    ----------
    neighbours : sequence of int
        k to choose from.
    balanced : bool
        Choose by the mean recall of the classes in place of the groups' accuracy.

    Example
    -------
    >>> features = np.array([[[-1.0, 0.1]], [[1.0, 0.0]], [[-2.0, 0.1]], [[2.0, 0.3]]])
    >>> probe = KNNProbe(neighbours=[1]).fit(features, ["no", "yes", "no", "yes"], ["ann", "ann", "bob", "bob"])
    >>> probe.predict(np.array([[[3.0, 0.1]], [[-3.0, 0.2]]])), probe.n_parameters
    (['yes', 'no'], 0)
    """

    def __init__(self, neighbours: Sequence[int] = (1, 3, 5, 10, 20), balanced: bool = False) -> None:
        super().__init__(neighbours)
        self.balanced = balanced

    def _solve(self, x: np.ndarray, y: np.ndarray, strength: float) -> Any:
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        nearest = KNeighborsClassifier(min(int(strength), len(y)), metric="cosine", algorithm="brute")
        return make_pipeline(StandardScaler(), nearest).fit(x, y)

    def _count(self) -> int:
        return 0
