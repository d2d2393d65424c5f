"""Several training seeds on one test set: intervals and paired comparisons over seeds and items together.

A figure of one run says nothing of other seeds; the mean of three runs is still over the same speakers. Both are drawn
from something larger, and each run meets each speaker: the design is crossed, as with readers and cases in radiology.

- `"t"`, the default: two-way random-effects analysis of variance of the jackknife's pseudo-values, those of each seed
  without each group of items (Dorfman, Berbaum & Metz 1992); the interval is Student's, with Satterthwaite's degrees of
  freedom, which are few where it is the seeds that differ (as Hillis 2007 found to be needed). Metrics within 0 and 1
  are on the logit scale, those above 0 on the log scale, as in `lobes.evaluation.statistics`.
- `"bootstrap"`: seeds and groups are drawn anew, independently, and the percentiles taken (the pigeonhole bootstrap,
  Owen 2007). With few seeds it is too narrow where seeds differ: three draws from three underestimate their variance by
  a third.

Coverage of nominal 95 % intervals in simulated systems whose seeds differ (`tests/evaluation/test_seeds_coverage.py`
prints it; error rate, accuracy): two seeds and 20 groups 94, 94 with `"t"` and 86, 89 with `"bootstrap"`; three and 8:
96, 97 and 90, 92; three and 20: 95, 96 and 91, 94; five and 20: 94, 96 and 91, 96; ten and 20: 94, 94 and 94, 96.

With one seed these are `bootstrap_interval` and `paired_bootstrap`, and `method` says that it was one seed. Where one
of two systems has one seed and the other several, its seeds are taken to differ as the other's: of equal systems that
tells apart 4 to 9 in a hundred (p < 0.05), where comparing two single runs tells apart 15 to 37.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.evaluation.metrics import Metric
from lobes.evaluation.records import Records, columns
from lobes.evaluation.resampling import draw_weights, group_index, leave_one_out, paired_tables
from lobes.evaluation.statistics import Comparison, Interval, bootstrap_interval, paired_bootstrap

METHODS = ("t", "bootstrap")
Floats = NDArray[np.float64]


def seeds_interval(
    runs: Sequence[Records],
    metric: Metric,
    group: str | None = "group",
    level: float = 0.95,
    method: str = "t",
    n: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean of the metric over seeds, with an interval over other seeds and other groups of items.

    Parameters
    ----------
    runs : sequence of records
        One per training seed, of the same items (matched by `id`).
    metric : Metric
    group : str or None
        What items are clustered by; None takes them as independent.
    level : float
        Nominal coverage.
    method : {"t", "bootstrap"}
        See the module's documentation.
    n, seed : int
        Resamples of the bootstrap, and its seed.

    Raises
    ------
    DataError
        The runs are not of the same items, or the metric is undefined.

    Example
    -------
    >>> from lobes.evaluation import accuracy, label_records
    >>> speakers = [f"s{i % 8}" for i in range(80)]
    >>> runs = [label_records([1] * 80, [int(i % k > 0) for i in range(80)], groups=speakers) for k in (4, 5, 6)]
    >>> interval = seeds_interval(runs, accuracy)
    >>> round(interval.value, 3), interval.method
    (0.792, 't over 3 seeds and groups')
    """
    _check(runs, method, level)
    if len(runs) == 1:
        found = bootstrap_interval(runs[0], metric, group, n, level, seed)
        return replace(found, method=f"{found.method}, one seed")
    tables, index = _aligned(runs, metric, group)
    values = np.array([_defined(metric, metric(table)) for table in tables])
    value, n_groups = float(values.mean()), int(index.max()) + 1
    index, unit = _units(index)
    if method == "t":
        low, high = _on_scale(value, *_two_way(_pseudo(metric, tables, index, values)), level, metric.bounds)
    else:
        drawn = _crossed(_resampled(metric, tables, index, n, seed), np.random.default_rng([seed, 1]))
        low, high = _percentiles(drawn, level)
    low, high = max(min(low, value), metric.bounds[0]), min(max(high, value), metric.bounds[1])
    return Interval(value, low, high, level, len(index), n_groups, f"{method} over {len(runs)} seeds and {unit}")


