"""Systems over many tasks: mean ranks, whether they differ at all (Friedman) and which do (Nemenyi), Kendall's tau-b.

Ranks make word error rates and BLEU comparable, and throw away by how much one system is better. Two questions have two
answers: would the ranks be the same on other items of these tasks (`rank_intervals`, from resampled items), and on
other tasks (`friedman` and `nemenyi`, for which each task is one observation; Demšar 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankInterval:
    """A system's mean rank over tasks (1 is best) with its interval over resampled test items."""

    rank: float
    low: float
    high: float


def ranks(scores: ArrayLike, higher_is_better: ArrayLike = True) -> Floats:
    """Return the rank of each system in each task: 1 is best, ties share the mean of their ranks.

    Parameters
    ----------
    scores : array-like (..., systems, tasks)
        NaN is refused: leave out the system or the task.
    higher_is_better : bool, or array-like (tasks,)
        The direction of each task's metric.

    Raises
    ------
    DataError
        A score is not finite.

    Example
    -------
    >>> ranks([[0.9, 0.20], [0.8, 0.10], [0.8, 0.30]], [True, False]).tolist()
    [[1.0, 2.0], [2.5, 1.0], [2.5, 3.0]]
    """
    values = np.asarray(scores, dtype=float)
    if not np.isfinite(values).all():
        raise DataError("scores: one is not finite, expected every system to have every task; leave out what lacks one")
    signed = np.where(np.asarray(higher_is_better, dtype=bool), -values, values)
    one, other = signed[..., :, None, :], signed[..., None, :, :]
    # A system's rank: those before it, and half of those level with it, itself included, which counts half too much.
    return (other < one).sum(-2) + 0.5 * (other == one).sum(-2) + 0.5


def mean_ranks(scores: ArrayLike, higher_is_better: ArrayLike = True) -> Floats:
    """Return each system's mean rank over tasks, (..., systems); arguments as for `ranks`."""
    return ranks(scores, higher_is_better).mean(-1)


def rank_intervals(
    scores: ArrayLike, draws: ArrayLike, higher_is_better: ArrayLike = True, level: float = 0.95
) -> list[RankInterval]:
    """Return the mean ranks with percentile intervals over resampled test items (and seeds) of the same tasks.

    Parameters
    ----------
    scores : array-like (systems, tasks)
        On all items.
    draws : array-like (resamples, systems, tasks)
        The same on resampled items: in each task, the same items for all systems; see `lobes.evaluation.seeded_draws`.
    higher_is_better : bool, or array-like (tasks,)
        The direction of each task's metric.
    level : float
        Such as 0.95.

    Notes
    -----
    The interval is for the rank that the systems would have if the test sets of these tasks were endless. Ranks of
    noisy scores lie nearer to the middle than those of the true scores, in each resample a second time: where many
    systems are all but equal, the outer ranks of an interval are too near to the middle.

    Example
    -------
    >>> scores = [[0.9, 0.8], [0.7, 0.6]]
    >>> draws = [[[0.9, 0.5], [0.7, 0.6]], [[0.9, 0.8], [0.7, 0.6]]] * 50
    >>> rank_intervals(scores, draws)[0]
    RankInterval(rank=1.0, low=1.0, high=1.5)
    """
    found = mean_ranks(scores, higher_is_better)
    drawn = mean_ranks(draws, higher_is_better)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    edges = zip(found.tolist(), np.minimum(low, found).tolist(), np.maximum(high, found).tolist(), strict=True)
    return [RankInterval(*edge) for edge in edges]


def friedman(scores: ArrayLike, higher_is_better: ArrayLike = True) -> tuple[float, float]:
    """Return Friedman's statistic (1937), corrected for ties, and its p-value: are the systems all alike over tasks?

    Each task is one observation; the p-value is that of chi-squared with systems - 1 degrees of freedom, too cautious
    for fewer than about ten tasks.

    Parameters
    ----------
    scores : array-like (systems, tasks)
        At least three systems and two tasks.
    higher_is_better : bool, or array-like (tasks,)
        The direction of each task's metric.

    Raises
    ------
    DataError
        Fewer than three systems or two tasks.

    Example
    -------
    >>> statistic, p_value = friedman([[3, 3, 3, 3], [2, 2, 2, 2], [1, 1, 1, 1]])
    >>> statistic, round(p_value, 4)
    (8.0, 0.0183)
    """
    from scipy.special import gammaincc

    table = _ranks_of_many(scores, higher_is_better)
    systems, tasks = table.shape
    spread = float(((table - (systems + 1) / 2) ** 2).sum())  # without ties, tasks · systems · (systems² - 1) / 12
    if spread == 0:
        return 0.0, 1.0
    between = float(((table.mean(1) - (systems + 1) / 2) ** 2).sum()) * tasks**2
    statistic = between * (systems - 1) / spread
    return statistic, float(gammaincc((systems - 1) / 2, statistic / 2))


def nemenyi(scores: ArrayLike, higher_is_better: ArrayLike = True) -> Floats:
    """Return Nemenyi's p-values (1963) for each pair of systems, (systems, systems), adjusted for their number.

    To be read after `friedman` has found a difference; arguments and errors as there.

    Example
    -------
    >>> p_values = nemenyi([[3, 3, 3, 3], [2, 2, 2, 2], [1, 1, 1, 1]])
    >>> p_values.round(4)[0].tolist()
    [1.0, 0.3335, 0.013]
    """
    from scipy.stats import studentized_range

    table = _ranks_of_many(scores, higher_is_better)
    systems, tasks = table.shape
    mean = table.mean(1)
    distance = np.abs(mean[:, None] - mean[None, :]) / math.sqrt(systems * (systems + 1) / (6 * tasks))
    p_values = np.ones((systems, systems))
    for i in range(systems):
        for j in range(i):
            found = studentized_range.sf(distance[i, j] * math.sqrt(2), systems, np.inf)
            p_values[i, j] = p_values[j, i] = min(1.0, max(0.0, float(found)))
    return p_values


def critical_difference(systems: int, tasks: int, level: float = 0.95) -> float:
    """Return by how much two mean ranks must differ for Nemenyi's test to tell them apart (Demšar 2006).

    Example
    -------
    >>> round(critical_difference(5, 30), 2)
    1.11
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(level, systems, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(systems * (systems + 1) / (6 * tasks))


def kendall_tau(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return Kendall's tau-b (1945) of two rankings of the same systems: 1 the same order, -1 the reverse.

    NaN where all systems are tied in one of the two.

    Parameters
    ----------
    a, b : array-like (..., systems)
        Scores or ranks; leading axes, such as resamples, give one tau each.

    Example
    -------
    >>> float(kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]).round(3))
    0.667
    """
    first, second = (np.asarray(values, dtype=float) for values in (a, b))
    upper = np.triu_indices(first.shape[-1], 1)
    signs = [np.sign(values[..., upper[0]] - values[..., upper[1]]) for values in (first, second)]
    untied = np.sqrt((signs[0] != 0).sum(-1) * (signs[1] != 0).sum(-1).astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(untied > 0, (signs[0] * signs[1]).sum(-1) / untied, np.nan)


def _ranks_of_many(scores: ArrayLike, higher_is_better: ArrayLike) -> Floats:
    table = ranks(scores, higher_is_better)
    if table.ndim != 2 or table.shape[0] < 3 or table.shape[1] < 2:
        shape = " x ".join(map(str, table.shape))
        raise DataError(f"scores: {shape} systems x tasks, expected at least 3 x 2; compare two systems in pairs")
    return table
