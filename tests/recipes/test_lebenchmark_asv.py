"""recipes/LeBenchmark/ASV on tones in the layout of the live clips: a speaker is a chord, what is said a melody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_runner import leave, steps, torchrun, train

from lobes.dataio import read_manifest, read_trials

RECIPE = "LeBenchmark/ASV"
LOGMEL = "--encoder=logmel-40-25hz"
QUICK = (LOGMEL, "--cut_seconds.train=1.0", "--cut_seconds.valid=1.0", "--prepare.valid_share=0.4")
SMALL = (
    "--head.channels=16",
    "--embedding_dim=16",
    "--steps=40",
    "--opt_class.lr=0.005",
    "--train_loader.batch_seconds=25",
)


def utterance(noise: np.random.Generator, voice: np.ndarray, seconds: float) -> np.ndarray:
    """Half-second syllables that fade: the speaker's two pitches, under a melody of chance."""
    parts = []
    time = np.arange(8000) / 16000
    for _ in range(round(2 * seconds)):
        melody = 0.2 * np.sin(2 * np.pi * 4000 * 1.5 ** noise.random() * time)
        sound = melody + sum(np.sin(2 * np.pi * pitch * time + noise.random()) for pitch in voice)
        parts.append(0.05 * np.exp(-8 * time) * sound + 0.003 * noise.standard_normal(len(time)))
    return np.concatenate(parts)


@pytest.fixture
def clips(tmp_path: Path) -> Callable[..., Path]:
    """Write librispeech_<subset>/[<speaker>/]<speaker>-<chapter>-<n>.flac; without `voices` all have one chord."""

    def write(voices: bool = True) -> Path:
        noise, folder = np.random.default_rng(0), tmp_path / "clips"
        for number in range(30):
            voice = 200 * 8 ** noise.random(2) if voices else np.array([300.0, 900.0])
            name = f"{100 + number}-7"
            if number < 24:
                files = {folder / "librispeech_train-clean-100" / f"{name}-0000.flac": 5}
            else:
                parent = folder / "librispeech_test-other" / str(100 + number)
                files = {parent / f"{name}-{k:04d}.flac": noise.integers(1, 4) for k in range(4)}
            for path, seconds in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, utterance(noise, voice, seconds), 16000)
        return folder

    return write


def test_new_speakers_are_told_apart(clips, tmp_path):
    folder = clips()
    result = train(RECIPE, tmp_path / "run", f"--data_folder={folder}", *QUICK, *SMALL)
    metric, others = result["metric"], result["other_metrics"]
    assert metric["name"] == "eer" and metric["value"] < 0.2, metric["value"]
    assert metric["n_items"] == 24 * 23 // 2 and metric["n_groups"] == 6, "all pairs of 24 utterances; 6 speakers"
    assert others.keys() == {"min_dcf_0.01", "min_dcf_0.05", "act_dcf_0.01", "act_dcf_0.05", "cllr", "valid"}
    assert others["cllr"] < 0.9 and others["min_dcf_0.05"] <= others["act_dcf_0.05"]
    assert 0 < result["cost"]["parameters_trained"] and "layer weights 1.000" in result["notes"]
    record = result["records"][0]
    assert record.keys() == {"id", "group", "target", "score", "llr"} and len(record["group"]) == 2
    # No speaker is in two splits; the trials of the valid split are between pieces of its clips.
    parts = {
        split: read_manifest(tmp_path / "run" / "manifests" / f"{split}.csv") for split in ("train", "valid", "test")
    }
    assert len(parts["valid"].groups) >= 5 and not set(parts["train"].groups) & set(parts["valid"].groups)
    listed = (tmp_path / "run" / "manifests" / "valid_trials.txt").read_text().split()
    assert {name.split("-")[0] for name in listed if "-" in name} == set(parts["valid"].groups)
    trials = read_trials(tmp_path / "run" / "manifests" / "test_trials.txt", parts["test"])
    assert [f"{t.enrol} {t.test}" for t in trials] == [record["id"] for record in result["records"]]