def compare_seeds(
    a: Mapping[int, Records],
    b: Mapping[int, Records],
    metric: Metric,
    group: str | None = "group",
    level: float = 0.95,
    paired: bool = False,
) -> Comparison:
    """Return the difference a - b of two systems, each the mean over its seeds, with interval and two-sided p-value.

    As `seeds_interval` with `"t"`: groups of items are paired, seeds are not: the same number makes other random
    weights of different systems. Where one of the two has a single seed nothing is known of its others: they are taken
    to differ as much as the other system's. Where both have a single one, `paired_bootstrap` compares the two runs.
    `method` says which.

    Parameters
    ----------
    a, b : mapping of int to records
        The systems' records by training seed; not necessarily the same seeds, or as many.
    metric, group, level
        As for `seeds_interval`.
    paired : bool
        A seed is the same draw for both: an encoder before and after training, the same labelled clips. Then only
        seeds that both have count, and what a seed does to both cancels.

    Raises
    ------
    DataError
        They do not hold the same items; or `paired`, and they have no seed in common.
    """
    if paired:
        common = sorted(set(a) & set(b))
        if not common:
            raise DataError(f"seeds: {sorted(a)} and {sorted(b)} have none in common to pair; pass paired=False")
        a, b = ({seed: runs[seed] for seed in common} for runs in (a, b))
    _check([*a.values()] and [*b.values()], "t", level)
    if len(a) == len(b) == 1:
        ((one, other),) = zip(a.values(), b.values(), strict=True)
        found = paired_bootstrap(one, other, metric, group, level=level)
        return replace(found, method=f"{found.method}, one seed")
    tables, index = _aligned([*a.values(), *b.values()], metric, group)
    values = np.array([_defined(metric, metric(table)) for table in tables])
    n_groups = int(index.max()) + 1
    index, unit = _units(index)
    pseudo, first = _pseudo(metric, tables, index, values), len(a)
    value_a, value_b = float(values[:first].mean()), float(values[first:].mean())
    ours, theirs = pseudo[:first], pseudo[first:]
    error, freedom = _two_way(ours - theirs) if paired else _difference(ours, theirs)
    difference = value_a - value_b
    most = metric.bounds[1] - metric.bounds[0]  # that two values can differ by, however few the degrees of freedom
    ends = _on_scale(difference, error, freedom, level, (-math.inf, math.inf))
    low, high = (min(max(end, -most), most) for end in ends)
    p_value = _p_value(difference, error, freedom)
    seeds = f"{first}" if first == len(b) else f"{first} and {len(b)}"
    seeds = f"{seeds} paired" if paired else seeds
    borrowed = ", the one's seeds taken to differ as the other's" if 1 in (first, len(b)) else ""
    method = f"t over {seeds} seeds and {unit}{borrowed}"
    return Comparison(difference, low, high, p_value, value_a, value_b, level, len(index), n_groups, method)


