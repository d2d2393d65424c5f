"""What is told of a detector's test beside its one figure: F1 by condition, and precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lobes.dataio.annotations import Annotation
from lobes.errors import DataError
from lobes.evaluation import (
    EventRule,
    bootstrap_interval,
    event_f1,
    overlap,
    scored_records,
    write_precision_recall,
)


def lenient(rules: Mapping[str, EventRule]) -> dict[str, EventRule]:
    """Rules under which every stretch above the lower threshold is an event, or above half the upper one if lower.

    Examples
    --------
    >>> rules = lenient({"duet": EventRule(0.8, low=0.3), "solo": EventRule(0.5)})
    >>> [(rule.high, rule.lower) for rule in rules.values()]
    [(0.3, 0.3), (0.25, 0.25)]
    """
    lower = {name: min(rule.lower, rule.high / 2) for name, rule in rules.items()}
    return {name: replace(rule, high=lower[name], low=lower[name]) for name, rule in rules.items()}


def write_curves(
    folder: str | Path,
    reference: Mapping[str, Sequence[Annotation]],
    detected: Mapping[str, Sequence[Annotation]],
    rules: Mapping[str, EventRule],
) -> None:
    """Write `precision_recall.csv` and `.svg`: each class' curve, by the largest score in an event.

    A detection is right if its intersection with a call is at least 0.3 of their union (`lobes.evaluation.overlap`),
    and each call is found once: stricter than F1 over events that may be in pieces.

    Parameters
    ----------
    folder : path
        Where they go.
    reference : mapping
        The events of each recording.
    detected : mapping
        What is detected under `lenient` rules.
    rules : mapping of str to EventRule
        The detector's own; a dot on each curve shows its upper threshold.
    """
    records = scored_records(reference, detected, list(rules), criterion=overlap)
    write_precision_recall(folder, records, {name: rule.high for name, rule in rules.items()})


def by_condition(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """F1 for each value of `condition`, with its interval where there are calls in enough groups for one.

    Parameters
    ----------
    records : sequence of dict
        Counts of recordings, some of them with a `condition`.

    Returns
    -------
    dict
        `f1_<value>`, `f1_<value>_low` and `f1_<value>_high`.
    """
    figures = {}
    for value in dict.fromkeys(record.get("condition") for record in records):
        chosen = [record for record in records if record.get("condition") == value]
        if value is None or not any(record["true_positives"] + record["false_negatives"] for record in chosen):
            continue
        figures[f"f1_{value}"] = event_f1(chosen)
        with suppress(DataError):
            found = bootstrap_interval(chosen, event_f1)
            figures |= {f"f1_{value}_low": found.low, f"f1_{value}_high": found.high}
    return figures
