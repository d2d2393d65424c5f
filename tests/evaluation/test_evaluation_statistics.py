"""Intervals and tests on records whose answer is known or can be had in another way."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from lobes.errors import ConfigError, DataError
from lobes.evaluation import (
    accuracy,
    bootstrap_interval,
    eer,
    holm,
    intent_accuracy,
    label_records,
    mcnemar,
    mean_metric,
    paired_bootstrap,
    sign_flip_test,
    slot_f1,
    tagged_records,
    trial_records,
    uar,
    wer,
)

MEAN = mean_metric("x", "x")


def grouped(values: list[list[float]]) -> list[dict]:
    pairs = [(g, value) for g, group in enumerate(values) for value in group]
    return [{"id": str(i), "group": f"g{g}", "x": value} for i, (g, value) in enumerate(pairs)]


def simulated(n_groups: int, seed: int, items: int = 8) -> list[dict]:
    rng = np.random.default_rng(seed)
    return grouped([list(rng.normal(rng.normal(), 0.5, size=items)) for _ in range(n_groups)])


def error_records(seed: int, n_groups: int = 24, rate: float = 0.2) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"id": f"u{i}", "group": f"s{i % n_groups}", "errors": int(rng.binomial(10, rate)), "length": 10}
        for i in range(10 * n_groups)
    ]


def test_percentile_interval_equals_a_slow_loop_over_groups() -> None:
    records = error_records(0, n_groups=12)
    chance = random.Random(0)
    groups = sorted({record["group"] for record in records})
    draws = []
    for _ in range(3000):
        chosen = [r for g in chance.choices(groups, k=len(groups)) for r in records if r["group"] == g]
        draws.append(sum(r["errors"] for r in chosen) / sum(r["length"] for r in chosen))
    low, high = np.quantile(draws, [0.025, 0.975])
    interval = bootstrap_interval(records, wer, method="percentile", n=3000)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.003)
    assert (interval.n_items, interval.n_groups, interval.method) == (120, 12, "percentile")


@pytest.mark.parametrize("n_groups", [2, 6, 19])
def test_t_interval_of_a_balanced_mean_is_the_textbook_one(n_groups: int) -> None:
    from scipy.stats import t

    records = simulated(n_groups, seed=n_groups)
    means = np.array([record["x"] for record in records]).reshape(n_groups, -1).mean(1)
    half = t.ppf(0.975, n_groups - 1) * means.std(ddof=1) / math.sqrt(n_groups)
    interval = bootstrap_interval(records, MEAN)
    assert (interval.method, interval.n_groups) == ("t", n_groups)
    assert (interval.low, interval.high) == pytest.approx((means.mean() - half, means.mean() + half), abs=1e-9)


def test_expanded_interval_is_as_wide_as_student() -> None:
    records = simulated(20, seed=1)
    expanded = bootstrap_interval(records, MEAN, n=8000)
    student = bootstrap_interval(records, MEAN, method="t")
    plain = bootstrap_interval(records, MEAN, n=8000, method="percentile")
    assert expanded.method == "expanded"
    assert expanded.high - expanded.low == pytest.approx(student.high - student.low, rel=0.08)
    assert plain.high - plain.low < 0.95 * (student.high - student.low)


def test_items_of_a_group_are_not_independent() -> None:
    records = grouped([[float(g % 2)] * 20 for g in range(30)])
    clustered, naive = bootstrap_interval(records, MEAN), bootstrap_interval(records, MEAN, group=None)
    assert clustered.high - clustered.low > 3 * (naive.high - naive.low)
    assert (clustered.n_groups, naive.n_groups) == (30, 600)


def test_two_stage_is_wider_where_items_vary() -> None:
    rng = np.random.default_rng(2)
    records = grouped([list(rng.normal(size=3)) for _ in range(20)])
    one, two = (bootstrap_interval(records, MEAN, method=m, n=4000) for m in ("percentile", "two_stage"))
    assert two.high - two.low > 1.2 * (one.high - one.low)
    alike = grouped([[float(g)] * 5 for g in range(20)])
    one, two = (bootstrap_interval(alike, MEAN, method=m, n=4000) for m in ("percentile", "two_stage"))
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.05)


def test_a_single_group_is_said_to_be_over_items() -> None:
    interval = bootstrap_interval(grouped([[0.0, 1.0, 2.0] * 10]), MEAN)
    assert interval.n_groups == 1 and interval.method == "expanded over items"
    assert interval.low < 1.0 < interval.high


def test_t_interval_of_a_rate_is_symmetric_on_its_scale() -> None:
    groups = [f"s{i // 20}" for i in range(120)]
    right = [int(i % 20 >= i // 20) for i in range(120)]
    interval = bootstrap_interval(label_records([1] * 120, right, groups=groups), accuracy)
    low, value, high = (math.log(p / (1 - p)) for p in (interval.low, interval.value, interval.high))
    assert interval.method == "t" and high - value == pytest.approx(value - low)
    interval = bootstrap_interval(error_records(0, n_groups=6), wer)
    assert interval.high / interval.value == pytest.approx(interval.value / interval.low)


def test_intervals_stay_within_the_bounds_of_the_metric() -> None:
    records = label_records([1] * 60, [1] * 58 + [0, 0], groups=[f"s{i // 20}" for i in range(60)])
    interval = bootstrap_interval(records, accuracy)
    assert interval.method == "t" and 0.0 < interval.low < 58 / 60 < interval.high < 1.0


@pytest.mark.parametrize("metric", [accuracy, uar, eer, wer], ids=lambda metric: metric.name)
def test_every_metric_has_an_interval_that_is_a_function_of_the_seed(metric) -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, size=240)
    groups = [f"s{i % 24}" for i in range(240)]
    records = {
        "eer": trial_records(targets.tolist(), (rng.normal(size=240) + targets).tolist(), groups=groups),
        "wer": error_records(1),
    }.get(
        metric.name,
        label_records(targets.tolist(), np.where(rng.random(240) < 0.8, targets, 0).tolist(), groups=groups),
    )
    one, same, other = (bootstrap_interval(records, metric, n=500, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert one.low < one.value < one.high


def test_chunks_do_not_change_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    records = error_records(2)
    whole = bootstrap_interval(records, wer, n=300, method="percentile")
    monkeypatch.setattr("lobes.evaluation.resampling.CHUNK", 7 * len(records))
    assert bootstrap_interval(records, wer, n=300, method="percentile") == whole
    t = bootstrap_interval(records, wer, method="t")
    monkeypatch.setattr("lobes.evaluation.resampling.CHUNK", 1)
    assert bootstrap_interval(records, wer, method="t") == t


# --------------------------------------------------------------------------- pairs


def test_what_systems_share_cancels() -> None:
    """Speakers differ by far more than systems do: unpaired intervals overlap, the paired one is clear."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 5, size=20)
    a = grouped([[b + rng.normal(0, 0.1) for _ in range(4)] for b in base])
    b = [record | {"x": record["x"] + 0.3 + rng.normal(0, 0.1)} for record in a]
    comparison = paired_bootstrap(b, a, MEAN)
    assert 0.2 < comparison.low < comparison.difference < comparison.high < 0.4
    assert comparison.p_value < 1e-6
    assert bootstrap_interval(a, MEAN).high > bootstrap_interval(b, MEAN).low
    assert sign_flip_test(a, b, MEAN, n=2000) < 0.01


