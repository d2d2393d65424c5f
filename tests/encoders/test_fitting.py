"""Calls outside an encoder's band: heard lower, at the time at which they are, to the end of the file."""

from __future__ import annotations

import math

import pytest
import torch
from upstream_cases import tiny

from lobes.encoders import LogMel, LogMelEncoder, PitchShift, TimeExpansion
from lobes.errors import ConfigError

ONE = torch.ones(1)
RATE = 80000  # five times 16 kHz


def logmel() -> LogMelEncoder:
    return LogMelEncoder(LogMel(n_mels=60, normalise=False))


def chirp(at: float, hertz: float, seconds: float = 2.0) -> torch.Tensor:
    """0.1 s of a tone at a time, in silence."""
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return (torch.sin(2 * math.pi * hertz * t) * ((t >= at) & (t < at + 0.1))).float()


def heard(encoder, wave: torch.Tensor) -> tuple[float, float, int]:
    """Begin and end, in seconds, of what is in a band at all, and the loudest band."""
    levels = encoder(wave[None], ONE).frames[0]
    # Steps of three in the exponent: far from the side lobes and near the floor's -13.8.
    loud = (levels.amax(1) > levels.max() - 3).nonzero()[:, 0].double()
    band = int(levels.logsumexp(0).argmax())
    return loud[0].item() / encoder.frame_rate, (loud[-1].item() + 1) / encoder.frame_rate, band


@pytest.mark.parametrize("fitted", [TimeExpansion, PitchShift])
@pytest.mark.parametrize("at", [0.0, 0.7, 1.9])
def test_an_event_is_where_it_was_and_five_times_lower(fitted, at):
    encoder = fitted(logmel(), 5)
    assert encoder.sample_rate == RATE
    begin, end, band = heard(encoder, chirp(at, 20000))
    # The window of a frame reaches 25 ms ahead, and the vocoder's as much to both sides.
    assert begin == pytest.approx(at, abs=0.035) and end == pytest.approx(at + 0.1, abs=0.035)
    mel = logmel().features.mel_matrix
    assert band == mel[round(4000 / 16000 * 512)].argmax()  # 20 kHz are 4 kHz to it


def test_without_it_the_call_is_not_heard_at_all():
    from lobes.dataio import resample

    levels = logmel()(resample(chirp(0.5, 20000), RATE, 16000)[None], ONE).frames
    assert levels.max() < logmel()(chirp(0.5, 4000)[None], ONE).frames.max() - 8


def test_the_end_of_a_file_is_kept():
    """Nothing is cut to whole windows: frames go on to the last sample, for any length."""
    for samples in (1, 7999, 80000, 80001):
        for fitted in (TimeExpansion, PitchShift):
            encoder = fitted(logmel(), 5)
            n_frames = encoder(torch.randn(1, samples), ONE).frames.shape[1]
            assert n_frames == math.ceil(samples / RATE * encoder.frame_rate)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1, 3, 10])
def test_a_shifted_tone_keeps_length_level_and_time(factor):
    encoder = PitchShift(logmel(), factor)
    rate = encoder.sample_rate
    t = torch.arange(2 * rate, dtype=torch.float64) / rate
    wave = (0.3 * torch.sin(2 * math.pi * 1000 * factor * t)).float()
    shifted: list[torch.Tensor] = []
    encoder.encoder.register_forward_pre_hook(lambda module, args: shifted.append(args[0][0]))
    encoder(wave[None], ONE)
    assert shifted[0].shape == (32000,)
    middle = shifted[0][4000:28000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(24000)).abs()
    assert spectrum.argmax() * 16000 / 24000 == pytest.approx(1000, abs=1)
    assert middle.std() == pytest.approx(wave.std().item(), rel=0.15)  # neighbouring bins lose their phase relation


def test_phases_do_not_drift_in_long_recordings():
    """A tone of 100 s is as clean at its end as at its beginning."""
    encoder = PitchShift(logmel(), 2)
    t = torch.arange(100 * 32000, dtype=torch.float64) / 32000
    shifted: list[torch.Tensor] = []
    encoder.encoder.register_forward_pre_hook(lambda module, args: shifted.append(args[0][0]))
    encoder(torch.sin(2 * math.pi * 3000 * t).float()[None], ONE)
    purity = []
    for part in (shifted[0][16000:32000], shifted[0][-32000:-16000]):
        power = torch.fft.rfft(part * torch.hann_window(16000)).abs().square()
        purity.append((power[1495:1506].sum() / power.sum()).item())
    assert min(purity) > 0.999


@pytest.mark.parametrize("fitted", [TimeExpansion, PitchShift])
def test_it_fits_an_encoder_from_elsewhere_and_gradients_pass(fitted):
    inner = tiny("hubert")
    encoder = fitted(inner, 2)
    assert (encoder.dim, encoder.layer_dims) == (inner.dim, inner.layer_dims)
    wave = torch.randn(2, 20000)
    wave[1, 9000:] = 0  # digital silence
    wave.requires_grad_()
    output = encoder(wave, torch.tensor([1.0, 0.8]))
    output.frames.square().sum().backward()
    assert wave.grad.isfinite().all() and wave.grad.abs().max() > 0
    expected = {TimeExpansion: 100.0, PitchShift: 50.0}[fitted]
    assert encoder.frame_rate == expected
    assert encoder.macs(1.0) >= {TimeExpansion: inner.macs(2.0), PitchShift: inner.macs(1.0)}[fitted]


@pytest.mark.parametrize("fitted", [TimeExpansion, PitchShift])
@pytest.mark.parametrize("factor", [0, -1, 1 / 3])
def test_a_factor_that_gives_no_rate_is_refused(fitted, factor):
    with pytest.raises(ConfigError, match="factor is .* expected a positive factor of 16000 Hz"):
        fitted(logmel(), factor)
