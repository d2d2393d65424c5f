"""The polyphonic sound detection score: one number for all thresholds (Bilen et al. 2020, ICASSP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError
from lobes.evaluation.event_matching import Events, labels_of, lies_in, of_label, times
from lobes.evaluation.event_metrics import intersection_hits

if TYPE_CHECKING:
    from lobes.dataio.annotations import Annotation

_HOUR = 3600.0


class PSDS(NamedTuple):
    """The score, and the curve that it is the area of."""

    value: float
    """Between 0 and 1."""
    efpr: NDArray[Any]
    """Effective false positive rate, per hour, (K,), rising from 0."""
    etpr: NDArray[Any]
    """Effective true positive ratio from each of these rates on, (K,)."""


def psds(
    reference: Events,
    detected: Sequence[Events],
    durations: Mapping[str, float],
    labels: Sequence[str] | None = None,
    *,
    dtc: float = 0.5,
    gtc: float = 0.5,
    cttc: float = 0.3,
    alpha_ct: float = 0.0,
    alpha_st: float = 0.0,
    max_efpr: float = 100.0,
) -> PSDS:
    """Return the polyphonic sound detection score.

    Per class and operating point: the true positive ratio r = found / annotated and the effective false positive rate
    e = FP / hours + `alpha_ct` · mean over other classes k of CT_k / (annotated hours of k), eq. 5; CT_k counts the
    false positives of which at least `cttc` lies in annotated events of class k. A class' curve r(e) is the best that
    any point reaches at a rate of at most e; the effective ratio is the mean of the classes' r less `alpha_st` times
    their deviation, eq. 6; the score is its area up to `max_efpr`, divided by that, eq. 7.

    Parameters
    ----------
    reference : mapping of str to sequence of Annotation
        Events of each recording.
    detected : sequence of such mappings
        One per operating point, at thresholds from low to high or in any order.
    durations : mapping of str to float
        Seconds of each recording.
    labels : sequence of str, optional
        Classes; all that are annotated by default.
    dtc, gtc, cttc : float
        Detection tolerance, ground truth intersection and cross-trigger tolerance criteria, shares of a length.
    alpha_ct, alpha_st : float
        Weight of cross-triggers, and of the classes' inequality.
    max_efpr : float
        False positives per hour up to which the curve counts.

    Returns
    -------
    PSDS

    Raises
    ------
    DataError
        Nothing is annotated, there is no operating point, or a recording's duration is missing.
    """
    names = labels_of(reference, {}, labels)
    missing = [name for name in reference if name not in durations]
    if not names or not detected or missing:
        raise DataError(
            f"psds: {len(names)} classes, {len(detected)} operating points, no duration of {missing[:1] or 'none'};"
            " expected at least one of each, and the seconds of every recording"
        )
    annotated = {name: [e for events in reference.values() for e in of_label(events, name)] for name in names}
    empty = [name for name in names if not annotated[name]]
    if empty:
        raise DataError(f"psds: class '{empty[0]}' is nowhere annotated; leave it out of labels")
    hours = sum(durations[name] for name in reference) / _HOUR
    spans = np.array([sum(event.duration for event in annotated[name]) for name in names]) / _HOUR
    curves: list[list[tuple[float, float]]] = [[(0.0, 0.0)] for _ in names]
    for point in detected:
        found, false, crossed = _counts(reference, point, names, dtc, gtc, cttc)
        rates = false / hours
        if len(names) > 1:
            rates = rates + alpha_ct * (crossed / spans).sum(1) / (len(names) - 1)
        for curve, rate, hits, name in zip(curves, rates, found, names, strict=True):
            curve.append((float(rate), float(hits) / len(annotated[name])))
    return _area(curves, alpha_st, max_efpr)


def _counts(
    reference: Events, detected: Events, names: Sequence[str], dtc: float, gtc: float, cttc: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Found events (C,), false positives (C,), and those of them in events of other classes (C, C), by class."""
    found, false = np.zeros(len(names)), np.zeros(len(names))
    crossed = np.zeros((len(names), len(names)))
    for recording, events in reference.items():
        truth = {name: of_label(events, name) for name in names}
        for number, name in enumerate(names):
            detections = of_label(detected.get(recording, ()), name)
            hit, relevant = intersection_hits(truth[name], detections, dtc, gtc)
            wrong = [event for event, is_right in zip(detections, relevant, strict=True) if not is_right]
            found[number] += hit.sum()
            false[number] += len(wrong)
            for other, other_name in enumerate(names):
                if other != number:
                    crossed[number, other] += _triggered(wrong, truth[other_name], cttc)
    return found, false, crossed


def _triggered(wrong: Sequence[Annotation], truth: Sequence[Annotation], cttc: float) -> int:
    """How many false positives lie in events of another class."""
    return int(lies_in(times(wrong), times(truth), cttc).sum())


def _area(curves: Sequence[Sequence[tuple[float, float]]], alpha_st: float, max_efpr: float) -> PSDS:
    """Join the classes' points to staircases on a common axis, and integrate."""
    axis = np.unique([rate for curve in curves for rate, _ in curve if rate <= max_efpr])
    steps = np.zeros((len(curves), len(axis)))
    for number, curve in enumerate(curves):
        for rate, ratio in curve:
            steps[number] = np.where(axis >= rate, np.maximum(steps[number], ratio), steps[number])
    effective = np.maximum(steps.mean(0) - alpha_st * steps.std(0), 0.0)
    widths = np.diff(np.append(axis, max_efpr))
    return PSDS(float((effective * widths).sum() / max_efpr), axis, effective)
