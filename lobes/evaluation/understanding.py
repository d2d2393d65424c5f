"""What was understood: error rates over concepts in their order, F1 over slots in any order, accuracy of intents.

All metrics read the records of `understanding_records`, one per utterance, sums over which are divided: so each has an
interval clustered by group. A concept or value that training never had counts as the error that it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.evaluation.metrics import Metric, ratio_metric
from lobes.evaluation.records import Table, edit_counts
from lobes.evaluation.statistics import bootstrap_interval

#: (concept, value), such as ("drink", "iced mocha").
Concept = tuple[str, str]


def understanding_records(
    references: Sequence[Sequence[Concept]],
    hypotheses: Sequence[Sequence[Concept]],
    intents: tuple[Sequence[str], Sequence[str]] | None = None,
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per utterance, for all metrics of this module.

    Parameters
    ----------
    references, hypotheses : sequence of sequences of (concept, value)
        What was meant and what was understood, each in the order of speech.
    intents : tuple of two sequences of str, optional
        Those meant and those understood.
    ids : sequence of str, optional
        The utterances' names; 0, 1, 2... by default.
    groups : sequence, optional
        The speaker or dialogue of each, over which intervals are clustered.

    Returns
    -------
    list of dict
        `id`; `group` (when given); `concepts`, how many were meant; `concept_errors` and `concept_value_errors`, edits
        (substitutions, deletions, insertions) between the sequences of concepts, and of concepts with their values;
        `slots_right`, `slots_found` and `slots_meant`, sizes of the multisets of (concept, value), the first that of
        their intersection; with `intents`, `target`, `prediction` and `intents_right` of `intents` (0 or 1 of 1).

    Raises
    ------
    DataError
        The numbers of items differ.

    Example
    -------
    >>> said, heard = [("drink", "mocha"), ("size", "small")], [("drink", "latte"), ("size", "small")]
    >>> [record] = understanding_records([said], [heard])
    >>> record["concept_errors"], record["concept_value_errors"], slot_f1([record])
    (0, 1, 0.5)
    """
    meant, understood = intents if intents is not None else (None, None)
    given = {"hypotheses": hypotheses, "intents": meant, "understood intents": understood, "ids": ids, "groups": groups}
    for name, values in given.items():
        if values is not None and len(values) != len(references):
            raise DataError(f"{name}: {len(values)} items, expected {len(references)} as in the references")
    records = []
    for number, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        reference, hypothesis = ([(concept, value) for concept, value in side] for side in (reference, hypothesis))
        record: dict[str, Any] = {"id": str(number if ids is None else ids[number])}
        if groups is not None:
            record["group"] = groups[number]
        record |= {
            "concepts": len(reference),
            "concept_errors": sum(edit_counts([c for c, _ in reference], [c for c, _ in hypothesis])),
            "concept_value_errors": sum(edit_counts(reference, hypothesis)),
            "slots_right": sum((Counter(reference) & Counter(hypothesis)).values()),
            "slots_found": len(hypothesis),
            "slots_meant": len(reference),
        }
        if meant is not None and understood is not None:
            record |= {"target": meant[number], "prediction": understood[number], "intents": 1}
            record["intents_right"] = int(meant[number] == understood[number])
        records.append(record)
    return records


def tagged_records(
    references: Sequence[str],
    hypotheses: Sequence[str],
    ids: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return the records of tagged texts (see `lobes.dataio.tagged`), which each of them holds as well.

    The arguments and records are those of `understanding_records`; intents are scored if any is meant.

    Example
    -------
    >>> [record] = tagged_records(["#order a <drink mocha >"], ["#order <drink latte >"])
    >>> record["intents_right"], record["concept_value_errors"], record["reference"]
    (1, 1, '#order a <drink mocha >')
    """
    from lobes.dataio.tagged import read_tagged  # lobes.dataio loads PyTorch, which tables do without

    meant, understood = [read_tagged(text) for text in references], [read_tagged(text) for text in hypotheses]
    intents = ([m.intent for m in meant], [m.intent for m in understood]) if any(m.intent for m in meant) else None
    records = understanding_records([m.concepts for m in meant], [m.concepts for m in understood], intents, ids, groups)
    texts = zip(records, references, hypotheses, strict=True)
    return [{**record, "reference": said, "hypothesis": heard} for record, said, heard in texts]


def _f1(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    right = weights @ table["slots_right"].astype(float)
    both = weights @ (table["slots_found"] + table["slots_meant"]).astype(float)
    with np.errstate(invalid="ignore"):
        return np.where(both > 0, 2 * np.divide(right, both), np.nan)


_RATE: dict[str, Any] = {"bounds": (0.0, float("inf"))}
_SHARE: dict[str, Any] = {"bounds": (0.0, 1.0), "higher_is_better": True}
#: Σ edits / Σ concepts meant, over the sequences of concepts (Hahn et al. 2011, "Comparing stochastic approaches to
#: spoken language understanding in multiple languages"); NaN where nothing was meant.
concept_error_rate = ratio_metric("concept_error_rate", "concept_errors", "concepts", **_RATE)
#: The same where a concept is right only with its value.
concept_value_error_rate = ratio_metric("concept_value_error_rate", "concept_value_errors", "concepts", **_RATE)
#: Share of the (concept, value) pairs understood that were meant; NaN where none was understood.
slot_precision = ratio_metric("slot_precision", "slots_right", "slots_found", **_SHARE)
#: Share of the (concept, value) pairs meant that were understood; NaN where none was meant.
slot_recall = ratio_metric("slot_recall", "slots_right", "slots_meant", **_SHARE)
#: Micro-averaged F1 over (concept, value) pairs, repeats counted, their order not.
slot_f1 = Metric("slot_f1", ["slots_right", "slots_found", "slots_meant"], _f1, **_SHARE)
#: Share of utterances whose intent was understood.
intent_accuracy = ratio_metric("intent_accuracy", "intents_right", "intents", **_SHARE)

#: By name, as a recipe's key `metric` has them.
UNDERSTANDING_METRICS = {
    metric.name: metric
    for metric in (
        slot_f1, slot_precision, slot_recall, concept_error_rate, concept_value_error_rate, intent_accuracy,
    )
}  # fmt: skip


def with_intervals(records: Sequence[Mapping[str, Any]], leave_out: str = "") -> dict[str, float]:
    """Return all metrics of this module that are defined on the records, each with the ends of its interval.

    Parameters
    ----------
    records : sequence of dict
        From `understanding_records`, with groups.
    leave_out : str
        The metric that is reported elsewhere.

    Returns
    -------
    dict
        `<metric>`, `<metric>_low` and `<metric>_high`, for `other_metrics` of `write_result`.
    """
    found: dict[str, float] = {}
    for name, metric in UNDERSTANDING_METRICS.items():
        if name == leave_out or not set(metric.fields) <= records[0].keys() or not np.isfinite(metric(records)):
            continue
        interval = bootstrap_interval(records, metric)
        found |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found


def understanding_metric(name: str) -> Metric:
    """Return a metric of this module by its name.

    Raises
    ------
    ConfigError
        There is no such metric.
    """
    if name not in UNDERSTANDING_METRICS:
        raise ConfigError(f"metric is '{name}': expected one of {', '.join(UNDERSTANDING_METRICS)}")
    return UNDERSTANDING_METRICS[name]
