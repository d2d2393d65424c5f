"""Submodular strategies: greedy choices that lose little to the best ones (Nemhauser, Wolsey & Fisher 1978)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError
from lobes.selection.base import Strategy
from lobes.selection.neighbours import centred
from lobes.selection.pool import Pool


@dataclass(frozen=True)
class FacilityLocation(Strategy):
    """Greedily what represents the pool best: `f(A) = Σ_i max_{j in A} s_ij`, with cosines of embeddings, 0 at least.

    Lazy greedy (Minoux 1978), which gives what greedy does, with gains per utterance. Similarities are those to `of`
    utterances of the pool, drawn at random where there are more: memory is N · of.

    Parameters
    ----------
    of : int
        Utterances that are to be represented.
    """

    of: int = 2000

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        if self.of < 1:
            raise ConfigError(f"FacilityLocation: of is {self.of}; expected 1 or more")
        embedded, _ = centred(pool, None, "FacilityLocation")
        random = np.random.default_rng(seed)
        represented = embedded[np.sort(random.permutation(len(pool))[: self.of])]
        return greedy(np.maximum(embedded @ represented.T, 0.0), None, pool.seconds, seconds, random)


@dataclass(frozen=True)
class FLQMI(Strategy):
    """Greedily what tells most of the target: facility-location mutual information, for data selection in DITTO.

    `f(A) = Σ_{i in target} max_{j in A} s_ij + η Σ_{j in A} max_{i in target} s_ij` (Kothawade et al. 2022, PRISM,
    FLQMI): the first term covers the target, the second keeps to it once it is covered.

    Parameters
    ----------
    relevance : float
        η, 0 or more.
    """

    needs_target: ClassVar[bool] = True
    relevance: float = 1.0

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        if not self.relevance >= 0:
            raise ConfigError(f"FLQMI: relevance is {self.relevance}; expected 0 or more")
        embedded, wanted = centred(pool, target, "FLQMI")
        similar = np.maximum(embedded @ wanted.T, 0.0)
        bonus = self.relevance * similar.max(1)
        return greedy(similar, bonus, pool.seconds, seconds, np.random.default_rng(seed))


@dataclass(frozen=True)
class FLMI(Strategy):
    """Greedily what represents the target's part of the pool: facility-location mutual information (FLMI).

    `f(A) = Σ_{i in pool} min(max_{j in A} s_ij, η max_{j in target} s_ij)` (Iyer et al. 2021, "Submodular combinatorial
    information measures"; η: Kothawade et al. 2022, PRISM, table 1), with cosines of embeddings, 0 at least. An
    utterance of the pool counts for no more than η times its similarity to the target, so that what is far from it need
    not be represented; nor is the target itself, as it is by `FLQMI`. Once everything counts in full, no
    utterance adds anything, and the rest comes in an order drawn from the seed.

    Greedy is lazy and exact, with gains per utterance. The sum is over `of` utterances of the pool, drawn at random
    where there are more, and then an estimate of it: memory is N · of.

    Parameters
    ----------
    of : int
        Utterances that the sum is over.
    relevance : float
        η, above 0: 1 asks that each be as well represented as by the target; the larger, the nearer it comes to
        facility location of all that resembles the target at all.
    """

    needs_target: ClassVar[bool] = True
    of: int = 2000
    relevance: float = 1.0

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        if self.of < 1:
            raise ConfigError(f"FLMI: of is {self.of}; expected 1 or more")
        if not 0 < self.relevance < np.inf:
            raise ConfigError(f"FLMI: relevance is {self.relevance}; expected a number above 0")
        embedded, wanted = centred(pool, target, "FLMI")
        random = np.random.default_rng(seed)
        represented = embedded[np.sort(random.permutation(len(pool))[: self.of])]
        most = self.relevance * np.maximum((represented @ wanted.T).max(1), 0.0)
        # The least of two is taken before the largest: min(max_j s_ij, m_i) = max_j min(s_ij, m_i).
        similar = embedded @ represented.T
        return greedy(np.clip(similar, 0.0, most, out=similar), None, pool.seconds, seconds, random)


def greedy(
    similar: NDArray[np.float32],
    bonus: NDArray[np.float64] | None,
    lengths: NDArray[np.float64],
    seconds: float,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Maximise `Σ_i max_{j in A} similar[j, i] + Σ_{j in A} bonus[j]` greedily, until there are so many seconds.

    Parameters
    ----------
    similar : array (N, Q)
        0 or more.
    bonus : array (N,), optional
        What each adds whatever else is chosen.
    lengths : array (N,)
        Seconds of each.
    seconds : float
        The rest comes in the order of what it would add.
    random : Generator
        Breaks ties.

    Returns
    -------
    array (N,), int64
    """
    extra = np.zeros(len(similar)) if bonus is None else np.asarray(bonus, dtype=np.float64)
    covered = np.zeros(similar.shape[1], dtype=similar.dtype)
    tie = random.permutation(len(similar))
    gains = similar.sum(1, dtype=np.float64) + extra
    # (-gain, tie, utterance, size of what was chosen when the gain was computed): gains only ever fall.
    heap = [
        (-gain, int(number), index, 0) for index, (gain, number) in enumerate(zip(gains.tolist(), tie, strict=True))
    ]
    heapq.heapify(heap)
    taken: list[int] = []
    spent = 0.0
    while heap and spent < seconds:
        gain, number, index, size = heapq.heappop(heap)
        if size < len(taken):
            fresh = float(np.maximum(similar[index] - covered, 0.0).sum(dtype=np.float64)) + float(extra[index])
            heapq.heappush(heap, (-fresh, number, index, len(taken)))
            continue
        taken.append(index)
        covered = np.maximum(covered, similar[index])
        spent += float(lengths[index])
    rest = [index for _, _, index, _ in sorted(heap)]
    return np.array([*taken, *rest], dtype=np.int64)
