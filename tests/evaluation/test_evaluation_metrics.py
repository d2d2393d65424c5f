"""Metrics equal slow, obvious loops, reference implementations where installed, and themselves under repetition."""

from __future__ import annotations

import functools
import math
import random

import numpy as np
import pytest

from lobes.errors import DataError
from lobes.evaluation import (
    accuracy,
    auc,
    cer,
    char_errors,
    edit_counts,
    eer,
    label_records,
    mean_metric,
    trial_records,
    uar,
    wer,
    word_errors,
)


def slow_distance(reference: str, hypothesis: str) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        differ = reference[i - 1] != hypothesis[j - 1]
        return min(distance(i - 1, j - 1) + differ, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(reference), len(hypothesis))


def random_texts(seed: int, n: int = 60) -> tuple[list[str], list[str]]:
    chance = random.Random(seed)
    references = [" ".join(chance.choices("ab cd ef gh".split(), k=chance.randint(1, 12))) for _ in range(n)]
    hypotheses = []
    for reference in references:
        words = [w for w in reference.split() if chance.random() > 0.15]
        words = [chance.choice(["ab", "zz"]) if chance.random() < 0.2 else w for w in words]
        hypotheses.append(" ".join(words + ["ab"] * chance.randint(0, 1)))
    return references, hypotheses


def test_edit_counts_are_minimal_and_consistent() -> None:
    chance = random.Random(0)
    for _ in range(200):
        a = "".join(chance.choices("abc", k=chance.randint(0, 9)))
        b = "".join(chance.choices("abc", k=chance.randint(0, 9)))
        substitutions, deletions, insertions = edit_counts(a, b)
        assert substitutions + deletions + insertions == slow_distance(a, b)
        assert len(a) - deletions + insertions == len(b)
        assert min(substitutions, deletions, insertions) >= 0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [("", "", (0, 0, 0)), ("", "ab", (0, 0, 2)), ("ab", "", (0, 2, 0)), ("abc", "abd", (1, 0, 0))],
)
def test_edit_counts_at_the_edges(reference: str, hypothesis: str, expected: tuple[int, int, int]) -> None:
    assert edit_counts(reference, hypothesis) == expected


def test_corpus_rates_are_ratios_of_sums() -> None:
    references, hypotheses = random_texts(1)
    records = word_errors(references, hypotheses, groups=["s"] * len(references))
    errors = sum(slow_distance(tuple(r.split()), tuple(h.split())) for r, h in zip(references, hypotheses, strict=True))
    assert wer(records) == pytest.approx(errors / sum(len(r.split()) for r in references), abs=1e-12)
    chars = char_errors(references, hypotheses)
    errors = sum(slow_distance(r, h) for r, h in zip(references, hypotheses, strict=True))
    assert cer(chars) == pytest.approx(errors / sum(map(len, references)), abs=1e-12)


def test_error_rates_equal_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    references, hypotheses = random_texts(2)
    assert wer(word_errors(references, hypotheses)) == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-6)
    assert cer(char_errors(references, hypotheses)) == pytest.approx(jiwer.cer(references, hypotheses), abs=1e-6)


def test_error_rates_equal_speechbrain() -> None:
    from speechbrain.utils.metric_stats import ErrorRateStats

    references, hypotheses = random_texts(3)
    stats = ErrorRateStats()
    stats.append([str(i) for i in range(60)], [h.split() for h in hypotheses], [r.split() for r in references])
    records = word_errors(references, hypotheses)
    summary = stats.summarize()
    assert 100 * wer(records) == pytest.approx(summary["WER"], abs=1e-6)
    assert sum(record["length"] for record in records) == summary["num_scored_tokens"]


def test_an_insertion_into_an_empty_reference_counts() -> None:
    records = word_errors(["", "un deux"], ["euh", "un deux"])
    assert wer(records) == 0.5
    assert math.isnan(wer(word_errors([""], ["euh"])))


def test_uar_and_accuracy_equal_slow_loops() -> None:
    rng = np.random.default_rng(0)
    targets = rng.choice(["joy", "anger", "calm"], p=[0.7, 0.2, 0.1], size=200).tolist()
    predictions = [t if rng.random() < 0.6 else "joy" for t in targets]
    records = label_records(targets, predictions)
    recalls = []
    for label in set(targets):
        of_class = [p for t, p in zip(targets, predictions, strict=True) if t == label]
        recalls.append(sum(p == label for p in of_class) / len(of_class))
    assert uar(records) == pytest.approx(sum(recalls) / 3, abs=1e-12)
    assert accuracy(records) == sum(t == p for t, p in zip(targets, predictions, strict=True)) / 200
    sklearn = pytest.importorskip("sklearn.metrics")
    assert uar(records) == pytest.approx(sklearn.balanced_accuracy_score(targets, predictions), abs=1e-6)


