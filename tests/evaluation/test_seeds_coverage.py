"""Do 95 % intervals over seeds and items hold the truth 95 % of the time? On simulated systems whose truth is known.

The slow test prints the table:

    python -m pytest -m slow -s tests/evaluation/test_seeds_coverage.py
"""

from __future__ import annotations

import numpy as np
import pytest
from coverage_worlds import emotions, ratings

from lobes.errors import DataError
from lobes.evaluation import accuracy, ccc, label_records, uar, wer
from lobes.evaluation import seeds as over_seeds
from lobes.evaluation.ranking import rank_intervals
from lobes.evaluation.seeds import compare_seeds, seeded_draws, seeds_interval

Table = dict[str, np.ndarray]


def recogniser(rng: np.random.Generator, seeds: int, groups: int, shift: float = 0.0, spread: float = 0.12) -> list:
    """Runs of one system on the same utterances: speakers, seeds, and how a seed gets on with a speaker all differ."""
    group = np.repeat(np.arange(groups), rng.integers(6, 15, size=groups))
    length = 1 + rng.poisson(9, size=len(group))
    speaker = 0.4 * rng.standard_normal(groups)[group]
    runs = []
    for _ in range(seeds):
        effect = spread * rng.standard_normal() + 0.15 * rng.standard_normal(groups)[group]
        rate = np.minimum(0.15 * np.exp(shift + speaker + effect), 1)
        runs.append({"id": np.arange(len(group)), "group": group, "errors": rng.binomial(length, rate)})
        runs[-1]["length"] = length
    return runs


def classifier(rng: np.random.Generator, seeds: int, groups: int) -> list[Table]:
    """The same of decisions, right four times in five."""
    group = np.repeat(np.arange(groups), 15)
    speaker = 0.6 * rng.standard_normal(groups)[group]
    runs = []
    for _ in range(seeds):
        effect = 0.2 * rng.standard_normal() + 0.2 * rng.standard_normal(groups)[group]
        right = rng.random(len(group)) < 1 / (1 + np.exp(-(1.4 + speaker + effect)))
        runs.append({"id": np.arange(len(group)), "group": group, "prediction": right.astype(float)})
        runs[-1]["target"] = np.ones(len(group))
    return runs


WORLDS = {"wer": (recogniser, wer), "accuracy": (classifier, accuracy)}


def truth_of(name: str) -> float:
    """The expectation over seeds of the score on endlessly many speakers, whose draw is shared by few seeds here."""
    world, metric = WORLDS[name]
    rng = np.random.default_rng(99)
    return float(np.mean([metric(world(rng, 1, 100)[0]) for _ in range(500)]))


def coverage(name: str, seeds: int, groups: int, runs: int, method: str = "t", truth: float | None = None) -> float:
    """Share of experiments, in percent, whose interval holds the truth."""
    world, metric = WORLDS[name]
    truth = truth_of(name) if truth is None else truth
    rng = np.random.default_rng([seeds, groups])
    found = [seeds_interval(world(rng, seeds, groups), metric, method=method, n=300, seed=i) for i in range(runs)]
    return 100 * np.mean([interval.low <= truth <= interval.high for interval in found])


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_over_three_seeds_cover(name: str) -> None:
    assert 91 <= coverage(name, 3, 20, runs=200) <= 99  # a standard error of 1.5 percent


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_coverage_over_seeds_and_groups(name: str) -> None:
    truth = truth_of(name)
    print(f"\ncoverage of 95 % intervals, {name}\nseeds groups      t  bootstrap")
    for seeds, groups in ((2, 20), (3, 8), (3, 20), (5, 8), (5, 20), (5, 40), (10, 20)):
        t = coverage(name, seeds, groups, 1000, truth=truth)
        bootstrap = coverage(name, seeds, groups, 250, "bootstrap", truth)
        print(f"{seeds:5} {groups:6} {t:6.1f} {bootstrap:10.1f}", flush=True)
        assert 92.3 <= t <= 97.7  # 93 to 97, with a standard error of 0.7


