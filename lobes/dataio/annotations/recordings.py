"""Annotations and their recordings: which belong together, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from lobes.dataio.annotations.annotation import Annotation, Problem


def check_annotations(
    annotations: Iterable[Annotation], audio: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]
) -> tuple[list[Annotation], list[Problem]]:
    """Keep the annotations that are possible, and name the others.

    Parameters
    ----------
    annotations : iterable of Annotation
        Of one recording or of several.
    audio : path or mapping
        The recording that all of them are of; a folder, below which the recordings named by `file` are looked for; or
        a mapping from `file` to the recording.

    Returns
    -------
    kept : list of Annotation
        With `file` set to the path of the recording.
    problems : list of Problem
        What was left out, or cut at the end of the file, and why.
    """
    raise NotImplementedError


def load_annotations(
    source: str | os.PathLike[str],
    audio_folder: str | os.PathLike[str],
    format: str | None = None,
    *,
    label_column: str | None = None,
) -> tuple[list[Annotation], list[Problem]]:
    """Read one annotation file, or all below a folder, find their recordings and check them.

    A table without a column of files belongs to the recording of its own name: `a.Table.1.selections.txt` and `a.svl`
    to `a.wav`, `g_a.data` to `a.wav`.

    Returns
    -------
    annotations : list of Annotation
        With `file` set to the path of the recording.
    problems : list of Problem
        Files that cannot be read, tables whose recording is missing, and whatever `check_annotations` names.
    """
    raise NotImplementedError


def recording_stem(path: str | os.PathLike[str]) -> str:
    """Name, without suffix, of the recording that an annotation file belongs to by its own name.

    Examples
    --------
    >>> recording_stem("tables/S11_20180311_080003.Table.1.selections.txt")
    'S11_20180311_080003'
    """
    raise NotImplementedError


def raven_name(recording: str | os.PathLike[str]) -> str:
    """Name of the selection table that Raven would give a recording.

    Examples
    --------
    >>> raven_name("recordings/S11_20180311_080003.wav")
    'S11_20180311_080003.Table.1.selections.txt'
    """
    raise NotImplementedError
