"""Raven's selection tables: tab-separated, one header line, one or two rows per selection.

Raven Pro writes a row for each view of a selection (waveform and spectrogram); the two are one annotation here, which
keeps the spectrogram's row. `Begin Time (s)` counts from the beginning of all sounds that were open together; where
there is a `File Offset (s)`, that is the position in the file and what `Annotation.start` holds, while the other stays
in `extra` so that the table can be written again as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path, PureWindowsPath

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable
from lobes.dataio.annotations.text import (
    find_label_column,
    number,
    one_line,
    optional_number,
    plain_name,
    read_lines,
    unique_columns,
)
from lobes.errors import DataError

logger = logging.getLogger(__name__)

BEGIN, END, OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
#: Field of an annotation -> the columns that may hold it, as `plain_name` writes them, the best first.
_COLUMNS = {
    "begin": ("begintimes", "starttimes"),
    "end": ("endtimes",),
    "offset": ("fileoffsets", "beginfileoffsets"),
    "low": ("lowfreqhz",),
    "high": ("highfreqhz",),
    "channel": ("channel",),
    "path": ("beginpath",),
    "file": ("beginfile", "file", "filename"),
    "score": ("score", "confidence", "probability"),
    "selection": ("selection",),
    "view": ("view",),
}
DEFAULT_VIEW = "Spectrogram 1"
LABEL = "Call type"


def is_raven(first_line: str) -> bool:
    """Whether a file's first line is the header of a selection table."""
    names = {plain_name(column) for column in first_line.split("\t")}
    return "\t" in first_line and not names.isdisjoint(_COLUMNS["begin"]) and "endtimes" in names


def read_raven(path: Path, label_column: str | None = None) -> AnnotationTable:
    """Read a selection table; `read_annotations` says more."""
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path} is empty: expected at least the header of a selection table")
    columns = unique_columns([_unquoted(column) for column in lines[0].split("\t")], path)
    has = _find(columns)
    missing = [name for name, key in ((BEGIN, "begin"), (END, "end")) if key not in has]
    if missing:
        raise DataError(f"{path} is no selection table: no column '{missing[0]}' among {', '.join(columns)}")
    label = find_label_column(columns, label_column, path)
    if label is None and len(columns) > len(has):
        logger.warning("%s: no column of labels among %s; pass its name as label_column", path, ", ".join(columns))
    merged: dict[tuple[str, ...], tuple[str, Annotation]] = {}
    for line, text in enumerate(lines[1:], start=2):
        if not text.strip():
            continue
        fields = [_unquoted(field) for field in text.split("\t")]
        if len(fields) > len(columns):
            raise DataError(
                f"{path}, line {line}: {len(fields)} fields, the header has {len(columns)}: "
                "expected one tab between two fields; correct or delete the line"
            )
        row = dict(zip(columns, [*fields, *[""] * (len(columns) - len(fields))], strict=True))
        annotation = _annotation(row, has, label, f"{path}, line {line}")
        # The same selection seen in another view is the same annotation; another one of that number is not.
        view = row[has["view"]] if "view" in has else ""
        times = [row[has[key]] for key in ("selection", "begin", "end", "path", "file") if key in has]
        key = tuple(times) if "selection" in has and view else (str(line),)
        if key in merged and merged[key][0] != view:
            annotation = _one_of_two_views(merged[key], (view, annotation))
        elif key in merged:
            key = (*key, str(line))
        merged[key] = (view, annotation)
    return AnnotationTable((annotation for _, annotation in merged.values()), "raven", columns, label)


def write_raven(annotations: Sequence[Annotation], columns: Sequence[str], label: str | None) -> str:
    """Return the text of a selection table; `write_annotations` says more."""
    columns = list(columns) or _default_columns(annotations, label or LABEL)
    label = label or find_label_column(columns, None, Path()) or LABEL
    columns += [name for name in _extra_names(annotations) if name not in columns]
    if label not in columns and any(annotation.label for annotation in annotations):
        columns.append(label)
    has = _find(columns)
    selections = [annotation.extra.get("Selection", "") for annotation in annotations]
    numbered = all(selections) and len(set(selections)) == len(selections)
    lines = ["\t".join(columns)]
    for order, annotation in enumerate(annotations, start=1):
        fields = {**annotation.extra, **_fields(annotation, has), label: annotation.label}
        if "selection" in has and not numbered:
            fields[has["selection"]] = str(order)
        lines.append("\t".join(one_line(fields.get(column, "")) for column in columns))
    return "\n".join(lines) + "\n"


