"""recipes/Gibbons/detection on whistles in the layouts of the corpora: a rising one is a gibbon's."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import soundfile
from recipe_runner import script, train

from lobes.dataio import read_manifest
from lobes.dataio.annotations import Annotation, write_annotations
from lobes.dataio.corpora.danum_clips import SIX_CLASSES
from lobes.detection import load_detector, recording_events
from lobes.errors import ConfigError, DataError
from lobes.evaluation import event_f1

pytestmark = pytest.mark.slow  # tests/detection tests by default what it trains
RATE = 16000
SMALL = (
    "--encoder=logmel-40-25hz",
    "--normalize_layers=False",
    "--prepare.n_scenes=16",
    "--prepare.n_test_scenes=8",
    "--prepare.seconds=16",
    "--prepare.snr_db=[0, 10]",
    "--window=4.0",
    "--epochs=12",
    "--train_loader.batch_seconds=32",
)


def whistle(noise: np.random.Generator, slope: float, seconds: float = 2.5) -> np.ndarray:
    """From 1 kHz up or down by `slope` Hz per second, or nothing, over a little noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    call = 0.2 * np.sin(2 * np.pi * (1000 + slope * time / 2) * time) if slope else 0.0 * time
    return call + 0.005 * noise.standard_normal(len(time))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """danum_clips and borneo_sulawesi_cc0."""
    root, noise = tmp_path_factory.mktemp("corpora"), np.random.default_rng(0)
    clips, cc0 = root / "danum_clips", root / "borneo_sulawesi_cc0"
    for folder in (clips, cc0 / "FocalRecordings", cc0 / "SoundscapeRecordings"):
        folder.mkdir(parents=True)
    for recorder in range(10, 14):
        for kind in SIX_CLASSES:
            slope = {"duet": 300.0, "noise": 0.0}.get(kind, -250.0)
            sound = whistle(noise, slope * (1 + 0.1 * noise.standard_normal()))
            soundfile.write(clips / f"{kind}_S{recorder}_20180620_080003_1.5_4.0_.wav", sound, RATE)
    for number in range(1, 3):
        soundfile.write(cc0 / f"FocalRecordings/FemaleGibbon_{number}.wav", whistle(noise, 330.0), RATE)
        soundfile.write(cc0 / f"FocalRecordings/GreatArgus_{number}.wav", whistle(noise, -280.0, 4.0), RATE)
        for place in ("Borneo_Morning", "Borneo_Night", "Sulawesi_Morning", "Sulawesi_Night"):
            sound = 0.02 * noise.standard_normal(5 * 48000)
            soundfile.write(cc0 / f"SoundscapeRecordings/{place}_0{number}.wav", sound, 48000)
    return root


