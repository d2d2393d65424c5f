"""MAPSSWE against its formula in a slow loop, and its calibration on systems that are equally good."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lobes.errors import DataError
from lobes.evaluation import mapsswe


def records(errors):
    return [{"id": str(i), "errors": int(count), "length": 10} for i, count in enumerate(errors)]


def slow_test(a, b):
    """W and its two-sided p-value, by sums over pairs."""
    z = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(z) / len(z)
    variance = sum((value - mean) ** 2 for value in z) / (len(z) - 1)
    w = mean / math.sqrt(variance / len(z))
    return w, 2 * (1 - 0.5 * (1 + math.erf(abs(w) / math.sqrt(2))))


@pytest.mark.parametrize("seed", range(5))
def test_statistic_and_p_value_are_those_of_the_formula(seed):
    random = np.random.default_rng(seed)
    a, b = random.poisson(2.0, 70).tolist(), random.poisson(2.3, 70).tolist()
    found, (w, p) = mapsswe(records(a), records(b)), slow_test(a, b)
    assert found.statistic == pytest.approx(w, abs=1e-6) and found.p_value == pytest.approx(p, abs=1e-6)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b)) and found.n_segments == 70


def test_the_order_of_items_does_not_matter_and_that_of_systems_turns_the_sign():
    random = np.random.default_rng(1)
    a, b = records(random.poisson(2.0, 40)), records(random.poisson(2.5, 40))
    one, other = mapsswe(a, b), mapsswe(b[::-1], a)
    assert one.statistic == pytest.approx(-other.statistic) and one.p_value == pytest.approx(other.p_value)


def test_equal_systems_are_told_apart_as_often_as_the_level_says():
    random = np.random.default_rng(0)
    rejected = 0
    for _ in range(600):
        difficulty = random.gamma(2.0, 1.0, 100)  # of each segment, for both
        a, b = ({"id": np.arange(100), "errors": random.poisson(difficulty), "length": np.ones(100)} for _ in range(2))
        rejected += mapsswe(a, b).p_value < 0.05
    assert 14 <= rejected <= 46, f"{rejected} of 600 at 5 %: beyond three standard deviations"


def test_a_better_system_is_found():
    random = np.random.default_rng(0)
    difficulty = random.gamma(2.0, 1.0, 400)
    found = mapsswe(records(random.poisson(0.7 * difficulty)), records(random.poisson(difficulty)))
    assert found.difference < 0 and found.p_value < 1e-3


def test_edges():
    assert mapsswe(records([1, 2]), records([1, 2])).p_value == 1.0
    always = mapsswe(records([1, 2]), records([2, 3]))
    assert always.p_value == 0.0 and always.statistic == -math.inf
    with pytest.raises(DataError, match="at least two"):
        mapsswe(records([1]), records([1]))
    with pytest.raises(DataError, match="same items"):
        mapsswe(records([1, 2]), records([1, 2, 3]))
