"""What is left out before ranking: too short or long, too noisy, silent, or there twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError
from lobes.selection.base import Filter
from lobes.selection.neighbours import unit
from lobes.selection.pool import Pool


@dataclass(frozen=True)
class Duration(Filter):
    """Keep what lasts from `low` to `high` seconds, both included."""

    low: float = 0.0
    high: float = float("inf")

    def keep(self, pool: Pool) -> NDArray[np.bool_]:
        """See `Filter.keep`."""
        return (pool.seconds >= self.low) & (pool.seconds <= self.high)


@dataclass(frozen=True)
class InRange(Filter):
    """Keep what has from `low` to `high` in a column, both included, such as a signal-to-noise ratio in dB.

    What is not a number in it is left out.
    """

    column: str
    low: float = float("-inf")
    high: float = float("inf")

    def keep(self, pool: Pool) -> NDArray[np.bool_]:
        """See `Filter.keep`."""
        values = pool.need_column(self.column, f"InRange of '{self.column}'").astype(np.float64)
        return (values >= self.low) & (values <= self.high)


@dataclass(frozen=True)
class NoDuplicates(Filter):
    """Keep the first of utterances that are as good as the same: the cosine of their embeddings reaches `similarity`.

    The first in the order of ids, whatever the pool's own. Only those of nearly the same length are compared.

    Parameters
    ----------
    similarity : float
        0 to 1.
    seconds : float
        By how much lengths may differ.
    """

    similarity: float = 0.999
    seconds: float = 0.05

    def keep(self, pool: Pool) -> NDArray[np.bool_]:
        """See `Filter.keep`."""
        if not 0 < self.similarity <= 1:
            raise ConfigError(f"NoDuplicates: similarity is {self.similarity}; expected above 0 and at most 1")
        vectors = unit(pool.need_embeddings("NoDuplicates"))
        by_length = np.argsort(pool.seconds, kind="stable")
        lengths = pool.seconds[by_length]
        ends = np.searchsorted(lengths, lengths + self.seconds, side="right")
        rank = np.empty(len(pool), dtype=np.int64)
        rank[np.argsort(pool.ids, kind="stable")] = np.arange(len(pool))
        keep = np.ones(len(pool), dtype=bool)
        pairs = []
        for place, end in enumerate(ends.tolist()):
            if end > place + 1:
                here, others = by_length[place], by_length[place + 1 : end]
                same = others[vectors[others] @ vectors[here] >= self.similarity - 1e-6]
                pairs += [(int(min(rank[here], rank[other])), int(max(rank[here], rank[other]))) for other in same]
        at = np.argsort(rank)
        for first, second in sorted(pairs):
            if keep[at[first]]:
                keep[at[second]] = False
        return keep
