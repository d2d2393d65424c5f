"""Event metrics: the figures of sed_eval and psds_eval, of slow and obvious counting, and of cases known beforehand."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import numpy as np
import pytest

from lobes.dataio.annotations import Annotation
from lobes.errors import DataError
from lobes.evaluation import bootstrap_interval, event_metrics, paired_bootstrap
from lobes.evaluation.event_matching import by_score, collar, confusion, events_by_file, one_to_one, overlap, times
from lobes.evaluation.event_metrics import (
    average_precision,
    event_f1,
    event_f1_macro,
    event_precision,
    event_recall,
    event_records,
    intersection_f1_macro,
    intersection_records,
    mean_average_precision,
    precision_recall,
    scored_records,
    segment_f1,
    segment_f1_macro,
    segment_records,
)
from lobes.evaluation.metrics import EVENT_METRICS, Metric
from lobes.evaluation.psds import psds

# fmt: off
TRUTH = {
    "f0": [(1.34, 1.8, "a"), (4.54, 6.11, "a"), (9.91, 11.86, "a"), (14.53, 19.11, "a"), (21.05, 23.91, "a"),
           (24.39, 27.24, "a"), (28.49, 32.18, "a"), (32.48, 32.79, "a"), (36.4, 39.7, "a"), (1.92, 6.79, "b"),
           (10.64, 10.86, "b"), (12.5, 14.27, "b")],
    "f1": [(3.4, 7.52, "a"), (9.45, 10.18, "a"), (12.01, 12.89, "a"), (15.78, 16.69, "a"), (19.24, 20.01, "a"),
           (23.16, 25.51, "a"), (27.92, 29.1, "a"), (32.7, 36.59, "a"), (36.89, 41.45, "a"), (45.39, 48.48, "a"),
           (49.65, 53.36, "a"), (1.51, 4.23, "b")],
}
FOUND = {
    "f0": [(1.22, 3.78, "a"), (4.2, 6.1, "a"), (9.95, 11.63, "a"), (21.21, 23.77, "a"), (24.66, 27.66, "a"),
           (2.0, 6.58, "b"), (10.54, 11.16, "b"), (12.61, 14.47, "b"), (15.27, 20.57, "b")],
    "f1": [(3.99, 7.17, "a"), (9.56, 9.79, "a"), (12.25, 12.86, "a"), (15.9, 16.78, "a"), (19.1, 20.66, "a"),
           (20.89, 23.42, "a"), (1.69, 4.09, "b"), (8.81, 11.27, "b"), (11.28, 13.37, "b"), (13.8, 15.51, "b"),
           (16.72, 21.45, "b"), (21.46, 22.48, "b")],
}
# fmt: on


def events(table, score=0.5):
    return {name: [Annotation(*row, score=score) for row in rows] for name, rows in table.items()}


@pytest.mark.parametrize(
    ("onset", "offset", "ratio", "expected"),
    [
        (0.2, 0.2, 0.5, [0.26666666666666666, 0.3110599078341013, 0.2857142857142857, 0.25]),
        (0.5, 0.5, 0.0, [0.4888888888888889, 0.511520737327189, 0.5238095238095238, 0.4583333333333333]),
        (0.25, None, 0.5, [0.4888888888888889, 0.511520737327189, 0.5238095238095238, 0.4583333333333333]),
    ],
)
def test_collars_give_what_sed_eval_gives(onset, offset, ratio, expected):
    """sed_eval 0.2.1, EventBasedMetrics with optimal matching: overall F1, class-wise F1, precision, recall."""
    criterion = partial(collar, onset=onset, offset=offset, offset_ratio=ratio)
    records = event_records(events(TRUTH), events(FOUND), criterion=criterion)
    got = [metric(records) for metric in (event_f1, event_f1_macro, event_precision, event_recall)]
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1.0, [0.5379310344827586, 0.5361394557823129]), (0.5, [0.49402390438247, 0.49705966724])]
)
def test_segments_give_what_sed_eval_gives(seconds, expected):
    """sed_eval 0.2.1, SegmentBasedMetrics: overall and class-wise F1."""
    records = segment_records(events(TRUTH), events(FOUND), seconds=seconds)
    assert [segment_f1(records), segment_f1_macro(records)] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("dtc", "gtc", "alpha_ct", "alpha_st", "value", "macro_f1"),
    [(0.5, 0.5, 0.0, 0.0, 0.5059375, 0.4476190476190476), (0.1, 0.1, 0.5, 1.0, 0.529375, 0.6405529953917051)],
)
def test_intersections_give_what_psds_eval_gives(dtc, gtc, alpha_ct, alpha_st, value, macro_f1):
    """psds_eval 0.5.3 (with pandas 1.5): PSDS up to 400 false positives an hour, and macro F1 of the last point."""
    points = [
        {name: rows[::2] for name, rows in FOUND.items()},
        {name: rows[:8] for name, rows in FOUND.items()},
        FOUND,
    ]
    durations = {"f0": 120.0, "f1": 120.0}
    criteria = {"dtc": dtc, "gtc": gtc}
    found = psds(
        events(TRUTH),
        [events(point) for point in points],
        durations,
        **criteria,
        alpha_ct=alpha_ct,
        alpha_st=alpha_st,
        max_efpr=400.0,
    )
    assert found.value == pytest.approx(value, abs=1e-12)
    assert (np.diff(found.efpr) > 0).all() and found.efpr[0] == 0
    records = intersection_records(events(TRUTH), events(FOUND), **criteria)
    assert intersection_f1_macro(records) == pytest.approx(macro_f1, abs=1e-12)


def test_what_overlapping_events_share_counts_once():
    """Beside a count on a fine grid: of the share of a detection in calls, and of a call in relevant detections."""
    twice, long = [Annotation(0.0, 3.0, "a")] * 2, [Annotation(0.0, 10.0, "a")]
    [counts] = intersection_records({"f": twice}, {"f": long})
    assert (counts["true_positives"], counts["false_positives"], counts["false_negatives"]) == (0, 1, 2)
    [counts] = intersection_records({"f": long}, {"f": twice})
    assert (counts["true_positives"], counts["false_positives"], counts["false_negatives"]) == (0, 0, 1)
    crossed = psds(
        {"f": [*long, *(Annotation(call.start, call.end, "b") for call in twice)]},
        [{"f": [Annotation(0.0, 10.0, "a"), Annotation(0.0, 100.0, "a")]}],
        {"f": 3600.0},
        cttc=0.05,
        alpha_ct=0.1,
    )
    assert crossed.efpr.tolist() == [0.0, 1.0], "3 % of the false positive is in another class: no cross-trigger"

    rng, grid = np.random.default_rng(1), np.arange(0.5, 40)

    def inside(found):
        return np.array([(event.start < grid) & (grid < event.end) for event in found], dtype=bool).reshape(-1, 40)

    for _ in range(100):
        truth, found = (
            [Annotation(float(s), float(s + n), "a") for s, n in zip(*rng.integers(1, 20, (2, count)), strict=True)]
            for count in rng.integers(0, 5, 2)
        )
        called, heard = inside(truth), inside(found)
        relevant = (heard & called.any(0)).sum(1) >= np.maximum(0.5 * heard.sum(1), 1)
        hit = (called & heard[relevant].any(0)).sum(1) >= np.maximum(0.5 * called.sum(1), 1)
        got_hit, got_relevant = event_metrics.intersection_hits(truth, found, 0.5, 0.5)
        assert got_hit.tolist() == hit.tolist() and got_relevant.tolist() == relevant.tolist()


def test_cross_triggers_and_inequality_cost():
    truth = {"f": [Annotation(0.0, 10.0, "a"), Annotation(20.0, 30.0, "b")]}
    found = {"f": [Annotation(0.0, 10.0, "a"), Annotation(22.0, 24.0, "a")]}  # the second lies in a "b"
    plain, crossed, unequal = (
        psds(truth, [found], {"f": 3600.0}, max_efpr=100.0, **options)
        for options in ({}, {"alpha_ct": 0.1}, {"alpha_st": 1.0})
    )
    # One false positive in the hour: "a" is found from 1 per hour on, or, with one cross-trigger in 10 s of "b" more,
    # from 1 + 0.1 * 360 on; "b" never is.
    assert plain.value == pytest.approx(0.5 * 99 / 100)
    assert crossed.value == pytest.approx(0.5 * (100 - 37) / 100)
    assert unequal.value == pytest.approx(0.0)


def test_one_to_one_is_as_many_as_can_be():
    rng = np.random.default_rng(0)
    for _ in range(200):
        possible = rng.random((rng.integers(0, 6), rng.integers(0, 6))) < 0.4
        rows, columns = possible.shape
        small, large = (possible, columns) if rows <= columns else (possible.T, rows)
        best = max(sum(small[i, j] for i, j in enumerate(p)) for p in permutations(range(large), len(small)))
        pairs = one_to_one(possible)
        assert len(pairs) == best and all(possible[pair] for pair in pairs)
        assert all(len({pair[axis] for pair in pairs}) == len(pairs) for axis in (0, 1))


def test_matches_by_score_are_as_many_as_can_be_for_every_threshold():
    rng = np.random.default_rng(1)
    for _ in range(200):
        possible = rng.random((rng.integers(0, 8), rng.integers(0, 8))) < 0.35
        scores = rng.random(possible.shape[1])
        pairs = by_score(possible, scores)
        assert all(possible[pair] for pair in pairs)
        assert all(len({pair[axis] for pair in pairs}) == len(pairs) for axis in (0, 1))
        for threshold in [*scores, 0.0]:
            accepted = scores >= threshold
            assert sum(accepted[column] for _, column in pairs) == len(one_to_one(possible[:, accepted]))


def test_average_precision_is_that_of_scikit_learn_where_each_detection_has_its_own_event():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(2)
    truth = [Annotation(10.0 * i, 10.0 * i + 1, "a") for i in range(40)]
    scores = np.round(rng.random(60), 2)  # with ties
    right = rng.random(60) < 0.3 + 0.6 * scores
    found = [
        Annotation(10.0 * i + (0 if hit else 5), 10.0 * i + (1 if hit else 6), "a", score=float(score))
        for i, (hit, score) in enumerate(zip(right, scores, strict=True))
        if i < 40 or not hit
    ]
    records = scored_records({"f": truth}, {"f": found})
    kept = [i for i in range(60) if i < 40 or not right[i]]
    # scikit-learn knows nothing of events that no detection found: they only lower the recall.
    share = right[:40].sum() / 40
    expected = share * average_precision_score(right[kept], scores[kept])
    assert average_precision(records) == pytest.approx(expected, abs=1e-12)
    precision, recall, score = precision_recall(records)
    assert recall[-1] == pytest.approx(share) and (np.diff(score) < 0).all() and (np.diff(recall) >= 0).all()
    assert sum(record["annotated"] for record in records) == 40
    assert len({record["id"] for record in records}) == len(records)


def test_the_mean_over_classes_leaves_out_what_is_undefined():
    truth = {"f": [Annotation(0.0, 1.0, "a")]}
    found = {"f": [Annotation(0.0, 1.0, "a", score=0.9), Annotation(5.0, 6.0, "b", score=0.9)]}
    records = scored_records(truth, found, labels=["a", "b", "c"])
    assert mean_average_precision(records) == 1.0
    counts = event_records(truth, found, labels=["a", "b", "c"])
    assert event_f1_macro(counts) == 0.5 and event_f1(counts) == pytest.approx(2 / 3)


def test_nothing_and_everything():
    truth = events(TRUTH)
    silent = {name: [] for name in truth}
    for records in (event_records, segment_records, intersection_records):
        assert event_f1(records(truth, truth)) == 1.0
        assert event_f1(records(truth, silent)) == 0.0
        assert event_precision(records(silent, truth)) == 0.0
        assert np.isnan(event_f1(records(silent, silent, labels=["a"])))
    with pytest.raises(DataError, match="no recordings"):
        event_records({}, {})


def test_a_recording_that_only_one_of_the_two_knows_counts():
    one = {"f": [Annotation(0.0, 1.0, "a")]}
    assert event_recall(event_records({**one, "g": one["f"]}, one)) == 0.5
    assert event_precision(event_records(one, {**one, "g": one["f"]})) == 0.5


def test_overlap_asks_for_a_share_of_the_union():
    assert overlap(times([Annotation(0, 10, "a")]), times([Annotation(5, 15, "a")]), 1 / 3).all()
    assert not overlap(times([Annotation(0, 10, "a")]), times([Annotation(5.1, 15, "a")]), 1 / 3).any()
    assert not overlap(times([Annotation(0, 10, "a")]), times([Annotation(10, 15, "a")]), 0.0).any()


def test_intervals_are_clustered_by_recording():
    rng = np.random.default_rng(0)
    truth = {f"f{i}": [Annotation(10.0 * k, 10.0 * k + 2, "a") for k in range(10)] for i in range(24)}

    def heard(share):
        return {
            name: [
                Annotation(e.start, e.end, "a", score=float(rng.random())) for e in found if rng.random() < share(name)
            ]
            for name, found in truth.items()
        }

    good, bad = heard(lambda name: 0.9), heard(lambda name: 0.6)
    recorders = {name: f"r{int(name[1:]) % 22}" for name in truth}
    interval = bootstrap_interval(event_records(truth, good, groups=recorders), event_f1)
    assert interval.low < interval.value < interval.high and interval.n_groups == 22
    scored = bootstrap_interval(scored_records(truth, good, groups=recorders), average_precision, n=200)
    assert scored.low < scored.value < scored.high and scored.n_groups == 22
    better = paired_bootstrap(event_records(truth, good), event_records(truth, bad), event_f1)
    assert better.low > 0 and better.n_groups == 24


def test_confusion_tells_wrong_classes_from_nothing():
    truth = {"f": [Annotation(0, 2, "a"), Annotation(10, 12, "a"), Annotation(20, 22, "b")], "g": []}
    found = {
        "f": [Annotation(0, 2, "b"), Annotation(0.1, 2, "a"), Annotation(10, 12, "b"), Annotation(30, 31, "b")],
        "g": [Annotation(0, 2, "a")],
    }
    counts, labels = confusion(truth, found)
    assert labels == ["a", "b"]
    # Rows: annotated a, b, nothing; columns: detected a, b, missed.
    assert counts.tolist() == [[1, 1, 0], [0, 0, 1], [1, 2, 0]]


def test_events_by_file_keeps_recordings_without_calls():
    found = events_by_file([Annotation(0, 1, "a", file="b.wav")], ["a.wav", "b.wav"])
    assert {name: len(rows) for name, rows in found.items()} == {"a.wav": 0, "b.wav": 1}
    with pytest.raises(DataError, match="names no file"):
        events_by_file([Annotation(0, 1, "a")])


def test_a_detection_without_score_has_no_place_on_a_curve():
    with pytest.raises(DataError, match="has no score"):
        scored_records({"f": []}, {"f": [Annotation(0, 1, "a")]})


def test_tables_know_every_metric():
    metrics = [value for value in vars(event_metrics).values() if isinstance(value, Metric)]
    assert {metric.name for metric in metrics} == EVENT_METRICS
    assert all(metric.higher_is_better for metric in metrics)