def seeded_draws(
    systems: Sequence[Sequence[Records]], metric: Metric, group: str | None = "group", n: int = 1000, seed: int = 0
) -> Floats:
    """Return each system's mean over seeds under `n` resamples, (n, systems): the same groups of items for all of them.

    Groups are drawn once for all systems, so that what they have in common cancels in ranks and differences; each
    system's seeds are drawn for itself.

    Parameters
    ----------
    systems : sequence of sequence of records
        For each system, its runs; all of the same items.
    metric, group
        As for `seeds_interval`.
    n, seed : int
        Resamples, and the seed that they are a function of.

    Raises
    ------
    DataError
        They are not of the same items.
    """
    runs = [records for system in systems for records in system]
    tables, index = _aligned(runs, metric, group)
    index, _ = _units(index)
    drawn, rng = _resampled(metric, tables, index, n, seed), np.random.default_rng([seed, 1])
    edges = np.cumsum([0, *map(len, systems)])
    means = [_crossed(drawn[start:stop], rng) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    return np.stack(means, axis=1)


# --------------------------------------------------------------------------- inside


def _check(runs: Sequence[Records], method: str, level: float) -> None:
    if method not in METHODS:
        raise ConfigError(f"method: {method!r} is not one of {', '.join(METHODS)}; use 't' unless comparing")
    if not 0 < level < 1:
        raise ConfigError(f"level: {level!r} is not between 0 and 1; use 0.95 for a 95 % interval")
    if not runs:
        raise DataError("runs: none given, expected the records of one per seed; run the system first")


def _defined(metric: Metric, value: float) -> float:
    if not math.isfinite(value):
        raise DataError(f"metric {metric.name}: {value} in one of the runs, expected a number; check its records")
    return value


def _aligned(runs: Sequence[Records], metric: Metric, group: str | None) -> tuple[list[dict[str, Any]], NDArray[Any]]:
    """The columns of each run, items in the order of the first, and the group number of each item."""
    first = runs[0]
    if len(runs) == 1:
        return [metric.table(first)], group_index(columns(first, metric.fields + ((group,) if group else ())), group)
    tables = []
    for other in runs[1:]:
        table, second, index, _ = paired_tables(first, other, metric, group)
        tables.append(second)
    return [table, *tables], index


def _units(index: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """What is resampled: groups, or items where there is one group."""
    if int(index.max()) > 0:
        return index, "groups"
    if len(index) < 2:
        raise DataError("records: a single item, expected at least two for an interval; score a larger test set")
    return np.arange(len(index)), "items"


def _pseudo(metric: Metric, tables: Sequence[Any], index: NDArray[Any], values: Floats) -> Floats:
    """Jackknife pseudo-values (seeds, groups): a seed's row has the mean of its value, the bias left out."""
    left_out = np.stack([leave_one_out(metric, table, index) for table in tables])
    if not np.isfinite(left_out).all():
        raise DataError(
            f"metric {metric.name}: undefined when one group is left out, expected at least two groups of each kind;"
            " pass group=None or use more groups"
        )
    n_groups = left_out.shape[1]
    return values[:, None] + (n_groups - 1) * (left_out.mean(1, keepdims=True) - left_out)


def _mean_squares(pseudo: Floats) -> tuple[float, float, float]:
    """Of seeds, of groups, and of the rest, of (seeds, groups) values."""
    seeds, groups = pseudo.shape
    rows, cells, mean = pseudo.mean(1), pseudo.mean(0), pseudo.mean()
    of_seeds = groups * float(((rows - mean) ** 2).sum()) / (seeds - 1)
    of_groups = seeds * float(((cells - mean) ** 2).sum()) / (groups - 1)
    rest = float(((pseudo - rows[:, None] - cells[None, :] + mean) ** 2).sum()) / ((seeds - 1) * (groups - 1))
    return of_seeds, of_groups, rest


def _two_way(pseudo: Floats) -> tuple[float, float]:
    """Standard error of the mean of (seeds, groups) values, both of them random, and its degrees of freedom."""
    seeds, groups = pseudo.shape
    of_seeds, of_groups, rest = _mean_squares(pseudo)
    # Mean squares of seeds and groups both contain that of the rest; a component below 0 is none.
    total = rest + max(of_seeds - rest, 0.0) + max(of_groups - rest, 0.0)
    kept = (of_seeds > rest) + (of_groups > rest)
    parts = (of_seeds > rest) * of_seeds**2 / (seeds - 1) + (of_groups > rest) * of_groups**2 / (groups - 1)
    parts += (1 - kept) ** 2 * rest**2 / ((seeds - 1) * (groups - 1))
    return math.sqrt(total / (seeds * groups)), total**2 / parts if parts > 0 else float(groups - 1)


def _difference(a: Floats, b: Floats) -> tuple[float, float]:
    """The same of the difference of two systems' means: their groups are the same, their seeds their own.

    Of a system that has a single seed they are taken to have the variance of the other's.
    """
    groups = a.shape[1]
    total = float((a.mean(0) - b.mean(0)).var(ddof=1)) / groups  # contains what a seed has with single groups
    parts = total**2 / (groups - 1)
    single = [pseudo for pseudo in (a, b) if len(pseudo) == 1]
    for pseudo in (a, b):
        if len(pseudo) == 1:
            continue
        of_seeds, _, rest = _mean_squares(pseudo)
        share = sum(1 / part.size for part in (pseudo, *single))
        if of_seeds > rest:
            total += (of_seeds - rest) * share
            parts += (of_seeds * share) ** 2 / (len(pseudo) - 1)
    return math.sqrt(total), total**2 / parts if parts > 0 else float(groups - 1)


def _on_scale(
    value: float, error: float, freedom: float, level: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """value ± t · error, on the logit or log scale that the bounds call for unless it lies on one of them."""
    from scipy.special import expit, logit, stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    if bounds == (0.0, 1.0) and 0 < value < 1:
        centre, half = float(logit(value)), half / (value * (1 - value))
        return float(expit(centre - half)), float(expit(centre + half))
    if bounds == (0.0, math.inf) and value > 0:
        half = min(half / value, 50.0)  # exp of much more is infinite
        return value * math.exp(-half), value * math.exp(half)
    return value - half, value + half


def _p_value(value: float, error: float, freedom: float) -> float:
    from scipy.special import stdtr

    if error < 1e-12:
        return 1.0 if abs(value) < 1e-12 else 0.0
    return 2.0 * float(stdtr(freedom, -abs(value) / error))


def _resampled(metric: Metric, tables: Sequence[Any], index: NDArray[Any], n: int, seed: int) -> Floats:
    """The metric of each run on the same `n` resamples of the groups, (runs, n)."""
    chunks = draw_weights(index, n, np.random.default_rng(seed))
    return np.concatenate([np.stack([metric(table, weights) for table in tables]) for weights in chunks], axis=1)


def _crossed(drawn: Floats, rng: np.random.Generator) -> Floats:
    """The mean over as many seeds as there are, drawn anew in each resample: (seeds, n) to (n,)."""
    seeds, n = drawn.shape
    return drawn[rng.integers(seeds, size=(seeds, n)), np.arange(n)].mean(0)


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
