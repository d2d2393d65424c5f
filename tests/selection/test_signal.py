"""Signal-to-noise ratios and pauses, of sounds of which both are known."""

from __future__ import annotations

import numpy as np
import pytest

from lobes.dataio import audio_dataset
from lobes.dataio.corpora import prepare_librispeech
from lobes.errors import ConfigError
from lobes.selection import active_share, wada_snr

NOISE = np.random.default_rng(0)


def speech_like(samples: int = 200_000) -> np.ndarray:
    """Amplitudes as those of clean speech are distributed."""
    return NOISE.gamma(0.4, 1.0, samples) * NOISE.choice([-1, 1], samples)


@pytest.mark.parametrize("snr", [-5, 0, 5, 10, 20, 30])
def test_the_ratio_of_what_it_is_made_for(snr):
    speech = speech_like()
    noise = NOISE.standard_normal(len(speech)) * np.sqrt(np.square(speech).mean()) * 10 ** (-snr / 20)
    assert wada_snr(speech + noise) == pytest.approx(snr, abs=1.0)
    assert wada_snr(0.01 * (speech + noise) + 0.3) == pytest.approx(snr, abs=1.0), "whatever the level and the offset"


@pytest.mark.data
def test_noise_in_real_speech_is_heard(lobes_data, tmp_path):
    if not (lobes_data / "librispeech_clips").is_dir():
        pytest.skip("LOBES_DATA has no librispeech_clips")
    folder = lobes_data / "librispeech_clips"
    options = {"train": ["train-clean-100"], "valid": None, "valid_share": 0.0, "test": None}
    clips = audio_dataset(prepare_librispeech(folder, tmp_path, **options)["train"], 16000, ("id", "sig"))
    found = {snr: [] for snr in (20, 10, 0)}
    for number in range(0, 45, 3):
        clip = clips[number]["sig"].numpy()
        for snr, said in found.items():
            noise = NOISE.standard_normal(len(clip)) * np.sqrt(np.square(clip).mean()) * 10 ** (-snr / 20)
            said.append(wada_snr(clip + noise))
    means = {snr: np.mean(said) for snr, said in found.items()}
    assert all(abs(mean - snr) < 3.0 for snr, mean in means.items()), means


def test_extremes():
    assert wada_snr(NOISE.standard_normal(50_000)) < -6
    assert wada_snr(speech_like()) > 40
    assert np.isnan(wada_snr(np.zeros(100))) and np.isnan(wada_snr([]))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_pauses_are_not_active(rate):
    time = np.arange(4 * rate) / rate
    sound = 0.1 * np.sin(2 * np.pi * 300 * time) + 1e-4 * NOISE.standard_normal(4 * rate)
    sound[rate : 2 * rate] *= 1e-2
    assert active_share(sound, rate) == pytest.approx(0.75, abs=0.02)
    assert active_share(1e-5 * sound, rate) == 0.0, "below the floor there is nothing"
    assert active_share(np.zeros(rate), rate) == active_share([], rate) == 0.0
    assert active_share(sound[:50], rate) == 1.0
    with pytest.raises(ConfigError, match="range_db is 0"):
        active_share(sound, rate, range_db=0)