def test_without_voices_nothing_is_told(clips, tmp_path):
    """Cosines without training are near chance where all speakers sound alike."""
    folder = clips(voices=False)
    result = train(RECIPE, tmp_path / "run", f"--data_folder={folder}", *QUICK, hparams="cosine.yaml")
    assert result["metric"]["value"] > 0.35 and result["other_metrics"]["cllr"] > 0.8
    assert result["cost"]["parameters_trained"] == 0 and result["notes"].startswith(
        "layer 0; EER on valid by layer: 0."
    )


def test_without_training_voices_are_told(clips, tmp_path):
    norm = "--s_norm={top: 5}"
    result = train(RECIPE, tmp_path / "run", f"--data_folder={clips()}", *QUICK, norm, hparams="cosine.yaml")
    assert result["metric"]["value"] < 0.25, result["metric"]["value"]


@pytest.mark.slow
def test_every_head_with_an_encoder_that_trains(clips, tmp_path):
    folder = f"--data_folder={clips()}"
    options = (
        *QUICK[1:],
        "--encoder=sm-tiny",
        "--mode=LoRA",
        "--steps=6",
        "--embedding_dim=16",
        "--s_norm={top: null}",
    )
    for name, size in {"tiny": "--head.channels=16", "ecapa": "--head.channels=16"}.items():
        result = train(RECIPE, tmp_path / name, folder, *options, size, hparams=f"{name}.yaml")
        assert result["metric"]["value"] < 0.5


def test_a_list_can_be_given(clips, tmp_path):
    folder = clips()
    path = tmp_path / "list.txt"
    speakers = range(124, 128)
    lines = [f"1 {a}-7-0000 {a}-7-0001\n" for a in speakers]
    lines += [f"0 {a}-7-0000 {b}-7-0001\n" for a in speakers for b in speakers if a != b]
    path.write_text("".join(lines) + "0 124-7-0000 124-8-0000\n")
    given = (f"--data_folder={folder}", *QUICK, f"--test_trials={path}", f"--output_folder={tmp_path / 'run'}")
    code, error = leave(RECIPE, "hparams/cosine.yaml", *given)
    assert code == 2 and "line 17: '124-8-0000' is no utterance of the manifest" in error.splitlines()[-1]
    path.write_text("".join(lines))
    result = train(RECIPE, tmp_path / "run", *given[:-1], hparams="cosine.yaml")
    assert [record["target"] for record in result["records"]] == [1] * 4 + [0] * 12


@pytest.mark.data
def test_the_live_clips_have_trials_of_ten_speakers(lobes_data, tmp_path):
    if not (lobes_data / "librispeech_clips").is_dir():
        pytest.skip("LOBES_DATA has no librispeech_clips")
    result = train(RECIPE, tmp_path / "run", "--encoder=logmel-40-25hz", hparams="cosine.yaml")
    targets = [record["target"] for record in result["records"]]
    assert (sum(targets), len(targets)) == (10 * 45, 100 * 99 // 2) and result["metric"]["n_groups"] == 10
    assert result["metric"]["value"] < 0.45


@pytest.mark.slow
def test_two_processes_hear_what_one_does(clips, tmp_path):
    given = (f"--data_folder={clips()}", *QUICK)
    one, two = (torchrun(RECIPE, tmp_path / f"cosine{n}", *given, hparams="cosine.yaml", processes=n) for n in (1, 2))
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4) and one["metric"]["value"] < 0.25
    # The loss multiplies cosines by 30, so that rounding errors grow; less so the smaller the steps.
    given += (*[option for option in SMALL if "lr" not in option], "--opt_class.lr=0.001", "--head.dropout=0.0")
    one, two = (torchrun(RECIPE, tmp_path / str(count), *given, processes=count) for count in (1, 2))
    losses = [[float(row["loss"]) for row in steps(tmp_path / str(count))] for count in (1, 2)]
    assert losses[1][:5] == pytest.approx(losses[0][:5], rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], abs=0.01 * losses[0][0])
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4)
    assert one["metric"]["value"] < 0.4, "chance is a half"
