"""Your own recordings with your own annotations: Raven tables, Audacity labels, Sonic Visualiser layers or CSV."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lobes.dataio.annotations import Annotation, load_tables
from lobes.dataio.annotations.recordings import SUFFIXES
from lobes.dataio.audio import AudioError, audio_info
from lobes.dataio.corpora.audio_folder import group_of, group_rule
from lobes.dataio.corpora.common import Corpus, one_of, prepare_clips
from lobes.dataio.folders import data_root
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import ConfigError, DataError

_UNANNOTATED = (
    "is named by no annotation table; annotate it (an empty table: nothing calls), or pass unannotated=silence"
)


def prepare_annotated_folder(
    data_folder: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    *,
    annotations: str | os.PathLike[str] | None = None,
    format: str | None = None,
    label_column: str | None = None,
    label: str = "call_type",
    rename: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    group: str = "file",
    silence: str | None = None,
    unannotated: str = "skip",
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    source: str = "local recordings",
    licence: str = "unknown",
    decode: bool = False,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: a row for each annotation, a part of its recording, with the band in `low_hz` and `high_hz`.

    What to make of recordings without annotations is asked by whoever counts false alarms there, such as a detector:
    an empty table says that somebody has listened and that nothing calls, no table at all says nothing.

    Parameters
    ----------
    data_folder : path
        The recordings, at any depth.
    save_folder : path
        Where the manifest goes.
    annotations : path, optional
        A file, or a folder of them; by default they lie among the recordings.
    format, label_column : str, optional
        As `lobes.dataio.annotations.read_annotations` takes.
    label : str
        Name of the label in the manifest.
    rename : mapping, optional
        Label as annotated -> label, such as `{"helmetd": "helmeted"}`; others stay.
    classes : sequence of str, optional
        Only these labels; by default all but the empty one.
    group : str
        `"file"`, each recording for itself; `"parent"`, the folder it is in; or a regular expression, as
        `prepare_audio_folder` takes: what must not be on both sides of a split, such as the recorder.
    silence : str, optional
        Label of a row for each recording that was annotated and has none of the labels: one second, so that it weighs
        little where splits are shares of what is annotated. By default such recordings have no row.
    unannotated : str
        Recordings of which no table says anything: `"skip"`, and name them among the skipped, or `"silence"`: nothing
        calls there, they have a row as well. One whose table cannot be read, or is impossible, is never silent.
    min_seconds, max_seconds : float
        Annotations outside are left out.
    source, licence : str
        For the sidecar and everything that is made from the data.
    decode : bool
        Decode every recording to check it; False reads headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`. What is wrong with annotations, as `check_annotations` names it, is among the skipped.

    Raises
    ------
    DataError
        A folder is missing, or no annotation can be used.
    ConfigError
        There is no such format or column, `group` is not a regular expression, or `unannotated` is another word or
        needs `silence`.
    """
    one_of("unannotated", unannotated, ("skip", "silence"))
    if unannotated == "silence" and not silence:
        raise ConfigError("unannotated is 'silence' and silence is None: expected a label for it, such as background")
    rule = group_rule(group)
    root = data_root("annotated_folder", data_folder)
    tables = Path(annotations) if annotations else root
    found, problems, annotated, doubtful = load_tables(tables, root, format, label_column=label_column)
    clips = _clips(found, root, label, dict(rename or {}), classes, rule)
    if not clips:
        first = f"; the first problem: {problems[0]}" if problems else ""
        seen = ", ".join(sorted({repr(annotation.label) for annotation in found})[:10]) or "none"
        raise DataError(f"{tables}: none of {len(found)} annotations can be used; labels are {seen}{first}")
    calling = {clip.path for clip in clips}
    recordings = {path: str(root / path) for path in find_audio(root)}
    unheard = [path for path, file in recordings.items() if file not in annotated | doubtful]
    silent = [path for path, file in recordings.items() if file in annotated - doubtful and path not in calling]
    silent += unheard if unannotated == "silence" else []
    if silence:
        seconds = min(max(min_seconds, 1.0), max_seconds)
        clips += [_silent(path, root, seconds, label, silence, rule) for path in sorted(silent)]
    left_out = [(problem.file, str(problem).removeprefix(f"{problem.file}, ")) for problem in problems]
    left_out += [(path, _UNANNOTATED) for path in unheard if unannotated == "skip"]
    files = [str(tables / name) for name in find_audio(tables, suffixes=SUFFIXES)] if tables.is_dir() else [str(tables)]
    return prepare_clips(
        Corpus("annotated_folder", source, licence),
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={
            "annotations": str(tables),
            "label": label,
            "label_column": label_column,
            "rename": dict(rename or {}),
            "classes": None if classes is None else list(classes),
            "group": group,
            "silence": silence,
            "unannotated": unannotated,
            "source": source,
            "licence": licence,
        },
        other_files=files,
        skipped=left_out,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        decode=decode,
        n_jobs=n_jobs,
    )


def _silent(path: str, root: Path, seconds: float, label: str, silence: str, rule: str | re.Pattern[str]) -> Clip:
    """The beginning of a recording in which nothing calls; a file that cannot be read is named when it is checked."""
    with suppress(AudioError):
        seconds = min(seconds, audio_info(root / path).duration)
    labels = {label: silence, "low_hz": "", "high_hz": "", "recording": path}
    return Clip(path, f"{path}:0", group_of(path, "", rule), labels, 0.0, seconds)


def _clips(
    annotations: Sequence[Annotation],
    root: Path,
    label: str,
    rename: Mapping[str, str],
    classes: Sequence[str] | None,
    rule: str | re.Pattern[str],
) -> list[Clip]:
    """Make a clip of each annotation whose label is wanted, numbered within its recording."""
    clips = []
    count: Counter[str] = Counter()
    for annotation in annotations:
        name = rename.get(annotation.label, annotation.label)
        if name not in classes if classes is not None else not name:
            continue
        path = Path(annotation.file or "").relative_to(root).as_posix()
        band = {"low_hz": annotation.low_hz, "high_hz": annotation.high_hz}
        labels = {label: name, **{key: "" if hertz is None else f"{hertz:g}" for key, hertz in band.items()}}
        labels["recording"] = path
        where = (annotation.start, annotation.end, annotation.channel)
        clips.append(Clip(path, f"{path}:{count[path]}", group_of(path, "", rule), labels, *where))
        count[path] += 1
    return clips
