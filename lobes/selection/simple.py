"""Strategies that look at no content: chance, length, and a score that is there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError
from lobes.selection.base import Scored, Strategy
from lobes.selection.pool import Pool


@dataclass(frozen=True)
class Random(Strategy):
    """At random: the control that every other strategy has to beat at the same number of seconds."""

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        return np.random.default_rng(seed).permutation(len(pool))


@dataclass(frozen=True)
class RandomAsLong(Strategy):
    """At random, but with the target's durations: the control for a strategy that may have chosen by length alone.

    Durations of the target are drawn again and again, and each takes a utterance of the pool from among those that are
    nearest to it in length and not taken yet.

    Parameters
    ----------
    bins : int
        Lengths are told apart by so many quantiles of the pool.
    """

    needs_target: ClassVar[bool] = True
    bins: int = 20

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        assert target is not None
        if self.bins < 1:
            raise ConfigError(f"RandomAsLong: bins is {self.bins}; expected 1 or more")
        random = np.random.default_rng(seed)
        edges = np.unique(np.quantile(pool.seconds, np.linspace(0, 1, self.bins + 1)[1:-1]))
        of_pool, of_target = (np.searchsorted(edges, part.seconds, side="right") for part in (pool, target))
        wanted = np.bincount(of_target, minlength=len(edges) + 1) / len(target)
        # Each bin, shuffled, is spread evenly over the rank as often as the target asks for it.
        place = np.empty(len(pool))
        for number in range(len(edges) + 1):
            members = random.permutation(np.flatnonzero(of_pool == number))
            share = wanted[number]
            offset = random.random()
            place[members] = (np.arange(len(members)) + offset) / share if share else np.inf
        return np.lexsort((random.random(len(pool)), place))


@dataclass(frozen=True)
class Longest(Scored):
    """The longest first (Whetten & Parcollet 2026: half of the hours so chosen pretrain better than all of them)."""

    def scores(self, pool: Pool, target: Pool | None, seed: int) -> NDArray[np.float64]:
        """Seconds."""
        return pool.seconds


@dataclass(frozen=True)
class ByColumn(Scored):
    """By a column of the pool: a proxy student's loss, a signal-to-noise ratio.

    Parameters
    ----------
    column : str
        Its name.
    largest : bool
        Whether large values come first.
    """

    column: str = "proxy_loss"
    largest: bool = True

    def scores(self, pool: Pool, target: Pool | None, seed: int) -> NDArray[np.float64]:
        """The column, or its negative."""
        values = pool.need_column(self.column, f"ByColumn of '{self.column}'").astype(np.float64)
        return values if self.largest else -values