def in_sequence(annotations: Iterable[Annotation], seconds: Mapping[str, float]) -> list[Annotation]:
    """Make one table of several recordings, as Raven counts when it opens them together, one after the other.

    Parameters
    ----------
    annotations : iterable of Annotation
        With their `file`.
    seconds : mapping
        `file` -> length of the recording, in the order in which they are to be opened.

    Returns
    -------
    list of Annotation
        In that order, with the position among all recordings as `Begin Time (s)` in `extra`.

    Raises
    ------
    DataError
        The length of a recording is not given.

    Examples
    --------
    >>> calls = [Annotation(3.0, 4.0, "duet", file="b.wav"), Annotation(5.0, 6.0, "solo", file="a.wav")]
    >>> [(call.file, call.extra) for call in in_sequence(calls, {"a.wav": 3600.0, "b.wav": 3600.0})]
    [('a.wav', {'Begin Time (s)': '5.000000000'}), ('b.wav', {'Begin Time (s)': '3603.000000000'})]
    """
    before = dict(zip(seconds, accumulate(seconds.values(), initial=0.0), strict=False))
    order = {file: number for number, file in enumerate(seconds)}
    annotations = list(annotations)
    missing = [annotation.file for annotation in annotations if annotation.file not in order]
    if missing:
        raise DataError(f"seconds does not name the recording '{missing[0]}': give the length of each, in order")
    ordered = []
    for annotation in sorted(annotations, key=lambda annotation: (order[annotation.file or ""], annotation.start)):
        extra = {name: text for name, text in annotation.extra.items() if name != "Selection"}  # which is to be unique
        extra[BEGIN] = f"{before[annotation.file or ''] + annotation.start:.9f}"
        ordered.append(replace(annotation, extra=extra))
    return ordered


def _find(columns: Sequence[str]) -> dict[str, str]:
    """Field -> the column that holds it."""
    by_name = {plain_name(column): column for column in reversed(columns)}
    found = {field: [by_name[name] for name in names if name in by_name] for field, names in _COLUMNS.items()}
    return {field: names[0] for field, names in found.items() if names}


def _annotation(row: dict[str, str], has: dict[str, str], label: str | None, where: str) -> Annotation:
    begin = number(row[has["begin"]], where, has["begin"])
    end = number(row[has["end"]], where, has["end"])
    given = {
        key: optional_number(row[has[key]], where, has[key]) if key in has else None
        for key in ("offset", "low", "high", "channel", "score")
    }
    file = next((row[has[key]] for key in ("path", "file") if key in has and row[has[key]]), None)
    start = begin if given["offset"] is None else given["offset"]
    taken = {has[key] for key in has if key not in ("selection", "view")} | {label}
    extra = {name: text for name, text in row.items() if name not in taken}
    if start != begin:  # in a sequence of sounds, which nothing but the table itself knows
        extra[has["begin"]] = row[has["begin"]]
    return Annotation(
        start=start,
        end=end if start == begin else start + (end - begin),
        label=row[label] if label else "",
        low_hz=given["low"],
        high_hz=given["high"],
        score=given["score"],
        channel=None if given["channel"] is None else int(given["channel"]) - 1,
        file=file,
        extra=extra,
    )


def _one_of_two_views(first: tuple[str, Annotation], second: tuple[str, Annotation]) -> Annotation:
    """Keep the spectrogram's row, and what only the other one says."""
    kept, other = sorted((first, second), key=lambda pair: not pair[0].startswith("Spectrogram"))
    return replace(
        kept[1],
        label=kept[1].label or other[1].label,
        extra={name: text or other[1].extra.get(name, "") for name, text in kept[1].extra.items()},
    )


def _fields(annotation: Annotation, has: dict[str, str]) -> dict[str, str]:
    """Return the text of the columns that a field of the annotation holds."""
    begin = float(annotation.extra.get(has["begin"], annotation.start))
    name = PureWindowsPath(annotation.file).name if annotation.file else ""  # which splits at / too
    values = {
        "begin": annotation.extra.get(has["begin"], f"{annotation.start:.9f}"),
        "end": f"{begin + annotation.duration if begin != annotation.start else annotation.end:.9f}",
        "offset": f"{annotation.start:.9f}",
        "low": "" if annotation.low_hz is None else f"{annotation.low_hz:.3f}",
        "high": "" if annotation.high_hz is None else f"{annotation.high_hz:.3f}",
        "score": "" if annotation.score is None else f"{annotation.score:.6g}",
        "channel": str(1 + (annotation.channel or 0)),
        "path": annotation.file or "",
        "file": name if "path" in has else annotation.file or "",
        "view": annotation.extra.get(has.get("view", ""), DEFAULT_VIEW),
    }
    return {has[key]: text for key, text in values.items() if key in has}


def _default_columns(annotations: Sequence[Annotation], label: str) -> list[str]:
    names = ["Selection", "View", "Channel", BEGIN, END]
    if any(a.low_hz is not None or a.high_hz is not None for a in annotations):
        names += ["Low Freq (Hz)", "High Freq (Hz)"]
    if any(a.file for a in annotations):
        names += ["Begin Path", OFFSET]
    if any(a.score is not None for a in annotations):
        names += ["Score"]
    return [*names, *(name for name in _extra_names(annotations) if name not in (*names, label)), label]


def _extra_names(annotations: Sequence[Annotation]) -> list[str]:
    return list(dict.fromkeys(name for annotation in annotations for name in annotation.extra))


def _unquoted(field: str) -> str:
    """Take away the quotation marks that R puts around text."""
    return field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field
