"""Reading and writing annotations, whichever program they are from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable
from lobes.dataio.annotations.labels import is_audacity, read_audacity, write_audacity
from lobes.dataio.annotations.raven import is_raven, read_raven, write_raven
from lobes.dataio.annotations.sonic_visualiser import is_svl, read_svl, write_svl
from lobes.dataio.annotations.tables import is_table, read_csv, write_csv, write_hainan
from lobes.dataio.annotations.text import read_lines
from lobes.dataio.manifest import atomic_write
from lobes.errors import ConfigError, DataError

FORMATS = ("raven", "audacity", "svl", "hainan", "csv")


def read_annotations(
    path: str | os.PathLike[str], format: str | None = None, *, label_column: str | None = None
) -> AnnotationTable:
    """Read the annotations of one file.

    Parameters
    ----------
    path : path
        The file: a selection table of Raven's, a label file of Audacity's, a layer of Sonic Visualiser's, a
        `g_<recording>.data` of the Hainan gibbon corpus, or comma-separated values with at least a start and an end.
    format : str, optional
        `raven`, `audacity`, `svl`, `hainan` or `csv`; by default what the file's name and first line say.
    label_column : str, optional
        Column that holds the labels; by default the first of the usual names (`Call type`, `Annotation`, `Species`,
        `label`…), or none, and then all labels are empty.

    Returns
    -------
    AnnotationTable
        A list of `Annotation`, in the file's order; what Raven writes as two rows, one per view, is one.

    Raises
    ------
    DataError
        The file is missing, of no such format, or a line of it is damaged: the message names file, line, field and
        value. What is well written but impossible is left to `check_annotations`.
    ConfigError
        There is no such format or label column.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "dawn.txt"
    >>> _ = path.write_text("1.5\\t4.25\\tduet\\n\\\\\\t450\\t1600\\n")
    >>> read_annotations(path)
    [Annotation(start=1.5, end=4.25, label='duet', low_hz=450.0, high_hz=1600.0, ...)]
    """
    path = Path(path)
    check_format(format)
    kind = format or _format_of(path)
    if kind == "raven":
        return read_raven(path, label_column)
    if kind == "audacity":
        return read_audacity(path)
    if kind == "svl":
        return read_svl(path)
    table = read_csv(path, "Type" if kind == "hainan" and label_column is None else label_column)
    table.format = kind
    return table


def write_annotations(
    path: str | os.PathLike[str],
    annotations: Sequence[Annotation],
    format: str | None = None,
    *,
    label_column: str | None = None,
    sample_rate: int | None = None,
) -> Path:
    """Write annotations to one file, all at once or not at all.

    An `AnnotationTable` is written to the format that it was read from with the same columns in the same order.

    Parameters
    ----------
    path : path
        The file; its folder is made. `raven_name` says what Raven would call it.
    annotations : sequence of Annotation
        May be empty: a table then has a header only.
    format : str, optional
        `raven` (a name in `.selections.txt`), `audacity` (other `.txt`), `svl` (`.svl`), `hainan` (`.data`) or `csv`
        (`.csv`); by default what the name says. Audacity's has no scores, files, channels or extra columns, and the
        Hainan corpus' no bands either: these are left out.
    label_column : str, optional
        Name of the column of labels; by default as it was read, or else `Call type` (Raven), `label` (CSV).
    sample_rate : int, optional
        Hz of the recording, which only `svl` needs.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        There is no such format, the name says none, or `svl` without a sample rate.
    """
    path = Path(path)
    check_format(format)
    kind = format or _format_of_name(path)
    columns: tuple[str, ...] = ()
    if isinstance(annotations, AnnotationTable) and annotations.format == kind:
        before = annotations.label_column or ""
        label_column = label_column or annotations.label_column
        columns = tuple(label_column if label_column and name == before else name for name in annotations.columns)
    if kind == "raven":
        text = write_raven(annotations, columns, label_column)
    elif kind == "audacity":
        text = write_audacity(annotations)
    elif kind == "svl":
        text = write_svl(annotations, sample_rate)
    elif kind == "hainan":
        text = write_hainan(annotations)
    else:
        text = write_csv(annotations, columns, label_column)
    atomic_write(path, text)
    return path


def check_format(format: str | None) -> None:
    """Refuse a format that there is not; None is one that is still to be found out."""
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format is '{format}': expected one of {', '.join(FORMATS)}, or null")


def _format_of(path: Path) -> str:
    """Return what a file's content is, or else what its name says."""
    first = next((line for line in read_lines(path) if line.strip()), "")
    if is_svl(first):
        return "svl"
    if is_raven(first):
        return "raven"
    if is_audacity(first):
        return "audacity"
    if is_table(first):
        return "hainan" if path.suffix == ".data" else "csv"
    if not first:
        raise DataError(f"{path} is empty: pass format=audacity if it is a label file without labels, else delete it")
    raise DataError(
        f"{path}: its first line, '{first[:60]}', is of no format that is known: expected one of {', '.join(FORMATS)}"
    )


def _format_of_name(path: Path) -> str:
    if path.name.endswith(".selections.txt"):
        return "raven"
    by_suffix = {".txt": "audacity", ".svl": "svl", ".data": "hainan", ".csv": "csv"}
    if path.suffix.lower() not in by_suffix:
        raise ConfigError(f"{path} does not say in which format to write: pass format, one of {', '.join(FORMATS)}")
    return by_suffix[path.suffix.lower()]
