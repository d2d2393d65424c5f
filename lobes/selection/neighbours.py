"""Strategies by embeddings: near the target, or spread over the pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError
from lobes.selection.base import Strategy
from lobes.selection.pool import Pool

#: Rows of a similarity matrix that are computed at once.
_BLOCK = 4096


@dataclass(frozen=True)
class TargetKNN(Strategy):
    """Each utterance of the target in turn takes its nearest neighbour, then its second nearest, and so on.

    Nearest by the cosine of embeddings, from which the pool's mean is subtracted. So all of the target is covered, not
    only where it is dense. Beyond the `k` nearest of each, the rest follows by its largest similarity.

    Parameters
    ----------
    k : int
        Neighbours of each utterance of the target; enough of them where k · targets exceed the utterances taken.
    """

    needs_target: ClassVar[bool] = True
    k: int = 1000

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        assert target is not None
        if self.k < 1:
            raise ConfigError(f"TargetKNN: k is {self.k}; expected 1 or more")
        embedded, wanted = centred(pool, target, "TargetKNN")
        k = min(self.k, len(pool))
        nearest = np.full(len(pool), -np.inf)
        best = np.full((len(wanted), 0), -np.inf)
        which = np.zeros((len(wanted), 0), dtype=np.int64)
        for start in range(0, len(embedded), _BLOCK):
            block = wanted @ embedded[start : start + _BLOCK].T
            nearest[start : start + _BLOCK] = block.max(0)
            places = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
            best, which = np.concatenate([best, block], axis=1), np.concatenate([which, places], axis=1)
            if best.shape[1] > k:
                kept = np.argpartition(-best, k - 1, axis=1)[:, :k]
                best, which = (np.take_along_axis(part, kept, axis=1) for part in (best, which))
        order = np.argsort(-best, axis=1, kind="stable")
        which = np.take_along_axis(which, order, axis=1)
        random = np.random.default_rng(seed)
        turns = np.concatenate([random.permutation(column) for column in which.T])
        _, first = np.unique(turns, return_index=True)
        taken = turns[np.sort(first)]
        rest = np.setdiff1d(np.arange(len(pool)), taken)
        return np.concatenate([taken, rest[np.argsort(-nearest[rest], kind="stable")]])


@dataclass(frozen=True)
class ClusterBalance(Strategy):
    """One utterance of each cluster of embeddings (k-means) in turn, at random within it.

    Parameters
    ----------
    n_clusters : int
        Of k-means on unit vectors, from which the pool's mean was subtracted.
    fit_on : int
        Utterances, drawn at random, that k-means is fitted on.
    """

    n_clusters: int = 50
    fit_on: int = 50_000

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        embedded, _ = centred(pool, None, "ClusterBalance")
        random = np.random.default_rng(seed)
        label = clusters(embedded, self.n_clusters, seed, self.fit_on)
        shuffled = random.permutation(len(pool))
        # How many of its cluster came before each, in the shuffled order: all first ones, all second ones, …
        by_cluster = np.argsort(label[shuffled], kind="stable")
        begins = np.flatnonzero(np.diff(label[shuffled][by_cluster], prepend=-1))
        sizes = np.diff([*begins, len(pool)])
        rank = np.empty(len(pool), dtype=np.int64)
        rank[by_cluster] = np.arange(len(pool)) - np.repeat(begins, sizes)
        return shuffled[np.lexsort((random.random(len(pool)), rank))]


def clusters(embedded: NDArray[np.float32], n_clusters: int, seed: int, fit_on: int = 50_000) -> NDArray[np.int64]:
    """Cluster (N,) of each embedding, by k-means (scikit-learn's, in mini-batches where there are many)."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if n_clusters < 1:
        raise ConfigError(f"n_clusters is {n_clusters}: expected 1 or more")
    n_clusters = min(n_clusters, len(embedded))
    drawn = np.random.default_rng(seed).permutation(len(embedded))[:fit_on]
    kind: Any = KMeans if len(drawn) <= 10_000 else MiniBatchKMeans
    fitted = kind(n_clusters, n_init=1, random_state=seed).fit(embedded[np.sort(drawn)])
    return np.concatenate([fitted.predict(block) for block in blocks(embedded, 1 << 16)]).astype(np.int64)


def centred(pool: Pool, target: Pool | None, asker: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings of pool and target as unit vectors, without the pool's mean."""
    embedded = pool.need_embeddings(asker)
    mean = embedded.mean(0, dtype=np.float64).astype(np.float32)
    wanted = embedded[:0] if target is None else target.need_embeddings(f"{asker}'s target")
    if wanted.shape[1] != embedded.shape[1]:
        raise ConfigError(
            f"{asker}: embeddings of the pool have {embedded.shape[1]} dimensions, those of the target "
            f"{wanted.shape[1]}; compute both with one model"
        )
    return unit(embedded - mean), unit(wanted - mean)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, 1e-12)


def blocks(array: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Rows of an array, so many at once."""
    for start in range(0, len(array), size):
        yield array[start : start + size]
