"""LogisticProbe finds the layer that holds the labels, and the penalty that other groups ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError, DataError
from lobes.mixers import SummaryMixing
from lobes.probes import LogisticProbe, PooledLayers
from lobes.probes.pooled import _in_parts


def corpus(n_groups: int = 4, per_group: int = 30, classes: int = 3, seed: int = 0):
    """Three layers of 6 features: noise, the class with a group's own offset, and the class plain."""
    noise = np.random.default_rng(seed)
    y = np.tile(np.arange(classes), n_groups * per_group // classes)
    g = np.repeat(np.arange(n_groups), per_group)
    x = noise.standard_normal((len(y), 3, 6))
    offsets = 6 * noise.standard_normal((n_groups, 6))
    x[np.arange(len(y)), 1, y] += 4
    x[:, 1] += offsets[g]
    x[np.arange(len(y)), 2, y] += 4
    return x, [str(v) for v in y], [str(v) for v in g]


def test_it_takes_the_layer_that_serves_groups_it_has_not_seen():
    x, y, g = corpus()
    probe = LogisticProbe().fit(x, y, g)
    assert probe.layer == 2 and probe.n_parameters == 3 * 6 + 3
    unseen, labels, _ = corpus(seed=1)
    assert np.mean(np.array(probe.predict(unseen)) == labels) > 0.9


def test_scarce_noisy_features_ask_for_a_strong_penalty():
    noise = np.random.default_rng(0)
    y = np.tile([0, 1], 20)
    x = noise.standard_normal((40, 1, 60)) + 0.3 * y[:, None, None]
    weak = LogisticProbe(strengths=(100.0,)).fit(x, y.astype(str), np.repeat(np.arange(4), 10).astype(str))
    chosen = LogisticProbe(strengths=(0.0001, 100.0)).fit(x, y.astype(str), np.repeat(np.arange(4), 10).astype(str))
    test = noise.standard_normal((2000, 1, 60)) + 0.3 * np.tile([0, 1], 1000)[:, None, None]
    accuracy = [np.mean(np.array(p.predict(test)) == np.tile(["0", "1"], 1000)) for p in (chosen, weak)]
    assert chosen.strength == 0.0001 and accuracy[0] > accuracy[1] + 0.02


def test_the_solution_is_the_minimum_of_the_penalised_loss():
    """Against a slow, obvious minimisation of sum of cross-entropies + |W|² / 2C on standardised features."""
    x, y, g = corpus(per_group=15)
    probe = LogisticProbe(strengths=(0.05,)).fit(x[:, 2:], y, g)
    z = (x[:, 2] - x[:, 2].mean(0)) / x[:, 2].std(0)
    target = np.array(y).astype(int)

    def logits(w):
        return z @ w[:18].reshape(6, 3) + w[18:]

    def loss(w):
        scores = logits(w)
        entropy = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(target)), target]
        return entropy.sum() + (w[:18] ** 2).sum() / (2 * 0.05)

    best = minimize(loss, np.zeros(21), method="BFGS").x
    assert probe.predict(x[:, 2:]) == [str(label) for label in logits(best).argmax(1)]
    theirs = probe._model.predict_proba(x[:, 2])
    ours = np.exp(logits(best)) / np.exp(logits(best)).sum(1, keepdims=True)
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


@pytest.mark.parametrize("field", ["labels", "groups"])
def test_one_group_or_one_label_is_refused(field):
    x, y, g = corpus()
    given = {"labels": y, "groups": g} | {field: ["same"] * len(y)}
    with pytest.raises(DataError, match=f"{field}: 1 distinct"):
        LogisticProbe().fit(x, **given)


def test_pooled_layers_are_blind_to_padding():
    torch.manual_seed(0)
    encoder = PooledLayers(Encoder(LogMel(n_mels=20), StackingStem(20, 8), 8, 2, SummaryMixing)).eval()
    short, long = torch.randn(5000), torch.randn(9000)
    alone = encoder(short[None], torch.ones(1))
    padded = torch.full((2, 9000), float("nan"))
    padded[0, :5000], padded[1] = short, long
    batch = encoder(padded, torch.tensor([5000 / 9000, 1.0]))
    assert [tuple(layer.shape) for layer in batch.layers] == [(2, 1, 16)] * 3 and batch.valid.all()
    for ours, theirs in zip(batch.layers, alone.layers, strict=True):
        torch.testing.assert_close(ours[:1], theirs, atol=1e-5, rtol=1e-5)


def test_balanced_hears_the_rare_class():
    """One in twenty is of the rare class, and hard to tell: plain accuracy is best served by never saying it."""
    noise = np.random.default_rng(0)
    y = np.where(np.arange(800) % 20 == 0, "rare", "usual")
    x = noise.standard_normal((800, 2, 3))
    x[:, 1, 0] += 1.5 * (y == "rare")
    g = (np.arange(800) // 200).astype(str)
    plain, balanced = (LogisticProbe(strengths=(0.1,), balanced=b).fit(x, y, g) for b in (False, True))
    recall = [np.mean(np.array(probe.predict(x))[y == "rare"] == "rare") for probe in (plain, balanced)]
    assert recall[0] < 0.2 and recall[1] > 0.6 and balanced.layer == 1
    found = balanced.probabilities(x)
    assert balanced.classes == ["rare", "usual"] and np.allclose(found.sum(1), 1)
    assert [balanced.classes[i] for i in found.argmax(1)] == balanced.predict(x)


def test_a_class_of_one_group_alone_does_not_stop_the_choice():
    x, y, g = corpus()
    y = ["only here" if group == "0" and label == "0" else label for label, group in zip(y, g, strict=True)]
    assert LogisticProbe(balanced=True).fit(x, y, g).layer == 2


def test_many_groups_are_left_out_in_parts():
    x, y, g = corpus()
    many = [f"{group}-{number % 4}" for number, group in enumerate(g)]
    fits = []

    class Counted(LogisticProbe):
        def _solve(self, x, y, strength):
            fits.append(len(x))
            return super()._solve(x, y, strength)

    probe = Counted(strengths=[0.1], parts=3).fit(x, y, many)
    assert len(fits) == 3 * np.asarray(x).shape[1] + 1 and probe.layer == LogisticProbe([0.1]).fit(x, y, g).layer
    parts = _in_parts(np.array(many), 3)
    assert all(len(set(parts[np.array(many) == group])) == 1 for group in set(many)), "groups stay whole"
    assert max(np.bincount(parts)) - min(np.bincount(parts)) <= max(np.unique(many, return_counts=True)[1])
    with pytest.raises(ConfigError, match="parts is 1: expected 2 or more"):
        LogisticProbe(parts=1)
