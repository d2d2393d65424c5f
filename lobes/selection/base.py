"""The contract of selection: utterances of a pool, by a strategy, within a budget, and where they come from."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.selection.pool import Pool

logger = logging.getLogger(__name__)
#: What a cap may count by.
CAPS = ("group", "cluster")


class Strategy(ABC):
    """A way to rank a pool; subclasses are frozen dataclasses, whose fields are their options.

    A rank is a function of pool, target, seconds and seed alone, not of the order in which the pool's utterances stand,
    but for ties.

    Attributes
    ----------
    needs_target : bool
        Whether it asks what the pool is to resemble.
    """

    needs_target: ClassVar[bool] = False

    @abstractmethod
    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """Rank all utterances.

        Parameters
        ----------
        pool : Pool
            To choose from.
        target : Pool, optional
            What is to be resembled; given where the strategy needs it.
        seconds : float
            How much will be taken; a strategy may rank at random what is far beyond.
        seed : int
            Decides what is drawn and how ties are broken.

        Returns
        -------
        array (N,), int64
            Indices, the one to take first.
        """


class Scored(Strategy):
    """A strategy that gives each utterance a score of its own, by which shards can be scored one by one."""

    @abstractmethod
    def scores(self, pool: Pool, target: Pool | None, seed: int) -> NDArray[np.float64]:
        """The score of each utterance, (N,); the largest are taken first."""

    def order(self, pool: Pool, target: Pool | None, seconds: float, seed: int) -> NDArray[np.int64]:
        """See `Strategy.order`; equal scores come in an order drawn from the seed."""
        return by_score(self.scores(pool, target, seed), seed)


class Filter(ABC):
    """What is left out before anything is ranked; subclasses are frozen dataclasses."""

    @abstractmethod
    def keep(self, pool: Pool) -> NDArray[np.bool_]:
        """Whether each utterance may be chosen, (N,)."""


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes
    ----------
    indices : array (n,)
        Into the pool, the first choice first.
    pool : Pool
        The utterances chosen.
    provenance : dict
        Strategy, options, filters, caps, budget, seed, and what each left out: for a manifest's sidecar.
    """

    indices: NDArray[np.int64]
    pool: Pool
    provenance: dict[str, Any]

    @property
    def seconds(self) -> float:
        """How much was chosen."""
        return self.pool.total_seconds if len(self.indices) else 0.0


