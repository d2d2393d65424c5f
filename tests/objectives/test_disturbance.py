"""Disturbed features: each kind of change does what it says, and to each utterance by itself."""

from __future__ import annotations

import math

import pytest
import torch

from lobes.encoders import LogMel
from lobes.errors import ConfigError
from lobes.objectives import Disturbance

OFF = {"warp": 0.0, "noise": 0.0, "cut": 0.0}
BANDS = 24


def features(*frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    valid = torch.arange(max(frames))[None] < torch.tensor(frames)[:, None]
    return torch.randn(len(frames), max(frames), BANDS), valid


def test_nothing_switched_on_changes_nothing():
    x, valid = features(9, 5)
    assert torch.equal(Disturbance(**OFF)(x, valid, ["a", "b"], 0), x)


def test_an_utterance_is_disturbed_alike_in_any_batch():
    x, valid = features(9, 5, 0)
    disturb = Disturbance(noise=1.0, cut=1.0)
    together = disturb(x, valid, ["a", "b", "c"], 3)
    alone = disturb(x[1:2, :5], valid[1:2, :5], ["b"], 3)
    assert torch.equal(together[1, :5], alone[0])
    garbage = x.masked_fill(~valid[..., None], math.nan)
    assert torch.equal(disturb(garbage, valid, ["a", "b", "c"], 3)[valid], together[valid])
    assert not torch.equal(disturb(x, valid, ["a", "b", "c"], 4), together), "another step, another disturbance"
    assert not torch.equal(disturb(x[:1].repeat(2, 1, 1), valid[:1].repeat(2, 1), ["a", "b"], 0).diff(dim=0), x[:1] * 0)


def test_a_warped_ramp_stays_a_ramp_with_another_slope():
    ramp = torch.arange(BANDS).float().repeat(1, 3, 1)
    valid, slopes = torch.ones(1, 3, dtype=torch.bool), []
    for step in range(50):
        y = Disturbance(**{**OFF, "warp": 0.2})(ramp, valid, ["a"], step)
        low = y[0, 0, : BANDS // 2]
        slope = low[1].item()
        torch.testing.assert_close(low, slope * ramp[0, 0, : BANDS // 2])
        slopes.append(slope)
    assert 0.8 <= min(slopes) < 0.9 and 1.1 < max(slopes) <= 1.2


def test_noise_has_the_ratio_asked_for():
    x, valid = torch.randn(1, 4000, BANDS), torch.ones(1, 4000, dtype=torch.bool)
    for wanted in (0.0, 12.0):
        ratios = []
        for step in range(100):
            y = Disturbance(**{**OFF, "noise": 1.0}, snr=(wanted, wanted))(x, valid, ["a"], step)
            added = y.exp() - x.exp()
            assert (added >= -1e-4).all()
            ratios.append(added.mean() / x.exp().mean())
        # A slope of up to two nats either way and the bands' own deviation raise the mean power by some dB.
        assert -6 < -10 * math.log10(torch.stack(ratios).median()) - wanted < 1


def test_a_cut_silences_the_upper_bands_only():
    x, valid = features(30)
    for step in range(20):
        y = Disturbance(**{**OFF, "cut": 1.0})(x, valid, ["a"], step)
        silent = (y[0] == x.min()).all(0)
        first = BANDS - int(silent.sum())
        assert round(0.6 * BANDS) <= first <= BANDS and silent[first:].all()
        assert torch.equal(y[0, :, :first], x[0, :, :first])


def test_it_works_on_real_features_of_silence_and_of_one_frame():
    waveform = torch.zeros(2, 16000)
    waveform[1, :100] = torch.randn(100)
    log_mel, valid = LogMel(n_mels=BANDS).log_mel(waveform, torch.tensor([1.0, 0.005]))
    for step in range(20):
        assert Disturbance()(log_mel, valid, ["a", "b"], step)[valid].isfinite().all()


@pytest.mark.parametrize("option", [{"warp": 1.0}, {"noise": 1.5}, {"cut": -0.1}, {"snr": (5.0, 1.0)}])
def test_impossible_options_are_refused(option):
    with pytest.raises(ConfigError, match="Disturbance"):
        Disturbance(**option)
