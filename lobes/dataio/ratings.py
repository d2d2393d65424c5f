"""Continuous ratings of a recording, such as its arousal every 40 ms: how manifests hold them, and at which rate.

A manifest's column ``ratings`` has the path of a JSON file, one per recording, that the corpus' preparation wrote:
the period in seconds, and a list of values for each target. Value number k holds from k to k + 1 periods after the
recording's beginning.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lobes.dataio.manifest import Row, atomic_write
from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

#: The manifest's column.
COLUMN = "ratings"
#: What a quotient of two times may be off by, before it counts as another step.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Ratings:
    """Ratings of one recording.

    Attributes
    ----------
    period : float
        Seconds between values.
    values : dict of str to array
        Target -> (n,), as many for each.
    """

    period: float
    values: dict[str, NDArray[np.float64]]

    @property
    def seconds(self) -> float:
        """How long they last."""
        return self.period * max((len(values) for values in self.values.values()), default=0)

    def checked(self, name: str) -> Ratings:
        """Return them as they are.

        Raises
        ------
        DataError
            There are none, they are not as many for each target, or one is not a finite number; it names `name`.
        """
        counts = {target: len(values) for target, values in self.values.items()}
        if not counts or not min(counts.values()) or len(set(counts.values())) > 1:
            raise DataError(f"{name}: has {counts or 'no'} ratings: expected one or more, as many for each target")
        for target, values in self.values.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise DataError(f"{name}: rating {bad[0]} of {target} is {values[bad[0]]}: expected a finite number")
        return self


def write_ratings(path: str | os.PathLike[str], ratings: Ratings) -> Path:
    """Write ratings, all at once or not at all; a file that already holds them is left as it is.

    Raises
    ------
    DataError
        As `Ratings.checked`.
    """
    path = Path(path)
    values = {target: [float(value) for value in row] for target, row in ratings.checked(str(path)).values.items()}
    text = json.dumps({"period": ratings.period, "values": values}) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)
    return path


def read_ratings(path: str | os.PathLike[str]) -> Ratings:
    """Read what `write_ratings` wrote.

    Raises
    ------
    DataError
        The file is missing or another.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        values = {str(target): np.asarray(row, dtype=float) for target, row in content["values"].items()}
        return Ratings(float(content["period"]), values).checked(str(path))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it holds something else"
        raise DataError(f"ratings {path} cannot be read: {reason}; prepare the corpus again") from error


def resample_ratings(values: Sequence[float] | NDArray, period: float, new_period: float) -> NDArray[np.float64]:
    """Ratings at another rate: the mean, over each new period, of the steps that the old ones are.

    Nothing is interpolated, so a finer rate repeats values and means stay what they were.

    Parameters
    ----------
    values : array (n,)
        One every `period`.
    period, new_period : float
        Seconds.

    Returns
    -------
    array (m,)
        As many as there are new periods in ``n * period`` seconds, one that is only begun included.

    Raises
    ------
    ConfigError
        A period is not positive.

    Examples
    --------
    >>> resample_ratings([0.0, 1.0, 4.0, 5.0], 0.1, 0.2).round(6).tolist()
    [0.5, 4.5]
    >>> resample_ratings([0.0, 1.0], 0.2, 0.1).round(6).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    if not (period > 0 and new_period > 0):
        raise ConfigError(f"period is {period} s and new_period {new_period} s: expected positive numbers of seconds")
    values = np.asarray(values, dtype=float)
    if abs(period - new_period) < _ROUNDING * period:
        return values
    total = len(values) * period
    edges = np.minimum(np.arange(n_steps(total, new_period) + 1) * new_period, total)
    area = np.interp(edges, np.arange(len(values) + 1) * period, np.concatenate([[0.0], np.cumsum(values) * period]))
    return np.diff(area) / np.diff(edges)


def n_steps(seconds: float, period: float) -> int:
    """Periods in so many seconds, one that is only begun included.

    Example
    -------
    >>> n_steps(300.0, 0.04), n_steps(0.3, 0.1), n_steps(0.31, 0.1)
    (7500, 3, 4)
    """
    return int(np.ceil(seconds / period - _ROUNDING))


def rating_reader(target: str, period: float | None = None) -> Callable[[str], Tensor]:
    """Make what reads a recording's ratings, for the `labels` of `lobes.dataio.audio_dataset`.

    Parameters
    ----------
    target : str
        Which of them, such as `arousal`.
    period : float, optional
        Seconds between values; by default as they are on file.

    Returns
    -------
    callable
        Path -> float32 (n,); a `DataError` where the file has no such target.
    """
    return partial(_read_target, target=target, period=period)


def rating_range(rows: Iterable[Row], target: str) -> tuple[float, float]:
    """Smallest and largest rating of the rows of a manifest.

    Raises
    ------
    DataError
        There are no ratings of the target, or all are equal.
    """
    found = [rating_reader(target)(row[COLUMN]) for row in rows]
    low = min(float(values.min()) for values in found)
    high = max(float(values.max()) for values in found)
    if not low < high:
        raise DataError(f"{target}: all ratings are {low:g}, expected some that differ; check the annotation files")
    return low, high


def rated_rows(rows: list[Row], longest_gap: float = 1.0) -> list[Row]:
    """Return rows as they are, and warn of those whose ratings are shorter or longer than their audio.

    Parameters
    ----------
    rows : list of dict
        Of whole recordings, with the column ``ratings``.
    longest_gap : float
        Seconds by which the two may differ.
    """
    gaps = {row["id"]: read_ratings(row[COLUMN]).seconds - row["duration"] for row in rows}
    odd = {name: gap for name, gap in gaps.items() if abs(gap) > longest_gap}
    if odd:
        first = next(iter(odd))
        logger.warning(
            "%d recordings have ratings that end at another time than their audio (%s: %+.2f s): what only one of the "
            "two covers is not scored",
            len(odd),
            first,
            odd[first],
        )
    return rows


def _read_target(path: str, *, target: str, period: float | None) -> Tensor:
    ratings = read_ratings(path)
    if target not in ratings.values:
        raise DataError(f"target is '{target}': {path} has {', '.join(ratings.values)}")
    values = ratings.values[target]
    if period is not None:
        values = resample_ratings(values, ratings.period, period)
    return torch.from_numpy(np.array(values, dtype=np.float32))
