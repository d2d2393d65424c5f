"""From a recording of any length to scores and events, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lobes.dataio import Recording, prefetch, window_batches
from lobes.dataio.annotations import Annotation
from lobes.detection.detector import Detector
from lobes.evaluation import EventFinder, EventRule, OverlapAverage
from lobes.evaluation.events import sorted_events


def score_recording(
    detector: Detector, recording: Recording, batch_size: int = 8, block_seconds: float = 60.0
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
    blocks = recording.blocks(block_seconds)
    batches = window_batches(blocks, detector.window_samples, detector.hop_samples, batch_size)
    for batch in prefetch(batches):
        yield average.add(*detector.scores(batch.audio, batch.samples))
    yield average.finish()


def detect_recording(
    detector: Detector,
    recording: Recording,
    batch_size: int = 8,
    rules: Mapping[str, EventRule] | None = None,
    progress: Callable[[float], object] | None = None,
    block_seconds: float = 60.0,
) -> list[Annotation]:
    """Return the events of a recording, in the order of their beginnings.

    Parameters
    ----------
    detector, recording, batch_size, block_seconds
        As for `score_recording`.
    rules : mapping of str to EventRule, optional
        In place of the detector's own.
    progress : callable, optional
        Called now and then with the seconds that have been done since.

    Returns
    -------
    list of Annotation
        `score` is the largest in the event; the band is that of `Detector.bands`.
    """
    finder = EventFinder(detector.rules if rules is None else rules, detector.frame_rate)
    found: list[Annotation] = []
    for scores in score_recording(detector, recording, batch_size, block_seconds):
        found += finder.feed(scores)
        if progress is not None:
            progress(len(scores) / detector.frame_rate)
    found += finder.finish(recording.seconds)
    bands = [detector.bands.get(event.label, (None, None)) for event in found]
    return sorted_events(
        [replace(event, low_hz=low, high_hz=high) for event, (low, high) in zip(found, bands, strict=True)]
    )
