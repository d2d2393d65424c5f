"""The band report: where energy lies, what a model sees of it, and the factor that fits."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from lobes.dataio import (
    Sound,
    band_report,
    read_manifest,
    sounds_of_annotations,
    sounds_of_files,
    sounds_of_manifest,
    write_manifest,
)
from lobes.errors import ConfigError, DataError

RATE = 96000


def band_noise(low: float, high: float, seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Gaussian noise of a flat band."""
    n = round(seconds * rate)
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / rate)
    wave = np.fft.irfft(noise * ((hertz >= low) & (hertz <= high)), n)
    return 0.1 * wave / wave.std()


def write(path, wave, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


def one(report, label):
    return next(band for band in report.bands if band.label == label)


def test_the_quantiles_are_those_of_a_flat_band(tmp_path):
    path = write(tmp_path / "bird/a.wav", band_noise(2000, 12000))
    band = one(band_report(sounds_of_files([path]), background=False), "bird")
    assert band.low == pytest.approx(2500, abs=150) and band.high == pytest.approx(11500, abs=150)
    assert band.middle == pytest.approx(7000, abs=150) and band.limit == 48000
    assert band.seen == pytest.approx(0.56, abs=0.02)  # to 7600 Hz
    assert band.below == 0 and band.factor == 1.5 and band.seen_then == pytest.approx(0.94, abs=0.02)
    assert (band.sounds, band.seconds) == (1, 2.0)


def test_low_calls_are_sped_up(tmp_path):
    path = write(tmp_path / "elephant/a.wav", band_noise(30, 120, seconds=5))
    band = one(band_report(sounds_of_files([path]), lowest=150, background=False), "elephant")
    assert band.below > 0.97 and band.seen < 0.03
    assert band.factor == 0.25 and band.seen_then > 0.9  # 120 to 480 Hz, from 150 on


def test_where_no_factor_shows_all_it_is_the_one_that_shows_most(tmp_path):
    low, high = (
        write(tmp_path / "both/a.wav", band_noise(50, 100)),
        write(tmp_path / "both/b.wav", band_noise(40000, 45000)),
    )
    band = one(band_report(sounds_of_files([low, high]), lowest=60, background=False), "both")
    assert (
        band.seen == pytest.approx(0.4, abs=0.05)
        and band.factor == 6
        and band.seen_then == pytest.approx(0.5, abs=0.05)
    )


def test_what_is_steady_is_taken_off(tmp_path):
    """A call in a sixth of a recording, 4 dB below rumble, and a hum, an offset."""
    hum = 0.1 * np.sin(2 * np.pi * 100 * np.arange(6 * RATE) / RATE)
    call = band_noise(5000, 6000, seconds=6) * (np.arange(6 * RATE) < RATE)
    path = write(tmp_path / "owl/a.wav", call + band_noise(20, 300, 6, seed=1) / 1.5 + hum + 0.1)
    raw = one(band_report(sounds_of_files([path]), background=False), "owl")
    clean = one(band_report(sounds_of_files([path])), "owl")
    assert raw.low < 300 and clean.low > 4900 and clean.high < 6100


def test_loud_and_long_sounds_count_no_more_than_others_and_rates_differ(tmp_path):
    quiet = write(tmp_path / "frog/a.wav", 1e-3 * band_noise(1000, 1200, 1, 16000), 16000)
    loud = write(tmp_path / "frog/b.wav", band_noise(20000, 20200, 4))
    band = one(band_report(sounds_of_files([quiet, loud]), background=False), "frog")
    assert band.seen == pytest.approx(0.5, abs=0.02) and band.limit == 48000


def test_long_files_are_read_in_pieces(tmp_path, monkeypatch):
    from lobes.dataio import bands

    wave = np.concatenate([band_noise(1000, 2000, 3), band_noise(8000, 9000, 3)])
    path = write(tmp_path / "day/a.wav", wave)
    whole = one(band_report(sounds_of_files([path]), background=False), "day")
    longest = []
    read = bands.read_audio
    monkeypatch.setattr(bands, "read_audio", lambda *a: longest.append((x := read(*a)).shape[0]) or x)
    monkeypatch.setattr(bands, "BLOCK_SECONDS", 1.0)
    pieces = one(band_report(sounds_of_files([path]), background=False), "day")
    assert max(longest) <= RATE + 1 and sum(longest) == len(wave)
    assert pieces.middle == pytest.approx(whole.middle, abs=7000) and pieces.seen == pytest.approx(whole.seen, abs=0.02)


def test_bad_files_are_left_out_and_named(tmp_path):
    good = write(tmp_path / "owl/a.wav", band_noise(1000, 2000))
    bad = tmp_path / "owl/b.wav"
    bad.write_bytes(b"RIFF")
    silent = write(tmp_path / "owl/c.wav", np.zeros(RATE))
    beyond = Sound(good, "owl", 1.0, 9.0)
    report = band_report([*sounds_of_files([good, bad, silent, tmp_path / "owl/d.wav"]), beyond])
    assert one(report, "owl").sounds == 1 and len(report.skipped) == 4
    reasons = " ".join(reason for _, reason in report.skipped)
    assert "not readable" in reasons and "nothing above its background" in reasons and "ends after the file" in reasons
    with pytest.raises(DataError, match="no sound could be read of 1 .first: .*b.wav"):
        band_report(sounds_of_files([bad]))
    with pytest.raises(ConfigError, match="lowest is 9000 Hz; expected 0 or more, below 8000 Hz"):
        band_report(sounds_of_files([good]), lowest=9000)


def test_manifests_and_annotations_name_parts_and_classes(tmp_path):
    from types import SimpleNamespace

    wave = np.concatenate([band_noise(1000, 1500), band_noise(30000, 31000)])
    path = write(tmp_path / "a.wav", wave)
    common = {"wav": "$data_root/a.wav", "duration": 2.0, "sample_rate": RATE, "channel": None, "group": "g"}
    rows = [
        {"id": "1", **common, "start": 0.0, "stop": 2.0, "call": "low"},
        {"id": "2", **common, "start": 2.0, "stop": 4.0, "call": "high"},
    ]
    write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="test", licence="none")
    sounds = sounds_of_manifest(read_manifest(tmp_path / "all.csv"), "call")
    report = band_report(sounds, background=False)
    assert [band.label for band in report.bands] == ["high", "low", "all"]
    assert one(report, "low").high < 1600 and one(report, "high").low > 29000 and one(report, "high").factor == 5
    with pytest.raises(DataError, match="label is 'colour'; expected one of call, group"):
        sounds_of_manifest(read_manifest(tmp_path / "all.csv"), "colour")
    annotations = [SimpleNamespace(file=path, label="low", start=0.0, end=2.0, channel=None)]
    assert band_report(sounds_of_annotations(annotations), background=False).bands[0] == one(report, "low")


def test_the_table_has_a_row_for_each_class(tmp_path):
    report = band_report(sounds_of_files([write(tmp_path / "bat/a.wav", band_noise(20000, 21000))]), background=False)
    lines = report.table().splitlines()
    assert lines[0].startswith("| class | sounds") and "seen at 16 kHz" in lines[0]
    assert lines[2] == "| bat | 1 | 0.0 | 20050 | 20500 | 20950 | 48000 | 0.0% | 0.0% | 3 | 100.0% |"
    assert lines[3].startswith("| all | 1 |") and len({line.count("|") for line in lines}) == 1
