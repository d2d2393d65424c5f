"""From results to a leaderboard: rows with intervals and costs, paired comparisons, mean ranks, agreement of heads.

Like is compared with like: systems in pairs under the same head and mode of a task, on the same items; p-values are
adjusted for all pairs of such a family (Holm). Ranks are over tasks, for each mode by itself; where a task has several
heads, a system's ranks under them are averaged first, so that each task counts once. Published figures are rows of
their own kind: never ranked, never tested.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError
from lobes.evaluation.matched_pairs import RIGHT_OR_WRONG, mapsswe, mcnemar
from lobes.evaluation.metrics import HIGHER_IS_BETTER, PERCENT, Metric
from lobes.evaluation.ranking import Floats, critical_difference, friedman, kendall_tau, nemenyi, rank_intervals, ranks
from lobes.evaluation.seeds import compare_seeds, seeded_draws, seeds_interval
from lobes.evaluation.statistics import holm

COST_COLUMNS = (
    "parameters_trained", "parameters_total", "macs_per_second", "audio_hours", "wall_hours", "all_hours", "kwh",
)  # fmt: skip
ROW_COLUMNS = (
    "task", "model", "mode", "head", "metric", "value", "low", "high", "method", "seeds", "seed_deviation", "n_items",
    "n_groups", "p_best", *COST_COLUMNS, "learning_rates", "generated", "published", "source",
)  # fmt: skip
PAIR_COLUMNS = (
    "task", "mode", "head", "a", "b", "metric", "difference", "low", "high", "p", "p_holm", "mcnemar", "mapsswe",
    "method",
)  # fmt: skip
Row = dict[str, Any]
Family = tuple[str, str, str]


@dataclass(frozen=True)
class Entry:
    """A system in a task, with all its seeds.

    Attributes
    ----------
    task, model, mode, head : str
        What tables call them.
    results : mapping of int to dict
        By training seed, as `lobes.evaluation.read_result` gives them; of the learning rate that was chosen.
    learning_rates : mapping of int to float
        The one that was chosen, by seed, where there was a choice.
    all_seconds : float, optional
        Of all its runs, learning rates that were not chosen included.
    kwh : float, optional
        Of the chosen runs, their mean, where it was measured.
    """

    task: str
    model: str
    mode: str
    head: str
    results: Mapping[int, Mapping[str, Any]]
    learning_rates: Mapping[int, float] = field(default_factory=dict)
    all_seconds: float | None = None
    kwh: float | None = None

    @property
    def family(self) -> Family:
        """Within which systems are compared."""
        return self.task, self.mode, self.head

    @property
    def value(self) -> float:
        """Mean of the metric over seeds."""
        return statistics.fmean(result["metric"]["value"] for result in self.results.values())


def make_board(
    entries: Sequence[Entry], published: Sequence[Row] = (), n: int = 1000, seed: int = 0
) -> dict[str, list[Any]]:
    """Return all that a leaderboard shows, as plain data.

    Parameters
    ----------
    entries : sequence of Entry
        With at least one result each.
    published : sequence of dict
        From `lobes.evaluation.published.read_published`.
    n, seed : int
        Resamples of the intervals of ranks and of agreement, and their seed.

    Returns
    -------
    dict of list
        `rows` (one per entry, then the published), `pairs`, `ranks` (one per mode), `taus` (one per pair of heads of a
        task), `notes` (what could not be computed, and why).

    Raises
    ------
    DataError
        The results of a task have different metrics.
    """
    families: dict[Family, list[Entry]] = defaultdict(list)
    for entry in entries:
        families[entry.family].append(entry)
    metrics, notes = _metrics(entries)
    rows = {id(entry): _row(entry, metrics[entry.task]) for entry in entries}
    pairs: list[Row] = []
    draws: dict[Family, Floats] = {}
    for family, members in families.items():
        metric = metrics[family[0]]
        if metric is None:
            continue
        try:
            found = _pairs(members, metric)
            drawn = seeded_draws([_records(entry) for entry in members], metric, n=n, seed=seed)
        except DataError as error:
            notes.append(f"{', '.join(family)}: not compared in pairs: {error}")
            continue
        undefined = int((~_defined(drawn)).sum())
        if undefined:
            notes.append(
                f"{', '.join(family)}: {metric.name} is undefined in {undefined} of {n} resamples, which have no item"
                " of some kind; intervals of ranks and of agreement are without them"
            )
        if undefined < n:
            draws[family] = drawn
        pairs += found
        _against_best(members, found, rows)
    return {
        "rows": [*rows.values(), *published],
        "pairs": pairs,
        "ranks": [_ranks(mode, families, draws) for mode in dict.fromkeys(entry.mode for entry in entries)],
        "taus": _agreement(families, draws),
        "notes": notes,
    }


def metric_named(name: str) -> Metric | None:
    """The metric of `lobes.evaluation` that result files call by this name; None if there is none."""
    return known_metrics().get(name)


def known_metrics() -> dict[str, Metric]:
    """All metrics that `lobes.evaluation` has, by the names that result files call them."""
    import lobes.evaluation

    return {value.name: value for value in vars(lobes.evaluation).values() if isinstance(value, Metric)}


# --------------------------------------------------------------------------- rows


def _metrics(entries: Sequence[Entry]) -> tuple[dict[str, Metric | None], list[str]]:
    """Each task's metric where its records give the figures of its results again, with notes on the others."""
    metrics: dict[str, Metric | None] = {}
    notes = []
    for task in dict.fromkeys(entry.task for entry in entries):
        results = [result for entry in entries if entry.task == task for result in entry.results.values()]
        names = sorted({result["metric"]["name"] for result in results})
        if len(names) > 1:
            raise DataError(f"task {task}: its results have the metrics {', '.join(names)}; make two tasks of it")
        metric = metric_named(names[0])
        try:
            same = metric is not None and all(
                math.isclose(metric(result["records"]), result["metric"]["value"], rel_tol=1e-6, abs_tol=1e-9)
                for result in results
            )
        except (DataError, TypeError, ValueError):
            same = False
        metrics[task] = metric if same else None
        if not same:
            notes.append(
                f"{task}: {names[0]} is not computed from the records of its results; its intervals are those of the"
                " runs, and its systems are not compared in pairs"
            )
    return metrics, notes


