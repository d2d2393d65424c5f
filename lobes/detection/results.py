"""What was found in each recording: kept file by file, so that a run can be stopped, and the tables made of it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lobes.dataio.annotations import Annotation, in_sequence, write_annotations
from lobes.dataio.manifest import atomic_write
from lobes.evaluation import Heard, NamePattern, calls_per_hour

#: Changes whenever what is found in a file may change with the code.
VERSION = 1
_EVENT_FIELDS = ("start", "end", "label", "score", "low_hz", "high_hz", "channel")


@dataclass
class FileResult:
    """What was found in one recording.

    Attributes
    ----------
    file : str
        Relative to the folder of recordings, with forward slashes.
    stamp : dict
        What the result depends on: file, model and options.
    seconds : float
        That could be read.
    sample_rate, channels : int
        Of the file.
    problems : list of str
        As `Recording.problems`.
    events, near_misses : list of Annotation
        Without `file`; near misses stay below the thresholds, and are for review only.
    """

    file: str
    stamp: dict[str, Any]
    seconds: float
    sample_rate: int
    channels: int
    problems: list[str] = field(default_factory=list)
    events: list[Annotation] = field(default_factory=list)
    near_misses: list[Annotation] = field(default_factory=list)


def save_result(result: FileResult, folder: Path) -> None:
    """Write a result as `<folder>/<file>.json`, all at once."""
    values = asdict(result)
    for name in ("events", "near_misses"):
        values[name] = [[getattr(event, key) for key in _EVENT_FIELDS] for event in getattr(result, name)]
    atomic_write(_path(folder, result.file), json.dumps(values, ensure_ascii=False) + "\n")


def read_result(folder: Path, file: str, stamp: Mapping[str, Any]) -> FileResult | None:
    """Return the result of a file, or None if there is none, or it is of another file, model or options."""
    try:
        values = json.loads(_path(folder, file).read_text(encoding="utf-8"))
        if values["stamp"] != stamp:
            return None
        for name in ("events", "near_misses"):
            values[name] = [Annotation(**dict(zip(_EVENT_FIELDS, row, strict=True))) for row in values[name]]
        return FileResult(**values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(folder: Path, file: str) -> Path:
    return folder / f"{file}.json"


def write_file_tables(result: FileResult, out: Path, names: Mapping[str, str]) -> None:
    """Write the Raven table and the Audacity labels of one file, below `raven/` and `audacity/`."""
    below = PurePosixPath(result.file).parent
    name = names[result.file]
    write_annotations(out / "raven" / below / f"{name}.Table.1.selections.txt", result.events, "raven")
    write_annotations(out / "audacity" / below / f"{name}.txt", result.events, "audacity")


def table_names(files: Iterable[str]) -> dict[str, str]:
    """File -> what its tables are called, before Raven's endings: its stem, or its name where two share the stem.

    Example
    -------
    >>> table_names(["a/dawn.wav", "a/dusk.wav", "a/dusk.flac"])
    {'a/dawn.wav': 'dawn', 'a/dusk.wav': 'dusk.wav', 'a/dusk.flac': 'dusk.flac'}
    """
    paths = [PurePosixPath(file) for file in files]
    count = Counter(str(path.with_suffix("")) for path in paths)
    return {str(path): path.stem if count[str(path.with_suffix(""))] == 1 else path.name for path in paths}


def write_tables(
    results: Sequence[FileResult],
    skipped: Sequence[tuple[str, str]],
    root: Path,
    out: Path,
    labels: Sequence[str],
    pattern: NamePattern,
) -> list[dict[str, Any]]:
    """Write the tables over all files: detections (Raven, CSV), files, skipped files, calls per hour.

    Parameters
    ----------
    results : sequence of FileResult
        In the order of the tables.
    skipped : sequence of (file, reason)
        Files that could not be read.
    root : Path
        Folder of the recordings.
    out : Path
        Where to.
    labels : sequence of str
        Classes.
    pattern : NamePattern
        How recorder and start are read from names.

    Returns
    -------
    list of dict
        The rows of `calls_per_hour`.
    """
    listed = [replace(event, file=result.file) for result in results for event in result.events]
    write_annotations(out / "detections.csv", listed, "csv")
    seconds = {str(root / result.file): result.seconds for result in results}
    combined = in_sequence((replace(event, file=str(root / (event.file or ""))) for event in listed), seconds)
    write_annotations(out / "detections.selections.txt", combined, "raven")

    names = {result.file: pattern.read(result.file) for result in results}
    rows = [
        {
            "file": result.file,
            "recorder": names[result.file].recorder,
            "start": _iso(names[result.file].start),
            "seconds": round(result.seconds, 3),
            "sample_rate": result.sample_rate,
            "channels": result.channels,
            **{f"calls {label}": sum(event.label == label for event in result.events) for label in labels},
            "problems": "; ".join(result.problems),
        }
        for result in results
    ]
    columns = ["file", "recorder", "start", "seconds", "sample_rate", "channels"]
    _write_csv(out / "files.csv", [*columns, *(f"calls {label}" for label in labels), "problems"], rows)
    _write_csv(out / "skipped.csv", ["file", "reason"], [{"file": file, "reason": why} for file, why in skipped])
    heard = [
        Heard(names[result.file].recorder, names[result.file].start, result.seconds, result.events)
        for result in results
    ]
    activity = calls_per_hour(heard, labels)
    shown = [
        {**row, **{name: round(row[name], 3) for name in ("recorded_seconds", "calls_per_hour")}} for row in activity
    ]
    columns = ["recorder", "date", "hour", "label", "calls", "recorded_seconds", "calls_per_hour"]
    _write_csv(out / "calls_per_hour.csv", columns, shown)
    return activity


def _iso(start: Any) -> str:
    return "" if start is None else start.isoformat(sep=" ")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
