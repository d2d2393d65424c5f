"""Strategies by language models of discrete units: what is likely where it is to be used, and unlikely elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError
from lobes.selection.base import Scored, Strategy
from lobes.selection.neighbours import blocks
from lobes.selection.ngram import NGramModel
from lobes.selection.pool import Pool, Units

#: Utterances that are scored at once.
_BLOCK = 10_000


@dataclass(frozen=True)
class ContrastiveLM(Scored):
    """`[log P_target(u) - log P_pool(u)] / |u|` of each utterance's units (Lu et al. 2022; Moore & Lewis 2010).

    Parameters
    ----------
    n : int
        Of the n-gram models.
    pool_share : float
        Share of the pool, drawn at random, that the general model is counted on; 200 utterances at least. There are two
        such models, of different utterances, so that none is scored by one that it was counted on, to which it would
        seem likelier than it is.
    collapse : bool
        Leave repetitions of a unit out first.
    """

    needs_target: ClassVar[bool] = True
    n: int = 3
    pool_share: float = 0.25
    collapse: bool = True

    def scores(self, pool: Pool, target: Pool | None, seed: int) -> NDArray[np.float64]:
        """Nats per unit."""
        assert target is not None
        return self.models(pool, target, seed).scores(pool)

    def models(self, pool: Pool, target: Pool, seed: int) -> ContrastiveModels:
        """The models, to score shard after shard with; `pool` may be any random part of the whole."""
        if not 0 < self.pool_share <= 1:
            raise ConfigError(f"ContrastiveLM: pool_share is {self.pool_share}; expected above 0 and at most 1")
        of_target, of_pool = (_units(part, self.collapse, "ContrastiveLM") for part in (target, pool))
        n_units = max(of_target.size, of_pool.size)
        count = max(200, round(self.pool_share * len(pool)))
        drawn = np.argsort(pool.ids, kind="stable")[np.random.default_rng(seed).permutation(len(pool))]
        # Of a small pool each has half; a pool of one utterance has only itself.
        first, second = np.array_split(drawn[: 2 * count], 2)
        general, other = (
            NGramModel(of_pool.take(np.sort(part)), n_units, self.n)
            for part in (first, second if len(second) else first)
        )
        counted = frozenset(pool.ids[first].tolist())
        return ContrastiveModels(NGramModel(of_target, n_units, self.n), general, other, counted, self.collapse)


@dataclass(frozen=True)
class ContrastiveModels:
    """A model of the target, one of the pool, and another for the utterances that the latter was counted on."""

    target: NGramModel
    general: NGramModel
    other: NGramModel
    counted: frozenset[str]
    collapse: bool = True

    def scores(self, pool: Pool) -> NDArray[np.float64]:
        """Difference of the mean log probabilities of each utterance, (N,), nats per unit.

        Units that neither model was counted on are possible: they are unlikely to both.
        """
        units = pool.need_units("ContrastiveLM")
        if units.size > self.target.n_units:
            raise ConfigError(
                f"ContrastiveLM: unit {units.size - 1}, where the models were counted on {self.target.n_units} units; "
                "tokenise all of the pool with one codebook"
            )
        rows = np.arange(len(pool))
        parts = [self._scored(pool.ids[block], units.take(block)) for block in blocks(rows, _BLOCK)]
        return np.concatenate(parts)

    def _scored(self, ids: NDArray[Any], units: Units) -> NDArray[np.float64]:
        units = units.collapsed() if self.collapse else units
        general = self.general.log_probability(units)
        inside = np.array([name in self.counted for name in ids.tolist()], dtype=bool)
        if inside.any():
            general[inside] = self.other.log_probability(units.take(np.flatnonzero(inside)))
        return self.target.log_probability(units) - general


@dataclass(frozen=True)
class TargetLM(Scored):
    """`log P_target(u) / |u|` alone: what ContrastiveLM is without its second model, and the weaker for it."""

    needs_target: ClassVar[bool] = True
    n: int = 3
    collapse: bool = True

    def scores(self, pool: Pool, target: Pool | None, seed: int) -> NDArray[np.float64]:
        """Nats per unit."""
        assert target is not None
        of_target, of_pool = (_units(part, self.collapse, "TargetLM") for part in (target, pool))
        model = NGramModel(of_target, max(of_target.size, of_pool.size), self.n)
        return model.log_probability(of_pool)


@dataclass(frozen=True)
class UnitKL(Strategy):
    """Greedily what brings the units of all that was chosen nearest to the target's: least KL divergence.

    `KL(target || chosen)` of the distributions of single units, as speech corpora are made to resemble each other by
    distributions of discrete units; the chosen have one count of each unit to begin with. Each utterance counts by what
    it adds in proportion to its length.

    Parameters
    ----------
    candidates : int
        Utterances, drawn at random, of which each step takes the best (stochastic greedy; Mirzasoleiman et al. 2015).
    collapse : bool
        Leave repetitions of a unit out first.
    """

    needs_target: ClassVar[bool] = True
    candidates: int = 200
    collapse: bool = True

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`."""
        assert target is not None
        if self.candidates < 1:
            raise ConfigError(f"UnitKL: candidates is {self.candidates}; expected 1 or more")
        of_target, units = (_units(part, self.collapse, "UnitKL") for part in (target, pool))
        size = max(of_target.size, units.size)
        wanted = np.bincount(of_target.values, minlength=size).astype(np.float64)
        wanted /= max(wanted.sum(), 1.0)
        chosen = np.ones(size)
        random = np.random.default_rng(seed)
        left = random.permutation(len(pool))
        taken: list[int] = []
        spent = 0.0
        while len(left) and spent < seconds:
            few = left[: self.candidates]
            part = units.take(few)
            counts = np.zeros((len(few), size))
            np.add.at(counts, (part.rows(), part.values), 1.0)
            after = chosen + counts
            gain = (wanted * np.log(after / chosen)).sum(1) - np.log(after.sum(1) / chosen.sum())
            best = int(np.argmax(gain / pool.seconds[few]))
            chosen = after[best]
            taken.append(int(few[best]))
            spent += float(pool.seconds[few[best]])
            # What was looked at goes to the end, so that all of the pool gets its turn.
            left = np.concatenate([left[self.candidates :], np.delete(few, best)])
        return np.concatenate([np.array(taken, dtype=np.int64), left])


def _units(pool: Pool, collapse: bool, asker: str) -> Units:
    units = pool.need_units(asker)
    return units.collapsed() if collapse else units