@pytest.fixture(scope="module")
def run(corpora, tmp_path_factory):
    """A trained detector's folder and result."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train("Gibbons/detection", folder, f"--data_folder={corpora}", *SMALL)


def test_calls_are_found_elsewhere_at_every_level(run):
    folder, result = run
    metric, other = result["metric"], result["other_metrics"]
    assert metric["name"] == "event_f1" and metric["value"] > 0.8, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (16, len({record["group"] for record in result["records"]}))
    assert {"f1_0", "f1_10", "f1_0_low", "f1_10_high", "precision", "recall"} <= other.keys()
    of_level = [record for record in result["records"] if record["condition"] == "10"]
    assert len(of_level) == 8 and other["f1_10"] == pytest.approx(event_f1(of_level))


def test_what_other_thresholds_would_give_is_written(run):
    folder, result = run
    with open(folder / "precision_recall.csv", encoding="utf-8") as file:
        rows = [{name: float(row[name]) for name in ("score", "recall", "precision")} for row in csv.DictReader(file)]
    scores, recalls = ([row[name] for row in rows] for name in ("score", "recall"))
    assert scores == sorted(scores, reverse=True) and recalls == sorted(recalls) and recalls[-1] > 0.7
    assert "duet, AP " in (folder / "precision_recall.svg").read_text()


def test_no_recorder_is_on_two_sides_and_a_scene_is_the_same_at_every_level(run):
    parts = {name: read_manifest(run[0] / "manifests" / f"{name}.csv") for name in ("train", "valid", "test")}
    assert not set(parts["train"].groups) & set(parts["valid"].groups)
    events, rows = recording_events(parts["test"], "call_type", ["duet"])
    by_level = {level: [] for level in ("0", "10")}
    for file, found in events.items():
        by_level[rows[file]["snr_db"]].append([(event.start, event.end) for event in found])
    assert by_level["0"] == by_level["10"] and any(by_level["0"])


def test_the_saved_detector_works_on_the_command_line(run, tmp_path):
    folder, _ = run
    detector = load_detector(folder / "model")
    assert detector.events == ["duet"] and detector.bands == {"duet": (400.0, 2200.0)}
    noise = np.random.default_rng(5)
    sound = 0.005 * noise.standard_normal(30 * RATE)
    sound[10 * RATE : 10 * RATE + 40000] += whistle(noise, 310.0)
    soundfile.write(tmp_path / "night.wav", sound, RATE)
    arguments = [folder / "model", tmp_path / "night.wav", "--out", tmp_path / "out"]
    ended = script("Gibbons/detection/detect.py", *arguments)
    assert ended.returncode == 0, ended.stderr
    lines = (tmp_path / "out" / "audacity" / "night.txt").read_text().splitlines()
    times = [line.split("\t")[:2] for line in lines if not line.startswith("\\")]  # that is a line of frequencies
    assert len(times) == 1 and [float(text) for text in times[0]] == pytest.approx([10.0, 12.5], abs=0.3)


@pytest.fixture(scope="module")
def own_recordings(tmp_path_factory):
    """Five folders, each with a recording and its Raven table."""
    root, noise = tmp_path_factory.mktemp("own"), np.random.default_rng(1)
    for number in range(5):
        (root / f"site{number}").mkdir()
        sound, events = 0.02 * noise.standard_normal(24 * RATE), []
        for begin in (3.0, 12.0, 18.0):
            slope = 300.0 if begin != 12.0 else -300.0
            sound[int(begin * RATE) : int(begin * RATE) + 40000] += whistle(noise, slope)
            events.append(Annotation(begin, begin + 2.5, "great call" if slope > 0 else "other"))
        soundfile.write(root / f"site{number}" / "a.wav", sound, RATE)
        write_annotations(root / f"site{number}" / "a.Table.1.selections.txt", events)
    return root


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """A folder as of the hub, of a tiny HuBERT with random weights."""
    from transformers import HubertConfig, HubertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    convolutions = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    folder = tmp_path_factory.mktemp("hubert")
    HubertModel(HubertConfig(**sizes, **convolutions)).save_pretrained(folder)
    return folder


def test_recordings_of_ones_own_with_raven_tables(own_recordings, tmp_path):
    given = [
        f"--data_folder={own_recordings}",
        "--classes=[great call]",
        "--prepare.shares.test=0.4",
        *SMALL[:2],
        *SMALL[6:],
    ]
    result = train("Gibbons/detection", tmp_path / "run", *given, hparams="own.yaml")
    assert all("/" not in record["recording"].removesuffix("/a.wav") for record in result["records"])
    assert result["metric"]["value"] > 0.8 and len(result["records"]) == result["metric"]["n_items"] >= 1
    assert load_detector(tmp_path / "run" / "model").events == ["great call"]


def test_what_is_found_in_silent_recordings_is_a_false_alarm(own_recordings, tmp_path):
    """A call that nobody annotated, in a recording with an empty table, and in one without any table."""
    folder, noise = shutil.copytree(own_recordings, tmp_path / "own"), np.random.default_rng(2)
    for number in range(5):
        for name in ("silent", "unheard"):
            sound = 0.02 * noise.standard_normal(24 * RATE)
            sound[5 * RATE : 5 * RATE + 40000] += whistle(noise, 300.0)
            soundfile.write(folder / f"site{number}" / f"{name}.wav", sound, RATE)
        write_annotations(folder / f"site{number}" / "silent.Table.1.selections.txt", [])
    given = [f"--data_folder={folder}", "--classes=[great call]", "--prepare.shares.test=0.4", *SMALL[:2], *SMALL[6:]]
    result = train("Gibbons/detection", tmp_path / "run", *given, hparams="own.yaml")
    silent = [record for record in result["records"] if record["recording"].endswith("silent.wav")]
    assert len(silent) == len(result["records"]) / 2 >= 1
    assert sum(record["false_positives"] for record in silent) > 0 == sum(record["true_positives"] for record in silent)
    with open(tmp_path / "run" / "manifests" / "whole" / "skipped.csv", encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [f"site{number}/unheard.wav" for number in range(5)]
    windows = read_manifest(tmp_path / "run" / "windows" / "train.csv").rows
    assert sum("/silent.wav" in row["wav"] for row in windows) == sum("/a.wav" in row["wav"] for row in windows)


def test_an_encoder_is_tuned_and_its_adapter_merged(own_recordings, tmp_path):
    given = [f"--data_folder={own_recordings}", "--classes=[great call]", "--encoder=sm-tiny", "--epochs=1"]
    given.append("--prepare.shares.test=0.4")
    adapter = "--adaptation=!name:lobes.adapters.LoRA {rank: 2}"
    result = train("Gibbons/detection", tmp_path / "run", *given, adapter, "--untrained=True", hparams="own.yaml")
    detector = load_detector(tmp_path / "run" / "model")
    total = sum(p.numel() for p in detector.model.encoder.parameters())
    assert 0 < result["cost"]["parameters_trained"] < 0.2 * total
    assert not [name for name, _ in detector.named_parameters() if "adapters" in name]


@pytest.mark.parametrize("adaptation", [(), ("--adaptation=!name:lobes.adapters.LoRA {rank: 2}",)])
def test_an_encoder_from_elsewhere_becomes_part_of_the_detector(own_recordings, hubert, tmp_path, adaptation):
    given = [f"--data_folder={own_recordings}", "--classes=[great call]", f"--encoder={hubert}", "--epochs=1"]
    given += ["--prepare.shares.test=0.4", "--window=4.0", *adaptation]
    result = train("Gibbons/detection", tmp_path / "run", *given, hparams="own.yaml")
    assert result["metric"]["name"] == "event_f1"
    detector = load_detector(tmp_path / "run" / "model")
    assert type(detector.model.encoder).__name__ == "HuggingFaceEncoder"


def test_what_cannot_work_is_said_before_training(own_recordings, tmp_path):
    given = [f"--data_folder={own_recordings}", "--encoder=sm-tiny", "--untrained=True"]
    with pytest.raises(DataError, match="none of duet is annotated; labels are great call, other"):
        train("Gibbons/detection", tmp_path / "a", *given, "--classes=[duet]", hparams="own.yaml")
    given.append("--classes=[great call]")
    with pytest.raises(ConfigError, match="PromptTuning.*no weights can express"):
        prompt = "--adaptation=!name:lobes.adapters.PromptTuning"
        train("Gibbons/detection", tmp_path / "b", *given, prompt, hparams="own.yaml")
