"""From annotated recordings to what a detector trains on: windows with their events."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lobes.dataio import AudioDataset, AudioError, Manifest, audio_dataset, audio_info, read_manifest
from lobes.dataio.annotations import Annotation
from lobes.dataio.manifest import Row
from lobes.dataio.splits import write_part
from lobes.detection.detector import Detector, frame_targets
from lobes.errors import DataError

#: Column of a manifest of windows: what calls in each, as JSON: [[start, end, label], ...], seconds of the window.
EVENTS = "events"
#: Seconds of a last, partial window, at least.
_SHORTEST = 0.5


def recording_events(
    manifest: Manifest, label: str, classes: Sequence[str]
) -> tuple[dict[str, list[Annotation]], dict[str, Row]]:
    """Group the rows of a manifest by recording: what calls there, and when.

    Parameters
    ----------
    manifest : Manifest
        A row for each call, as a part of its recording: from `prepare_annotated_folder` or `write_scenes`.
        Rows of other labels, such as `background`, make their recordings count, and nothing else.
    label : str
        Its column.
    classes : sequence of str
        Labels that are events.

    Returns
    -------
    events : dict of str to list of Annotation
        Per file, in the order of time.
    rows : dict of str to dict
        Per file, the first of its rows: group and labels.

    Raises
    ------
    DataError
        There is no such label.
    """
    if label not in manifest.labels:
        raise DataError(f"the manifest has no label '{label}': expected one of {', '.join(manifest.labels)}")
    events: dict[str, list[Annotation]] = defaultdict(list)
    rows: dict[str, Row] = {}
    for row in manifest.rows:
        file = str(manifest.audio_path(row))
        rows.setdefault(file, row)
        found = [Annotation(row["start"], row["stop"], row[label], file=file)] if row[label] in classes else []
        events[file] += found
    return {file: sorted(found, key=lambda event: event.start) for file, found in events.items()}, rows


def check_test_events(manifest_csv: str | os.PathLike[str], label: str, classes: Sequence[str]) -> None:
    """Refuse a test set without calls in two groups, for which no interval could be given: before anything is trained.

    Parameters
    ----------
    manifest_csv : path
        As for `recording_events`.
    label, classes
        As for `recording_events`.

    Raises
    ------
    DataError
        There is no such label, or there are not enough groups with calls.
    """
    events, rows = recording_events(read_manifest(manifest_csv), label, classes)
    groups = sorted({rows[file]["group"] for file, found in events.items() if found})
    if len(groups) < 2:
        raise DataError(
            f"{manifest_csv}: {', '.join(classes)} is annotated in {len(groups)} groups ({', '.join(groups)}): a test "
            "needs two or more, such as recorders; give it more recordings, or choose other groups or another seed"
        )


def write_windows(
    manifest_csv: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    label: str,
    classes: Sequence[str],
    window: float,
    hop: float | None = None,
) -> Path:
    """Cut the recordings of a manifest into windows, from end to end, and write a manifest of those.

    Parameters
    ----------
    manifest_csv : path
        As for `recording_events`.
    path : path
        The CSV to write. Its rows keep the labels of the first row of their recording, and have `events`.
    label, classes
        As for `recording_events`.
    window, hop : float
        Seconds of a window, and from one to the next; a window by default.

    Returns
    -------
    Path
        The CSV. Recordings that cannot be read are named in its sidecar under `skipped`.

    Raises
    ------
    DataError
        There is no such label, no recording can be read, or nothing of `classes` is annotated.
    """
    whole = read_manifest(manifest_csv)
    events, firsts = recording_events(whole, label, classes)
    if not any(events.values()):
        seen = ", ".join(sorted({row[label] for row in whole.rows})[:10])
        raise DataError(f"{manifest_csv}: none of {', '.join(classes)} is annotated; labels are {seen}")
    rows: list[Row] = []
    skipped = []
    for file, found in events.items():
        try:
            seconds = audio_info(file).duration
        except AudioError as error:
            skipped.append((file, str(error)))
            continue
        first = firsts[file]
        for number, start in enumerate(np.arange(0.0, max(seconds - _SHORTEST, _SHORTEST), hop or window)):
            begin, end = float(start), min(float(start) + window, seconds)
            inside = [
                [round(max(event.start, begin) - begin, 6), round(min(event.end, end) - begin, 6), event.label]
                for event in found
                if event.end > begin and event.start < end
            ]
            where: Row = {"start": begin, "stop": end, "duration": end - begin, "channel": None}
            rows.append({**first, "id": f"{first['id']}/{number}", **where, EVENTS: json.dumps(inside)})
    if not rows:
        raise DataError(f"{manifest_csv}: no recording can be read; the first: {skipped[0][0]}: {skipped[0][1]}")
    return write_part(path, rows, whole, skipped=skipped, window=window, hop=hop or window, label=label)


def window_dataset(path: str | os.PathLike[str], detector: Detector, **options: Any) -> AudioDataset:
    """Make a dataset of windows for a detector, with `targets` (frames, events) for `frame_loss`.

    Parameters
    ----------
    path : path
        From `write_windows`.
    detector : Detector
        Whose classes and frames they are to fit.
    **options
        As for `lobes.dataio.audio_dataset`.
    """
    targets = partial(_targets, detector.events, detector.frame_rate, detector.window_frames)
    labels = {"targets": (EVENTS, targets)}
    return audio_dataset(read_manifest(path), detector.sample_rate, ("id", "sig", "targets"), labels=labels, **options)


def _targets(classes: Sequence[str], frame_rate: float, n_frames: int, events: str) -> Tensor:
    found = [Annotation(start, end, label) for start, end, label in json.loads(events)]
    return torch.from_numpy(frame_targets(found, classes, frame_rate, n_frames))
