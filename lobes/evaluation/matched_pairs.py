"""The field's own tests of two systems on the same items: MAPSSWE of recognisers, McNemar's of classifiers.

They take items for independent, and know of one run of each.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lobes.errors import ConfigError, DataError
from lobes.evaluation.metrics import Metric, accuracy, wer
from lobes.evaluation.records import Records
from lobes.evaluation.resampling import paired_tables

#: Metrics of items that are right or wrong, with the two fields that are then equal.
RIGHT_OR_WRONG = {
    "accuracy": ("target", "prediction"),
    "uar": ("target", "prediction"),
    "intent_accuracy": ("intents", "intents_right"),
}


@dataclass(frozen=True)
class MatchedPairs:
    """Outcome of `mapsswe`.

    Attributes
    ----------
    difference : float
        Mean over segments of the errors of a less those of b; below 0 where a makes fewer.
    statistic : float
        The difference in standard errors.
    p_value : float
        Two-sided.
    n_segments : int
        Segments compared.
    """

    difference: float
    statistic: float
    p_value: float
    n_segments: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict."""
        return asdict(self)


def mapsswe(a: Records, b: Records) -> MatchedPairs:
    """Test whether two systems make as many errors, segment by segment (Gillick & Cox, ICASSP 1989).

    With `Z_i` the errors of a in segment i less those of b, `W = mean(Z) / (sd(Z) / sqrt(n))` is compared with the
    standard normal distribution, which wants some fifty segments. Segments are utterances here, as the records have
    them; NIST's tool cuts them shorter, where both systems are right. They are taken as independent: where speakers
    repeat, `paired_bootstrap` or `sign_flip_test` by speaker are the more careful.

    Parameters
    ----------
    a, b : sequence of dict
        Records with `id`, `errors` and `length` (`word_errors`, `char_errors`) of the two systems, matched by `id`.

    Returns
    -------
    MatchedPairs

    Raises
    ------
    DataError
        The two do not hold the same items, or hold fewer than two.

    Example
    -------
    >>> from lobes.evaluation import word_errors
    >>> said = ["un deux trois"] * 60
    >>> ours = word_errors(said, said[:50] + ["un deux"] * 10)
    >>> theirs = word_errors(said, said[:30] + ["un deux"] * 30)
    >>> test = mapsswe(ours, theirs)
    >>> round(test.difference, 3), round(test.statistic, 2), test.p_value < 1e-5
    (-0.333, -5.43, True)
    """
    first, second, _, _ = paired_tables(a, b, wer, None)
    z = first["errors"].astype(np.float64) - second["errors"].astype(np.float64)
    if len(z) < 2:
        raise DataError("records: a single item, expected at least two segments for a test; score a larger test set")
    difference, error = float(z.mean()), float(z.std(ddof=1)) / math.sqrt(len(z))
    if error == 0:
        statistic = math.copysign(math.inf, difference) if difference else 0.0
    else:
        statistic = difference / error
    return MatchedPairs(difference, statistic, math.erfc(abs(statistic) / math.sqrt(2)), len(z))


def mcnemar(a: Records, b: Records, metric: Metric = accuracy) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947) that two classifiers are right equally often.

    Only items that one system has right and the other wrong count; their split is binomial with p = 1/2. Items are
    taken as independent: where speakers repeat, prefer `sign_flip_test`.

    Parameters
    ----------
    a, b : sequence of dict
        Records with `id` and what the metric reads, matched by `id`.
    metric : Metric
        One of `RIGHT_OR_WRONG`. With `uar` it is still decisions that are counted, each alike, and not classes; with
        `intent_accuracy` items that have an intent.

    Raises
    ------
    ConfigError
        The metric is another.

    Example
    -------
    >>> from lobes.evaluation import label_records
    >>> mcnemar(label_records([1] * 8, [1] * 8), label_records([1] * 8, [0] * 6 + [1] * 2))
    0.03125
    """
    if metric.name not in RIGHT_OR_WRONG:
        raise ConfigError(f"metric is {metric.name}: expected {' or '.join(RIGHT_OR_WRONG)}, of items right or wrong")
    table_a, table_b, _, _ = paired_tables(a, b, metric, None)
    meant, found = RIGHT_OR_WRONG[metric.name]
    right_a, right_b = (table[meant] == table[found] for table in (table_a, table_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant, smaller = only_a + only_b, min(only_a, only_b)
    if discordant == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(smaller, discordant, 0.5)))