def test_labels_of_mixed_types_are_not_confused() -> None:
    assert accuracy(label_records([1, "1"], ["1", "1"])) == 0.5


def slow_eer(targets: list[int], scores: list[float]) -> float:
    """Walk over all thresholds; interpolate where miss and false-alarm rates cross."""
    positive = [s for t, s in zip(targets, scores, strict=True) if t]
    negative = [s for t, s in zip(targets, scores, strict=True) if not t]
    before = (0.0, 1.0)
    for threshold in sorted(set(scores)):
        miss = sum(s <= threshold for s in positive) / len(positive)
        alarm = sum(s > threshold for s in negative) / len(negative)
        if miss >= alarm:
            gap = before[1] - before[0]
            share = gap / (gap + miss - alarm)
            return before[0] + share * (miss - before[0])
        before = (miss, alarm)
    raise AssertionError("rates never cross")


@pytest.mark.parametrize("seed", range(6))
def test_eer_equals_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, size=80).tolist()
    scores = (rng.normal(size=80) + np.array(targets)).round(1 if seed % 2 else 9).tolist()  # odd seeds: ties
    assert eer(trial_records(targets, scores)) == pytest.approx(slow_eer(targets, scores), abs=1e-9)


def test_eer_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq

    rng = np.random.default_rng(7)
    targets = rng.integers(0, 2, size=300)
    scores = rng.normal(size=300) + targets
    alarm, hit, _ = metrics.roc_curve(targets, scores, drop_intermediate=False)
    expected = brentq(lambda x: 1.0 - x - interp1d(alarm, hit)(x), 0.0, 1.0)
    assert eer(trial_records(targets.tolist(), scores.tolist())) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("targets", "scores", "expected"),
    [
        ([1, 1, 0, 0], [2.0, 3.0, 0.0, 1.0], 0.0),
        ([1, 1, 0, 0], [0.0, 1.0, 2.0, 3.0], 1.0),
        ([1, 0], [0.5, 0.5], 0.5),
        ([1, 0, 1, 0], [1.0, 2.0, 3.0, 0.0], 0.5),
    ],
)
def test_eer_of_known_cases(targets: list[int], scores: list[float], expected: float) -> None:
    assert eer(trial_records(targets, scores)) == pytest.approx(expected)
    assert math.isnan(eer(trial_records([1, 1], [0.1, 0.2])))


def made_records(name: str, n: int = 40) -> list[dict]:
    rng = np.random.default_rng(3)
    if name in ("wer", "mean"):
        records = word_errors(*random_texts(4, n))
        return [record | {"x": float(rng.normal())} for record in records]
    if name in ("eer", "auc"):
        targets = rng.integers(0, 2, size=n)
        return trial_records(targets.tolist(), (rng.normal(size=n) + targets).round(1).tolist())
    targets = rng.integers(0, 3, size=n)
    return label_records(targets.tolist(), np.where(rng.random(n) < 0.6, targets, 0).tolist())


@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_a_slow_loop_and_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(size=60) + targets, 1)  # rounded: with ties
    pairs = [(a, b) for a in scores[targets == 1] for b in scores[targets == 0]]
    slow = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
    found = auc(trial_records(targets.tolist(), scores.tolist()))
    assert found == pytest.approx(slow, abs=1e-12)
    sklearn = pytest.importorskip("sklearn.metrics")
    assert found == pytest.approx(sklearn.roc_auc_score(targets, scores), abs=1e-12)


def test_auc_without_others_is_undefined() -> None:
    assert math.isnan(auc(trial_records([1, 1], [0.1, 0.2])))
    assert auc(trial_records([1, 0, 0], [0.5, 0.5, 0.1])) == 0.75


METRICS = {"wer": wer, "accuracy": accuracy, "uar": uar, "eer": eer, "auc": auc, "mean": mean_metric("x", "x")}


@pytest.mark.parametrize("name", METRICS)
def test_a_weight_of_k_is_k_copies(name: str) -> None:
    metric, records = METRICS[name], made_records(name)
    weights = np.random.default_rng(5).integers(0, 4, size=(7, len(records)))
    values = metric(records, weights)
    assert values.shape == (7,)
    for row, value in zip(weights, values, strict=True):
        copies = [record for record, k in zip(records, row, strict=True) for _ in range(k)]
        assert value == pytest.approx(metric(copies), abs=1e-12)


def test_errors_name_what_is_wrong() -> None:
    for call, message in [
        (lambda: wer([]), "none given"),
        (lambda: wer([{"id": "a", "errors": 1}]), r"id 'a'.*'length' missing"),
        (lambda: word_errors(["a"], ["a", "b"]), "hypotheses: 2 items, expected 1"),
        (lambda: word_errors(["a"], ["a"], groups=[]), "groups: 0 items"),
        (lambda: label_records([1], []), "predictions: 0 items"),
        (lambda: wer({"errors": np.ones(2)}), "'length' missing"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
