"""The concordance correlation coefficient against slow loops, and its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lobes.errors import DataError
from lobes.evaluation import (
    AGREEMENT,
    agreement_records,
    bootstrap_interval,
    ccc,
    ccc_per_file,
    paired_bootstrap,
    read_result,
    result_row,
    write_result,
)
from lobes.evaluation.metrics import HIGHER_IS_BETTER


def slow_ccc(x, y):
    """Lin (1989), by its definition."""
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    variance_x = math.fsum((a - mean_x) ** 2 for a in x) / n
    variance_y = math.fsum((b - mean_y) ** 2 for b in y) / n
    covariance = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    return 2 * covariance / (variance_x + variance_y + (mean_x - mean_y) ** 2)


def files(seed, n_files=12, offset=0.0):
    """Targets and predictions of files of different lengths and means."""
    noise = np.random.default_rng(seed)
    targets = [offset + noise.normal(noise.normal(), 0.3, noise.integers(2, 400)) for _ in range(n_files)]
    said = [offset + 0.7 * (target - offset) + 0.1 for target in targets]
    return targets, [mean + 0.2 * noise.standard_normal(len(mean)) for mean in said]


def records_of(targets, predictions):
    return agreement_records(targets, predictions, [f"f{k}" for k in range(len(targets))])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offset", [0.0, 5.0, -100.0])
def test_both_coefficients_equal_slow_loops(seed, offset):
    targets, predictions = files(seed, offset=offset)
    records = records_of(targets, predictions)
    together = slow_ccc(np.concatenate(targets).tolist(), np.concatenate(predictions).tolist())
    each = [slow_ccc(x.tolist(), y.tolist()) for x, y in zip(targets, predictions, strict=True)]
    assert ccc(records) == pytest.approx(together, abs=1e-6)
    assert ccc_per_file(records) == pytest.approx(sum(each) / len(each), abs=1e-6)
    assert abs(together - sum(each) / len(each)) > 0.01, "they are not the same figure"


def test_a_weight_is_a_file_that_is_drawn_so_often():
    targets, predictions = files(0)
    drawn = np.random.default_rng(1).integers(0, 3, len(targets))
    again = [k for k, count in enumerate(drawn) for _ in range(count)]
    repeated = agreement_records([targets[k] for k in again], [predictions[k] for k in again], [str(k) for k in again])
    records = records_of(targets, predictions)
    for metric in AGREEMENT.values():
        assert metric(records, drawn) == pytest.approx(metric(repeated), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, -3.3, 1e4])
@pytest.mark.parametrize("count", [1, 7, 7501])
def test_what_does_not_vary_gives_0_and_not_nan(value, count):
    varying = np.random.default_rng(0).uniform(-1, 1, count)
    constant = np.full(count, value)
    for x, y in ((varying, constant), (constant, varying), (constant, constant)):
        records = records_of([x], [y])
        assert ccc(records) == 0.0 == ccc_per_file(records)
    both = records_of([varying + 1, varying], [constant, constant])  # together as well
    assert ccc(both) == 0.0


def test_its_value_is_known_where_it_is_simple():
    x = np.array([0.0, 1.0, 2.0])
    assert ccc(records_of([x], [x])) == pytest.approx(1.0)
    assert ccc(records_of([x], [2 - x])) == pytest.approx(-1.0)
    assert ccc(records_of([x], [x + 1])) == pytest.approx(2 * (2 / 3) / (4 / 3 + 1)), "correlation alone would be 1"


def test_intervals_are_clustered_and_differences_paired(tmp_path):
    targets, predictions = files(3, n_files=30)
    worse = [prediction + 0.8 * np.random.default_rng(k).standard_normal(len(prediction))
             for k, prediction in enumerate(predictions)]  # fmt: skip
    good, bad = records_of(targets, predictions), records_of(targets, worse)
    for metric in AGREEMENT.values():
        interval = bootstrap_interval(good, metric)
        assert -1 <= interval.low < interval.value < interval.high <= 1 and interval.n_groups == 30
        comparison = paired_bootstrap(good, bad, metric)
        assert comparison.low > 0 and comparison.p_value < 0.05
    write_result(tmp_path, task="AER", system="x", metric=ccc, records=good, seed=1)
    result = read_result(tmp_path)
    assert result["metric"]["higher_is_better"] and result_row(result)["metric"] == "ccc"
    assert ccc(result["records"]) == result["metric"]["value"], "the file holds all that is needed"
    assert set(AGREEMENT) <= HIGHER_IS_BETTER


@pytest.mark.parametrize(
    ("targets", "predictions", "ids", "message"),
    [
        ([[0.0, 1.0]], [[0.0]], ["a"], r"a: targets \(2,\) and predictions \(1,\)"),
        ([[]], [[]], ["a"], "a: targets"),
        ([[0.0, 1.0]], [[0.0, float("nan")]], ["a"], "a: a target or prediction is not finite"),
        ([[0.0]], [[0.0], [1.0]], ["a"], "predictions: 2, expected 1"),
        ([[0.0]], [[0.0]], ["a", "b"], "ids: 2, expected 1"),
    ],
)
def test_bad_pairs_are_named(targets, predictions, ids, message):
    with pytest.raises(DataError, match=message):
        agreement_records(targets, predictions, ids)
