"""A detector over a folder of recordings: resumable, in constant memory, and not stopped by a bad file."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lobes.dataio import AudioError, Recording, find_audio
from lobes.dataio.annotations import Annotation
from lobes.dataio.audio import AudioInfo
from lobes.detection.detector import Detector
from lobes.detection.folder import detector_checksum, load_detector
from lobes.detection.partial import PartialScores, remove_partial, scores_from
from lobes.detection.progress import Progress
from lobes.detection.results import (
    VERSION,
    FileResult,
    read_result,
    save_result,
    table_names,
    write_file_tables,
    write_tables,
)
from lobes.detection.scoring import events_of
from lobes.errors import ConfigError, DataError
from lobes.evaluation import EventRule, NamePattern, activity_figure, save_figure
from lobes.evaluation.events import sorted_events
from lobes.evaluation.review import ReviewItem, choose_items, write_review

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

#: Files to go through, with their sizes, what their results depend on, and what is kept of their scores.
Pending = dict[str, tuple[AudioInfo, dict[str, Any], PartialScores]]
#: Hz at which the page plays recordings of more than 48 kHz.
HEARD = 16000
#: What a near miss must reach of each threshold.
NEAR = 0.5


@dataclass(frozen=True)
class DetectionOptions:
    """How a folder is gone through.

    Parameters
    ----------
    channel : int, optional
        Channel from 0; the mean of all by default.
    threshold : float, optional
        In place of every class' upper threshold; lower ones are changed in proportion.
    name_pattern : str
        See `lobes.evaluation.NamePattern`.
    batch_size : int
        Windows that are encoded at once: more memory, sometimes more speed, the same events.
    device : str
        Where the encoder runs.
    review : int
        Detections on the review page, at most; 0 for none.
    keep_minutes : float
        Audio after which the scores of a recording are written, from which a run goes on that was stopped within it.
    """

    channel: int | None = None
    threshold: float | None = None
    name_pattern: str = "{recorder}_{date}_{time}"
    batch_size: int = 8
    device: str = "cpu"
    review: int = 300
    keep_minutes: float = 30.0

    def __post_init__(self) -> None:
        if not self.keep_minutes > 0:
            raise ConfigError(f"keep_minutes is {self.keep_minutes:g}: expected minutes of audio, above 0")

    def rules(self, detector: Detector) -> dict[str, EventRule]:
        """The detector's rules at the threshold asked for."""
        if self.threshold is None:
            return dict(detector.rules)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold:g}: expected a score between 0 and 1")
        return {name: _scaled(rule, self.threshold / rule.high) for name, rule in detector.rules.items()}


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes
    ----------
    results : list of FileResult
        Of all files that could be read, in order.
    skipped : list of (file, reason)
    done_seconds : float
        Audio that was gone through now, and not before.
    wall_seconds : float
    """

    results: list[FileResult]
    skipped: list[tuple[str, str]]
    done_seconds: float
    wall_seconds: float

    @property
    def totals(self) -> str:
        """Detections, files and hours."""
        events = sum(len(result.events) for result in self.results)
        hours = sum(result.seconds for result in self.results) / 3600
        return f"{events} detections in {len(self.results)} files, {hours:.2f} h"

    def __str__(self) -> str:
        text = self.totals
        hours, speed = self.done_seconds / 3600, self.done_seconds / self.wall_seconds
        now = f"{hours:.2f} h of it now, in {self.wall_seconds:.0f} s: {speed:.0f}x real time"
        text += f"; {now}" if self.done_seconds else "; all of it was done before"
        problems = sum(bool(result.problems) for result in self.results)
        text += f"; {problems} files read in part (files.csv)" if problems else ""
        return text + (f"; {len(self.skipped)} files skipped (skipped.csv)" if self.skipped else "")


def detect_folder(
    model: str | Path, recordings: str | Path, out: str | Path, options: DetectionOptions | None = None
) -> Summary:
    """Run a detector over all recordings below a folder.

    A file whose result is there already, of the same file, model and options, is not gone through again, so that a run
    that was stopped goes on; within a file it goes on from the scores that were kept last, and finds the same to the
    last bit. What cannot be read is skipped, counted and named.

    Parameters
    ----------
    model : path
        A folder of `save_detector`.
    recordings : path
        A folder, or one file.
    out : path
        Gets `detections.selections.txt` (Raven), `detections.csv`, `files.csv`, `skipped.csv`, `calls_per_hour.csv`
        and `.svg`, the review page `index.html`, per file `raven/` and `audacity/`, and `state/`, from which a run
        goes on.
    options : DetectionOptions, optional

    Returns
    -------
    Summary

    Raises
    ------
    DataError
        There are no recordings, or none of them can be read.
    CheckpointError, ConfigError
        The model or an option is wrong.
    """
    options, out, started = options or DetectionOptions(), Path(out), time.perf_counter()
    detector = _on_device(load_detector(model), options.device)
    rules, pattern = options.rules(detector), NamePattern(options.name_pattern)
    root, files = _files(Path(recordings))
    settings = {"version": VERSION, "model": detector_checksum(model), "channel": options.channel}
    settings["threshold"] = options.threshold
    known, pending, skipped = _look(files, root, out / "state", settings, detector, options)
    names = table_names(files)
    total = sum(info.duration for info, *_ in pending.values())
    kept = sum(partial.known for *_, partial in pending.values()) / detector.frame_rate
    with Progress(total, kept, len(pending)) as progress:
        for result in _go_through(pending, detector, root, rules, options, progress, skipped):
            write_file_tables(result, out, names)
            save_result(result, out / "state")
            remove_partial(out / "state", result.file)
            known[result.file] = result
    spent = time.perf_counter() - started
    results = [known[file] for file in files if file in known]
    if not results:
        raise DataError(f"{recordings}: none of {len(skipped)} files can be used; the first: {' '.join(skipped[0])}")
    activity = write_tables(results, sorted(skipped), root, out, detector.events, pattern)
    figure = activity_figure(activity)
    save_figure(figure, out / "calls_per_hour.svg")
    summary = Summary(results, sorted(skipped), progress.seconds, spent)
    _write_page(out / "index.html", summary, root, detector, rules, pattern, options, figure)
    return summary


def _on_device(detector: Detector, device: str) -> Detector:
    try:
        return detector.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device, or PyTorch without CUDA
        raise ConfigError(f"device is '{device}': {' '.join(str(error).split())}; expected cpu or cuda") from error


def _files(recordings: Path) -> tuple[Path, list[str]]:
    """The folder, and the recordings in it, sorted, relative to it."""
    if recordings.is_file():
        return recordings.parent.resolve(), [recordings.name]
    if not recordings.is_dir():
        raise DataError(f"recordings: {recordings} does not exist; expected a folder of recordings, or one file")
    files = find_audio(recordings)
    if not files:
        raise DataError(f"recordings: no audio files below {recordings}; expected .wav, .flac, .ogg, .mp3 or .aiff")
    return recordings.resolve(), files


def _look(
    files: list[str],
    root: Path,
    state: Path,
    settings: Mapping[str, Any],
    detector: Detector,
    options: DetectionOptions,
) -> tuple[dict[str, FileResult], Pending, list[tuple[str, str]]]:
    """Tell apart what is done, what is to be done, and what cannot be."""
    known: dict[str, FileResult] = {}
    pending: Pending = {}
    skipped = []
    for file in files:
        try:
            stamp = _stamp(root / file, settings)
            result = read_result(state, file, stamp)
            if result is not None:
                known[file] = result
                remove_partial(state, file)
            else:
                info = Recording(root / file, channel=options.channel).info
                pending[file] = info, stamp, _partial(state, file, stamp, detector, options)
        except AudioError as error:
            skipped.append((file, error.reason))
        except OSError as error:
            skipped.append((file, f"cannot be opened: {error.strerror or error}"))
    if known:
        logger.info("%d of %d files were done before", len(known), len(files))
    return known, pending, skipped


def _stamp(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the result of a file depends on."""
    status = path.stat()
    return {**settings, "size": status.st_size, "modified": status.st_mtime_ns}