def test_the_pair_is_matched_by_id_and_antisymmetric() -> None:
    a, b = error_records(3), error_records(4, rate=0.25)
    shuffled = random.Random(0).sample(b, len(b))
    one, other, mirrored = paired_bootstrap(a, b, wer), paired_bootstrap(a, shuffled, wer), paired_bootstrap(b, a, wer)
    assert one == other
    assert (one.difference, one.value_a) == (-mirrored.difference, mirrored.value_b)
    assert (one.low, one.high, one.p_value) == pytest.approx(
        (-mirrored.high, -mirrored.low, mirrored.p_value), abs=1e-9
    )


@pytest.mark.parametrize("method", ["expanded", "t", "percentile"])
def test_the_p_value_inverts_the_interval(method: str) -> None:
    agreed = 0
    for seed in range(40):
        a, b = error_records(seed, rate=0.2), error_records(seed + 100, rate=0.225)
        comparison = paired_bootstrap(a, b, wer, method=method, n=1000)
        if abs(comparison.p_value - 0.05) > 0.005:
            excluded = not comparison.low <= 0 <= comparison.high
            assert excluded == (comparison.p_value < 0.05)
            agreed += excluded
    assert 0 < agreed < 40


def test_paired_t_of_a_balanced_mean_is_students_test() -> None:
    from scipy.stats import ttest_rel

    a, b = simulated(6, seed=1), simulated(6, seed=2)
    means = [np.array([record["x"] for record in system]).reshape(6, -1).mean(1) for system in (a, b)]
    assert paired_bootstrap(a, b, MEAN).p_value == pytest.approx(ttest_rel(*means).pvalue, abs=1e-9)


