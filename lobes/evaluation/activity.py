"""Calls per hour: from what recordings are named and what was detected in them to a table of activity."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from lobes.errors import ConfigError

if TYPE_CHECKING:
    from lobes.dataio.annotations import Annotation

#: What stands for each field of a pattern.
_FIELDS = {
    "recorder": r"(?P<recorder>[^/]+?)",
    "date": r"(?P<date>\d{4}-?\d{2}-?\d{2}|\d{6})",
    "time": r"(?P<time>\d{2}[-:.]?\d{2}[-:.]?\d{2}|\d{4})",
    "any": r"[^/]*",
}


class RecordingName(NamedTuple):
    """What the name of a recording tells."""

    recorder: str
    start: datetime | None
    """As the recorder's clock had it; None where the name does not say."""


class NamePattern:
    """Reads recorder and start time from names of recordings.

    Parameters
    ----------
    pattern : str
        Of the end of a path, without suffix: fields in braces, and everything else as it is. `{recorder}` is any text
        without a slash; `{date}` is 20180311, 2018-03-11 or 180311; `{time}` is 080003, 08-00-03 or 0800; `{any}` is
        whatever there is. A slash goes up a folder: `{recorder}/{date}_{time}` for AudioMoth's 20180311_080003.WAV.

    Raises
    ------
    ConfigError
        There is another field, or one twice.

    Example
    -------
    >>> NamePattern("{recorder}_{date}_{time}").read("forest/S11_20180311_080003.wav")
    RecordingName(recorder='S11', start=datetime.datetime(2018, 3, 11, 8, 0, 3))
    >>> NamePattern("{recorder}_{date}_{time}").read("forest/dawn.wav")
    RecordingName(recorder='forest', start=None)
    """

    def __init__(self, pattern: str = "{recorder}_{date}_{time}") -> None:
        self.pattern = pattern
        parts = re.split(r"\{(\w*)\}", pattern)
        fields = parts[1::2]
        unknown = [name for name in fields if name not in _FIELDS]
        twice = [name for name in fields if name != "any" and fields.count(name) > 1]
        if unknown or twice or not fields:
            raise ConfigError(
                f"name_pattern is '{pattern}': expected text with {', '.join(f'{{{name}}}' for name in _FIELDS)}, "
                "the first three once at most"
            )
        parts[::2] = [re.escape(text) for text in parts[::2]]
        parts[1::2] = [_FIELDS[name] for name in fields]
        self._expression = re.compile("(?:^|/)" + "".join(parts) + "$")

    def read(self, path: str) -> RecordingName:
        """Recorder and start of a recording from its path, relative to the folder of all; slashes are forward.

        A name that does not fit gives the folder that the recording lies in as recorder, and no start.
        """
        whole = PurePosixPath(path)
        found = self._expression.search(whole.with_suffix("").as_posix())
        values = found.groupdict() if found else {}
        recorder = values.get("recorder") or whole.parent.name or "all"
        return RecordingName(recorder, _moment(values.get("date"), values.get("time")))


def _moment(day: str | None, clock: str | None) -> datetime | None:
    """Both together, or None where either is missing or impossible."""
    if not day or not clock:
        return None
    digits, numbers = re.sub(r"\D", "", day), re.sub(r"\D", "", clock)
    try:
        year = digits[:-4] if len(digits) == 8 else f"20{digits[:-4]}"
        return datetime.combine(
            date(int(year), int(digits[-4:-2]), int(digits[-2:])),
            time(int(numbers[:2]), int(numbers[2:4]), int(numbers[4:] or 0)),
        )
    except ValueError:
        return None


@dataclass(frozen=True)
class Heard:
    """A recording and what was detected in it.

    Attributes
    ----------
    recorder : str
    start : datetime or None
    seconds : float
    events : sequence of Annotation
    """

    recorder: str
    start: datetime | None
    seconds: float
    events: Sequence[Annotation]


def calls_per_hour(recordings: Iterable[Heard], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Count calls by recorder, clock hour and class, with the time that was recorded.

    Parameters
    ----------
    recordings : iterable of Heard
    labels : sequence of str
        Classes, in the order of the rows.

    Returns
    -------
    list of dict
        `recorder`, `date` (2018-03-11), `hour` (0 to 23; both empty for recordings whose start is unknown), `label`,
        `calls` (that begin in it), `recorded_seconds` and `calls_per_hour` of recorded time. There is a row for each
        hour that was recorded, whether anything called or not.

    Example
    -------
    >>> from lobes.dataio.annotations import Annotation
    >>> calls = [Annotation(100.0, 101.0, "duet"), Annotation(2000.0, 2005.0, "duet")]
    >>> rows = calls_per_hour([Heard("S11", datetime(2018, 3, 11, 5, 45), 2700.0, calls)], ["duet"])
    >>> [(row["hour"], row["calls"], row["recorded_seconds"], row["calls_per_hour"]) for row in rows]
    [(5, 1, 900.0, 4.0), (6, 1, 1800.0, 2.0)]
    """
    seconds: dict[tuple[str, str, Any], float] = defaultdict(float)
    counts: dict[tuple[tuple[str, str, Any], str], int] = defaultdict(int)
    for heard in recordings:
        for place, length in _hours(heard):
            seconds[place] += length
        for event in heard.events:
            counts[_place(heard, event.start), event.label] += 1
    rows = []
    for place in sorted(seconds, key=lambda key: (key[0], key[1], -1 if key[2] == "" else key[2])):
        for label in labels:
            calls, length = counts[place, label], seconds[place]
            row = dict(zip(("recorder", "date", "hour"), place, strict=True))
            rate = 3600 * calls / length if length else 0.0
            rows.append({**row, "label": label, "calls": calls, "recorded_seconds": length, "calls_per_hour": rate})
    return rows


def _place(heard: Heard, second: float) -> tuple[str, str, Any]:
    """Recorder, date and hour of a moment of a recording."""
    if heard.start is None:
        return heard.recorder, "", ""
    # The last frame of a recording may begin at its very end: it belongs to the last hour that was recorded.
    moment = heard.start + timedelta(seconds=min(second, max(heard.seconds - 1e-6, 0.0)))
    return heard.recorder, moment.date().isoformat(), moment.hour


def _hours(heard: Heard) -> Iterable[tuple[tuple[str, str, Any], float]]:
    """The clock hours of a recording, and how many seconds of each it holds."""
    if heard.start is None:
        yield _place(heard, 0.0), heard.seconds
        return
    done = 0.0
    while done < heard.seconds:
        moment = heard.start + timedelta(seconds=done)
        following = moment.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        length = min((following - moment).total_seconds(), heard.seconds - done)
        yield (heard.recorder, moment.date().isoformat(), moment.hour), length
        done += length