def _partial(
    state: Path, file: str, stamp: Mapping[str, Any], detector: Detector, options: DetectionOptions
) -> PartialScores:
    """What is kept of a recording's scores: no threshold changes them, but how they are batched does, by a digit."""
    depends = {key: value for key, value in stamp.items() if key != "threshold"}
    depends |= {"batch_size": options.batch_size, "device": options.device}
    return PartialScores(state, file, depends, len(detector.events))


def _go_through(
    pending: Pending,
    detector: Detector,
    root: Path,
    rules: Mapping[str, EventRule],
    options: DetectionOptions,
    progress: Progress,
    skipped: list[tuple[str, str]],
) -> Iterator[FileResult]:
    """Yield the result of one recording after the other; those that fail are added to `skipped`."""
    near = {name: _scaled(rule, NEAR) for name, rule in rules.items()}
    every = max(round(60 * options.keep_minutes * detector.frame_rate), 1)
    for file, (info, stamp, partial) in pending.items():
        kept = partial.known / detector.frame_rate
        progress.begin(file, info.duration - kept)
        try:
            recording = Recording(root / file, detector.sample_rate, options.channel)
            scores = scores_from(detector, recording, partial, options.batch_size, every)
            scores = progress.over(scores, detector.frame_rate, kept)
            found = events_of(detector, recording, scores, [rules, near])
        except AudioError as error:
            skipped.append((file, error.reason))
            continue
        except Exception as error:  # one file must not end a night's work
            logger.exception("%s: failed", file)
            skipped.append((file, f"failed: {type(error).__name__}: {' '.join(str(error).split())}"))
            continue
        events, lower = ([replace(event, channel=options.channel) for event in events] for events in found)
        yield FileResult(
            file=file,
            stamp=stamp,
            seconds=recording.seconds,
            sample_rate=info.sample_rate,
            channels=info.channels,
            problems=recording.problems,
            events=events,
            near_misses=_near_misses(lower, events),
        )


