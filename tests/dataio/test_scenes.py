"""Scenes: what is said to be in them is there, as loud and as long as it is said."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from lobes.dataio import read_audio, read_manifest, write_manifest
from lobes.dataio.background import BandOnly
from lobes.dataio.scenes import write_scenes
from lobes.errors import ConfigError, DataError

RATE = 16000


def tone(seconds: float, hertz: float, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture
def sources(tmp_path):
    """Calls of 1 and 2 s, at 1000 Hz and at 1500 Hz, with a hum at 6 kHz; backgrounds of white noise, two groups."""
    noise = np.random.default_rng(0)
    rows = {"calls": [], "backgrounds": []}

    def add(kind, name, sound, group, label):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
        seconds = len(sound) / RATE
        where = {"id": name, "wav": f"$data_root/{name}.wav", "start": 0.0, "stop": seconds, "duration": seconds}
        rows[kind].append({**where, "sample_rate": RATE, "channel": None, "group": group, "call_type": label})

    for number in range(3):
        hum = tone(1.0, 6000, 0.1)
        add("calls", f"low{number}", tone(1.0, 1000) + hum, "a", "low")
    add("calls", "high", tone(2.0, 1500), "b", "high")
    for number in range(4):
        sound = 0.02 * noise.standard_normal(round((1.5 + number) * RATE))
        add("backgrounds", f"noise{number}", sound, f"site{number % 2}", "noise")
    manifests = {}
    for kind, found in rows.items():
        manifests[kind] = write_manifest(
            tmp_path / f"{kind}.csv", found, data_root=tmp_path, source=f"made {kind}", licence="CC0-1.0"
        )
    return manifests["calls"], manifests["backgrounds"]


def scenes(sources, path, **options):
    return read_manifest(write_scenes(*sources, path, **{"n_scenes": 12, "seconds": 12.0, **options}))


def test_every_call_is_where_the_manifest_says_at_its_level(sources, tmp_path):
    manifest = scenes(sources, tmp_path / "all.csv", band=(500.0, 2000.0), snr_db=[0.0, 10.0], calls=(0, 3))
    band = BandOnly(500.0, 2000.0)
    calls = [row for row in manifest.rows if row["call_type"] != "background"]
    assert len({row["wav"] for row in manifest.rows}) == 12 and len(calls) > 8
    for row in calls:
        path, (begin, end) = manifest.audio_path(row), (row["start"], row["stop"])
        assert end - begin == pytest.approx(1.0 if row["call_type"] == "low" else 2.0, abs=2e-6)
        inside = read_audio(path, RATE, begin, end)
        hertz = 1000.0 if row["call_type"] == "low" else 1500.0
        spectrum = torch.fft.rfft(band(inside, RATE)).abs()
        assert float(spectrum.argmax()) / (end - begin) == pytest.approx(hertz, abs=2)
        around = BandOnly(hertz - 100, hertz + 100)
        noise = (band(inside, RATE) - around(inside, RATE)).square().mean() * 1500 / 1300
        ratio = 10 * np.log10(float(around(inside, RATE).square().mean() / noise))
        # Beside the tone, the 200 Hz about it hold some noise too; the scene's own is not exactly flat.
        expected = 10 * np.log10(10 ** (float(row["snr_db"]) / 10) + 200 / 1500)
        assert ratio == pytest.approx(expected, abs=1.0)
        assert BandOnly(5990, 6010)(inside, RATE).square().mean() < 5e-6, "what is outside the band is not pasted"


def test_calls_do_not_overlap_and_scenes_are_full(sources, tmp_path):
    manifest = scenes(sources, tmp_path / "all.csv", calls=(0, 9), n_scenes=20)
    for wav in {row["wav"] for row in manifest.rows}:
        found = sorted((row["start"], row["stop"]) for row in manifest.rows if row["wav"] == wav)
        assert found[0][0] >= 0 and found[-1][1] <= 12.0
        assert all(after[0] - before[1] >= 1.0 - 1e-6 for before, after in zip(found, found[1:], strict=False))
    sound = read_audio(manifest.audio_path(manifest.rows[0]), RATE)
    assert len(sound) == 12 * RATE
    levels = sound.reshape(-1, RATE // 10).square().mean(1).sqrt()
    assert levels.min() > 0.01, "no hole where one background goes over into the next"
    assert set(manifest.groups) == {"site0", "site1"}


def test_every_level_gives_the_same_scenes(sources, tmp_path):
    manifest = scenes(sources, tmp_path / "all.csv", every_level=True, snr_db=[-5.0, 5.0], n_scenes=4, calls=(1, 2))
    of = {level: [row for row in manifest.rows if row["snr_db"] == level] for level in ("-5", "5")}
    places = {level: [(r["start"], r["stop"], r["call_type"], r["group"]) for r in of[level]] for level in of}
    assert places["-5"] == places["5"] and len({row["wav"] for row in manifest.rows}) == 8
    soft, loud = (read_audio(manifest.audio_path(of[level][0]), RATE) for level in ("-5", "5"))
    outside = slice(0, int(of["5"][0]["start"] * RATE) - 10)
    assert torch.equal(soft[outside], loud[outside])


def test_scenes_without_calls_are_rows_too_and_what_is_there_is_left_alone(sources, tmp_path):
    manifest = scenes(sources, tmp_path / "all.csv", calls=(0, 0), n_scenes=2)
    assert [(r["call_type"], r["start"], r["stop"]) for r in manifest.rows] == [("background", 0.0, 12.0)] * 2
    file = manifest.audio_path(manifest.rows[0])
    before = file.stat().st_mtime_ns
    scenes(sources, tmp_path / "all.csv", calls=(0, 0), n_scenes=2)
    assert file.stat().st_mtime_ns == before
    first = file.read_bytes()
    scenes(sources, tmp_path / "all.csv", calls=(0, 0), n_scenes=2, seed=1)
    assert file.read_bytes() != first
    scenes(sources, tmp_path / "all.csv", calls=(0, 0), n_scenes=2)
    assert file.read_bytes() == first


def test_what_cannot_be_read_is_skipped_and_named(sources, tmp_path):
    (tmp_path / "low1.wav").write_bytes(b"no audio")
    (tmp_path / "noise0.wav").unlink()
    manifest = scenes(sources, tmp_path / "all.csv", n_scenes=30, calls=(2, 3))
    assert {entry["file"] for entry in manifest.meta["skipped"]} == {"low1", "noise0"}
    for number in range(1, 4):
        (tmp_path / f"noise{number}.wav").unlink()
    with pytest.raises(DataError, match="no background can be used; the first: noise.: .*No such file"):
        scenes(sources, tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls": (3, 1)}, "calls is"),
        ({"seconds": 0.5}, "seconds is 0.5"),
        ({"snr_db": []}, "snr_db is"),
        ({"n_scenes": 0}, "n_scenes is 0"),
        ({"label": "species"}, "no label 'species': expected one of call_type"),
    ],
)
def test_impossible_options_are_named(sources, tmp_path, options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        scenes(sources, tmp_path / "all.csv", **options)