def select(
    pool: Pool,
    target: Pool | None,
    seconds: float,
    strategy: Strategy,
    *,
    filters: Sequence[Filter] = (),
    cap: float | None = None,
    cap_by: str = "group",
    seed: int = 0,
) -> Selection:
    """Choose utterances of at most so many seconds.

    Parameters
    ----------
    pool : Pool
        To choose from.
    target : Pool, optional
        Utterances, unlabelled, of what is to be resembled; a strategy that needs none does not look at it.
    seconds : float
        The budget: what is chosen is as much, but for less than an utterance.
    strategy : Strategy
        Ranks what the filters keep.
    filters : sequence of Filter
        One after the other.
    cap : float, optional
        Largest share of the budget, 0 to 1, that one group may have. Where the groups are too few for it, less than the
        budget is chosen, with a warning.
    cap_by : str
        What a group is: `group`, those of the pool (speakers), or `cluster`, fifty clusters of its embeddings.
    seed : int
        Decides what is drawn.

    Raises
    ------
    ConfigError
        Options do not fit, or the pool lacks what the strategy asks for.
    DataError
        The target is missing, or some of it is in the pool; the budget exceeds the pool; filters leave too little.

    Example
    -------
    >>> from lobes.selection import Longest
    >>> pool = Pool(["a", "b", "c"], [2.0, 5.0, 3.0])
    >>> select(pool, None, 6.0, Longest()).pool.ids.tolist()
    ['b']
    """
    if not np.isfinite(seconds) or seconds <= 0:
        raise ConfigError(f"seconds is {seconds}: expected a positive budget")
    if cap is not None and not 0 < cap <= 1:
        raise ConfigError(f"cap is {cap}: expected a share of the budget, above 0 and at most 1, or null")
    if cap_by not in CAPS:
        raise ConfigError(f"cap_by is '{cap_by}': expected {' or '.join(CAPS)}")
    if seconds > pool.total_seconds:
        raise DataError(f"the budget is {seconds:g} s, the pool {pool.total_seconds:g} s: expected no more than that")
    if strategy.needs_target and target is None:
        raise DataError(f"{type(strategy).__name__}: the target is empty; give utterances of what is to be resembled")
    if target is not None:
        shared = np.intersect1d(pool.ids, target.ids)
        if len(shared):
            raise DataError(
                f"{len(shared)} of {len(target)} utterances of the target are in the pool, '{shared[0]}' first: take "
                "them out of it, or what is chosen will hold what it is compared with"
            )
    kept = np.arange(len(pool))
    left_out: dict[str, int] = {}
    for number, filter in enumerate(filters, start=1):
        keep = filter.keep(pool.take(kept))
        left_out[f"{number}: {described(filter)}"] = int((~keep).sum())
        kept = kept[keep]
        if not len(kept):
            raise DataError(f"{described(filter)} leaves no utterance of the pool; loosen it")
    rest = pool.take(kept)
    if rest.total_seconds < seconds:
        counts = ", ".join(f"{name} took {count}" for name, count in left_out.items())
        raise DataError(f"filters leave {rest.total_seconds:g} s for a budget of {seconds:g} s ({counts}); loosen them")
    order = strategy.order(rest, target if strategy.needs_target else None, seconds, seed)
    taken, capped = within(rest, order, seconds, cap, _cap_groups(rest, cap, cap_by, seed))
    chosen = kept[taken]
    selection = Selection(chosen, pool.take(chosen), {})
    if selection.seconds < 0.95 * seconds and capped:
        logger.warning("a cap of %g leaves %.0f of %.0f s; too few groups for it", cap, selection.seconds, seconds)
    selection.provenance.update(
        strategy=described(strategy),
        target=None if not strategy.needs_target or target is None else target.checksum,
        pool=pool.checksum,
        pool_utterances=len(pool),
        pool_seconds=round(pool.total_seconds, 3),
        budget_seconds=seconds,
        seconds=round(selection.seconds, 3),
        utterances=len(chosen),
        filters=left_out,
        cap=cap,
        cap_by=None if cap is None else cap_by,
        left_out_by_cap=capped,
        seed=seed,
    )
    return selection


def _cap_groups(pool: Pool, cap: float | None, cap_by: str, seed: int) -> NDArray[Any]:
    """What each utterance counts to where there is a cap, (N,)."""
    if cap is None or cap_by == "group":
        return np.asarray(pool.groups)
    from lobes.selection.neighbours import centred, clusters

    return clusters(centred(pool, None, "cap_by: cluster")[0], 50, seed)


def within(
    pool: Pool, order: NDArray[np.int64], seconds: float, cap: float | None, groups: NDArray[Any]
) -> tuple[NDArray[np.int64], int]:
    """The first of an order that fit a budget, and a cap for each group; and how many the cap passed over."""
    capped = 0
    if cap is not None:
        _, group = np.unique(groups[order], return_inverse=True)
        # Seconds of each group so far, in the order of the rank.
        by_group = np.argsort(group, kind="stable")
        running = np.cumsum(pool.seconds[order][by_group])
        begins = np.flatnonzero(np.diff(group[by_group], prepend=-1))
        before = np.repeat(running[begins] - pool.seconds[order][by_group][begins], np.diff([*begins, len(order)]))
        fits = np.zeros(len(order), dtype=bool)
        fits[by_group] = running - before <= cap * seconds + 1e-9
        capped, order = int((~fits).sum()), order[fits]
    running = np.cumsum(pool.seconds[order])
    count = int(np.searchsorted(running, seconds + 1e-9, side="right"))
    return order[:count], capped


def by_score(scores: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Indices by falling score; equal ones in an order drawn from the seed, what is not a number last."""
    values = np.where(np.isnan(scores), -np.inf, scores)
    shuffled = np.random.default_rng(seed).permutation(len(values))
    return shuffled[np.argsort(-values[shuffled], kind="stable")]


def described(part: Any) -> str:
    """A strategy or a filter with its options, for provenance: ``ContrastiveLM(n=3)``.

    Example
    -------
    >>> from lobes.selection import ContrastiveLM
    >>> described(ContrastiveLM(n=2))
    'ContrastiveLM(n=2, ...)'
    """
    options: Mapping[str, Any] = asdict(part) if is_dataclass(part) and not isinstance(part, type) else {}
    inside = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{type(part).__name__}({inside})"
