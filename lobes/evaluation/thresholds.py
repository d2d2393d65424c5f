"""Thresholds chosen on validation recordings, class by class."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError
from lobes.evaluation.event_matching import Events, of_label
from lobes.evaluation.event_metrics import event_f1, event_precision, event_recall, event_records
from lobes.evaluation.events import EventRule, find_events

logger = logging.getLogger(__name__)

#: Upper thresholds that are tried by default.
THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())
#: Lower thresholds, as shares of the upper one.
LOW_RATIOS = (1.0, 0.7, 0.4)


@dataclass(frozen=True)
class OperatingPoint:
    """What one class' rule gives on the validation recordings; fractions, NaN where undefined."""

    label: str
    rule: EventRule
    precision: float
    recall: float
    f1: float


def tune_rules(
    scores: Mapping[str, NDArray[Any]],
    reference: Events,
    rules: Mapping[str, EventRule],
    frame_rate: float,
    records: Callable[..., list[dict[str, Any]]] = event_records,
    thresholds: Sequence[float] = THRESHOLDS,
    low_ratios: Sequence[float] = LOW_RATIOS,
) -> tuple[dict[str, EventRule], list[OperatingPoint]]:
    """Choose each class' thresholds as those of the largest F1 on validation recordings.

    Where several are equally good, the one in the middle of them is taken, which is furthest from where it would be
    worse. A class that is nowhere annotated keeps its rule, with a warning.

    Parameters
    ----------
    scores : mapping of str to array (n, C)
        Scores of each validation recording, on a grid of `frame_rate`, classes in the order of `rules`.
    reference : mapping of str to sequence of Annotation
        Its annotated events.
    rules : mapping of str to EventRule
        Per class; what is not tuned (median, durations, gaps) stays.
    frame_rate : float
        Hz.
    records : callable
        `event_records`, `segment_records` or `intersection_records`, with options set by `functools.partial`: what F1
        is computed from.
    thresholds, low_ratios : sequence of float
        Upper thresholds to try, and lower ones as shares of them, at most 1.

    Returns
    -------
    rules : dict of str to EventRule
    points : list of OperatingPoint
        All that was tried: class by class, thresholds in order.

    Raises
    ------
    DataError
        There are no recordings, or one has scores and no annotations (an empty list, if it has no calls).
    """
    unknown = [name for name in scores if name not in reference]
    if not scores or unknown:
        raise DataError(
            f"scores: {len(scores)} recordings, of which {len(unknown)} are not annotated ({', '.join(unknown[:1])});"
            " expected at least one, each with a list of annotations"
        )
    tuned: dict[str, EventRule] = {}
    points: list[OperatingPoint] = []
    for column, (label, rule) in enumerate(rules.items()):
        truth = {name: of_label(reference[name], label) for name in scores}
        if not any(truth.values()):
            logger.warning("class '%s' is nowhere annotated among %d recordings: not tuned", label, len(scores))
            tuned[label] = rule
            continue
        of_class = {name: values[:, column : column + 1] for name, values in scores.items()}
        by_ratio = [
            [
                _point(of_class, truth, label, replace(rule, high=high, low=ratio * high), frame_rate, records)
                for high in sorted(thresholds)
            ]
            for ratio in low_ratios
        ]
        tuned[label] = _best(by_ratio)
        points += [point for tried in by_ratio for point in tried]
    return tuned, points


def _best(by_ratio: Sequence[Sequence[OperatingPoint]]) -> EventRule:
    """The rule of the largest F1, in the middle of those of the first ratio that has it."""
    largest = max(np.nan_to_num([point.f1 for tried in by_ratio for point in tried]))
    equal = [[point for point in tried if np.nan_to_num(point.f1) >= largest - 1e-12] for tried in by_ratio]
    first = next(tried for tried in equal if tried)
    return first[len(first) // 2].rule


def _point(
    scores: Mapping[str, NDArray[Any]],
    truth: Events,
    label: str,
    rule: EventRule,
    frame_rate: float,
    records: Callable[..., list[dict[str, Any]]],
) -> OperatingPoint:
    found = {name: find_events(values, {label: rule}, frame_rate) for name, values in scores.items()}
    rows = records(truth, found, [label])
    return OperatingPoint(label, rule, *(metric(rows) for metric in (event_precision, event_recall, event_f1)))