@pytest.mark.slow
@pytest.mark.parametrize(("world", "metric"), [(emotions, uar), (ratings, ccc)], ids=["uar", "ccc"])
def test_coverage_of_uar_and_ccc_over_three_seeds(world, metric) -> None:
    many = np.random.default_rng(99)
    truth = float(np.mean([metric(world(many, 300, 2)[0]) for _ in range(300)]))
    print(f"\ncoverage of 95 % intervals over three seeds, {metric.name}", end="")
    for groups in (8, 20):
        rng = np.random.default_rng([3, groups])
        intervals = [seeds_interval(world(rng, groups, 3), metric) for _ in range(1500)]
        found = 100 * np.mean([interval.low <= truth <= interval.high for interval in intervals])
        print(f"; {groups} groups: {found:.1f}", end="", flush=True)
        assert 93 <= found <= 97


def p_values(seeds: int, groups: int, runs: int, paired: bool = False, others: int | None = None) -> np.ndarray:
    """Of comparisons of two systems that are equally good, on the same utterances; `paired` in what a seed does too.

    `others` is how many seeds the second has, if not as many.
    """
    rng = np.random.default_rng(seeds)
    found = []
    for _ in range(runs):
        if paired:
            a, b = paired_recognisers(rng, seeds, groups)
        else:
            both = recogniser(rng, seeds + (others or seeds), groups)
            a, b = both[:seeds], both[seeds:]
        found.append(compare_seeds(dict(enumerate(a)), dict(enumerate(b)), wer, paired=paired).p_value)
    return np.array(found)


def paired_recognisers(rng: np.random.Generator, seeds: int, groups: int) -> tuple[list[Table], list[Table]]:
    """Two systems to which a seed does much the same, but for what it does to each of them and each speaker."""
    a = recogniser(rng, seeds, groups, spread=0.3)
    b = []
    for run in a:
        own = 0.1 * rng.standard_normal() + 0.15 * rng.standard_normal(groups)[run["group"]]
        first = np.exp(-0.1 * rng.standard_normal() - 0.15 * rng.standard_normal(groups)[run["group"]])
        rate = run["errors"] / run["length"]
        run["errors"] = rng.binomial(run["length"], np.minimum(rate * first, 1))
        b.append({**run, "errors": rng.binomial(run["length"], np.minimum(rate * np.exp(own), 1))})
    return a, b


def test_equal_systems_are_told_apart_one_time_in_twenty() -> None:
    found = p_values(3, 12, 150)
    assert 1 <= 100 * np.mean(found < 0.05) <= 10 and 0.42 < found.mean() < 0.58


def test_one_seed_against_several_is_the_difference_of_their_means() -> None:
    runs = recogniser(np.random.default_rng(3), 4, 12, spread=0.3)
    found = compare_seeds({1: runs[0]}, dict(enumerate(runs[1:])), wer)
    assert found.value_a == wer(runs[0]) and found.value_b == pytest.approx(np.mean([wer(run) for run in runs[1:]]))
    assert found.difference == pytest.approx(found.value_a - found.value_b)
    assert found.method == "t over 1 and 3 seeds and groups, the one's seeds taken to differ as the other's"
    back = compare_seeds(dict(enumerate(runs[1:])), {1: runs[0]}, wer)
    assert (back.difference, back.low, back.p_value) == pytest.approx((-found.difference, -found.high, found.p_value))
    single = compare_seeds({1: runs[0]}, {1: runs[2]}, wer)
    assert found.high - found.low > single.high - single.low, "which knows of no other seeds"


def test_few_degrees_of_freedom_do_not_reach_beyond_the_scale(monkeypatch) -> None:
    monkeypatch.setattr(over_seeds, "_difference", lambda ours, theirs: (0.1, 0.4))  # whose t is above a hundred
    labels = [
        label_records([1, 0] * 6, [1, 0, right, 0] * 3, groups=[f"g{n % 4}" for n in range(12)]) for right in (0, 1)
    ]
    found = compare_seeds({1: labels[0], 2: labels[0]}, {1: labels[1], 2: labels[1], 3: labels[1]}, accuracy)
    assert (found.low, found.high) == (-1.0, 1.0) and found.difference == pytest.approx(-0.25)


