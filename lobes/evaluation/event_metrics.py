"""How well events are detected: collars, intersections, segments, precision-recall curves.

The functions make records, per recording and class (or per event), for the metrics below; `bootstrap_interval` then
clusters by recording, or by whatever `groups` says. Events come as a mapping of each recording to its annotations; a
recording without calls is an empty list, and counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobes.evaluation.event_matching import (
    Criterion,
    Events,
    by_score,
    collar,
    labels_of,
    lies_in,
    of_label,
    one_to_one,
    recordings,
    times,
    with_scores,
)
from lobes.evaluation.metrics import Metric
from lobes.evaluation.records import Record, Table

if TYPE_CHECKING:
    from lobes.dataio.annotations import Annotation

Counts = tuple[int, int, int]  # true positives, false positives, false negatives
_SLACK = 1e-9

# --------------------------------------------------------------------------- records


def event_records(
    reference: Events,
    detected: Events,
    labels: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
    criterion: Criterion = collar,
) -> list[dict[str, Any]]:
    """Count matches one to one, as many as the criterion allows (Mesaros et al. 2016, section 3.2, with collars).

    Parameters
    ----------
    reference, detected : mapping of str to sequence of Annotation
        What was annotated and what was found in each recording.
    labels : sequence of str, optional
        Classes to score; all that occur by default.
    groups : mapping, optional
        Recording -> what intervals are clustered by (recorder, session); by default the recording itself.
    criterion : callable
        `collar` or `overlap`, with options set by `functools.partial`.

    Returns
    -------
    list of dict
        Per recording and class `id`, `group`, `recording`, `label`, `true_positives`, `false_positives` and
        `false_negatives`, for `event_f1` and its like.

    Example
    -------
    >>> from lobes.dataio.annotations import Annotation
    >>> truth = {"a.wav": [Annotation(1.0, 2.0, "duet"), Annotation(5.0, 6.0, "duet")]}
    >>> found = {"a.wav": [Annotation(1.1, 2.1, "duet")]}
    >>> round(event_f1(event_records(truth, found)), 3)
    0.667
    """

    def count(truth: Sequence[Annotation], found: Sequence[Annotation]) -> Counts:
        matches = len(one_to_one(criterion(times(truth), times(found))))
        return matches, len(found) - matches, len(truth) - matches

    return _counted(count, reference, detected, labels, groups)


def intersection_records(
    reference: Events,
    detected: Events,
    labels: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
    dtc: float = 0.5,
    gtc: float = 0.5,
) -> list[dict[str, Any]]:
    """Count by intersection (Bilen et al. 2020, "A framework for the robust evaluation of SED", section 3).

    A detection is relevant where at least `dtc` of it lies in annotated events of its class (detection tolerance
    criterion), else a false positive; an annotated event is found where relevant detections cover at least `gtc` of it
    (ground truth intersection criterion). So one long detection may find several calls, and several short ones one.
    Where events of one class overlap each other, the time that they share counts once.

    The parameters and the records are those of `event_records`.

    Example
    -------
    >>> from lobes.dataio.annotations import Annotation
    >>> truth = {"a.wav": [Annotation(0.0, 10.0, "duet")]}
    >>> found = {"a.wav": [Annotation(0.0, 3.0, "duet"), Annotation(4.0, 8.0, "duet")]}
    >>> event_f1(intersection_records(truth, found))
    1.0
    """

    def count(truth: Sequence[Annotation], found: Sequence[Annotation]) -> Counts:
        hit, relevant = intersection_hits(truth, found, dtc, gtc)
        return int(hit.sum()), int((~relevant).sum()), int((~hit).sum())

    return _counted(count, reference, detected, labels, groups)


def segment_records(
    reference: Events,
    detected: Events,
    labels: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
    seconds: float = 1.0,
) -> list[dict[str, Any]]:
    """Count segments in which a class is active (Mesaros et al. 2016, section 3.1): touched by an event of it.

    Parameters
    ----------
    reference, detected, labels, groups
        As for `event_records`.
    seconds : float
        Length of a segment; the first begins at 0.

    Returns
    -------
    list of dict
        As `event_records`, in segments.
    """

    def active(events: Sequence[Annotation]) -> set[int]:
        found: set[int] = set()
        for event in events:
            first = math.floor(event.start / seconds + _SLACK)
            found.update(range(first, max(math.ceil(event.end / seconds - _SLACK), first)))
        return found

    def count(truth: Sequence[Annotation], found: Sequence[Annotation]) -> Counts:
        annotated, detections = active(truth), active(found)
        return len(annotated & detections), len(detections - annotated), len(annotated - detections)

    return _counted(count, reference, detected, labels, groups)


def scored_records(
    reference: Events,
    detected: Events,
    labels: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
    criterion: Criterion = collar,
) -> list[dict[str, Any]]:
    """Return one record per detection and per missed event, for `average_precision` and `precision_recall`.

    Detections take their matches in the order of their scores (see `by_score`).

    Parameters
    ----------
    reference, detected, labels, groups, criterion
        As for `event_records`; each detection has a `score`.

    Returns
    -------
    list of dict
        `id`, `group`, `label`, `score` (0 for a missed event), `detected` and `annotated` (0 or 1): a match has both.
    """
    rows: list[dict[str, Any]] = []
    names = labels_of(reference, detected, labels)
    for recording in recordings(reference, detected):
        group = str((groups or {}).get(recording, recording))
        for label in names:
            truth, found = (of_label(events.get(recording, ()), label) for events in (reference, detected))
            scores = with_scores(found)
            pairs = dict((column, row) for row, column in by_score(criterion(times(truth), times(found)), scores))
            missed = set(range(len(truth))) - set(pairs.values())
            entries = [(score, 1, int(number in pairs)) for number, score in enumerate(scores)]
            entries += [(0.0, 0, 1)] * len(missed)
            for number, (score, is_detected, is_annotated) in enumerate(entries):
                name = f"{recording}/{label}/{number}"
                row = {"id": name, "group": group, "label": label, "score": score}
                rows.append({**row, "detected": is_detected, "annotated": is_annotated})
    return rows


def intersection_hits(
    truth: Sequence[Annotation], found: Sequence[Annotation], dtc: float, gtc: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which annotated events are found, (R,), and which detections are relevant, (E,); see `intersection_records`."""
    reference, detected = times(truth), times(found)
    relevant = lies_in(detected, reference, dtc)
    return lies_in(reference, detected[relevant], gtc), relevant


