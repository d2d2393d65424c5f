"""What an annotation is: a time range of a recording with a label, and perhaps a band and a score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Annotation:
    """A labelled part of a recording; `dataclasses.replace` makes a changed copy.

    Nothing is checked here, since real tables hold what is impossible: `check_annotations` names it.

    Attributes
    ----------
    start, end : float
        Seconds from the beginning of the file.
    label : str
        What is heard, as the table says it; may be empty.
    low_hz, high_hz : float, optional
        The band.
    score : float, optional
        Of a detection: higher is surer.
    channel : int, optional
        From 0, as in manifests (Raven counts from 1); None where the format has none.
    file : str, optional
        The recording: as the table names it, or, from `load_annotations`, its path. None where the format has no
        such column: then the table's own name tells, see `recording_stem`.
    extra : dict
        The other columns, name -> text as it stands in the file.
    """

    start: float
    end: float
    label: str
    low_hz: float | None = None
    high_hz: float | None = None
    score: float | None = None
    channel: int | None = None
    file: str | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


class AnnotationTable(list[Annotation]):
    """The annotations of one file: a list that remembers how the file was laid out, to be written alike.

    A plain list of annotations does as well, everywhere; it is then written with the format's usual columns.

    Attributes
    ----------
    format : str
        What the file was: `raven`, `audacity`, `svl`, `hainan`, `csv`; empty if it was none.
    columns : tuple of str
        Names of all columns, in the file's order; empty for formats without.
    label_column : str or None
        The column that the labels were read from.
    """

    def __init__(
        self,
        annotations: Iterable[Annotation] = (),
        format: str = "",
        columns: Iterable[str] = (),
        label_column: str | None = None,
    ) -> None:
        super().__init__(annotations)
        self.format = format
        self.columns = tuple(columns)
        self.label_column = label_column


@dataclass(frozen=True)
class Problem:
    """One thing wrong with annotations: which file, which annotation (None: all of the file's), and what.

    `kept` is True where the annotation was cut to what is possible rather than left out.
    """

    file: str
    annotation: Annotation | None
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        where = f", {self.annotation.start:g}-{self.annotation.end:g} s" if self.annotation else ""
        label = f" '{self.annotation.label}'" if self.annotation else ""
        return f"{self.file}{where}{label}: {self.reason}; {'kept' if self.kept else 'left out'}"