def _near_misses(lower: list[Annotation], events: list[Annotation]) -> list[Annotation]:
    """The likeliest of the events at lower thresholds that touch no event of their class: as many as those, or 20."""
    missed = []
    starts = {label: [event.start for event in events if event.label == label] for label in {e.label for e in events}}
    ends = {label: [event.end for event in events if event.label == label] for label in starts}
    for event in lower:
        # Events of one class do not overlap: those that end before this one begins are as many as begin before its end.
        over = bisect_right(ends.get(event.label, []), event.start)
        if bisect_left(starts.get(event.label, []), event.end) == over:
            missed.append(event)
    likeliest = sorted(missed, key=lambda event: -(event.score or 0.0))[: max(20, len(events))]
    return sorted_events(likeliest)


def _scaled(rule: EventRule, factor: float) -> EventRule:
    return replace(rule, high=factor * rule.high, low=factor * rule.lower)


def _write_page(
    path: Path,
    summary: Summary,
    root: Path,
    detector: Detector,
    rules: Mapping[str, EventRule],
    pattern: NamePattern,
    options: DetectionOptions,
    figure: Figure,
) -> None:
    """Make the review page, of as many detections as were asked for."""
    if not options.review:
        return
    items = []
    before = 0.0
    for result in summary.results:
        recorded_at = pattern.read(result.file).start
        items += [
            ReviewItem(
                event=replace(event, file=result.file),
                path=root / result.file,
                threshold=rules[event.label].high,
                near_miss=near_miss,
                recorded_at=recorded_at,
                begin=before + event.start,
                sample_rate=result.sample_rate,
            )
            for near_miss, events in ((False, result.events), (True, result.near_misses))
            for event in events
        ]
        before += result.seconds
    chosen = choose_items(items, options.review)
    found = sum(not item.near_miss for item in chosen)
    total = sum(len(result.events) for result in summary.results)
    held = f"{found} of them, spread evenly over their scores," if found < total else "all of them"
    near = f"{len(chosen) - found} near misses, which stayed below the threshold and are in no table"
    text = f"{summary.totals}. This page holds {held} and {near}."
    write_review(
        path,
        chosen,
        title=f"Calls in {root.name}",
        summary=text,
        recordings=root,
        sample_rate=detector.sample_rate,
        # What is above hearing is played as slowly as a bat detector does.
        slow_down=detector.sample_rate / HEARD if detector.sample_rate > 48000 else 1.0,
        figures=[
            (figure, "Calls per recorded hour, by recorder and hour of the day. Empty frames: recorded, no call.")
        ],
        others={result.file: result.events for result in summary.results},
    )
