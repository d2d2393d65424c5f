"""How well continuous predictions agree with ratings: the concordance correlation coefficient.

L. I.-K. Lin, "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45 (1989). With means m,
variances s² and covariance s_xy over n pairs (all divided by n): ``2 s_xy / (s_x² + s_y² + (m_x - m_y)²)``. It is 1
where all predictions equal their targets, and below the correlation where scale or mean are off.

Two figures go by the name. `ccc` puts the pairs of all files one after another, so that it also rewards telling
a contented file from an angry one; `ccc_per_file` is the mean of each file's own, in which short files count as much as
long ones. A record holds sums of one file, from which both follow, for any weights of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.errors import DataError
from lobes.evaluation.metrics import Metric
from lobes.evaluation.records import Table

#: Of pairs (target x, prediction y): their number, sums, sums of squares and of products.
FIELDS = ("n", "sum_x", "sum_y", "sum_xx", "sum_yy", "sum_xy")


def agreement_records(
    targets: Sequence[ArrayLike],
    predictions: Sequence[ArrayLike],
    ids: Sequence[str],
    groups: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one record per file, for `ccc` and `ccc_per_file`.

    Parameters
    ----------
    targets, predictions : sequence of array (n,)
        Of each file; n may differ between files.
    ids : sequence of str
        Of the files.
    groups : sequence, optional
        What intervals are clustered by; by default each file by itself.

    Raises
    ------
    DataError
        There are not as many of each, a file has no pair, or a value is not finite.

    Example
    -------
    >>> records = agreement_records([[0.0, 1.0], [1.0, 3.0]], [[0.0, 1.0], [1.0, 2.0]], ["a", "b"])
    >>> round(ccc(records), 3), round(ccc_per_file(records), 3)
    (0.857, 0.833)
    """
    groups = ids if groups is None else groups
    counts = {"predictions": len(predictions), "ids": len(ids), "groups": len(groups)}
    for field, count in counts.items():
        if count != len(targets):
            raise DataError(f"{field}: {count}, expected {len(targets)} as there are targets; pass one for each file")
    records = []
    for target, prediction, name, group in zip(targets, predictions, ids, groups, strict=True):
        x, y = np.asarray(target, dtype=float), np.asarray(prediction, dtype=float)
        if x.ndim != 1 or x.shape != y.shape or not len(x):
            raise DataError(f"{name}: targets {x.shape} and predictions {y.shape}: expected one or more pairs (n,)")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError(f"{name}: a target or prediction is not finite; check the ratings and the training")
        sums = (len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y)
        record = dict(zip(FIELDS, (float(value) for value in sums), strict=True))
        records.append({"id": str(name), "group": group, **record, "n": len(x)})
    return records


def concordance(
    n: NDArray[Any],
    sum_x: NDArray[Any],
    sum_y: NDArray[Any],
    sum_xx: NDArray[Any],
    sum_yy: NDArray[Any],
    sum_xy: NDArray[Any],
) -> NDArray[Any]:
    """Concordance correlation coefficient from the number of pairs and their sums, elementwise.

    It is 0 where targets or predictions do not vary at all, where rounding would else decide; NaN where n is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = sum_x / n, sum_y / n
        variance_x, variance_y = sum_xx / n - mean_x**2, sum_yy / n - mean_y**2
        constant = (variance_x <= 1e-13 * sum_xx / n) | (variance_y <= 1e-13 * sum_yy / n)
        value = 2 * (sum_xy / n - mean_x * mean_y) / (variance_x + variance_y + (mean_x - mean_y) ** 2)
        return np.where(n > 0, np.where(constant, 0.0, value), np.nan)


def _ccc(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    return concordance(*(weights @ table[field].astype(float) for field in FIELDS))


def _ccc_per_file(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
    values = concordance(*(table[field].astype(float) for field in FIELDS))
    with np.errstate(divide="ignore", invalid="ignore"):
        return weights @ values / weights.sum(-1)


#: Concordance correlation coefficient over the pairs of all files together.
ccc = Metric("ccc", FIELDS, _ccc, bounds=(-1.0, 1.0), higher_is_better=True)
#: The mean over files of each file's own; a file of which targets or predictions are constant counts as 0.
ccc_per_file = Metric("ccc_per_file", FIELDS, _ccc_per_file, bounds=(-1.0, 1.0), higher_is_better=True)
#: The two, by name.
AGREEMENT = {metric.name: metric for metric in (ccc, ccc_per_file)}
