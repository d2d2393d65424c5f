"""Ranks over tasks equal scipy's, seeds and items together equal a slow analysis of variance, and errors are clear."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lobes.errors import ConfigError, DataError
from lobes.evaluation import accuracy, bootstrap_interval, label_records, mean_metric, paired_bootstrap, wer
from lobes.evaluation.ranking import (
    critical_difference,
    friedman,
    kendall_tau,
    mean_ranks,
    nemenyi,
    rank_intervals,
    ranks,
)
from lobes.evaluation.seeds import compare_seeds, seeded_draws, seeds_interval

LOSS = mean_metric("loss", "loss")


def tables(ties: bool) -> list[np.ndarray]:
    """Systems × tasks of several sizes; a few values only, where there are to be ties."""
    rng = np.random.default_rng(0)
    shapes = [(3, 2), (4, 9), (7, 5), (5, 30)]
    return [rng.integers(0, 4, shape).astype(float) if ties else rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_scipys(ties):
    for table in tables(ties):
        assert np.array_equal(ranks(table, False), stats.rankdata(table, axis=0))
        assert np.array_equal(ranks(table, True), stats.rankdata(-table, axis=0))
    draws = np.stack([tables(ties)[1]] * 3)
    assert np.array_equal(mean_ranks(draws)[2], mean_ranks(draws[0])), "resamples lie before systems and tasks"


def test_the_direction_is_each_tasks_own():
    assert ranks([[0.9, 0.1], [0.8, 0.2]], [True, False]).tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize("ties", [False, True])
def test_friedman_is_scipys(ties):
    for table in tables(ties):
        statistic, p_value = friedman(table)
        found = stats.friedmanchisquare(*table)
        assert statistic == pytest.approx(found.statistic, abs=1e-9) and p_value == pytest.approx(found.pvalue)
    assert friedman(np.ones((3, 4))) == (0.0, 1.0)


def test_nemenyi_agrees_with_the_critical_difference_of_demsar():
    # Demšar (2006), table 5: q at 0.05 for 2 to 10 classifiers.
    published = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for systems, q in published.items():
        assert critical_difference(systems, 1) == pytest.approx(q * np.sqrt(systems * (systems + 1) / 6), rel=5e-4)
    table = tables(False)[3]
    p_values, mean = nemenyi(table), mean_ranks(table)
    apart = np.abs(mean[:, None] - mean[None, :]) > critical_difference(*table.shape)
    assert np.array_equal(p_values < 0.05, apart) and np.array_equal(p_values, p_values.T)


@pytest.mark.parametrize("ties", [False, True])
def test_kendall_is_scipys(ties):
    rng = np.random.default_rng(1)
    for size in (2, 3, 8, 20):
        a, b = (rng.integers(0, 4, size) if ties else rng.standard_normal(size) for _ in range(2))
        expected = stats.kendalltau(a, b).statistic
        assert float(kendall_tau(a, b)) == pytest.approx(expected, nan_ok=True)
    assert np.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))
    many = kendall_tau(rng.standard_normal((5, 6)), rng.standard_normal(6))
    assert many.shape == (5,)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(DataError, match="not finite"):
        ranks([[1.0], [np.nan]])
    with pytest.raises(DataError, match="2 x 4 systems x tasks"):
        friedman(np.zeros((2, 4)))
    with pytest.raises(DataError, match="3 x 1"):
        nemenyi(np.zeros((3, 1)))


def losses(seeds: int = 3, groups: int = 6, seed: int = 0, shift: float = 0.0) -> list[dict[str, np.ndarray]]:
    """Balanced: four items a group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), 4)
    base = rng.standard_normal(groups)[group]
    return [
        {"id": np.arange(len(group)), "group": group, "loss": shift + base + rng.normal(rng.normal(), 1, len(group))}
        for _ in range(seeds)
    ]


def test_an_interval_over_seeds_is_the_slow_two_way_analysis_of_variance():
    runs = losses()
    cells = np.array([[run["loss"][run["group"] == g].mean() for g in range(6)] for run in runs])  # balanced: means
    seeds, groups = cells.shape
    total = cells.mean()
    ms_a = groups * sum((row.mean() - total) ** 2 for row in cells) / (seeds - 1)
    ms_b = seeds * sum((column.mean() - total) ** 2 for column in cells.T) / (groups - 1)
    rest = sum(
        (cells[i, j] - cells[i].mean() - cells[:, j].mean() + total) ** 2 for i in range(seeds) for j in range(groups)
    ) / ((seeds - 1) * (groups - 1))
    assert ms_a > rest and ms_b > rest, "else a component would be left out"
    variance = ms_a + ms_b - rest
    freedom = variance**2 / (ms_a**2 / (seeds - 1) + ms_b**2 / (groups - 1) + rest**2 / ((seeds - 1) * (groups - 1)))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance / (seeds * groups))
    found = seeds_interval(runs, LOSS)
    assert (found.value, found.low, found.high) == pytest.approx((total, total - half, total + half))
    assert found.n_groups == 6 and found.method == "t over 3 seeds and groups"


