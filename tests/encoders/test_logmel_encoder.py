"""Log-mel features and MFCC behind the encoder's contract."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch

from lobes.encoders import LogMel, LogMelEncoder
from lobes.errors import ConfigError
from lobes.export import load_encoder


def test_mfcc_are_the_first_coefficients_of_scipys_cosine_transform():
    bands, mfcc = (LogMelEncoder(LogMel(n_mels=40, normalise=False), n_mfcc=n).double() for n in (0, 13))
    waveform = torch.randn(2, 8000, dtype=torch.float64)
    log_mel, found = (encoder(waveform, torch.ones(2)).frames for encoder in (bands, mfcc))
    expected = scipy.fft.dct(log_mel.numpy(), type=2, axis=-1, norm="ortho")[..., :13]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert mfcc.dim == 13 and mfcc.macs(1.0) - bands.macs(1.0) == 100 * 40 * 13


def test_frames_are_stacked_after_the_cosine_transform():
    single, stacked = (LogMelEncoder(LogMel(normalise=False), factor, n_mfcc=5) for factor in (1, 4))
    waveform = torch.randn(1, 1600 * 4)
    frames = single(waveform, torch.ones(1)).frames
    assert torch.equal(stacked(waveform, torch.ones(1)).frames, frames.reshape(1, -1, stacked.dim))


def test_as_many_coefficients_as_bands_at_most():
    assert LogMelEncoder(LogMel(n_mels=20), n_mfcc=20).dim == 20
    for n_mfcc in (-1, 21):
        with pytest.raises(ConfigError, match=f"n_mfcc is {n_mfcc}; expected 0 to 20"):
            LogMelEncoder(LogMel(n_mels=20), n_mfcc=n_mfcc)


def test_mfcc_come_with_lobes():
    encoder = load_encoder("mfcc")
    frames, valid, layers = encoder(torch.randn(1, 16000), torch.ones(1))
    assert frames.shape == (1, 100, 20) and valid.all() and len(layers) == 1
    assert frames.std() > 1  # not normalised
