"""Reading audio: any format and rate, parts of files, and one clear error for each way in which a file is bad."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import soundfile
import torch

from lobes.dataio import AudioError, audio_info, check_audio, read_audio, resample
from lobes.errors import DataError


def level(wave: torch.Tensor) -> float:
    """Root mean square of the middle half in decibels of a full-scale sine."""
    middle = wave[len(wave) // 4 : 3 * len(wave) // 4]
    return 20 * float(torch.log10(middle.pow(2).mean().sqrt() * 2**0.5 + 1e-12))


def sine(hertz: float, rate: int, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_every_format_and_rate_gives_the_same_tone(tmp_path, tone, suffix, rate):
    path = tone(tmp_path / f"x{suffix}", 1.0, rate)
    wave = read_audio(path)
    assert wave.dtype == torch.float32 and wave.ndim == 1
    assert len(wave) == 16000
    assert level(wave) == pytest.approx(-20, abs=0.7)
    assert audio_info(path).sample_rate == rate
    assert audio_info(path).duration == pytest.approx(1.0)
    assert check_audio(path) == audio_info(path)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_part_is_the_part_of_the_whole(tmp_path, suffix):
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 22050)
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, noise, 22050)
    whole = read_audio(path, None)
    part = read_audio(path, None, start=1.0, stop=2.5)
    assert torch.equal(part, whole[22050 : 22050 + 33075])
    assert torch.equal(read_audio(path, None, start=2.0), whole[44100:])


def test_channels_are_averaged_or_chosen(tmp_path, tone):
    path = tone(tmp_path / "x.wav", 0.2, channels=3)
    first, mean = read_audio(path, channel=0), read_audio(path)
    assert torch.allclose(mean, 2 * first, atol=1e-4)
    assert torch.allclose(read_audio(path, channel=2), 3 * first, atol=1e-4)
    for channel in (3, -1):
        with pytest.raises(AudioError, match="it has 3, counted from 1"):
            read_audio(path, channel=channel)


def test_resampling_keeps_the_passband_and_removes_what_would_alias():
    for hertz in (500, 4000, 7000):
        assert level(resample(sine(hertz, 44100), 44100, 16000)) == pytest.approx(0, abs=0.2)
    for hertz in (8400, 9000, 12000, 20000):
        assert level(resample(sine(hertz, 44100), 44100, 16000)) < -50
    upsampled = resample(sine(1000, 8000), 8000, 16000)
    assert torch.allclose(upsampled[4000:12000], sine(1000, 16000)[4000:12000], atol=2e-3)


def test_silence_is_audio(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(1600), 16000)
    assert torch.equal(read_audio(tmp_path / "x.wav"), torch.zeros(1600))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_bad_files_say_why(tmp_path, broken, suffix):
    for name, word in broken(tmp_path, suffix).items():
        for read in (read_audio, check_audio):
            with pytest.raises(AudioError) as caught:
                read(tmp_path / name)
            message = str(caught.value)
            assert word in caught.value.reason and name in message, message
            assert "\n" not in message
            assert isinstance(caught.value, DataError)


def test_missing_files_and_folders_say_so(tmp_path):
    with pytest.raises(AudioError, match="No such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="is a folder"):
        audio_info(tmp_path)


def test_damage_in_the_middle_of_a_file_is_found(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(160000)
    path = tmp_path / "x.flac"
    soundfile.write(path, noise, 16000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xa5" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    assert audio_info(path).duration == 10.0  # the header is good
    for read in (read_audio, check_audio):
        with pytest.raises(AudioError):
            read(path)


def test_a_streamed_wav_of_unknown_length_is_not_truncated(tmp_path, tone):
    path = tone(tmp_path / "x.wav", 0.5)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path)) == 8000


@pytest.mark.parametrize(("start", "stop"), [(0.3, 0.3), (0.4, 0.2), (-0.1, 0.2), (0.0, 0.7), (0.6, None)])
def test_impossible_ranges_are_refused(tmp_path, tone, start, stop):
    path = tone(tmp_path / "x.wav", 0.5)
    with pytest.raises(AudioError, match="range"):
        read_audio(path, start=start, stop=stop)


def test_a_rounded_end_is_accepted(tmp_path, tone):
    path = tone(tmp_path / "x.wav", 0.5)
    assert len(read_audio(path, stop=0.501)) == 8000


def test_an_error_travels_between_processes(tmp_path):
    error = pickle.loads(pickle.dumps(AudioError(tmp_path / "x.wav", "is\nbad")))
    assert (error.path, error.reason) == (str(tmp_path / "x.wav"), "is bad")
