"""Annotations and their recordings: which belong together, and what is wrong with them."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from lobes.dataio.annotations.annotation import Annotation, Problem
from lobes.dataio.annotations.files import check_format, read_annotations
from lobes.dataio.annotations.text import read_lines
from lobes.dataio.audio import AudioError, AudioInfo, audio_info
from lobes.dataio.scan import AUDIO_SUFFIXES, find_audio
from lobes.errors import DataError, LobesError

#: What `load_annotations` reads in a folder.
SUFFIXES = (".txt", ".tsv", ".csv", ".svl", ".data")
#: What programs add to the name of a recording, or of its stem.
_ADDED = re.compile(r"(\.Table\.\d+)?\.selections?$|\.BirdNET\.(selection\.table|results)$", re.IGNORECASE)
#: Seconds that an annotation may exceed its file by without being named: programs round.
_SLACK_SECONDS = 0.01


def check_annotations(
    annotations: Iterable[Annotation], audio: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]
) -> tuple[list[Annotation], list[Problem]]:
    """Keep the annotations that are possible, and name the others; nothing of it is fatal.

    Parameters
    ----------
    annotations : iterable of Annotation
        Of one recording or of several.
    audio : path or mapping
        The recording that all of them are of; a folder, below which the recordings named by `file` are looked for (by
        name, whatever the suffix, and by as much of the path as it takes to tell them apart); or a mapping from `file`
        to the recording.

    Returns
    -------
    kept : list of Annotation
        In their order, with `file` set to the path of the recording.
    problems : list of Problem
        What was left out, and why: a recording that is missing or cannot be read (one problem for all annotations of
        it), no or a negative duration, a beginning after the file's end, an empty band; and what was kept, but cut at
        the file's end or without the channel that the file does not have.
    """
    return _checked(annotations, _finder(audio))


def _checked(
    annotations: Iterable[Annotation], find: _Folder | _Named | _Single
) -> tuple[list[Annotation], list[Problem]]:
    info_of: dict[Path, AudioInfo | str] = {}
    kept: list[Annotation] = []
    problems: list[Problem] = []
    lost: dict[tuple[str, str], int] = defaultdict(int)
    for annotation in annotations:
        found = find(annotation.file or "")
        if isinstance(found, Path) and found not in info_of:
            info_of[found] = _info(found)
        info = info_of[found] if isinstance(found, Path) else found
        if isinstance(info, str):
            lost[str(found) if isinstance(found, Path) else annotation.file or "?", info] += 1
            continue
        annotation = replace(annotation, file=str(found))
        reason = _impossible(annotation, info)
        if reason:
            problems.append(Problem(str(found), annotation, reason))
            continue
        mended, reasons = _mended(annotation, info)
        kept.append(mended)
        problems += [Problem(str(found), annotation, reason, kept=True) for reason in reasons]
    problems += [Problem(file, None, f"{reason}; {count} annotations") for (file, reason), count in lost.items()]
    return kept, problems


class Loaded(NamedTuple):
    """What annotation files say of recordings, which are named by their paths."""

    annotations: list[Annotation]
    problems: list[Problem]
    annotated: frozenset[str]
    """Recordings of which a table says something, if only, by being empty, that nothing is there."""
    doubtful: frozenset[str]
    """Recordings of which a table cannot be read, or says what is impossible."""


def load_annotations(
    source: str | os.PathLike[str],
    audio_folder: str | os.PathLike[str],
    format: str | None = None,
    *,
    label_column: str | None = None,
) -> tuple[list[Annotation], list[Problem]]:
    """Read one annotation file, or all below a folder, find their recordings and check them.

    A table without a column of files belongs to the recording of its own name: `a.Table.1.selections.txt`, `a.svl` and
    `g_a.data` to `a.wav`. The `n_*.data` of the Hainan corpus name what is no call, and are left alone.

    Parameters
    ----------
    source : path
        A file, or a folder with files of the suffixes .txt, .tsv, .csv, .svl or .data at any depth.
    audio_folder : path
        Where the recordings are, at any depth.
    format, label_column : str, optional
        As `read_annotations` takes.

    Returns
    -------
    annotations : list of Annotation
        With `file` set to the path of the recording.
    problems : list of Problem
        Files that cannot be read as annotations or have no such column, and whatever `check_annotations` names.

    Raises
    ------
    DataError
        `source` or `audio_folder` does not exist.
    ConfigError
        There is no such format.
    """
    return load_tables(source, audio_folder, format, label_column=label_column)[:2]


def load_tables(
    source: str | os.PathLike[str],
    audio_folder: str | os.PathLike[str],
    format: str | None = None,
    *,
    label_column: str | None = None,
) -> Loaded:
    """As `load_annotations`, and tell recordings in which nothing is annotated from those that nobody annotated.

    A file without a line, as Audacity writes it where there are no labels, is an empty table if it has the name of a
    recording.
    """
    check_format(format)
    source, folder = Path(source), Path(audio_folder)
    for name, path in (("source", source), ("audio_folder", folder)):
        if not path.exists():
            raise DataError(f"{name} is {path}, which does not exist: expected annotations and their recordings")
    tables = [source / name for name in find_audio(source, suffixes=SUFFIXES)] if source.is_dir() else [source]
    find = _finder(folder)
    annotations: list[Annotation] = []
    problems: list[Problem] = []
    annotated: set[str] = set()
    doubtful: set[str] = set()
    for table in tables:
        if table.name.startswith("n_") and table.suffix == ".data":
            continue
        below = table.parent.relative_to(source) if source.is_dir() else Path()
        own = (PurePosixPath(below.as_posix()) / recording_stem(table)).as_posix()
        recording = find(own)
        try:
            empty = isinstance(recording, Path) and not any(line.strip() for line in read_lines(table))
            read = [] if empty else read_annotations(table, format, label_column=label_column)
        except LobesError as error:
            problems.append(Problem(str(table), None, str(error)))
            doubtful |= {str(recording)} if isinstance(recording, Path) else set()
            continue
        if isinstance(recording, Path) and not (read and all(annotation.file for annotation in read)):
            annotated.add(str(recording))
        elif not read:
            problems.append(Problem(str(table), None, f"holds no annotation, and of its own name {recording}"))
        annotations += [a if a.file else replace(a, file=own) for a in read]
    kept, more = _checked(annotations, find)
    annotated |= {str(annotation.file) for annotation in kept}
    doubtful |= {problem.file for problem in more if not problem.kept}
    return Loaded(kept, problems + more, frozenset(annotated), frozenset(doubtful))


def recording_stem(path: str | os.PathLike[str]) -> str:
    """Name, without suffix, of the recording that an annotation file belongs to by its own name.

    Examples
    --------
    >>> recording_stem("tables/S11_20180311_080003.Table.1.selections.txt")
    'S11_20180311_080003'
    >>> recording_stem("Train_Labels/g_HGSM3D_0+1_20160429_051600.data")
    'HGSM3D_0+1_20160429_051600'
    """
    path = Path(path)
    stem = _ADDED.sub("", path.stem)
    if path.suffix == ".data":
        stem = re.sub(r"^[gn]_", "", stem)
    return _stem(stem)


def raven_name(recording: str | os.PathLike[str]) -> str:
    """Name of the selection table that Raven would give a recording.

    Examples
    --------
    >>> raven_name("recordings/S11_20180311_080003.wav")
    'S11_20180311_080003.Table.1.selections.txt'
    """
    return f"{_stem(PureWindowsPath(recording).name)}.Table.1.selections.txt"


def _stem(name: str) -> str:
    """Take away the suffix of audio, and no other: names may hold dots."""
    suffix = next((suffix for suffix in AUDIO_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


class _Folder:
    """Finds recordings below a folder by as much of their path as is known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for name in find_audio(folder):
            parts = tuple(name.split("/"))
            self.by_stem[_stem(parts[-1])].append(parts)

    def __call__(self, file: str) -> Path | str:
        """Return the recording, or why there is none."""
        wanted = PureWindowsPath(file).parts  # which splits at / too
        candidates = self.by_stem.get(_stem(wanted[-1])) if wanted else None
        if not candidates:
            return f"there is no such recording in {self.folder}"
        alike = {parts: _common_end(parts, wanted) for parts in candidates}
        best = [parts for parts in candidates if alike[parts] == max(alike.values())]
        if len(best) > 1:
            listed = ", ".join("/".join(parts) for parts in best[:3])
            return f"there are {len(best)} such recordings in {self.folder} ({listed}): name the folder too"
        return self.folder.joinpath(*best[0])