def _counted(
    count: Callable[[Sequence[Annotation], Sequence[Annotation]], Counts],
    reference: Events,
    detected: Events,
    labels: Sequence[str] | None,
    groups: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    rows = []
    names = labels_of(reference, detected, labels)
    for recording in recordings(reference, detected):
        for label in names:
            found = count(*(of_label(events.get(recording, ()), label) for events in (reference, detected)))
            rows.append(
                {
                    "id": f"{recording}/{label}",
                    "group": str((groups or {}).get(recording, recording)),
                    "recording": recording,
                    "label": label,
                    **dict(zip(_COUNTS, found, strict=True)),
                }
            )
    return rows


# --------------------------------------------------------------------------- metrics

_COUNTS = ("true_positives", "false_positives", "false_negatives")


def _rate(table: Table, weights: NDArray[Any], wrong: Sequence[str]) -> NDArray[Any]:
    """TP / (TP + Σ share · wrong), over weighted records; NaN where there is nothing to count."""
    share = 1 / len(wrong)
    right = weights @ table["true_positives"].astype(float)
    total = right + sum(share * (weights @ table[name].astype(float)) for name in wrong)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, np.divide(right, total), np.nan)


def _macro(table: Table, weights: NDArray[Any], of: Callable[[Table, NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """The mean over the classes for which a value is defined."""
    total, defined = np.zeros(weights.shape[:-1]), np.zeros(weights.shape[:-1])
    for label in sorted(set(table["label"].tolist())):
        chosen = table["label"] == label
        value = of({name: column[chosen] for name, column in table.items()}, weights[..., chosen])
        total += np.nan_to_num(value)
        defined += np.isfinite(value)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined > 0, np.divide(total, defined), np.nan)


def count_metric(name: str, wrong: Sequence[str], macro: bool = False) -> Metric:
    """Return TP / (TP + mean of the wrong counts), over all records, or the mean of it over classes.

    Parameters
    ----------
    name : str
        As it stands in result files.
    wrong : sequence of str
        `false_positives` gives the precision, `false_negatives` the recall, both of them F1.
    macro : bool
        The mean over the classes that were annotated or detected.
    """

    def value(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
        return _rate(table, weights, wrong)

    def mean(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
        return _macro(table, weights, value)

    fields = [*_COUNTS, *(["label"] if macro else [])]
    return Metric(name, fields, mean if macro else value, bounds=(0.0, 1.0), higher_is_better=True)


def _average_precision(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    precision, recall, _ = _curve(table, weights)
    step = np.diff(np.concatenate([np.zeros((*recall.shape[:-1], 1)), recall], axis=-1), axis=-1)
    total = weights @ table["annotated"].astype(float)
    return np.where(total > 0, (step * np.nan_to_num(precision)).sum(-1), np.nan)


def _curve(table: Table, weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Precision and recall (..., K) when everything of at least each score (K,), the highest first, is accepted."""
    accepted = np.flatnonzero(table["detected"].astype(bool))
    order = accepted[np.argsort(-table["score"][accepted].astype(float), kind="stable")]
    score = table["score"][order].astype(float)
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)[: len(score)].astype(int)
    annotated = table["annotated"].astype(float)
    right = np.cumsum(weights[..., order] * annotated[order], axis=-1)[..., last]
    total = np.cumsum(weights[..., order], axis=-1)[..., last]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(right, total), np.divide(right, (weights @ annotated)[..., None]), score[last]


def precision_recall(records: Sequence[Record]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return precision, recall and score, (K,) each, from `scored_records` of one class: the highest score first.

    Example
    -------
    >>> from lobes.dataio.annotations import Annotation
    >>> truth = {"a": [Annotation(0.0, 1.0, "x"), Annotation(5.0, 6.0, "x")]}
    >>> found = {"a": [Annotation(0.0, 1.0, "x", score=0.9), Annotation(8.0, 9.0, "x", score=0.7)]}
    >>> precision, recall, score = precision_recall(scored_records(truth, found))
    >>> precision.tolist(), recall.tolist(), score.tolist()
    ([1.0, 0.5], [0.5, 0.5], [0.9, 0.7])
    """
    table = average_precision.table(records)
    return _curve(table, np.ones(len(table["score"])))


def _mean_average_precision(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    return _macro(table, weights, _average_precision)


_F1 = ("false_positives", "false_negatives")
#: F1 over all events: 2 TP / (2 TP + FP + FN); reads `event_records`.
event_f1 = count_metric("event_f1", _F1)
#: The mean of the classes' F1.
event_f1_macro = count_metric("event_f1_macro", _F1, macro=True)
#: The same counts from `intersection_records`, and from `segment_records`.
intersection_f1 = count_metric("intersection_f1", _F1)
intersection_f1_macro = count_metric("intersection_f1_macro", _F1, macro=True)
segment_f1 = count_metric("segment_f1", _F1)
segment_f1_macro = count_metric("segment_f1_macro", _F1, macro=True)
#: Share of the detections that are right, and of the annotated events that are found; read any of these records.
event_precision = count_metric("event_precision", ("false_positives",))
event_recall = count_metric("event_recall", ("false_negatives",))
_SCORED = ["score", "detected", "annotated"]
#: Average precision: Σ (R_k - R_(k-1)) P_k over the distinct scores of the detections; reads `scored_records`.
average_precision = Metric("average_precision", _SCORED, _average_precision, bounds=(0.0, 1.0), higher_is_better=True)
#: The mean of the classes' average precision, over those that were annotated.
mean_average_precision = Metric(
    "mean_average_precision",
    [*_SCORED, "label"],
    _mean_average_precision,
    bounds=(0.0, 1.0),
    higher_is_better=True,
)