def _records(entry: Entry) -> list[Any]:
    return [result["records"] for result in entry.results.values()]


def _row(entry: Entry, metric: Metric | None) -> Row:
    first = next(iter(entry.results.values()))
    values = [result["metric"]["value"] for result in entry.results.values()]
    name = first["metric"]["name"]
    interval = entry_interval(entry, metric)
    row: Row = {"task": entry.task, "model": entry.model, "mode": entry.mode, "head": entry.head, "metric": name}
    row |= dict(zip(("low", "high", "method"), interval, strict=True))
    row |= {"value": entry.value, "seeds": len(values), "p_best": None, "best": False, "published": False, "source": ""}
    row["seed_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    row |= {"n_items": first["metric"]["n_items"], "n_groups": first["metric"]["n_groups"]}
    costs = [result["cost"] for result in entry.results.values()]
    for column in ("parameters_trained", "parameters_total", "macs_per_second", "audio_hours"):
        row[column] = _mean(cost[column] for cost in costs)
    seconds = _mean(cost["wall_seconds"] for cost in costs)
    row["wall_hours"] = None if seconds is None else seconds / 3600
    row["all_hours"] = None if entry.all_seconds is None else entry.all_seconds / 3600
    row["kwh"] = entry.kwh
    row["learning_rates"] = " ".join(f"{rate:g}" for rate in dict.fromkeys(entry.learning_rates.values()))
    row["generated"] = any(result["generated_speech"] for result in entry.results.values())
    higher = first["metric"]["higher_is_better"] or name in HIGHER_IS_BETTER
    return row | {"higher_is_better": higher, "percent": name in PERCENT}


def entry_interval(entry: Entry, metric: Metric | None) -> tuple[float, float, str]:
    """Edges and method of a system's interval: over seeds and items where the records allow it, else what there is."""
    values = [result["metric"]["value"] for result in entry.results.values()]
    if len(values) == 1:
        found = next(iter(entry.results.values()))["metric"]
        return found["low"], found["high"], f"{found['method']}, one seed"
    if metric is not None:
        try:
            interval = seeds_interval(_records(entry), metric)
            return interval.low, interval.high, interval.method
        except DataError:
            pass
    return *over_seeds_alone(values), f"t over {len(values)} seeds alone"


def over_seeds_alone(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of the mean of two or more seeds' figures, of which nothing else is known."""
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


# --------------------------------------------------------------------------- pairs


def _pairs(members: Sequence[Entry], metric: Metric) -> list[Row]:
    """All pairs of a family, with p-values that are adjusted for their number."""
    rows: list[Row] = []
    for one, other in itertools.combinations(members, 2):
        a, b = ({seed: result["records"] for seed, result in entry.results.items()} for entry in (one, other))
        found = compare_seeds(a, b, metric)
        row: Row = dict(zip(("task", "mode", "head"), one.family, strict=True))
        row |= {"a": one.model, "b": other.model, "metric": metric.name, "percent": metric.name in PERCENT}
        row |= {name: getattr(found, name) for name in ("difference", "low", "high", "method")} | {"p": found.p_value}
        # The field's own tests know nothing of seeds, nor of groups.
        alone = (*a.values(), *b.values()) if len(a) == len(b) == 1 else None
        row["mcnemar"] = mcnemar(alone[0], alone[1], metric) if alone and metric.name in RIGHT_OR_WRONG else None
        row["mapsswe"] = mapsswe(*alone).p_value if alone and metric.name in ("wer", "cer", "per") else None
        rows.append(row)
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows


def _against_best(members: Sequence[Entry], pairs: Sequence[Row], rows: Mapping[int, Row]) -> None:
    """Put into each row the adjusted p-value against the best of its family; the best has none."""
    higher = rows[id(members[0])]["higher_is_better"]
    best = (max if higher else min)(members, key=lambda entry: entry.value)
    rows[id(best)]["best"] = len(members) > 1
    p_values = {frozenset((pair["a"], pair["b"])): pair["p_holm"] for pair in pairs}
    for entry in members:
        if entry is not best:
            rows[id(entry)]["p_best"] = p_values[frozenset((entry.model, best.model))]


# --------------------------------------------------------------------------- over tasks


def _higher(entry: Entry) -> bool:
    metric = next(iter(entry.results.values()))["metric"]
    return bool(metric["higher_is_better"] or metric["name"] in HIGHER_IS_BETTER)


def _ranks(mode: str, families: Mapping[Family, Sequence[Entry]], draws: Mapping[Family, Floats]) -> Row:
    """Mean ranks of the models that have every task and head of a mode, and what the tests say of them."""
    mine = {family: members for family, members in families.items() if family[1] == mode}
    models = list(dict.fromkeys(entry.model for members in mine.values() for entry in members))
    lacking = {
        model: [f"{task} ({head})" for (task, _, head), members in mine.items() if model not in _models(members)]
        for model in models
    }
    complete = [model for model in models if not lacking[model]]
    tasks = list(dict.fromkeys(task for task, *_ in mine))
    found: Row = {"mode": mode, "tasks": tasks, "systems": [], "friedman": None, "critical_difference": None}
    found |= {"nemenyi": None, "left_out": {model: lacks for model, lacks in lacking.items() if lacks}}
    found["resampled"] = all(family in draws for family in mine)
    if len(complete) < 2:
        return found
    size = max((len(draws[family]) for family in mine if family in draws), default=1)
    scores, drawn, defined = [], [], np.ones(size, dtype=bool)
    for task in tasks:
        heads = [family for family in mine if family[0] == task]
        places = [[_models(mine[family]).index(model) for model in complete] for family in heads]
        values = [[mine[family][i].value for i in place] for family, place in zip(heads, places, strict=True)]
        higher = _higher(mine[heads[0]][0])
        scores.append(ranks(np.transpose(values), higher).mean(-1))
        parts = [
            draws[family][:, place] if family in draws else np.tile(value, (size, 1))
            for family, place, value in zip(heads, places, values, strict=True)
        ]
        whole = np.all([_defined(part) for part in parts], axis=0)
        defined &= whole
        parts = [np.where(whole[:, None], part, value) for part, value in zip(parts, values, strict=True)]
        drawn.append(ranks(np.stack(parts, axis=-1), higher).mean(-1))
    found["resampled"] &= bool(defined.any())
    table = np.stack(scores, axis=-1)
    sampled = np.stack(drawn, axis=-1)[defined] if defined.any() else table[None]
    intervals = rank_intervals(table, sampled, higher_is_better=False)
    systems = [{"model": model, **vars(interval)} for model, interval in zip(complete, intervals, strict=True)]
    if len(complete) >= 3 and len(tasks) >= 2:
        statistic, p_value = friedman(table, higher_is_better=False)
        found["friedman"] = {"statistic": statistic, "p": p_value}
        found["critical_difference"] = critical_difference(len(complete), len(tasks))
        found["nemenyi"] = {"models": complete, "p": nemenyi(table, higher_is_better=False).tolist()}
    return found | {"systems": sorted(systems, key=lambda system: system["rank"])}


def _defined(drawn: Floats) -> NDArray[np.bool_]:
    """Which resamples (n, systems) have a figure for every system."""
    return np.asarray(np.isfinite(drawn).all(-1))


def _models(members: Sequence[Entry]) -> list[str]:
    return [entry.model for entry in members]


def _agreement(families: Mapping[Family, Sequence[Entry]], draws: Mapping[Family, Floats]) -> list[Row]:
    """Kendall's tau-b between the orders that two heads of a task give, over at least three models."""
    rows: list[Row] = []
    for one, other in itertools.combinations(families, 2):
        if one[:2] != other[:2]:
            continue
        names = [_models(families[family]) for family in (one, other)]
        common = [model for model in names[0] if model in names[1]]
        if len(common) < 3:
            continue
        places = [[known.index(model) for model in common] for known in names]
        values = [[families[f][i].value for i in place] for f, place in zip((one, other), places, strict=True)]
        tau = float(kendall_tau(*values))
        row: Row = {"task": one[0], "mode": one[1], "head": one[2], "other": other[2], "models": len(common)}
        row |= {"tau": tau if math.isfinite(tau) else None, "low": None, "high": None}
        if one in draws and other in draws and math.isfinite(tau):
            drawn = kendall_tau(*(draws[f][:, place] for f, place in zip((one, other), places, strict=True)))
            if np.isfinite(drawn).any():
                low, high = np.nanquantile(drawn, [0.025, 0.975]).tolist()
                row |= {"low": min(low, tau), "high": max(high, tau)}
        rows.append(row)
    return rows
