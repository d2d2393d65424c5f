"""eSpeak NG behind its pipe: equal requests give equal samples, and a process that fails is dealt with."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from lobes.dataio.synthesis import espeak as espeak_module
from lobes.dataio.synthesis.channel import PEAK, resample, to_recording
from lobes.dataio.synthesis.espeak import PACKAGE, Espeak
from lobes.dataio.synthesis.voices import speakers
from lobes.errors import DataError

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="espeakng-loader is not installed (the extra `minifrench`)"
)

# A stand-in for the worker: answers every request with the samples 1, 2, 3, after whatever `before` does.
FAKE = """
import os, sys, time
marker = {marker!r}
first_life = not os.path.exists(marker)
open(marker, "a").write("started\\n")
out = sys.stdout.buffer
out.write(b'{{"version": "fake", "sample_rate": 22050, "resets": {resets}}}\\n'); out.flush()
for line in sys.stdin.buffer:
    {before}
    out.write(b'{{"samples": 3}}\\n' + b"\\x01\\0\\x02\\0\\x03\\0"); out.flush()
"""


@pytest.fixture
def fake(tmp_path):
    """Make an Espeak whose process is the stand-in, and a function that says how often it was started."""
    marker = tmp_path / "lives"
    made = []

    def make(before: str = "pass", resets: str = "true", timeout: float = 30.0) -> Espeak:
        program = FAKE.format(marker=str(marker), before=before, resets=resets)
        made.append(Espeak(timeout=timeout, command=[sys.executable, "-S", "-c", program]))
        return made[-1]

    yield make, lambda: len(marker.read_text().splitlines())
    for espeak in made:
        espeak.close()


@needs_espeak
def test_samples_do_not_depend_on_what_was_said_before():
    cast = speakers(45)
    with Espeak() as espeak:
        first = {s.voice: espeak.synthesise("vingt et un", s.voice, seed=3) for s in cast}
        again = {s.voice: espeak.synthesise("vingt et un", s.voice, seed=3) for s in reversed(cast)}
        longer = espeak.synthesise("vingt et un mille deux cents", cast[0].voice)
    assert not [voice for voice, pcm in first.items() if not np.array_equal(pcm, again[voice])]
    assert len({hashlib.sha256(pcm.tobytes()).digest() for pcm in first.values()}) == 45, "two voices are one"
    assert all(0.4 < len(pcm) / espeak.sample_rate < 2.5 for pcm in first.values())
    assert len(longer) > 1.3 * len(first[cast[0].voice])


@needs_espeak
def test_rate_and_pitch_are_heard():
    with Espeak() as espeak:
        plain = espeak.synthesise("allume la lumière", "roa/fr+m1")
        slow = espeak.synthesise("allume la lumière", "roa/fr+m1", rate=120)
        high = espeak.synthesise("allume la lumière", "roa/fr+m1", pitch=90)
    assert len(slow) > 1.2 * len(plain)
    assert _fundamental(high) > 1.2 * _fundamental(plain)


def _fundamental(pcm: np.ndarray) -> float:
    """Hz with the largest autocorrelation between 60 and 400 Hz."""
    spectrum = np.abs(np.fft.rfft(pcm.astype(float), 2 * len(pcm))) ** 2
    correlation = np.fft.irfft(spectrum)
    lags = np.arange(22050 // 400, 22050 // 60)
    return 22050 / lags[np.argmax(correlation[lags])]


@needs_espeak
def test_unknown_voice_is_one_line():
    with Espeak() as espeak, pytest.raises(DataError, match="voice='xx-nobody'.*no such voice") as caught:
        espeak.synthesise("un", "xx-nobody")
    assert "\n" not in str(caught.value)


@needs_espeak
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_library_stays_out_of_this_process():
    with Espeak() as espeak:
        espeak.synthesise("un")
        child = Path(f"/proc/{espeak._process.pid}/maps").read_text()
    assert "espeak-ng.so" in child
    assert "espeak-ng.so" not in Path("/proc/self/maps").read_text()


def test_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(espeak_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install espeakng-loader.*\[minifrench\]") as caught:
        Espeak().synthesise("un")
    assert "\n" not in str(caught.value)


def test_crash_is_restarted_once(fake):
    make, lives = fake
    espeak = make("os._exit(1) if first_life else None")
    assert espeak.synthesise("un").tolist() == [1, 2, 3]
    assert lives() == 2
    espeak.synthesise("deux")
    assert lives() == 2, "a process that works is kept"


def test_hang_is_restarted_once(fake):
    make, lives = fake
    espeak = make("time.sleep(60) if first_life else None", timeout=1.5)
    assert espeak.synthesise("un").tolist() == [1, 2, 3]
    assert lives() == 2


def test_second_crash_is_one_clear_line(fake):
    make, lives = fake
    with pytest.raises(DataError, match="text='un', voice='fr'.*twice") as caught:
        make("os._exit(1)").synthesise("un")
    assert lives() == 2 and "\n" not in str(caught.value)


def test_truncated_answer_counts_as_crash(fake):
    make, lives = fake
    with pytest.raises(DataError, match="twice"):
        make("out.write(b'{\"samples\": 9}\\n\\0'); out.flush(); os._exit(0)").synthesise("un")
    assert lives() == 2


def test_process_that_cannot_reset_serves_one_sentence(fake):
    make, lives = fake
    espeak = make(resets="false")
    for _ in range(3):
        assert espeak.synthesise("un").tolist() == [1, 2, 3]
    assert lives() == 3


def test_process_ends_when_closed(fake):
    make, _ = fake
    espeak = make()
    espeak.synthesise("un")
    process = espeak._process
    espeak.close()
    assert process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize("frequency", [120.0, 1000.0, 6500.0])
def test_resample_keeps_a_tone(frequency):
    there = np.sin(2 * np.pi * frequency * np.arange(22050) / 22050)
    here = resample(there, 22050, 16000)
    expected = np.sin(2 * np.pi * frequency * np.arange(16000) / 16000)
    assert len(here) == 16000
    assert np.abs(here - expected)[200:-200].max() < 3e-4


@pytest.mark.parametrize("frequency", [8600.0, 9500.0])
def test_resample_stops_what_would_alias(frequency):
    there = np.sin(2 * np.pi * frequency * np.arange(22050) / 22050)
    assert 20 * np.log10(np.abs(resample(there, 22050, 16000))[200:-200].max()) < -70


@pytest.mark.parametrize("samples", [0, 1, 7, 441, 442, 1000])
def test_resample_at_odd_lengths(samples):
    assert len(resample(np.ones(samples), 22050, 16000)) == -(-samples * 320 // 441)


def test_recording_has_the_level_and_noise_asked_for():
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(44100) / 22050)).astype(np.int16)
    make = lambda seed, **options: to_recording(tone, 22050, np.random.default_rng(seed), **options)  # noqa: E731
    quiet = make(0, level_db=(-30, -30), snr_db=(90, 90), margin=(0.1, 0.1)) / 32768
    assert len(quiet) == 32000 + 2 * 1600
    assert 20 * np.log10(quiet.std()) == pytest.approx(-30, abs=0.1)
    assert np.abs(quiet[:1500]).max() < 1e-4 < 0.01 < np.abs(quiet[1700:3200]).max()
    noisy = make(0, level_db=(-30, -30), snr_db=(20, 20), margin=(0.1, 0.1)) / 32768
    assert 20 * np.log10(quiet.std() / noisy[:1500].std()) == pytest.approx(20, abs=0.7)
    loud = make(0, level_db=(0, 0), snr_db=(40, 40))
    assert np.abs(loud).max() / 32768 == pytest.approx(PEAK, abs=1e-3), "lowered rather than clipped"
    assert not np.array_equal(make(1), make(2)) and np.array_equal(make(1), make(1))
