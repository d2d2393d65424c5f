"""Annotations of recordings, read and written: Raven tables, Audacity labels, Sonic Visualiser layers, CSV."""

from __future__ import annotations

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable, Problem
from lobes.dataio.annotations.files import read_annotations, write_annotations
from lobes.dataio.annotations.raven import in_sequence
from lobes.dataio.annotations.recordings import (
    check_annotations,
    load_annotations,
    load_tables,
    raven_name,
    recording_stem,
)

__all__ = [
    "Annotation",
    "AnnotationTable",
    "Problem",
    "check_annotations",
    "in_sequence",
    "load_annotations",
    "load_tables",
    "raven_name",
    "read_annotations",
    "recording_stem",
    "write_annotations",
]
