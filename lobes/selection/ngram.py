"""N-gram language models of discrete units, counted and queried by arrays: millions of utterances in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.selection.pool import Units

#: Units that are scored at once: bounds the memory.
_BLOCK = 1 << 21
#: Codes up to this many are looked up in an array of all of them, others by bisection.
_DENSE = 1 << 22


class NGramModel:
    """Interpolated Witten-Bell model (Witten & Bell 1991; Chen & Goodman 1999).

    `p(w | h) = (c(h w) + U(h) p(w | h')) / (c(h) + U(h))`, with `h'` a unit shorter than the history `h`, `U(h)` the
    number of different units after `h`, and uniform below unigrams. A history that was not seen leaves `p(w | h')`.
    Each utterance begins with its own beginning and ends with an end that is predicted too.

    Parameters
    ----------
    units : Units
        What is counted.
    n_units : int
        Number V of different units there can be; more than the largest.
    order : int
        N: the history holds N - 1 units.

    Raises
    ------
    ConfigError
        The order is not positive, or too high for the number of units; or a unit is too large.
    DataError
        There is nothing to count.

    Example
    -------
    >>> model = NGramModel(Units.of([[0, 1, 0, 1]]), n_units=2, order=2)
    >>> often, never = model.log_probability(Units.of([[0, 1], [1, 1]]))
    >>> bool(often > never)
    True
    """

    def __init__(self, units: Units, n_units: int, order: int = 3) -> None:
        if order < 1 or n_units < 1 or (n_units + 2) ** order >= 2**62:
            raise ConfigError(
                f"n-gram model: order {order} of {n_units} units; expected an order from 1 on whose n-grams fit 62 bits"
            )
        if units.size > n_units:
            raise ConfigError(f"n-gram model: unit {units.size - 1}; expected units below n_units, {n_units}")
        if not len(units):
            raise DataError("n-gram model: no utterance to count; give at least one")
        self.n_units, self.order = n_units, order
        self._base = n_units + 2  # the end, then the beginning
        self._levels = [self._count(units, n) for n in range(1, order + 1)]

    def log_probability(self, units: Units) -> NDArray[np.float64]:
        """Mean log probability per predicted unit, the end included, of each utterance, (N,), nats.

        Raises
        ------
        ConfigError
            A unit is none of those that there can be.
        """
        if units.size > self.n_units:
            raise ConfigError(f"n-gram model: unit {units.size - 1}; expected units below n_units, {self.n_units}")
        return np.concatenate(
            [self._score(units.take(np.arange(start, stop))) for start, stop in _blocks(units)] or [np.zeros(0)]
        )

    def next_log_probability(self, history: Sequence[int]) -> NDArray[np.float64]:
        """Log probability of each unit, and last of the end, after the units of an utterance so far, (V + 1,), nats.

        Arguments
        ---------
        history : sequence of int
            From the utterance's beginning, or at least its last N - 1 units.

        Raises
        ------
        ConfigError
            A unit is none of those that there can be.

        Example
        -------
        >>> model = NGramModel(Units.of([[0, 1, 0, 1]]), n_units=2, order=2)
        >>> np.exp(model.next_log_probability([0])).round(3).tolist()
        [0.125, 0.792, 0.083]
        """
        return np.log(self._after(history, np.arange(self.n_units + 1)))

    def log_probability_after(self, history: Sequence[int], unit: int) -> float:
        """Log probability of one unit, or of the end (V), after the units of an utterance so far, nats.

        Raises
        ------
        ConfigError
            A unit is none of those that there can be.

        Example
        -------
        >>> model = NGramModel(Units.of([[0, 1, 0, 1]]), n_units=2, order=2)
        >>> round(float(np.exp(model.log_probability_after([0], 1))), 3)
        0.792
        """
        if not 0 <= unit <= self.n_units:
            raise ConfigError(f"n-gram model: unit {unit}; expected 0 to {self.n_units}, which is the end")
        return float(np.log(self._after(history, np.array([unit]))[0]))

    def _after(self, history: Sequence[int], units: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of each of some units after a history."""
        if any(not 0 <= unit < self.n_units for unit in history):
            raise ConfigError(f"n-gram model: history {list(history)}; expected units from 0 to {self.n_units - 1}")
        context = [self._base - 1] * (self.order - 1) + [int(unit) for unit in history]
        probability = np.full(len(units), 1.0 / (self.n_units + 1))
        for n, level in enumerate(self._levels, start=1):
            code = 0
            for unit in context[len(context) - n + 1 :]:
                code = code * self._base + unit
            seen, different = (float(column[0]) for column in level.histories.find(np.array([code])))
            if seen + different > 0:
                count = level.ngrams.find(code * self._base + units)[0]
                probability = (count + different * probability) / (seen + different)
        return probability

    def _score(self, units: Units) -> NDArray[np.float64]:
        predicted, rows = self._predicted(units)
        probability = np.full(len(predicted), 1.0 / (self.n_units + 1))
        for n, level in enumerate(self._levels, start=1):
            codes = self._codes(units, n)
            seen, different = level.histories.find(codes // self._base)
            count = level.ngrams.find(codes)[0]
            total = seen + different
            known = total > 0
            probability[known] = (count[known] + different[known] * probability[known]) / total[known]
        summed = np.bincount(rows, np.log(probability), minlength=len(units))
        return summed / (units.lengths + 1)

    def _count(self, units: Units, n: int) -> _Level:
        """N-grams of one order, and their histories."""
        codes: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        for start, stop in _blocks(units):
            found, number = np.unique(self._codes(units.take(np.arange(start, stop)), n), return_counts=True)
            codes, counts = _merge(codes, counts, found, number)
        histories, first = np.unique(codes // self._base, return_index=True)
        borders = np.append(first, len(codes))
        totals = np.add.reduceat(counts, first) if len(first) else counts
        return _Level(
            _Table(codes, [counts], self._base**n), _Table(histories, [totals, np.diff(borders)], self._base ** (n - 1))
        )

    def _predicted(self, units: Units) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is predicted, each utterance's units and its end, and which utterance each is of."""
        lengths = units.lengths + 1
        rows = np.repeat(np.arange(len(units)), lengths)
        predicted = np.full(int(lengths.sum()), self.n_units, dtype=np.int64)
        inside = np.ones(len(predicted), dtype=bool)
        inside[np.cumsum(lengths) - 1] = False
        predicted[inside] = units.values
        return predicted, rows

    def _codes(self, units: Units, n: int) -> NDArray[np.int64]:
        """Each predicted unit with the n - 1 before it, as one number; before the first there are beginnings."""
        predicted, rows = self._predicted(units)
        first = np.concatenate([[0], np.cumsum(units.lengths + 1)])[:-1]
        place = np.arange(len(predicted)) - first[rows] if len(rows) else rows
        codes = predicted.copy()
        for back in range(1, n):
            before = np.full(len(predicted), self._base - 1, dtype=np.int64)
            there = place >= back
            before[there] = predicted[np.flatnonzero(there) - back]
            codes += before * self._base**back
        return codes


class _Table:
    """Counts by code, of which there can be `n_codes`; what is not there has none."""

    def __init__(self, codes: NDArray[np.int64], columns: list[NDArray[np.int64]], n_codes: int) -> None:
        self.codes, self.columns = codes, [column.astype(np.float64) for column in columns]
        self.dense = n_codes <= _DENSE
        if self.dense:
            for number, column in enumerate(self.columns):
                self.columns[number] = np.zeros(n_codes)
                self.columns[number][codes] = column

    def find(self, codes: NDArray[np.int64]) -> list[NDArray[np.float64]]:
        """The columns at some codes."""
        if self.dense:
            return [column[codes] for column in self.columns]
        # Sorted queries bisect through memory in order, several times as fast as at random.
        wanted, back = np.unique(codes, return_inverse=True)
        place = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        there = self.codes[place] == wanted
        return [np.where(there, column[place], 0.0)[back] for column in self.columns]


class _Level(NamedTuple):
    """The n-grams of one order, with their counts, and their histories, with total and number of different units."""

    ngrams: _Table
    histories: _Table


def _blocks(units: Units) -> list[tuple[int, int]]:
    """Ranges of utterances of about `_BLOCK` units each."""
    if not len(units):
        return []
    marks = np.arange(_BLOCK, int(units.offsets[-1]), _BLOCK)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(units.offsets, marks), [len(units)]]))
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _merge(
    codes: NDArray[np.int64], counts: NDArray[np.int64], more: NDArray[np.int64], number: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add counts of further codes to sorted ones."""
    if not len(codes):
        return more, number
    joined, back = np.unique(np.concatenate([codes, more]), return_inverse=True)
    return joined, np.bincount(back, np.concatenate([counts, number])).astype(np.int64)
