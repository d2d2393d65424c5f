"""How records are resampled: groups (speakers, talks, individuals) of items, drawn as integer weights per item.

Items of one speaker resemble each other, so they carry less information than as many items of different speakers:
the unit of resampling is the group. Everything here works on weights, which `Metric` takes.

An item may be of two groups, as a verification trial is of two speakers: its `group` is then a pair of names, the same
twice where both sides are of one. Trials that share a speaker resemble each other, whichever side the speaker is on, so
speakers are drawn and not trials: a trial of speakers drawn i and j times counts i·j times, one within a speaker drawn
i times i times; without a speaker go all trials that the speaker is in. (Owen 2007, "The pigeonhole bootstrap", on
two-way data: the variance is over- rather than underestimated. `tests/evaluation/test_trial_intervals.py` measures it.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.evaluation.metrics import Metric
from lobes.evaluation.records import Records, Table, columns

#: Weights held at a time; a bootstrap of any size needs a few times 32 MB.
CHUNK = 4_000_000


def group_index(records: Records, group: str | None) -> NDArray[Any]:
    """Return the number 0..G-1 of each item's group, (n,); with `group=None` each item is a group of its own.

    Where groups are pairs of names, (n, 2).

    Raises
    ------
    DataError
        If a record has no such field, or leaves it empty.

    Example
    -------
    >>> group_index([{"group": "b"}, {"group": "a"}, {"group": "b"}], "group").tolist()
    [1, 0, 1]
    """
    if group is None:
        n_items = len(next(iter(records.values()))) if isinstance(records, dict) else len(records)
        return np.arange(n_items)
    found = columns(records, [group])[group]
    names = found.astype(str)
    for position, name in enumerate(names.tolist()):
        if {"", "None"} & ({name} if isinstance(name, str) else set(name)):
            raise DataError(
                f"records[{position}]: field {group!r} is empty, expected the item's speaker or recording;"
                " fill it, or pass group=None to treat items as independent"
            )
    return np.unique(names, return_inverse=True)[1].reshape(names.shape)


def counts(times: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
    """Return how often each item counts, (..., n), where group g was drawn `times[..., g]` times."""
    if index.ndim == 1:
        return times[..., index]
    first, second = times[..., index[:, 0]], times[..., index[:, 1]]
    return np.where(index[:, 0] == index[:, 1], first, first * second)


def draw_weights(index: NDArray[Any], n: int, rng: np.random.Generator, two_stage: bool = False) -> Iterator[NDArray]:
    """Yield `n` resamples of the groups as item weights, in chunks (resamples, n_items).

    Parameters
    ----------
    index : array (n_items,) or (n_items, 2)
        Group number of each item, or its two.
    n : int
        Number of resamples in all.
    rng : numpy.random.Generator
        Source of chance.
    two_stage : bool
        Also draw the items within every drawn group anew (Davison & Hinkley 1997, section 3.8).

    Raises
    ------
    ConfigError
        `two_stage` with items of two groups each, which no stage holds.
    """
    if two_stage and index.ndim > 1:
        raise ConfigError("method: 'two_stage' is for items of one group each, these have two; use 'auto'")
    sizes = np.bincount(index.ravel())
    n_groups = len(sizes)
    members = [np.flatnonzero(index == g) for g in range(n_groups)] if two_stage else []
    step = max(1, CHUNK // len(index))
    for start in range(0, n, step):
        times = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=min(step, n - start))
        if not two_stage:
            yield counts(times, index).astype(float)
            continue
        weights = np.empty((len(times), len(index)))
        for g, items in enumerate(members):
            weights[:, items] = rng.multinomial(times[:, g] * sizes[g], np.full(sizes[g], 1 / sizes[g]))
        yield weights


def resampled(
    metrics: Metric, tables: Sequence[Table], index: NDArray[Any], n: int, seed: int, two_stage: bool = False
) -> NDArray[Any]:
    """Return the metric of each table under the same `n` resamples, (tables, n).

    The tables hold the same items in the same order, so that differences between rows are paired.
    """
    rng = np.random.default_rng(seed)
    parts = [
        np.stack([metrics(table, weights) for table in tables])
        for weights in draw_weights(index, n, rng, two_stage=two_stage)
    ]
    return np.concatenate(parts, axis=1)


def leave_one_out(metric: Metric, table: Table, index: NDArray[Any]) -> NDArray[Any]:
    """Return the metric without each group in turn, (G,)."""
    n_groups = int(index.max()) + 1
    step = max(1, CHUNK // len(index))
    parts = [
        metric(
            table, counts(np.arange(n_groups) != np.arange(start, min(start + step, n_groups))[:, None], index) * 1.0
        )
        for start in range(0, n_groups, step)
    ]
    return np.concatenate(parts)


def paired_tables(
    a: Records, b: Records, metric: Metric, group: str | None
) -> tuple[Table, Table, NDArray[Any], list[str]]:
    """Return the columns of two systems on the same items in the same order, the group numbers and the ids.

    Raises
    ------
    DataError
        If the two were not scored on the same ids, or an id occurs twice, or an item's group differs.
    """
    fields = [*metric.fields, "id", *([group] if group else [])]
    first, second = columns(a, fields), columns(b, fields)
    ids, others = first["id"].tolist(), second["id"].tolist()
    place = {name: position for position, name in enumerate(others)}
    if len(place) < len(others) or len(set(ids)) < len(ids):
        raise DataError("records: an id occurs twice, expected one record per item; score every item once")
    if set(ids) != set(place):
        odd = sorted(set(ids) ^ set(place), key=str)
        raise DataError(
            f"records: {len(odd)} items are in one system only (first: {odd[0]!r}), expected the same items in both;"
            " score both systems on the same test set"
        )
    order = np.array([place[name] for name in ids])
    second = {name: column[order] for name, column in second.items()}
    if group is not None:
        unlike = first[group].astype(str) != second[group].astype(str)
        differ = np.flatnonzero(unlike.any(tuple(range(1, unlike.ndim))))
        if len(differ):
            raise DataError(
                f"records: item {ids[differ[0]]!r} is of {group} {first[group][differ[0]]!r} in one system and"
                f" {second[group][differ[0]]!r} in the other; score both on one manifest"
            )
    return metric.table(first), metric.table(second), group_index(first, group), ids
