"""From a recording of any length to scores and events, in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.dataio import AudioError, Recording, prefetch, window_batches
from lobes.dataio.annotations import Annotation
from lobes.detection.detector import Detector
from lobes.evaluation import EventFinder, EventRule, OperatingPoint, OverlapAverage, tune_rules
from lobes.evaluation.events import sorted_events

logger = logging.getLogger(__name__)


def score_recording(
    detector: Detector, recording: Recording, batch_size: int = 8, block_seconds: float = 60.0, known: int = 0
) -> Iterator[NDArray[np.float32]]:
    """Yield the scores of a recording, piece by piece.

    Parameters
    ----------
    detector : Detector
        In evaluation mode.
    recording : Recording
        At the detector's `sample_rate`.
    batch_size : int
        Windows that are encoded at once.
    block_seconds : float
        Audio that is read at once.
    known : int
        Frames from the beginning that are known already, and not yielded: fewer than there are. What comes after them
        is the same to the last bit.

    Yields
    ------
    array (n, events)
        Frames of the detector's grid, averaged over the windows that hear them. Pieces have any length; put together
        they are the same for all blocks, and for all batches but for the last digits.

    Raises
    ------
    AudioError
        Nothing of the recording could be decoded.
    """
    average = OverlapAverage(detector.window_frames, detector.hop_frames)
    # The first window behind all that hear a frame that is known, or an earlier one with which a batch begins.
    first = max((known - detector.window_frames) // detector.hop_frames + 1, 0) // batch_size * batch_size
    left = known - first * detector.hop_frames
    blocks = recording.blocks(block_seconds, first * detector.hop_samples)
    batches = window_batches(blocks, detector.window_samples, detector.hop_samples, batch_size, first)
    for batch in prefetch(batches):
        piece = average.add(*detector.scores(batch.audio, batch.samples))
        yield piece[left:]
        left = max(left - len(piece), 0)
    yield average.finish()[left:]


def detect_recording(
    detector: Detector,
    recording: Recording,
    batch_size: int = 8,
    rules: Mapping[str, EventRule] | None = None,
    block_seconds: float = 60.0,
) -> list[Annotation]:
    """Return the events of a recording, in the order of their beginnings.

    Parameters
    ----------
    detector, recording, batch_size, block_seconds
        As for `score_recording`.
    rules : mapping of str to EventRule, optional
        In place of the detector's own.

    Returns
    -------
    list of Annotation
        `score` is the largest in the event; the band is that of `Detector.bands`.
    """
    pieces = score_recording(detector, recording, batch_size, block_seconds)
    [found] = events_of(detector, recording, pieces, [rules or detector.rules])
    return found


def detect_recordings(
    detector: Detector, files: Iterable[str | Path], batch_size: int = 8
) -> dict[str | Path, list[Annotation]]:
    """Return the events of recordings, by file; those that cannot be read are left out, with a warning.

    Parameters
    ----------
    detector, batch_size
        As for `score_recording`.
    files : iterable of path
        The recordings.
    """
    [found] = detect_under(detector, files, [detector.rules], batch_size)
    return found


def detect_under(
    detector: Detector, files: Iterable[str | Path], rule_sets: Sequence[Mapping[str, EventRule]], batch_size: int = 8
) -> list[dict[str | Path, list[Annotation]]]:
    """Return what `detect_recordings` does under several sets of rules, for which the recordings are heard once.

    Parameters
    ----------
    detector, files, batch_size
        As for `detect_recordings`.
    rule_sets : sequence of mapping
        Per set, the rule of each class.
    """
    found: list[dict[str | Path, list[Annotation]]] = [{} for _ in rule_sets]
    for file in files:
        try:
            recording = Recording(file, detector.sample_rate)
            events = events_of(detector, recording, score_recording(detector, recording, batch_size), rule_sets)
        except AudioError as error:
            logger.warning("left out: %s", error)
            continue
        for of_set, of_file in zip(found, events, strict=True):
            of_set[file] = of_file
    return found


def tune_detector(
    detector: Detector,
    reference: Mapping[str, Sequence[Annotation]],
    files: Mapping[str, str | Path] | None = None,
    batch_size: int = 8,
    **options: Any,
) -> list[OperatingPoint]:
    """Give a detector the thresholds that suit its classes best on validation recordings.

    Parameters
    ----------
    detector : Detector
        In evaluation mode; its `rules` are changed.
    reference : mapping of str to sequence of Annotation
        Annotated events of each recording: an empty list, where there are none.
    files : mapping of str to path, optional
        Where the recordings are; by default the keys of `reference` are their paths.
    batch_size : int
        Windows that are encoded at once.
    **options
        As `lobes.evaluation.tune_rules` takes: `records`, `thresholds`, `low_ratios`.

    Returns
    -------
    list of OperatingPoint
        Everything that was tried.

    Raises
    ------
    DataError
        No recording can be read; if some can, the others are left out, with a warning.
    """
    scores = {}
    for name in reference:
        try:
            recording = Recording(files[name] if files else name, detector.sample_rate)
            scores[name] = np.concatenate(list(score_recording(detector, recording, batch_size)))
        except AudioError as error:
            logger.warning("left out: %s", error)
    detector.rules, points = tune_rules(scores, reference, detector.rules, detector.frame_rate, **options)
    return points


def events_of(
    detector: Detector,
    recording: Recording,
    scores: Iterable[NDArray[np.float32]],
    rule_sets: Sequence[Mapping[str, EventRule]],
) -> list[list[Annotation]]:
    """Return the events of a recording under several sets of rules at once.

    Parameters
    ----------
    detector : Detector
    recording : Recording
        That the scores are of; its length is known once they are through.
    scores : iterable of array (n, events)
        From `score_recording`.
    rule_sets : sequence of mapping
        Per set, the rule of each class.

    Returns
    -------
    list of list of Annotation
        Per set, in the order of their beginnings.
    """
    finders = [EventFinder(rules, detector.frame_rate) for rules in rule_sets]
    found: list[list[Annotation]] = [[] for _ in finders]
    for piece in scores:
        for events, finder in zip(found, finders, strict=True):
            events += finder.feed(piece)
    for events, finder in zip(found, finders, strict=True):
        events += finder.finish(recording.seconds)
    return [sorted_events([_with_band(event, detector) for event in events]) for events in found]


def _with_band(event: Annotation, detector: Detector) -> Annotation:
    low, high = detector.bands.get(event.label, (None, None))
    return replace(event, low_hz=low, high_hz=high)
