"""What the formats share: reading text of unknown encoding, numbers, column names, and errors that name the line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from lobes.errors import ConfigError, DataError

#: Columns that usually hold the label, as `plain_name` writes them, the surest first.
LABEL_COLUMNS = (
    "calltype",
    "annotation",
    "annotations",
    "species",
    "label",
    "labels",
    "class",
    "type",
    "call",
    "commonname",
    "speciescode",
    "sound",
    "soundtype",
    "tag",
    "tags",
    "individual",
    "name",
    "notes",
    "note",
    "comment",
    "comments",
)


def read_lines(path: Path) -> list[str]:
    """Read a text file: UTF-8, with or without a byte order mark, UTF-16 with one, or else Windows' Western encoding.

    Raises
    ------
    DataError
        It is missing, or no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in data:
        raise DataError(
            f"{path} is no text file: expected annotations as Raven, Audacity or Sonic Visualiser write them"
        )
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    lines = re.split("\r\n|\r|\n", text)  # splitlines() would also split at characters that a label may hold
    return lines if lines[-1] else lines[:-1]


def plain_name(column: str) -> str:
    """Reduce a column's name to its letters and digits: `Call.type` and `Call type` become `calltype`."""
    return re.sub(r"[^a-z0-9%]", "", column.lower())


def number(text: str, where: str, field: str) -> float:
    """Read a finite number; `where` is the file and line, for messages.

    Raises
    ------
    DataError
        It is none; the message names file, line, field and value.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = " with a decimal point, not a comma" if "," in text else ""
        raise DataError(f"{where}: {field} is '{text}': expected a number{hint}; correct or delete it")
    return value


def optional_number(text: str, where: str, field: str) -> float | None:
    """Read a number, or None where the field is empty or `NA`."""
    return None if text.strip() in ("", "NA", "NaN", "nan") else number(text, where, field)


def short(value: float) -> str:
    """Write a number with up to six decimals: microseconds, which is less than a sample."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def find_label_column(columns: Sequence[str], wanted: str | None, path: Path) -> str | None:
    """Return the column of labels: the one asked for, or the first of the usual names, or None.

    Raises
    ------
    ConfigError
        There is no column of the name asked for.
    """
    if wanted is None:
        by_name = {plain_name(column): column for column in reversed(columns)}
        return next((by_name[name] for name in LABEL_COLUMNS if name in by_name), None)
    if wanted in columns:
        return wanted
    alike = [column for column in columns if plain_name(column) == plain_name(wanted)]
    if not alike:
        raise ConfigError(
            f"label_column is '{wanted}', which {path} does not have: expected one of {', '.join(columns)}"
        )
    return alike[0]


def unique_columns(columns: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the names of a header, refusing two of one name."""
    names = [column.strip() for column in columns]
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DataError(f"{path}, line 1: the column '{min(twice)}' occurs twice: rename one of them")
    return tuple(names)


def one_line(text: str) -> str:
    """Replace what would end a field or a line of a table by spaces."""
    return re.sub(r"[\t\r\n]+", " ", text)