def test_equal_systems_do_not_differ() -> None:
    for n_groups in (6, 24):
        records = error_records(5, n_groups=n_groups)
        comparison = paired_bootstrap(records, records, wer)
        assert (comparison.difference, comparison.low, comparison.high, comparison.p_value) == (0.0, 0.0, 0.0, 1.0)
        assert sign_flip_test(records, records, wer, n=100) == 1.0


def test_sign_flip_is_exact_for_few_groups() -> None:
    a, b = simulated(6, seed=3), simulated(6, seed=4)
    differences = np.array([ra["x"] - rb["x"] for ra, rb in zip(a, b, strict=True)]).reshape(6, -1).mean(1)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=6)]
    exact = np.mean([total >= abs(differences.sum()) - 1e-12 for total in sums])
    assert sign_flip_test(a, b, MEAN) == pytest.approx(exact)
    assert sign_flip_test(a, b, MEAN, n=63) == pytest.approx(exact, abs=0.2)  # too few for all 64: random ones


def test_mcnemar_equals_the_binomial_test() -> None:
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    for _ in range(10):
        targets = rng.integers(0, 2, size=60)
        a, b = (np.where(rng.random(60) < share, targets, 1 - targets) for share in (0.8, 0.65))
        only_a, only_b = int(((a == targets) & (b != targets)).sum()), int(((a != targets) & (b == targets)).sum())
        p_value = mcnemar(label_records(targets, a), label_records(targets, b))
        assert p_value == pytest.approx(binomtest(only_a, only_a + only_b, 0.5).pvalue, abs=1e-9)
    assert mcnemar(label_records([1], [1]), label_records([1], [1])) == 1.0


def test_mcnemar_counts_intents_as_it_counts_labels() -> None:
    rng = np.random.default_rng(4)
    meant = rng.choice(["order", "cancel"], 60).tolist()
    heard = [[said if rng.random() < share else "other" for said in meant] for share in (0.9, 0.6)]
    texts = [[f"#{intent} a <drink tea >" for intent in intents] for intents in (meant, *heard)]
    a, b = (tagged_records(texts[0], understood) for understood in texts[1:])
    expected = mcnemar(*(label_records(meant, intents) for intents in heard))
    assert mcnemar(a, b, intent_accuracy) == expected < 0.05
    assert mcnemar(*(label_records(meant, intents) for intents in heard), uar) == expected
    with pytest.raises(ConfigError, match="metric is slot_f1: expected accuracy or uar or intent_accuracy"):
        mcnemar(a, b, slot_f1)


def test_holm_equals_its_definition() -> None:
    p_values = [0.02, 0.005, 0.5, 0.011, 0.02]
    ordered = sorted(p_values)
    expected = {p: max(min(1.0, (5 - k) * ordered[k]) for k in range(i + 1)) for i, p in enumerate(ordered)}
    assert holm(p_values) == pytest.approx([expected[p] for p in p_values])
    assert holm([]) == []


def test_errors_name_what_is_wrong() -> None:
    records = simulated(4, seed=0)
    less = [{key: value for key, value in record.items() if key != "group"} for record in records]
    moved = [record | {"group": "elsewhere"} for record in records]
    cases = [
        (DataError, "'group' missing", lambda: bootstrap_interval(less, MEAN)),
        (DataError, "'group' is empty", lambda: bootstrap_interval([r | {"group": ""} for r in records], MEAN)),
        (DataError, "undefined", lambda: bootstrap_interval([r | {"x": math.nan} for r in records], MEAN)),
        (DataError, "single item", lambda: bootstrap_interval(records[:1], MEAN)),
        (ConfigError, "method: 'bca'", lambda: bootstrap_interval(records, MEAN, method="bca")),
        (ConfigError, "level: 95", lambda: bootstrap_interval(records, MEAN, level=95)),
        (DataError, "1 items are in one system only", lambda: paired_bootstrap(records, records[1:], MEAN)),
        (DataError, "occurs twice", lambda: paired_bootstrap(records, records + records[:1], MEAN)),
        (DataError, "score both on one manifest", lambda: paired_bootstrap(records, moved, MEAN)),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
