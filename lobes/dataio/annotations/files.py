"""Reading and writing annotations, whichever program they are from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable


def read_annotations(
    path: str | os.PathLike[str], format: str | None = None, *, label_column: str | None = None
) -> AnnotationTable:
    """Read the annotations of one file.

    Parameters
    ----------
    path : path
        The file.
    format : str, optional
        `raven`, `audacity`, `svl`, `hainan` or `csv`; by default what the file's name and first lines say.
    label_column : str, optional
        Column that holds the labels; by default the first of the usual names.

    Returns
    -------
    AnnotationTable
        A list of `Annotation`, in the file's order.
    """
    raise NotImplementedError


def write_annotations(
    path: str | os.PathLike[str],
    annotations: Sequence[Annotation],
    format: str | None = None,
    *,
    label_column: str | None = None,
    sample_rate: int | None = None,
) -> Path:
    """Write annotations to one file, all at once or not at all.

    Parameters
    ----------
    path : path
        The file; its folder is made.
    annotations : sequence of Annotation
        None is allowed: the table then has a header only.
    format : str, optional
        `raven` (a name in `.selections.txt`), `audacity` (other `.txt`), `svl` (`.svl`), `hainan` (`.data`) or `csv`
        (`.csv`); by default what the name says.
    label_column : str, optional
        Name of the column of labels; by default as it was read, or else `Call type` (Raven), `label` (CSV).
    sample_rate : int, optional
        Hz of the recording, which only `svl` needs.

    Returns
    -------
    Path
        The file.
    """
    raise NotImplementedError
