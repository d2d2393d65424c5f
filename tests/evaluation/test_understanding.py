"""Metrics of understanding equal slow loops, jiwer and scikit-learn on random meanings, and have intervals."""

from __future__ import annotations

import random
from collections import Counter

import jiwer
import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from lobes.errors import ConfigError, DataError
from lobes.evaluation import (
    bootstrap_interval,
    concept_error_rate,
    concept_value_error_rate,
    intent_accuracy,
    slot_f1,
    slot_precision,
    slot_recall,
    tagged_records,
    understanding_metric,
    understanding_records,
    with_intervals,
)


def random_meanings(seed, n=80):
    """References of 1 to 6 concepts, and hypotheses that lose, change, repeat and invent some."""
    chance = random.Random(seed)

    def concept():
        return chance.choice("abcd"), chance.choice(["un", "deux", "trois quatre", ""])

    references = [[concept() for _ in range(chance.randint(1, 6))] for _ in range(n)]
    hypotheses = []
    for reference in references:
        kept = [c if chance.random() > 0.2 else concept() for c in reference if chance.random() > 0.15]
        kept += [concept() for _ in range(chance.randint(0, 2))]
        hypotheses.append(kept)
    return references, hypotheses


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            differ = a[i - 1] != b[j - 1]
            table[i, j] = min(table[i - 1, j - 1] + differ, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[len(a), len(b)]


@pytest.mark.parametrize("seed", range(3))
def test_error_rates_equal_a_slow_loop_and_jiwer(seed):
    references, hypotheses = random_meanings(seed)
    records = understanding_records(references, hypotheses)
    for metric, key in ((concept_error_rate, lambda c: c[0]), (concept_value_error_rate, lambda c: "=".join(c))):
        said = [[key(c).replace(" ", "_") for c in concepts] for concepts in references]
        heard = [[key(c).replace(" ", "_") for c in concepts] for concepts in hypotheses]
        slow = sum(map(slow_distance, said, heard)) / sum(map(len, said))
        theirs = jiwer.wer([" ".join(words) for words in said], [" ".join(words) for words in heard])
        assert metric(records) == pytest.approx(slow, abs=1e-12) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_slot_scores_equal_a_slow_loop_and_scikit_learn(seed):
    references, hypotheses = random_meanings(seed + 10)
    right = found = meant = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        left = list(reference)
        for concept in hypothesis:
            if concept in left:
                left.remove(concept)
                right += 1
        found, meant = found + len(hypothesis), meant + len(reference)
    records = understanding_records(references, hypotheses)
    assert slot_f1(records) == pytest.approx(2 * right / (found + meant), abs=1e-12)

    def numbered(concepts):  # the second ("a", "un") of an utterance is a label of its own
        seen = Counter()
        for concept in concepts:
            seen[concept] += 1
            yield (*concept, seen[concept])

    both = [[list(numbered(c)) for c in side] for side in (references, hypotheses)]
    labels = sorted({label for side in both for concepts in side for label in concepts})
    y_true, y_pred = (np.array([[label in c for label in labels] for c in side]).astype(int) for side in both)
    precision, recall, f1, _ = precision_recall_fscore_support(y_true, y_pred, average="micro")
    ours = [metric(records) for metric in (slot_precision, slot_recall, slot_f1)]
    assert ours == pytest.approx([precision, recall, f1], abs=1e-12)


def test_order_counts_for_error_rates_and_not_for_slots():
    a, b = ("size", "small"), ("drink", "tea")
    [record] = understanding_records([[a, b]], [[b, a]])
    assert (record["concept_errors"], record["concept_value_errors"]) == (2, 2)
    assert slot_f1([record]) == 1.0


def test_a_label_that_training_never_had_is_an_error_and_no_crash():
    said = ["#order <size small >", "#cancel <gift card >"]
    records = tagged_records(said, ["#order <size small >", "#order"], groups=["a", "b"])
    assert intent_accuracy(records) == 0.5 and slot_recall(records) == 0.5 and slot_precision(records) == 1.0
    assert concept_error_rate(records) == 0.5 and records[1]["hypothesis"] == "#order"


def test_nothing_meant_or_understood():
    records = tagged_records(["", "un deux"], ["", "<size small >"])
    assert "intents" not in records[0], "no intent is meant anywhere"
    assert np.isnan(concept_error_rate(records)) and np.isnan(slot_recall(records)) and slot_f1(records) == 0
    silent = tagged_records(["<a b >"], ["b"])
    assert np.isnan(slot_precision(silent)) and slot_f1(silent) == 0 and concept_error_rate(silent) == 1


def test_intervals_are_of_groups_and_undefined_metrics_are_left_out():
    references, hypotheses = random_meanings(5, n=120)
    groups = [f"speaker {number // 5}" for number in range(120)]
    records = understanding_records(references, hypotheses, groups=groups)
    interval = bootstrap_interval(records, slot_f1)
    assert interval.n_groups == 24 and interval.low < interval.value == slot_f1(records) < interval.high
    found = with_intervals(records, leave_out="slot_f1")
    assert "slot_f1" not in found and "intent_accuracy" not in found, "no intents were given"
    assert found["concept_error_rate_low"] < found["concept_error_rate"] < found["concept_error_rate_high"]


def test_errors_that_a_user_can_mend():
    with pytest.raises(ConfigError, match="metric is 'f1': expected one of slot_f1, slot_precision"):
        understanding_metric("f1")
    with pytest.raises(DataError, match="hypotheses: 0 items, expected 1"):
        understanding_records([[("a", "b")]], [])
