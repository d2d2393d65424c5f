"""Scores of trials, their normalisation and calibration, and detection costs, each against a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lobes.errors import ConfigError, DataError
from lobes.evaluation import (
    act_dcf,
    bootstrap_interval,
    calibrate,
    cllr,
    cosine_scores,
    eer,
    min_dcf,
    paired_bootstrap,
    s_norm,
    sign_flip_test,
    speaker_means,
    trial_records,
    trials_eer,
    verification_records,
)

EMBEDDINGS = {"a1": [1.0, 0.2], "a2": [2.0, 0.0], "b1": [-0.3, 1.0], "b2": [0.2, 0.9], "c1": [-1.0, -1.0]}
SPEAKERS = {name: name[0] for name in EMBEDDINGS}
TRIALS = [(name[0] == other[0], name, other) for name in EMBEDDINGS for other in EMBEDDINGS if name < other]


def random_scores(seed, n=120, shift=1.5, decimals=9):
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < 0.3
    return targets.astype(int).tolist(), (rng.normal(size=n) + shift * targets).round(decimals).tolist()


def slow_cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def test_cosines_equal_a_slow_loop():
    found = cosine_scores(EMBEDDINGS, TRIALS)
    assert found == pytest.approx([slow_cosine(EMBEDDINGS[a], EMBEDDINGS[b]) for _, a, b in TRIALS], abs=1e-12)
    assert cosine_scores({"a": [0.0, 0.0], "b": [1.0, 0.0]}, [(1, "a", "b")]).tolist() == [0.0]
    assert trials_eer(EMBEDDINGS, TRIALS) == 0.0
    with pytest.raises(DataError, match=r"id: 'b1' \(1 in all\) has no embedding") as caught:
        cosine_scores({name: v for name, v in EMBEDDINGS.items() if name != "b1"}, TRIALS)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="the embedding of 'a2' is not finite"):
        cosine_scores({**EMBEDDINGS, "a2": [math.nan, 0.0]}, TRIALS)


@pytest.mark.parametrize("top", [None, 3, 100])
def test_s_norm_equals_a_slow_loop(top):
    rng = np.random.default_rng(0)
    cohort = {f"s{k}": rng.normal(size=2) for k in range(7)}
    expected = []
    for _, a, b in TRIALS:
        parts = []
        for side in (a, b):
            scores = sorted((slow_cosine(EMBEDDINGS[side], other) for other in cohort.values()), reverse=True)[:top]
            mean = sum(scores) / len(scores)
            deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
            parts.append((slow_cosine(EMBEDDINGS[a], EMBEDDINGS[b]) - mean) / deviation)
        expected.append(sum(parts) / 2)
    assert s_norm(EMBEDDINGS, TRIALS, cohort, top) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(DataError, match="cohort: 1 speakers"):
        s_norm(EMBEDDINGS, TRIALS, {"s": [1.0, 0.0]})
    with pytest.raises(ConfigError, match="top is 1"):
        s_norm(EMBEDDINGS, TRIALS, cohort, 1)


def test_a_cohort_has_a_direction_for_each_speaker():
    means = speaker_means(EMBEDDINGS, {**SPEAKERS, "unheard": "z"})
    assert list(means) == ["a", "b", "c"]
    first, second = (np.array(EMBEDDINGS[name]) / math.hypot(*EMBEDDINGS[name]) for name in ("a1", "a2"))
    assert means["a"] == pytest.approx((first + second) / 2)


def slow_rates(targets, values, threshold):
    """Miss and false-alarm rate of accepting what is at or above the threshold."""
    positive = [v for t, v in zip(targets, values, strict=True) if t]
    negative = [v for t, v in zip(targets, values, strict=True) if not t]
    return sum(v < threshold for v in positive) / len(positive), sum(v >= threshold for v in negative) / len(negative)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("p_target", "c_miss", "c_fa"), [(0.01, 1, 1), (0.5, 1, 1), (0.05, 10, 1), (0.9, 1, 3)])
def test_detection_costs_equal_a_slow_loop(seed, p_target, c_miss, c_fa):
    targets, scores = random_scores(seed, decimals=1 if seed % 2 else 9)  # odd seeds: ties
    floor = min(c_miss * p_target, c_fa * (1 - p_target))

    def cost(threshold):
        miss, false = slow_rates(targets, scores, threshold)
        return (c_miss * p_target * miss + c_fa * (1 - p_target) * false) / floor

    records = [{**record, "llr": record["score"]} for record in trial_records(targets, scores)]
    found = min_dcf(p_target, c_miss, c_fa)(records)
    assert found == pytest.approx(min(cost(threshold) for threshold in [*scores, math.inf]), abs=1e-9) and found <= 1
    bayes = math.log(c_fa * (1 - p_target) / (c_miss * p_target))
    assert act_dcf(p_target, c_miss, c_fa)(records) == pytest.approx(cost(bayes), abs=1e-9)
    assert act_dcf(p_target, c_miss, c_fa)(records) >= found - 1e-12


def test_cllr_equals_a_slow_loop():
    targets, scores = random_scores(5)
    bits = {1: [], 0: []}
    for target, score in zip(targets, scores, strict=True):
        bits[target].append(math.log2(1 + math.exp(-score if target else score)))
    records = [{"target": t, "llr": s} for t, s in zip(targets, scores, strict=True)]
    assert cllr(records) == pytest.approx(sum(sum(b) / len(b) for b in bits.values()) / 2, abs=1e-9)
    assert cllr([{"target": t, "llr": 0.0} for t in targets]) == pytest.approx(1.0)
    assert cllr([{"target": t, "llr": 1e4 if t else -1e4} for t in targets]) == 0.0


@pytest.mark.parametrize("metric", [eer, min_dcf(0.1), act_dcf(0.1), cllr], ids=str)
def test_a_weight_is_a_repeat(metric):
    targets, scores = random_scores(6, 60)
    table = {"target": np.array(targets), "score": np.array(scores), "llr": np.array(scores)}
    times = np.random.default_rng(0).integers(0, 4, size=(5, 60))
    repeated = [metric({name: np.repeat(column, row) for name, column in table.items()}) for row in times]
    assert metric(table, times) == pytest.approx(repeated, abs=1e-9)
    assert math.isnan(metric({name: column[table["target"] == 1] for name, column in table.items()}))


@pytest.mark.parametrize("p_target", [0.5, 0.05])
def test_calibration_equals_scikit_learn(p_target):
    linear = pytest.importorskip("sklearn.linear_model")
    targets, scores = random_scores(1, 300)
    found = calibrate(targets, np.array(scores) * 7 - 3, p_target, smooth=False)
    weight = np.where(targets, p_target / np.mean(targets), (1 - p_target) / (1 - np.mean(targets)))
    model = linear.LogisticRegression(C=1e10, tol=1e-10, max_iter=1000)
    model.fit((np.array(scores) * 7 - 3)[:, None], targets, sample_weight=weight)
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.offset == pytest.approx(model.intercept_[0] - math.log(p_target / (1 - p_target)), abs=1e-3)
    smooth = calibrate(targets, np.array(scores) * 7 - 3, p_target)
    assert 0.7 * found.slope < smooth.slope < found.slope


def test_calibration_finds_log_likelihood_ratios():
    """Of normal scores one deviation apart, N(1, 1) and N(0, 1), the ratio is s - 1/2."""
    rng = np.random.default_rng(0)
    targets = np.repeat([1, 0], [20_000, 60_000])
    found = calibrate(targets, rng.normal(size=80_000) + targets)
    assert found.slope == pytest.approx(1.0, abs=0.03) and found.offset == pytest.approx(-0.5, abs=0.03)
    shifted = calibrate(targets, 1000 + 0.001 * (rng.normal(size=80_000) + targets))
    assert shifted([1000.0005])[0] == pytest.approx(0.0, abs=0.05), "whatever the scale"


def test_calibration_at_the_ends():
    slopes = [calibrate([1] * n + [0] * n, [1.0] * n + [0.0] * n).slope for n in (2, 20, 200)]
    assert slopes == sorted(slopes) and slopes[-1] < 15, "separable: finite, and surer with more trials"
    reverse = calibrate([1, 1, 0, 0], [0.0, 0.2, 1.0, 2.0])
    assert reverse([5.0, -5.0]).tolist() == [0.0, 0.0]
    assert calibrate([1, 0, 0], [1.0, 1.0, 1.0])([1.0])[0] == pytest.approx(0.0, abs=0.3), "equal scores say nothing"
    for targets, scores, message in [
        ([1, 1], [0.0, 1.0], "2 target and 0 non-target"),
        ([1, 0], [0.0, math.nan], "1 scores not finite"),
    ]:
        with pytest.raises(DataError, match=message):
            calibrate(targets, scores)
    with pytest.raises(ConfigError, match="p_target is 0"):
        calibrate([1, 0], [1.0, 0.0], p_target=0)
    with pytest.raises(ConfigError, match="c_fa -1"):
        min_dcf(0.1, c_fa=-1)


# --------------------------------------------------------------------------- intervals over pairs of speakers


def made_trials(n_speakers=6, seed=0, spread=1.0):
    """Records of all trials between three utterances of each speaker."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(n_speakers, 4))
    embeddings = {f"s{k}-{i}": means[k] + spread * rng.normal(size=4) for k in range(n_speakers) for i in range(3)}
    names = list(embeddings)
    trials = [(a.split("-")[0] == b.split("-")[0], a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return verification_records(trials, cosine_scores(embeddings, trials), {name: name.split("-")[0] for name in names})


def test_a_resample_weighs_trials_by_their_speakers():
    from lobes.evaluation.resampling import draw_weights, group_index, leave_one_out

    records = made_trials(4)
    index = group_index(records, "group")
    assert index.shape == (len(records), 2) and index.max() == 3
    rows = np.concatenate(list(draw_weights(index, 50, np.random.default_rng(0))))
    times = np.random.default_rng(0).multinomial(4, [0.25] * 4, size=50)
    for row, drawn in zip(rows, times, strict=True):
        for weight, record in zip(row, records, strict=True):
            first, second = (int(name[1]) for name in record["group"])
            assert weight == (drawn[first] if first == second else drawn[first] * drawn[second])
    without = leave_one_out(eer, eer.table(records), index)
    for speaker in range(4):
        assert without[speaker] == eer([record for record in records if f"s{speaker}" not in record["group"]])


def test_intervals_count_speakers():
    interval = bootstrap_interval(made_trials(6), eer)
    assert (interval.n_groups, interval.method) == (6, "t") and interval.low < interval.value < interval.high
    alone = bootstrap_interval(made_trials(24), eer, n=300)
    trials_alone = bootstrap_interval(made_trials(24), eer, group=None, n=300)
    assert (alone.n_groups, alone.method) == (24, "expanded")
    assert alone.high - alone.low > 1.5 * (trials_alone.high - trials_alone.low), "trials are not independent"


def test_paired_differences_of_trials():
    good, bad = made_trials(24, spread=0.5), made_trials(24, spread=1.5)
    found = paired_bootstrap(good, bad, eer, n=300)
    assert found.n_groups == 24 and found.high < 0 and found.p_value < 0.05
    assert paired_bootstrap(good, good, eer, n=300).difference == 0
    with pytest.raises(ConfigError, match="group: 'group' is a pair in each record"):
        sign_flip_test(good, bad, eer)
    with pytest.raises(ConfigError, match="'two_stage' is for items of one group each"):
        bootstrap_interval(good, eer, method="two_stage")
    other = [{**record, "group": record["group"][::-1]} for record in bad]
    with pytest.raises(DataError, match="is of group"):
        paired_bootstrap(good, other, eer)
    with pytest.raises(DataError, match="'group' is empty"):
        bootstrap_interval([{**record, "group": ["s0", ""]} for record in good], eer)
