"""Long recordings in blocks: the same samples as all at once, whatever the format, the rate and the block."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import soundfile
import torch

from lobes.dataio import AudioError, Recording, block_resampler, blocks, read_audio, read_part, resample, window_batches
from lobes.dataio.block_resampler import BlockResampler
from lobes.dataio.blocks import prefetch
from lobes.dataio.scan import AUDIO_SUFFIXES
from lobes.errors import ConfigError

#: Name, container, encoding, rate (Hz), channels.
FORMATS = [
    ("pcm16.wav", "WAV", "PCM_16", 16000, 1),
    ("extensible.wav", "WAVEX", "PCM_24", 96000, 2),
    ("eight.wav", "WAV", "PCM_U8", 8000, 1),
    ("float.wav", "WAV", "FLOAT", 22050, 3),
    ("rf64.wav", "RF64", "PCM_16", 44100, 2),
    ("lossless.flac", "FLAC", "PCM_24", 48000, 2),
    ("vorbis.ogg", "OGG", "VORBIS", 32000, 1),
    ("speech.mp3", "MP3", "MPEG_LAYER_III", 44100, 2),
    ("odd.wav", "WAV", "PCM_16", 11127, 1),
]


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return 0.2 * np.random.default_rng(0).uniform(-1, 1, (round(seconds * rate), channels))


def whole(recording: Recording, seconds: float) -> torch.Tensor:
    return torch.cat(list(recording.blocks(seconds)))


@pytest.mark.parametrize(("name", "container", "encoding", "rate", "channels"), FORMATS, ids=[f[0] for f in FORMATS])
def test_blocks_are_the_whole_file_resampled(tmp_path, name, container, encoding, rate, channels):
    path = tmp_path / name
    soundfile.write(path, noise(9.37, rate, channels), rate, encoding, format=container)
    recording = Recording(path, 16000)
    expected = read_audio(path, 16000)
    long = whole(recording, 60.0)
    assert len(long) == len(expected) and (long - expected).abs().max() < 1e-5
    for seconds in (0.013, 1.0, 2.5):
        assert torch.equal(whole(recording, seconds), long), "the size of a block changes something"
    last = channels - 1
    assert (whole(Recording(path, 16000, last), 1.0) - read_audio(path, 16000, channel=last)).abs().max() < 1e-5
    assert recording.problems == [] and recording.seconds == pytest.approx(9.37, abs=0.06)  # MP3 pads


@pytest.mark.parametrize("rates", [(48000, 16000), (22050, 16000), (8000, 16000), (16000, 9600)])
@pytest.mark.parametrize("length", [1, 50, 999, 30011])
@pytest.mark.parametrize("dense", [4_000_000, 0], ids=["product", "gather"])
def test_resampling_has_no_seams(rates, length, dense, monkeypatch):
    monkeypatch.setattr(block_resampler, "_DENSE", dense)
    waveform = torch.randn(length)
    expected = resample(waveform, *rates)
    resampler = BlockResampler(*rates)
    for sizes in ([length], [1, 7, 100, length]):
        got, rest = [], waveform
        for size in sizes * (1 + length // sum(sizes)):
            got.append(resampler.feed(rest[:size]))
            rest = rest[size:]
        got.append(resampler.finish())
        assert len(torch.cat(got)) == len(expected)
        assert (torch.cat(got) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("rates", [(16000, 16000), (96000, 16000), (44100, 16000), (8000, 16000), (11127, 16000)])
@pytest.mark.parametrize("dense", [4_000_000, 0], ids=["product", "gather"])
@pytest.mark.parametrize("heard", [1, 100, 2048, 20480])
def test_a_resampler_goes_on_anywhere_to_the_last_bit(rates, heard, dense, monkeypatch):
    monkeypatch.setattr(block_resampler, "_DENSE", dense)
    waveform = torch.randn(30011)
    first, second = BlockResampler(*rates), BlockResampler(*rates)
    pieces = torch.split(waveform[:heard], 777)
    given = sum(len(first.feed(piece)) for piece in pieces)
    needed, count = second.place(heard)
    assert count == given and needed <= heard
    second.resume(heard, waveform[max(needed, 0) : heard])
    for resampler in (first, second):
        resampler.rest = torch.cat([*(resampler.feed(p) for p in waveform[heard:].split(5000)), resampler.finish()])
    assert torch.equal(second.rest, first.rest) and len(first.rest) > 0


@pytest.mark.parametrize(("name", "container", "encoding", "rate", "channels"), FORMATS, ids=[f[0] for f in FORMATS])
def test_reading_begins_anywhere_to_the_last_bit(tmp_path, monkeypatch, name, container, encoding, rate, channels):
    monkeypatch.setattr(blocks, "_CHUNK", 4096)
    path = tmp_path / name
    soundfile.write(path, noise(5.3, rate, channels), rate, encoding, format=container)
    recording = Recording(path, 16000)
    expected = whole(recording, 60.0)
    seconds, decoded = recording.seconds, []
    decode = Recording._decoded

    def count(self, file):
        for samples in decode(self, file):
            decoded.append(len(samples))
            yield samples

    monkeypatch.setattr(Recording, "_decoded", count)
    for first in (0, 1, 1024, 8192, 33333, len(expected) - 1):
        decoded.clear()
        again = Recording(path, 16000)
        got = torch.cat([torch.zeros(0), *again.blocks(1.7, first)])
        assert torch.equal(got, expected[first:]), first
        assert again.problems == [] and again.seconds == seconds
        lossless = path.suffix not in (".mp3", ".ogg")
        before = first / 16000 * rate - 4096 if lossless else 0
        assert abs(sum(decoded) - (seconds * rate - before)) <= 4096, "what comes before is passed over"


@pytest.mark.parametrize("fault", ["truncated.wav", "truncated.flac", "damaged.flac", "no numbers.wav"])
def test_faults_are_the_same_wherever_reading_begins(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(blocks, "_CHUNK", 4096)
    path = tmp_path / fault
    samples = noise(20, 16000).astype(np.float32)
    if "numbers" in fault:
        samples[[100, 40000, 40001, 200_000]] = np.nan
    soundfile.write(path, samples, 16000, "FLOAT" if "numbers" in fault else "PCM_16")
    data = path.read_bytes()
    if "truncated" in fault:
        path.write_bytes(data[: round(0.6 * len(data))])
    elif "damaged" in fault:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + np.random.default_rng(0).bytes(2000) + data[middle + 2000 :])
    recording = Recording(path, 12000)
    expected = whole(recording, 60.0)
    assert len(recording.problems) == 1
    for first in (1, 31000, 60000, len(expected) - 1):
        again = Recording(path, 12000)
        # As far as the run before had read, which may be further than where this one begins.
        again.faults = [found for found in recording.faults if found[0] <= first * 16000 // 12000 + 50000]
        assert torch.equal(torch.cat(list(again.blocks(1.0, first))), expected[first:])
        assert again.problems == recording.problems and again.seconds == recording.seconds


def test_resampling_lets_nothing_alias():
    time = torch.arange(48000, dtype=torch.float64) / 48000
    for hertz, low, high in ((3000, 0.99, 1.01), (9000, 0.0, 1e-3), (20000, 0.0, 1e-3)):
        resampler = BlockResampler(48000, 16000)
        tone = torch.sin(2 * torch.pi * hertz * time)
        kept = torch.cat([*(resampler.feed(part) for part in tone.split(1000)), resampler.finish()])[2000:-2000]
        assert low <= kept.abs().max() <= high, hertz


def test_rates_without_common_divisor_need_little_memory():
    time = torch.arange(44101, dtype=torch.float64) / 44101
    got = resample(torch.sin(2 * torch.pi * 440 * time).expand(2, 1, -1), 44101, 16000)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert got.shape == (2, 1, 16000) and got.dtype == torch.float32
    assert (got - expected)[..., 500:-500].abs().max() < 2e-3  # the ripple of the pass band


@pytest.mark.parametrize("rate", [0, -1, 44100.5])
def test_an_impossible_rate_is_named(rate):
    with pytest.raises(ConfigError, match="from_rate"):
        BlockResampler(rate, 16000)


@pytest.mark.parametrize(("name", "share"), [("a.wav", 0.6), ("a.flac", 0.6), ("a.aiff", 0.5)])
def test_a_truncated_file_gives_what_is_there_and_says_so(tmp_path, name, share):
    path = tmp_path / name
    samples = noise(20, 16000)
    soundfile.write(path, samples, 16000, "PCM_16")
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    recording = Recording(path, 16000)
    got = whole(recording, 1.0)
    assert share * 20 - 2 < recording.seconds <= share * 20 + 0.1  # FLAC may lose the block that it ends in
    assert np.abs(got.numpy() - samples[: len(got), 0]).max() < 1e-4
    assert len(recording.problems) == 1 and ("truncated" in recording.problems[0] or "damaged" in recording.problems[0])
    assert torch.equal(whole(recording, 3.3), got) and len(recording.problems) == 1, "reading again reports it twice"


def test_damage_in_the_middle_ends_the_file_there(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(20, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(data)
    recording = Recording(path, 16000)
    assert 8 < len(whole(recording, 1.0)) / 16000 < 10.1
    assert "damaged at" in recording.problems[0]


def test_samples_that_are_no_numbers_are_silence(tmp_path):
    samples = noise(2, 16000).astype(np.float32)
    samples[100:110] = np.nan
    samples[200] = np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    recording = Recording(tmp_path / "a.wav", 8000)
    assert whole(recording, 0.5).isfinite().all()
    assert "11 NaN or infinite" in recording.problems[0]


def test_what_cannot_be_read_is_one_clear_error(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "mono.wav", np.zeros(10), 16000)
    (tmp_path / "header.wav").write_bytes((tmp_path / "mono.wav").read_bytes()[:44])
    for name in ("empty.wav", "text.wav", "none.wav", "missing.wav", "header.wav", "."):
        with pytest.raises(AudioError, match=name):
            list(Recording(tmp_path / name).blocks())
    with pytest.raises(AudioError, match="no channel 2: it has 1, counted from 1"):
        Recording(tmp_path / "mono.wav", channel=1)


def test_a_part_is_read_as_far_as_it_is_there(tmp_path):
    path = tmp_path / "a.wav"
    samples = noise(10, 16000, 2)
    soundfile.write(path, samples, 16000, "FLOAT")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert np.abs(read_part(path, 1.0, 2.0).numpy() - samples[16000:32000].mean(1)).max() < 1e-6
    assert np.abs(read_part(path, 1.0, 2.0, channel=1).numpy() - samples[16000:32000, 1]).max() < 1e-6
    assert len(read_part(path, 4.0, 9.0, 8000)) == pytest.approx(8000, abs=100)
    with pytest.raises(AudioError, match="nothing between 7 and 9 s"):
        read_part(path, 7.0, 9.0)


def slow_windows(samples: torch.Tensor, window: int, hop: int) -> list[tuple[list[float], int]]:
    """Cut by the definition, all at once."""
    cut, start = [], 0
    while len(samples):
        part = samples[start : start + window].tolist()
        cut.append((part + [0.0] * (window - len(part)), len(part)))
        if start + window >= len(samples):
            break
        start += hop
    return cut


@pytest.mark.parametrize("length", [0, 1, 4, 5, 9, 10, 11, 37, 100])
@pytest.mark.parametrize(("window", "hop"), [(4, 2), (5, 5), (10, 3), (1, 1), (50, 7)])
def test_windows_are_the_same_for_any_blocks_and_batches(length, window, hop):
    samples = torch.randn(length)
    expected = slow_windows(samples, window, hop)
    for block in (1, 3, 64):
        for batch_size in (1, 2, 5):
            batches = list(window_batches(samples.split(block), window, hop, batch_size))
            got = [pair for batch in batches for pair in zip(batch.audio.tolist(), batch.samples.tolist(), strict=True)]
            assert got == expected
            assert [batch.first for batch in batches] == list(range(0, len(expected), batch_size))
            for later, batch in list(enumerate(batches))[1:]:
                rest = samples[batch.first * hop :].split(block)
                again = list(window_batches(rest, window, hop, batch_size, batch.first))
                assert [other.first for other in again] == [other.first for other in batches[later:]]
                for one, other in zip(again, batches[later:], strict=True):
                    assert torch.equal(one.audio, other.audio) and torch.equal(one.samples, other.samples)


def test_impossible_windows_are_refused():
    with pytest.raises(ConfigError, match="hop 5"):
        next(window_batches([torch.zeros(9)], 4, 5, 1))


def test_prefetching_keeps_order_and_errors_and_ends():
    def items():
        yield from range(5)
        raise AudioError("a.wav", "is damaged")

    got = []
    with pytest.raises(AudioError, match="damaged"):
        for item in prefetch(items()):
            got.append(item)
    assert got == list(range(5))
    before = threading.active_count()
    for item in prefetch(iter(range(10**9))):
        if item == 3:
            break
    assert threading.active_count() == before, "the thread goes on after the loop was left"


@pytest.mark.data
def test_real_recordings_are_the_same_in_blocks(lobes_data):
    files = sorted((lobes_data / "borneo_sulawesi_cc0").rglob("*.*"))
    files = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES][::4]
    if not files:
        pytest.skip("no borneo_sulawesi_cc0 among the real corpora")
    for path in files:
        recording = Recording(path)
        assert (whole(recording, 3.7) - read_audio(path)).abs().max() < 1e-5, path.name
        assert recording.problems == []
        part = read_part(path, 1.0, 2.5)
        assert (part - read_audio(path, start=1.0, stop=2.5)).abs().max() < 1e-5
