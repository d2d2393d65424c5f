"""Transcriber's files (`.trs`, its DTD `trans-14`): who says what, from when to when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from lobes.errors import DataError


class Segment(NamedTuple):
    """What is said between two marks of time.

    `start` and `stop` are in seconds; `speakers` are the names of those who have the turn, none where nobody has it;
    `texts` are what they say, of each voice that says something, in the order of `Who`; `transcribed` is False in a
    section that is not (`nontrans`).
    """

    start: float
    stop: float
    speakers: tuple[str, ...]
    texts: tuple[str, ...]
    transcribed: bool


def read_trs(path: str | os.PathLike[str]) -> list[Segment]:
    """Return the segments of a file, in its order, those without words too.

    A `Turn` holds text, `Sync` where a new segment begins, and `Who` where another of its speakers goes on: two that
    speak at once are one segment with two texts. `Event`, `Comment`, `Background` and `Vocal` are no words, and what
    stands between the two ends of an event is. The encoding is the one that the file declares.

    Raises
    ------
    DataError
        The file is not XML of that kind, or a time is no number.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, LookupError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected Transcriber's XML") from error
    if root.tag != "Trans":
        raise DataError(f"{path}: is <{root.tag}>, expected <Trans>, as Transcriber writes it")
    names = {found.get("id", ""): found.get("name") or found.get("id") or "" for found in root.iter("Speaker")}
    segments: list[Segment] = []
    try:
        for section in root.iter("Section"):
            for turn in section.iter("Turn"):
                segments += _segments(turn, names, section.get("type") != "nontrans")
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a Turn, Sync or Who without its number ({error}); expected seconds") from error
    return segments


def _segments(turn: ElementTree.Element, names: dict[str, str], transcribed: bool) -> Iterator[Segment]:
    speakers = tuple(names.get(name, name) for name in (turn.get("speaker") or "").split())
    start, stop = float(turn.get("startTime", "")), float(turn.get("endTime", ""))
    texts: dict[int, str] = {1: turn.text or ""}
    who = 1
    for child in turn:
        if child.tag == "Sync":
            time = float(child.get("time", ""))
            if time > start or any(map(str.strip, texts.values())):
                yield Segment(start, time, speakers, _said(texts), transcribed)
            start, texts, who = time, {}, 1
        elif child.tag == "Who":
            who = int(child.get("nb", ""))
        texts[who] = f"{texts.get(who, '')} {child.tail or ''}"
    yield Segment(start, stop, speakers, _said(texts), transcribed)


def _said(texts: dict[int, str]) -> tuple[str, ...]:
    said = (" ".join(texts[who].split()) for who in sorted(texts))
    return tuple(text for text in said if text)
