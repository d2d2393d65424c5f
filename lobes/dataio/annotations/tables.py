"""Annotations as comma-separated values: our own, those of other programs, and those of the Hainan gibbon corpus.

Columns are known by the usual names, in any case and punctuation, in seconds or milliseconds; those that are not known
are kept in `extra`. The Hainan corpus (Dufourq et al., "Automated detection of Hainan gibbon calls for passive acoustic
monitoring", Remote Sensing in Ecology and Conservation 7(3), 2021) has `Start,End,Duration,Type,Notes`, whole seconds,
in a file `g_<recording>.data`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable
from lobes.dataio.annotations.text import (
    find_label_column,
    number,
    optional_number,
    plain_name,
    read_lines,
    short,
    unique_columns,
)
from lobes.errors import DataError

#: What is written where nothing else is known.
COLUMNS = ("start", "end", "label", "low_hz", "high_hz", "score", "channel", "file")
HAINAN_COLUMNS = ("Start", "End", "Duration", "Type", "Notes")
#: Field -> names of columns that hold it, as `plain_name` writes them.
_NAMES = {
    "start": ("start", "starts", "starttime", "starttimes", "begin", "begintime", "begintimes", "onset", "onsets"),
    "end": ("end", "ends", "endtime", "endtimes", "stop", "stoptime", "offset", "offsets"),
    "low_hz": ("lowhz", "lowfreqhz", "lowfreq", "lowf", "fmin", "minfreq"),
    "high_hz": ("highhz", "highfreqhz", "highfreq", "highf", "fmax", "maxfreq"),
    "score": ("score", "confidence", "probability"),
    "channel": ("channel",),
    "file": ("file", "filename", "filepath", "path", "audio", "audiofile", "recording", "wav", "beginfile"),
}
_MILLISECONDS = {
    "start": ("starttimemsec", "begintimemsec", "startms", "beginms", "startmsec", "onsetms"),
    "end": ("endtimemsec", "endms", "endmsec", "stopms", "offsetms"),
}


def is_table(first_line: str) -> bool:
    """Whether a file's first line is the header of comma-separated annotations."""
    has, _ = _find(next(csv.reader([first_line], delimiter=_delimiter(first_line)), []))
    return "start" in has and "end" in has


def read_csv(path: Path, label_column: str | None = None) -> AnnotationTable:
    """Read comma-separated annotations; `read_annotations` says more."""
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path} is empty: expected at least a header such as {','.join(COLUMNS)}")
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=_delimiter(lines[0]))
    try:
        header, *rows = [(reader.line_num, fields) for fields in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; close the quotation marks") from error
    columns = unique_columns(header[1], path)
    has, per_second = _find(columns)
    missing = [field for field in ("start", "end") if field not in has]
    if missing:
        raise DataError(f"{path}, line 1: no column '{missing[0]}' among {', '.join(columns)}: name it '{missing[0]}'")
    label = find_label_column(columns, label_column, path)
    annotations = []
    for line, fields in rows:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) > len(columns):
            raise DataError(
                f"{path}, line {line}: {len(fields)} fields, the header has {len(columns)}: "
                "put a field that holds a comma in quotation marks"
            )
        row = dict(zip(columns, [*fields, *[""] * (len(columns) - len(fields))], strict=True))
        annotations.append(_annotation(row, has, per_second, label, f"{path}, line {line}"))
    return AnnotationTable(annotations, "csv", columns, label)


def write_csv(
    annotations: Sequence[Annotation], columns: Sequence[str], label: str | None, *, always: Sequence[str] = COLUMNS
) -> str:
    """Return the text of comma-separated annotations; `write_annotations` says more."""
    columns = list(columns or always)
    label = label or find_label_column(columns, None, Path()) or "label"
    if label not in columns:
        columns = [label if name == "label" else name for name in columns]
    extra = dict.fromkeys(name for annotation in annotations for name in annotation.extra)
    columns += [name for name in (label, *extra) if name not in columns]
    has, per_second = _find([column for column in columns if column != label])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for annotation in annotations:
        fields: dict[str, object] = {**annotation.extra, label: annotation.label}
        for field, column in has.items():
            value = getattr(annotation, field)
            if value is None:
                fields[column] = ""
            elif field in ("start", "end"):
                fields[column] = short(value * per_second[field])
            else:
                fields[column] = value if field in ("file", "channel") else short(value)
        writer.writerow([fields.get(column, "") for column in columns])
    return text.getvalue()


def write_hainan(annotations: Sequence[Annotation]) -> str:
    """Return the text of a `g_<recording>.data`; `write_annotations` says more."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HAINAN_COLUMNS)
    for annotation in annotations:
        times = [short(value) for value in (annotation.start, annotation.end, annotation.duration)]
        writer.writerow([*times, annotation.label, annotation.extra.get("Notes", "")])
    return text.getvalue()


def _find(columns: Sequence[str]) -> tuple[dict[str, str], dict[str, int]]:
    """Field -> the column that holds it, and how many of its unit make a second."""
    by_name = {plain_name(column): column for column in reversed(columns)}
    has: dict[str, str] = {}
    per_second: dict[str, int] = {}
    for names, unit in ((_NAMES, 1), (_MILLISECONDS, 1000)):
        for field, candidates in names.items():
            column = next((by_name[name] for name in candidates if name in by_name), None)
            if column is not None and field not in has:
                has[field], per_second[field] = column, unit
    return has, per_second


def _annotation(
    row: dict[str, str], has: dict[str, str], per_second: dict[str, int], label: str | None, where: str
) -> Annotation:
    times = {field: number(row[has[field]], where, has[field]) / per_second[field] for field in ("start", "end")}
    given = {
        field: optional_number(row[has[field]], where, has[field]) if field in has else None
        for field in ("low_hz", "high_hz", "score", "channel")
    }
    taken = {*has.values(), label}
    return Annotation(
        start=times["start"],
        end=times["end"],
        label=row[label].strip() if label else "",
        low_hz=given["low_hz"],
        high_hz=given["high_hz"],
        score=given["score"],
        channel=None if given["channel"] is None else int(given["channel"]),
        file=(row[has["file"]].strip() or None) if "file" in has else None,
        extra={name: text for name, text in row.items() if name not in taken},
    )


def _delimiter(header: str) -> str:
    """Return the mark that stands most often in the header: spreadsheets of some countries write semicolons."""
    return max(",;\t", key=header.count)
