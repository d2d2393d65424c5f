"""Nearest neighbours and HEAR's perceptron in the place of logistic regression."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from lobes.errors import ConfigError, DataError
from lobes.evaluation import accuracy
from lobes.probes import KNNProbe, LogisticProbe, MLPProbe, seeded

RANDOM = np.random.default_rng(0)


def clouds(n: int = 120, layers: int = 3, telling: int = 1):
    """Features of which one layer tells three labels apart, of six groups."""
    labels, groups = RANDOM.integers(0, 3, n), RANDOM.integers(0, 6, n)
    features = RANDOM.standard_normal((n, layers, 8))
    features[:, telling, :3] += 4 * np.eye(3)[labels]
    return features, [f"label{i}" for i in labels], [f"group{i}" for i in groups]


@pytest.mark.parametrize(
    "probe", [KNNProbe(), MLPProbe(n_points=2, max_epochs=12)], ids=lambda probe: type(probe).__name__
)
def test_they_find_the_layer_and_tell_what_is_there(probe):
    features, labels, groups = clouds()
    probe.fit(features, labels, groups)
    x, y, _ = clouds()
    assert probe.layer == 1 and probe.classes == ["label0", "label1", "label2"]
    assert np.mean([a == b for a, b in zip(probe.predict(x), y, strict=True)]) > 0.9
    chances = probe.probabilities(x)
    assert chances.shape == (120, 3) and np.allclose(chances.sum(1), 1, atol=1e-5)
    assert probe.n_parameters == 0 or probe.n_parameters > 8 * 1024
    assert accuracy(probe.held_out) > 0.8 and {record["target"] for record in probe.held_out} <= set(probe.classes)
    shuffled = np.random.default_rng(1).permutation(labels).tolist()
    assert accuracy(probe.fit(features, shuffled, groups).held_out) < 0.6, "chance is a third"


def test_decisions_on_the_groups_left_out_are_those_that_choose():
    features, labels, groups = clouds(60, layers=2)
    probe = LogisticProbe(strengths=[0.1], balanced=True).fit(features, labels, groups)
    x, y, g, slow = features[:, [probe.layer]], np.array(labels), np.array(groups), []
    for group in sorted(set(groups)):
        out = g == group
        rest = LogisticProbe(strengths=[0.1], balanced=True).fit(x[~out], y[~out], g[~out])
        slow += zip(y[out].tolist(), rest.predict(x[out]), strict=True)
    assert sorted(slow) == sorted((record["target"], record["prediction"]) for record in probe.held_out)


def test_a_probe_that_draws_gets_the_seed_of_the_run():
    features, labels, groups = clouds()
    quick = functools.partial(MLPProbe, n_points=1, max_epochs=3)
    one, other = (seeded(quick, seed).fit(features, labels, groups).probabilities(features) for seed in (1, 2))
    assert not np.allclose(one, other)
    assert seeded(functools.partial(quick, seed=5), 1).seed == 5 and isinstance(seeded(KNNProbe, 1), KNNProbe)


def test_neighbours_equal_a_slow_loop():
    features, labels, groups = clouds(40, layers=1, telling=0)
    probe = KNNProbe(neighbours=[3]).fit(features, labels, groups)
    x, mean, deviation = features[:, 0], features[:, 0].mean(0), features[:, 0].std(0)
    known, wanted = (x - mean) / deviation, (clouds(20, 1, 0)[0][:, 0] - mean) / deviation
    for row, said in zip(wanted, probe.predict(wanted[:, None] * deviation + mean), strict=True):
        cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in known]
        nearest = [labels[i] for i in np.argsort(cosines)[::-1][:3]]
        assert nearest.count(said) == max(map(nearest.count, nearest))


def test_the_perceptron_repeats_itself_and_its_seed_matters():
    features, labels, groups = clouds()
    runs = [MLPProbe(1, 3, seed=seed).fit(features, labels, groups).probabilities(features) for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1]) and not np.allclose(runs[0], runs[2])


def test_what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="n_points is 17; expected 1 to 16"):
        MLPProbe(n_points=17)
    features, labels, groups = clouds()
    with pytest.raises(DataError, match="none of 3 groups can be held out"):
        MLPProbe(1, 3).fit(features, labels, labels)
    with pytest.raises(DataError, match="groups: 1 distinct"):
        KNNProbe().fit(features, labels, ["one"] * len(labels))
