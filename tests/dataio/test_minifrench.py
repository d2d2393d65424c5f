"""MiniFrench as a corpus: bytes from a seed, disjoint splits, any size, reuse, and going on after an interruption."""

from __future__ import annotations

import importlib.util
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from lobes.dataio.corpora import minifrench, prepare_minifrench
from lobes.dataio.manifest import read_manifest, validate_splits
from lobes.dataio.synthesis import espeak as espeak_module
from lobes.dataio.synthesis import store as store_module
from lobes.dataio.synthesis.espeak import PACKAGE
from lobes.dataio.synthesis.french_text import FRENCH_ALPHABET
from lobes.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="espeakng-loader is not installed (the extra `minifrench`)"
)
SMALL = {"n_utterances": 45, "n_speakers": 9}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Folder of the audio, and the manifests, of a small corpus; nobody changes them."""
    folder = tmp_path_factory.mktemp("minifrench")
    paths = prepare_minifrench(folder / "save", data_folder=folder / "data", n_jobs=2, **SMALL)
    return folder / "data", {split: read_manifest(path) for split, path in paths.items()}


def audio_bytes(folder: Path) -> dict[str, bytes]:
    """Name -> content of every WAV file under a folder."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.wav")}


def signal(manifest, row) -> np.ndarray:
    """Samples (n,) in [-1, 1)."""
    with wave.open(str(manifest.audio_path(row))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


@pytest.fixture
def no_synthesis(monkeypatch):
    """Fail where anything would be synthesised."""

    def refuse(*args, **kwargs):
        raise AssertionError("eSpeak NG was started")

    monkeypatch.setattr(espeak_module.subprocess, "Popen", refuse)


def test_same_bytes_from_the_same_seed_whatever_the_jobs(corpus, tmp_path):
    data, manifests = corpus
    paths = prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", n_jobs=1, **SMALL)
    assert audio_bytes(tmp_path / "data") == audio_bytes(data)
    for split, path in paths.items():
        again = read_manifest(path)
        assert again.rows == manifests[split].rows
        assert again.checksum == manifests[split].checksum


def test_another_seed_is_another_corpus(corpus, tmp_path):
    data, _ = corpus
    prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", seed=1, **(SMALL | {"n_utterances": 9}))
    other = audio_bytes(tmp_path / "data")
    assert not set(other.values()) & set(audio_bytes(data).values())


def test_splits_share_no_speaker_and_no_text(corpus):
    _, manifests = corpus
    validate_splits(manifests, check_files=True)
    texts = {split: {row["text"] for row in manifest.rows} for split, manifest in manifests.items()}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["valid"]
    assert not texts["valid"] & texts["test"]
    assert {split: len(manifest.groups) for split, manifest in manifests.items()} == {"train": 6, "valid": 1, "test": 2}


def test_rows_say_what_is_in_the_files(corpus):
    _, manifests = corpus
    contents = set()
    for manifest in manifests.values():
        assert manifest.meta["generated"] is True and manifest.meta["note"] == "generated speech"
        assert manifest.labels == ["text", "kind", "gender"]
        for row in manifest.rows:
            samples = signal(manifest, row)
            contents.add(samples.tobytes())
            assert len(samples) / 16000 == pytest.approx(row["duration"], abs=1e-4)
            assert 0.4 < row["duration"] < 8
            assert np.abs(samples).max() < 0.96, "clipped"
            assert -34 < 20 * np.log10(samples.std()) < -16
            assert row["text"] and set(row["text"]) <= set(FRENCH_ALPHABET)
            assert row["wav"].startswith("$data_root/") and row["group"] in row["wav"]
    assert len(contents) == 45, "two utterances are the same"


def test_voices_differ(corpus):
    _, manifests = corpus
    centroids: dict[str, list[float]] = {}
    for manifest in manifests.values():
        for row in manifest.rows:
            power = np.abs(np.fft.rfft(signal(manifest, row), 65536)) ** 2
            hertz = np.fft.rfftfreq(65536, 1 / 16000)
            band = (hertz > 80) & (hertz < 4000)
            centroids.setdefault(row["group"], []).append((hertz * power)[band].sum() / power[band].sum())
    means = [np.mean(values) for values in centroids.values()]
    within = np.mean([np.std(values) for values in centroids.values()])
    assert np.std(means) > within, "voices should differ more than one voice's sentences do"


def test_hours_are_reached_and_a_larger_corpus_begins_with_the_smaller(corpus, tmp_path):
    data, manifests = corpus
    hours = 0.05
    grown = shutil.copytree(data, tmp_path / "data")
    paths = prepare_minifrench(tmp_path / "save", data_folder=grown, hours=hours, n_speakers=9, n_jobs=2)
    larger = {split: read_manifest(path) for split, path in paths.items()}
    assert sum(manifest.hours for manifest in larger.values()) == pytest.approx(hours, rel=0.05)
    for split, manifest in manifests.items():
        assert larger[split].rows[: len(manifest)] == manifest.rows
        assert len(larger[split]) > len(manifest)
    assert audio_bytes(data).items() <= audio_bytes(grown).items()


def test_complete_corpus_is_reused_without_the_package(corpus, tmp_path, monkeypatch, no_synthesis):
    data, manifests = corpus
    monkeypatch.setattr(espeak_module.importlib.util, "find_spec", lambda name: None)
    paths = prepare_minifrench(tmp_path, data_folder=data, **SMALL)
    assert read_manifest(paths["test"]).rows == manifests["test"].rows


def test_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(espeak_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install espeakng-loader") as caught:
        prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", **SMALL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "save").exists()


def test_interrupted_generation_continues(corpus, tmp_path, monkeypatch):
    data, _ = corpus

    updates = []

    def ctrl_c(bar, n=1):
        updates.append(n)
        if len(updates) == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(minifrench.tqdm, "update", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", n_jobs=2, **SMALL)
    before = audio_bytes(tmp_path / "data")
    assert 10 <= len(before) < 45
    assert not (tmp_path / "save").exists(), "no manifest of half a corpus"
    made = []
    record = store_module.record
    monkeypatch.setattr(store_module, "record", lambda u, *rest: made.append(u.id) or record(u, *rest))
    prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", n_jobs=2, **SMALL)
    assert len(made) == 45 - len(before), "only what was missing is made"
    assert audio_bytes(tmp_path / "data") == audio_bytes(data)


def test_broken_file_is_made_again(corpus, tmp_path):
    data, _ = corpus
    options = SMALL | {"n_utterances": 9}
    prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", **options)
    victim = next((tmp_path / "data").rglob("*.wav"))
    victim.write_bytes(b"")
    prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", **options)
    assert victim.read_bytes() == audio_bytes(data)[victim.name]


def test_two_versions_of_espeak_are_kept_apart(tmp_path):
    options = SMALL | {"n_utterances": 9}
    prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", **options)
    (note,) = (tmp_path / "data").rglob("generator.json")
    note.write_text(note.read_text().replace('"espeak_ng": "', '"espeak_ng": "0.'))
    with pytest.raises(DataError, match="begun with eSpeak NG 0.*delete the folder"):
        prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "data", **(options | {"n_utterances": 18}))


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LOBES_CACHE", str(tmp_path / "own"))
    assert minifrench.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LOBES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert minifrench.cache_folder() == tmp_path / "xdg" / "lobes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert minifrench.cache_folder() == Path.home() / ".cache" / "lobes"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("n_speakers", 3, "from 4 to 45"),
        ("n_speakers", 46, "from 4 to 45"),
        ("n_utterances", 2, "from 4"),
        ("seed", -1, "from 0"),
        ("hours", 0, "above 0"),
        ("hours", float("nan"), "above 0"),
        ("n_jobs", 0, "from 1"),
        ("snr_db", (30, 10), "from low to high"),
        ("snr_db", 20, "from low to high"),
    ],
)
def test_bad_options_are_one_line(tmp_path, option, value, expected):
    with pytest.raises(ConfigError, match=f"{option}=.*expected.*{expected}") as caught:
        prepare_minifrench(tmp_path, data_folder=tmp_path, **{option: value})
    assert "\n" not in str(caught.value)


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="data_folder=.*choose a folder"):
        prepare_minifrench(tmp_path / "save", data_folder=tmp_path / "file", **SMALL)