def test_one_seed_against_several_is_told_apart_about_one_time_in_twenty() -> None:
    found = p_values(1, 12, 150, others=3)
    assert 1 <= 100 * np.mean(found < 0.05) <= 12 and 0.4 < found.mean() < 0.6


def test_pairing_seeds_is_as_honest_and_sees_more() -> None:
    found = p_values(3, 12, 150, paired=True)
    assert 1 <= 100 * np.mean(found < 0.05) <= 10
    a, b = (dict(enumerate(runs)) for runs in paired_recognisers(np.random.default_rng(1), 4, 20))
    pair, apart = compare_seeds(a, b, wer, paired=True), compare_seeds(a, b, wer)
    assert pair.difference == apart.difference and pair.method == "t over 4 paired seeds and groups"
    assert pair.high - pair.low < 0.7 * (apart.high - apart.low)
    with pytest.raises(DataError, match=r"\[7\] have none in common"):
        compare_seeds(a, {7: b[0]}, wer, paired=True)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
def test_equal_systems_are_told_apart_one_time_in_twenty_however_many_seeds(paired: bool) -> None:
    for seeds, groups in ((2, 12), (3, 24), (5, 12)):
        found = p_values(seeds, groups, 1000, paired)
        print(f"\n{seeds} seeds, {groups} groups: p < 0.05 in {100 * np.mean(found < 0.05):.1f} %", end="")
        assert 2.3 <= 100 * np.mean(found < 0.05) <= 7.7


@pytest.mark.slow
def test_how_often_one_seed_is_told_apart_from_several_that_are_as_good() -> None:
    """More often than one time in twenty where the several are two, whose spread is hardly known."""
    for others, groups in ((2, 12), (3, 12), (3, 24), (5, 12)):
        found = p_values(1, groups, 1000, others=others)
        print(f"\n1 and {others} seeds, {groups} groups: p < 0.05 in {100 * np.mean(found < 0.05):.1f} %", end="")
        assert 2.3 <= 100 * np.mean(found < 0.05) <= 10


def rank_coverage(step: float, runs: int, tasks: int = 4, systems: int = 4, groups: int = 24, n: int = 200) -> float:
    """Share of intervals of mean ranks that hold the true mean rank; systems are `step` apart in log error rate."""
    rng = np.random.default_rng(int(100 * step))
    orders = [rng.permutation(systems) for _ in range(tasks)]  # which system is how good in each task
    truth = np.mean(orders, axis=0) + 1
    hits = []
    for _ in range(runs):
        draws, scores = [], []
        for order in orders:
            group = np.repeat(np.arange(groups), 10)
            speaker = 0.4 * rng.standard_normal(groups)
            runs_of = []
            for place in order:
                rate = 0.12 * np.exp(step * place + (speaker + 0.1 * rng.standard_normal(groups))[group])
                errors = rng.binomial(10, np.minimum(rate, 1))
                length = np.full(len(group), 10)
                runs_of.append([{"id": np.arange(len(group)), "group": group, "errors": errors, "length": length}])
            draws.append(seeded_draws(runs_of, wer, n=n))
            scores.append([wer(found) for (found,) in runs_of])
        intervals = rank_intervals(np.transpose(scores), np.stack(draws, axis=-1), higher_is_better=False)
        hits += [i.low <= t <= i.high for i, t in zip(intervals, truth, strict=True)]
    return 100 * float(np.mean(hits))


def test_intervals_of_mean_ranks_cover() -> None:
    assert rank_coverage(0.1, runs=15, n=100) >= 90


@pytest.mark.slow
def test_coverage_of_mean_ranks() -> None:
    """Ranks are whole numbers in each task: intervals of well separated systems have no width and are always right."""
    for step in (0.02, 0.05, 0.1, 0.2, 0.4):
        found = rank_coverage(step, runs=200)
        print(f"\nsystems {step:g} apart in log error rate: {found:.1f} %", end="")
        assert found >= (93 if step >= 0.05 else 85)
