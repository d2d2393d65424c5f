"""From scores on a time grid to events: average over overlapping windows, median filter, hysteresis, gaps, durations.

Everything works on a stream in pieces of any size, in constant memory, and gives exactly what it gives all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError

if TYPE_CHECKING:
    from lobes.dataio.annotations import Annotation

#: Seconds that rounding may take from a duration or a gap.
_SLACK = 1e-9


@dataclass(frozen=True)
class EventRule:
    """How the scores of one class become events.

    In this order: a running median over `median` seconds; an event is a stretch of frames of at least `low` of which
    one reaches `high` (hysteresis: Canny 1986, section IV, in time); events less than `min_gap` apart are one; those
    shorter than `min_duration` are dropped.

    Parameters
    ----------
    high, low : float
        Thresholds, 0 < low <= high; `low` None is `high`: a plain threshold.
    median, min_duration, min_gap : float
        Seconds, 0 or more.

    Raises
    ------
    ConfigError
        A value is impossible.
    """

    high: float = 0.5
    low: float | None = None
    median: float = 0.0
    min_duration: float = 0.0
    min_gap: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lower <= self.high:
            raise ConfigError(f"EventRule: low {self.lower:g} and high {self.high:g}; expected 0 < low <= high")
        for name in ("median", "min_duration", "min_gap"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"EventRule: {name} is {getattr(self, name)!r}; expected seconds, 0 or more")

    @property
    def lower(self) -> float:
        """The lower threshold in force."""
        return self.high if self.low is None else self.low


class OverlapAverage:
    """Averages the scores of overlapping windows, frame by frame of one grid.

    Parameters
    ----------
    n_frames : int
        Frames of a window.
    hop : int
        Frames from the beginning of one window to that of the next, 1 to `n_frames`.

    Example
    -------
    >>> average = OverlapAverage(n_frames=2, hop=1)
    >>> windows = np.array([[[0.0], [1.0]], [[0.0], [1.0]]])
    >>> average.add(windows, [2, 2]).tolist(), average.finish().tolist()
    ([[0.0]], [[0.5], [1.0]])
    """

    def __init__(self, n_frames: int, hop: int) -> None:
        if not 1 <= hop <= n_frames:
            raise ConfigError(f"OverlapAverage: a hop of {hop} frames, windows of {n_frames}; expected 1 to {n_frames}")
        self.n_frames, self.hop = n_frames, hop
        self._total: NDArray[Any] | None = None
        self._count: NDArray[Any] = np.zeros((n_frames, 1))

    def add(self, scores: NDArray[Any], valid: Sequence[int]) -> NDArray[Any]:
        """Take the next windows.

        Parameters
        ----------
        scores : array (B, n_frames, C)
            Of windows in order.
        valid : sequence of int
            How many of the frames of each are real.

        Returns
        -------
        array (m, C), float32
            The frames before the last of these windows.
        """
        parts = []
        for window, n_real in zip(scores, valid, strict=True):
            if self._total is None:
                self._total = np.zeros((self.n_frames, window.shape[1]))
            else:
                parts.append(self._shift())
            self._total[:n_real] += window[:n_real]
            self._count[:n_real] += 1
        n_classes = scores.shape[2]
        return np.concatenate(parts) if parts else np.zeros((0, n_classes), dtype=np.float32)

    def finish(self) -> NDArray[Any]:
        """End the recording: the frames (m, C) that are left. The next `add` begins another recording."""
        if self._total is None:
            return np.zeros((0, 0), dtype=np.float32)
        n_real = int((self._count > 0).sum())
        rest = (self._total[:n_real] / self._count[:n_real]).astype(np.float32)
        self._total, self._count = None, np.zeros((self.n_frames, 1))
        return rest

    def _shift(self) -> NDArray[Any]:
        """Go on by a hop: the means of what lies before the next window."""
        assert self._total is not None
        done = (self._total[: self.hop] / np.maximum(self._count[: self.hop], 1)).astype(np.float32)
        for array in (self._total, self._count):
            array[: -self.hop] = array[self.hop :].copy()
            array[-self.hop :] = 0.0
        return done


class MedianFilter:
    """Running median over an odd number of frames; before the first and after the last frame their values go on.

    Parameters
    ----------
    width : int
        Frames, odd; 1 changes nothing.
    """

    def __init__(self, width: int) -> None:
        self._half = width // 2
        self._pending: NDArray[Any] | None = None

    def feed(self, values: NDArray[Any]) -> NDArray[Any]:
        """Take the next values (n,) and return the medians (m,) that are now certain."""
        if not self._half or not len(values):
            return values
        before = np.repeat(values[:1], self._half) if self._pending is None else self._pending
        return self._filtered(np.concatenate([before, values]))

    def finish(self) -> NDArray[Any]:
        """End the recording: the medians of its last frames."""
        if not self._half or self._pending is None:
            return np.zeros(0, dtype=np.float32)
        last = self._filtered(np.concatenate([self._pending, np.repeat(self._pending[-1:], self._half)]))
        self._pending = None
        return last

    def _filtered(self, values: NDArray[Any]) -> NDArray[Any]:
        from scipy.ndimage import median_filter

        self._pending = values[-2 * self._half :].copy()
        if len(values) <= 2 * self._half:
            return values[:0]
        return median_filter(values, size=2 * self._half + 1, mode="nearest")[self._half : -self._half]


class EventFinder:
    """Finds the events of several classes in a stream of scores.

    Parameters
    ----------
    rules : mapping of str to EventRule
        Per class, in the order of the scores' columns.
    frame_rate : float
        Frames per second, Hz; frame i lasts from i / frame_rate to (i + 1) / frame_rate seconds.

    Example
    -------
    >>> finder = EventFinder({"duet": EventRule(high=0.8, low=0.4)}, frame_rate=2.0)
    >>> finder.feed(np.array([[0.1], [0.5], [0.9]]))
    []
    >>> finder.feed(np.array([[0.4], [0.1], [0.5]]))
    [Annotation(start=0.5, end=2.0, label='duet', ..., score=0.9, ...)]
    >>> finder.finish()
    []
    """

    def __init__(self, rules: Mapping[str, EventRule], frame_rate: float) -> None:
        self._finders = [_ClassFinder(label, rule, frame_rate) for label, rule in rules.items()]

    def feed(self, scores: NDArray[Any]) -> list[Annotation]:
        """Take the next scores (n, C) and return the events that are now certain, in no particular order."""
        return [event for column, finder in zip(scores.T, self._finders, strict=True) for event in finder.feed(column)]

    def finish(self, duration: float | None = None) -> list[Annotation]:
        """End the recording: the events that are left, cut at its duration (s); then expects another recording."""
        return [event for finder in self._finders for event in finder.finish(duration)]


def find_events(
    scores: NDArray[Any], rules: Mapping[str, EventRule], frame_rate: float, duration: float | None = None
) -> list[Annotation]:
    """Find the events in the scores (n, C) of a whole recording, in the order of their beginnings.

    Parameters
    ----------
    scores, rules, frame_rate
        As for `EventFinder`.
    duration : float, optional
        Seconds of the recording, at which the last event is cut.

    Returns
    -------
    list of Annotation
        `score` is the largest filtered score inside the event.
    """
    finder = EventFinder(rules, frame_rate)
    return sorted_events([*finder.feed(scores), *finder.finish(duration)])


def sorted_events(events: Sequence[Annotation]) -> list[Annotation]:
    """Return events in the order of beginning, end and label."""
    return sorted(events, key=lambda event: (event.start, event.end, event.label))


class _Stretch:
    """Frames [start, end) and the largest score in them."""

    def __init__(self, start: int, end: int, peak: float) -> None:
        self.start, self.end, self.peak = start, end, peak

    def extend(self, other: _Stretch) -> None:
        self.end, self.peak = other.end, max(self.peak, other.peak)


class _ClassFinder:
    """The events of one class."""

    def __init__(self, label: str, rule: EventRule, frame_rate: float) -> None:
        self.label, self.rule, self.rate = label, rule, frame_rate
        self._median = MedianFilter(2 * int(rule.median * frame_rate / 2 + _SLACK) + 1)
        self._reset()

    def _reset(self) -> None:
        self._seen = 0
        self._open: _Stretch | None = None  # above the lower threshold up to the last frame seen
        self._event: _Stretch | None = None  # an event that the next may still be joined to

    def feed(self, scores: NDArray[Any]) -> list[Annotation]:
        return self._scan(self._median.feed(scores))

    def finish(self, duration: float | None) -> list[Annotation]:
        found = self._scan(self._median.finish())
        if self._open is not None:
            found += self._close(self._open)
        found += self._release()
        self._reset()
        if duration is None:
            return found
        return [_cut(event, duration) for event in found]

    def _scan(self, scores: NDArray[Any]) -> list[Annotation]:
        """Follow the stretches above the lower threshold through the next filtered scores."""
        if not len(scores):
            return []
        found: list[Annotation] = []
        for stretch in self._stretches(scores):
            if self._open is not None and stretch.start == self._open.end:
                self._open.extend(stretch)
                continue
            if self._open is not None:
                found += self._close(self._open)
            self._open = stretch
        self._seen += len(scores)
        if self._open is not None and self._open.end < self._seen:
            found += self._close(self._open)
            self._open = None
        # What may still be joined begins where a stretch is open, or at the next frame.
        following = self._seen if self._open is None else self._open.start
        if self._event is not None and not self._joins(self._event, following):
            found += self._release()
        return found

    def _stretches(self, scores: NDArray[Any]) -> list[_Stretch]:
        above = np.concatenate([[False], scores >= self.rule.lower, [False]])
        borders = np.flatnonzero(above[1:] != above[:-1])
        starts, ends = borders[::2], borders[1::2]
        peaks = [scores[start:end].max() for start, end in zip(starts, ends, strict=True)]
        return [
            _Stretch(int(start) + self._seen, int(end) + self._seen, float(peak))
            for start, end, peak in zip(starts, ends, peaks, strict=True)
        ]

    def _close(self, stretch: _Stretch) -> list[Annotation]:
        """A stretch has ended: it begins an event, goes on with the last one, or is none."""
        if stretch.peak < self.rule.high:
            return []
        if self._event is not None and self._joins(self._event, stretch.start):
            self._event.extend(stretch)
            return []
        found = self._release()
        self._event = stretch
        return found

    def _joins(self, event: _Stretch, start: int) -> bool:
        return (start - event.end) / self.rate < self.rule.min_gap - _SLACK

    def _release(self) -> list[Annotation]:
        """Give the event that nothing can be joined to any more, if it is long enough."""
        event, self._event = self._event, None
        if event is None or (event.end - event.start) / self.rate < self.rule.min_duration - _SLACK:
            return []
        from lobes.dataio.annotations import Annotation  # whose package needs torch, which nothing else here does

        return [Annotation(event.start / self.rate, event.end / self.rate, self.label, score=event.peak)]


def _cut(event: Annotation, duration: float) -> Annotation:
    return replace(event, end=min(event.end, max(duration, event.start)))