def test_items_are_matched_by_id():
    runs = losses()
    order = np.random.default_rng(5).permutation(24)
    shuffled = [runs[0], {name: column[order] for name, column in runs[1].items()}, runs[2]]
    assert seeds_interval(shuffled, LOSS) == seeds_interval(runs, LOSS)
    runs[1]["id"] = runs[1]["id"] + 1
    with pytest.raises(DataError, match="in one system only"):
        seeds_interval(runs, LOSS)


def test_a_comparison_pairs_groups_and_not_seeds():
    a, b = losses(3), losses(4, seed=9)
    for run in b:
        run["loss"] = run["loss"] + a[0]["loss"].mean()
    difference = np.array([[run["loss"][run["group"] == g].mean() for g in range(6)] for run in (*a, *b)])
    variance = (difference[:3].mean(0) - difference[3:].mean(0)).var(ddof=1) / 6
    parts = variance**2 / 5
    for cells in (difference[:3], difference[3:]):
        seeds = len(cells)
        ms = 6 * cells.mean(1).var(ddof=1)
        rest = cells - cells.mean(1, keepdims=True) - cells.mean(0) + cells.mean()
        rest = (rest**2).sum() / ((seeds - 1) * 5)
        assert ms > rest, "else the seeds would be left out"
        variance += (ms - rest) / cells.size
        parts += (ms / cells.size) ** 2 / (seeds - 1)
    found = compare_seeds(dict(enumerate(a)), dict(enumerate(b)), LOSS)
    value, freedom = difference[:3].mean() - difference[3:].mean(), variance**2 / parts
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert (found.difference, found.low, found.high) == pytest.approx((value, value - half, value + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(value) / np.sqrt(variance), freedom))
    assert found.method == "t over 3 and 4 seeds and groups"
    order = compare_seeds(dict(enumerate(a[::-1])), dict(enumerate(b)), LOSS)
    assert (order.low, order.p_value) == pytest.approx((found.low, found.p_value)), "which seed is which is no matter"
    with pytest.raises(DataError, match="none given"):
        compare_seeds({}, {0: a[0]}, LOSS)


def test_one_seed_is_the_bootstrap_that_there_was():
    truth, groups = ["a"] * 60, [f"s{i // 3}" for i in range(60)]
    one, other = (label_records(truth, ["a" if i % k else "b" for i in range(60)], groups=groups) for k in (4, 3))
    assert seeds_interval([one], accuracy).low == bootstrap_interval(one, accuracy).low
    found, expected = compare_seeds({1: one}, {1: other}, accuracy), paired_bootstrap(one, other, accuracy)
    assert (found.p_value, found.method) == (expected.p_value, "expanded, one seed")


def test_bounds_are_kept_and_a_perfect_score_has_no_width():
    perfect = label_records(["a"] * 20, ["a"] * 20, groups=[str(i // 4) for i in range(20)])
    found = seeds_interval([perfect, perfect], accuracy)
    assert (found.low, found.value, found.high) == (1, 1, 1)
    runs = [{"id": np.arange(4), "group": np.arange(4), "errors": np.array(e), "length": np.ones(4)} for e in
            ([0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0])]  # fmt: skip
    for method in ("t", "bootstrap"):
        found = seeds_interval(runs, wer, method=method)
        assert 0 <= found.low < found.value < found.high
    single = [{**run, "group": np.zeros(4)} for run in runs]
    assert seeds_interval(single, wer).method == "t over 3 seeds and items"
    with pytest.raises(ConfigError, match="'median' is not one of t, bootstrap"):
        seeds_interval(runs, wer, method="median")


def test_all_systems_meet_the_same_resamples():
    runs = losses()
    better = [[{**run, "loss": run["loss"] - 1}] for run in runs[:1]]
    draws = seeded_draws([runs[:1], *better], LOSS, n=50)
    assert draws.shape == (50, 2) and np.allclose(draws[:, 0] - draws[:, 1], 1), "what they have in common cancels"
    mixed = seeded_draws([runs, runs[:1]], LOSS, n=400)
    assert mixed[:, 0].std() > 0 and np.array_equal(mixed, seeded_draws([runs, runs[:1]], LOSS, n=400))


def test_intervals_of_ranks_hold_their_value():
    scores = np.array([[0.9, 0.8], [0.5, 0.85], [0.1, 0.2]])
    draws = scores + 0.05 * np.random.default_rng(0).standard_normal((500, 3, 2))
    first, second, third = rank_intervals(scores, draws)
    assert (first.rank, second.rank, third.rank) == (1.5, 1.5, 3)
    assert (first.low, first.high) == (1, 1.5) and (second.low, second.high) == (1.5, 2)
    assert (third.low, third.high) == (3, 3)
