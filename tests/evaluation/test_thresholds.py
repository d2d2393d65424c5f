"""Thresholds from validation: those that separate calls from noise, for each class its own."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from lobes.dataio.annotations import Annotation
from lobes.errors import DataError
from lobes.evaluation import EventRule, find_events, tune_rules
from lobes.evaluation.event_matching import overlap
from lobes.evaluation.event_metrics import event_f1_macro, event_records, segment_records

RATE = 10.0


def validation(seed: int = 0) -> tuple[dict, dict]:
    """Scores of two classes: "low" calls reach 0.3 over noise up to 0.15, "high" ones 0.9 over noise up to 0.7."""
    rng = np.random.default_rng(seed)
    scores, truth = {}, {}
    for name in ("f", "g", "h"):
        values = np.stack([0.15 * rng.random(600), 0.7 * rng.random(600)], axis=1)
        truth[name] = []
        for label, column, height in (("low", 0, 0.3), ("high", 1, 0.9)):
            for start in rng.choice(28, 6, replace=False) * 20 + 5:
                values[start : start + 8, column] = height
                truth[name].append(Annotation(start / RATE, (start + 8) / RATE, label))
        scores[name] = values.astype(np.float32)
    return scores, truth


@pytest.mark.parametrize(
    "records", [event_records, segment_records, partial(event_records, criterion=partial(overlap, minimum=0.5))]
)
def test_each_class_gets_its_own_threshold(records):
    scores, truth = validation()
    start = {"low": EventRule(0.5, min_duration=0.3), "high": EventRule(0.5, min_duration=0.3)}
    rules, points = tune_rules(scores, truth, start, RATE, records=records)
    assert 0.15 < rules["low"].high < 0.3 and 0.7 < rules["high"].high < 0.9
    assert all(rule.min_duration == 0.3 for rule in rules.values()), "what is not tuned stays"
    unseen, unseen_truth = validation(seed=1)
    found = {name: find_events(values, rules, RATE) for name, values in unseen.items()}
    assert event_f1_macro(event_records(unseen_truth, found)) == 1.0
    best = {label: max(p.f1 for p in points if p.label == label) for label in rules}
    assert best == {"low": 1.0, "high": 1.0} and len(points) == 2 * 3 * 19


def test_the_lower_threshold_is_tuned_too():
    """Calls that fade below the noise's peaks keep their end only with hysteresis."""
    scores, truth = {"f": 0.3 * np.random.default_rng(0).random((600, 1)).astype(np.float32)}, {"f": []}
    for start in range(5, 560, 40):
        scores["f"][start : start + 20, 0] = np.linspace(0.9, 0.43, 20)
        truth["f"].append(Annotation(start / RATE, (start + 20) / RATE, "call"))
    whole = partial(event_records, criterion=partial(overlap, minimum=0.9))
    rules, _ = tune_rules(scores, truth, {"call": EventRule(0.5)}, RATE, records=whole, thresholds=[0.5, 0.6, 0.8])
    assert rules["call"].lower < 0.43 < rules["call"].high
    plain, _ = tune_rules(scores, truth, {"call": EventRule(0.5)}, RATE, thresholds=[0.8], low_ratios=[1.0])
    assert plain["call"] == EventRule(0.8, 0.8)


def test_a_class_that_is_nowhere_annotated_keeps_its_rule(caplog):
    scores, truth = validation()
    only_low = {name: [event for event in found if event.label == "low"] for name, found in truth.items()}
    start = {"low": EventRule(0.5), "high": EventRule(0.77)}
    rules, points = tune_rules(scores, only_low, start, RATE)
    assert rules["high"] == EventRule(0.77) and {point.label for point in points} == {"low"}
    assert "'high' is nowhere annotated" in caplog.text


def test_recordings_without_annotations_are_named():
    scores, truth = validation()
    truth.pop("g")
    with pytest.raises(DataError, match="1 are not annotated .g."):
        tune_rules(scores, truth, {"low": EventRule(), "high": EventRule()}, RATE)