def _common_end(parts: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, bool]:
    """How many folders the two paths share from the end on, and whether the files have one suffix too."""
    shared = 0
    for one, other in zip(parts[-2::-1], wanted[-2::-1], strict=False):
        if one != other:
            break
        shared += 1
    return shared, parts[-1] == wanted[-1]


def _finder(audio: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]) -> _Folder | _Named | _Single:
    if isinstance(audio, Mapping):
        return _Named({name: Path(path) for name, path in audio.items()})
    return _Folder(Path(audio)) if Path(audio).is_dir() else _Single(Path(audio))


class _Named(dict[str, Path]):
    def __call__(self, file: str) -> Path | str:
        return self.get(file, "there is no such recording")


class _Single:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, file: str) -> Path | str:
        same = not file or _stem(PureWindowsPath(file).name) == _stem(self.path.name)
        return self.path if same else f"is another recording than {self.path}"


def _info(path: Path) -> AudioInfo | str:
    try:
        return audio_info(path)
    except AudioError as error:
        return error.reason


def _impossible(annotation: Annotation, info: AudioInfo) -> str:
    """Say what is impossible about an annotation; nothing if it can be kept."""
    start, end = annotation.start, annotation.end
    if not (math.isfinite(start) and math.isfinite(end)):
        return "its times are not finite"
    if end <= start:
        return "has a negative duration" if end < start else "has no duration"
    if end <= 0:
        return "ends before the file begins"
    if start >= info.duration:
        return f"begins after the end of the file, which holds {info.duration:.3f} s"
    if annotation.low_hz is not None and annotation.high_hz is not None and annotation.low_hz >= annotation.high_hz:
        return f"its band of {annotation.low_hz:g}-{annotation.high_hz:g} Hz is empty"
    return ""


def _mended(annotation: Annotation, info: AudioInfo) -> tuple[Annotation, list[str]]:
    """Fit an annotation into its file, and say what was changed where it is more than rounding."""
    reasons = []
    excess = annotation.end - info.duration
    if excess > _SLACK_SECONDS:
        reasons.append(f"ends {excess:.3f} s after the file, which holds {info.duration:.3f} s: cut there")
    if annotation.start < -_SLACK_SECONDS:
        reasons.append("begins before the file: cut there")
    channel = annotation.channel
    if channel is not None and not 0 <= channel < info.channels:
        reasons.append(f"its channel is {channel}, counted from 0, and the file has {info.channels}: all are taken")
        channel = None
    start, end = max(annotation.start, 0.0), min(annotation.end, info.duration)
    return replace(annotation, start=start, end=end, channel=channel), reasons
