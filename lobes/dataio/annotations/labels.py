"""Audacity's label files: `start, end, label` separated by tabs, and perhaps a second line with the band.

A label that was made of a spectral selection has a second line of a backslash, the lower and the upper frequency in Hz,
-1 where one is undefined. A point label has equal start and end. There are no channels, scores or file names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lobes.dataio.annotations.annotation import Annotation, AnnotationTable
from lobes.dataio.annotations.text import number, one_line, read_lines
from lobes.errors import DataError

_FIRST_LINE = re.compile(r"\s*[-+\d.,eE]+\t[-+\d.,eE]+(\t|\s*$)")
_UNDEFINED = -1.0


def is_audacity(first_line: str) -> bool:
    """Whether a file's first line is a label of Audacity's."""
    return _FIRST_LINE.match(first_line) is not None


def read_audacity(path: Path) -> AnnotationTable:
    """Read a label file; `read_annotations` says more."""
    annotations: list[Annotation] = []
    for line, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        fields = text.split("\t", 2)
        if len(fields) < 2 or (fields[0] == "\\" and (len(fields) < 3 or not annotations)):
            raise DataError(
                f"{path}, line {line}: '{text[:40]}' is no label: expected start, end and text with tabs between, or "
                "below such a line a backslash and two frequencies; correct or delete the line"
            )
        if fields[0] == "\\":
            low, high = (number(field, f"{path}, line {line}", "frequency") for field in fields[1:])
            annotations[-1] = replace(
                annotations[-1],
                low_hz=None if low == _UNDEFINED else low,
                high_hz=None if high == _UNDEFINED else high,
            )
        else:
            start, end = (number(fields[i], f"{path}, line {line}", ("start", "end")[i]) for i in (0, 1))
            annotations.append(Annotation(start, end, fields[2] if len(fields) > 2 else ""))
    return AnnotationTable(annotations, "audacity")


def write_audacity(annotations: Sequence[Annotation]) -> str:
    """Return the text of a label file; `write_annotations` says more."""
    lines = []
    for annotation in annotations:
        lines.append(f"{annotation.start:.6f}\t{annotation.end:.6f}\t{one_line(annotation.label)}\n")
        if annotation.low_hz is not None or annotation.high_hz is not None:
            band = (_UNDEFINED if hertz is None else hertz for hertz in (annotation.low_hz, annotation.high_hz))
            lines.append("\\\t" + "\t".join(f"{hertz:.6f}" for hertz in band) + "\n")
    return "".join(lines)
