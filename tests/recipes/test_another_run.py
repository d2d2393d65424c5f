"""A command given again in the folder of a run, with something else to learn, is refused before anything is tested."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
from recipe_runner import train, untrained_encoder

from lobes.dataio.annotations import Annotation, write_annotations
from lobes.errors import ConfigError

RATE = 16000


def test_calls_in_other_folds_of_other_classes_or_of_more_recordings(danum, tmp_path):
    encoder, folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1), danum(("duet", "noise"), clips=2)
    run, options = tmp_path / "run", ("--untrained=True", "--train_loader.batch_seconds=4")

    def again(data_folder=folder, classes="[duet, noise]", n_folds=3, epochs=1):
        given = (f"--data_folder={data_folder}", f"--encoder={encoder}", f"--classes={classes}")
        folds = ("--folds.split=groups at random", f"--folds.n_folds={n_folds}", f"--epochs={epochs}")
        return train("Gibbons/call_type", run, *given, *folds, *options, hparams="tune.yaml")

    first = again()
    with pytest.raises(ConfigError, match="holds a run with folds.n_folds=3, not 2; give another --output_folder"):
        again(n_folds=2)
    with pytest.raises(ConfigError, match=r"holds a run with classes=\[duet, noise\], not \[noise, duet\]"):
        again(classes="[noise, duet]")
    assert json.loads((run / "result.json").read_text())["records"] == first["records"], "the result is still the first"
    moved = shutil.move(folder, tmp_path / "moved")
    assert again(data_folder=moved)["records"] == first["records"], "the same clips in another place are no others"

    clip = next(moved.glob("duet_S10_*.wav"))
    shutil.copy(clip, clip.with_name("duet_S10_20180621_080003_0.5_1.5_.wav"))
    with pytest.raises(ConfigError, match=r"folds/\w+/save: holds checkpoints of a run on other data: its train set"):
        again(data_folder=moved)
    clip.with_name("duet_S10_20180621_080003_0.5_1.5_.wav").unlink()
    longer = again(data_folder=moved, epochs=2)
    assert longer["cost"]["audio_hours"] == pytest.approx(2 * first["cost"]["audio_hours"]), "and goes on without it"


def test_emotions_from_fewer_clips(tmp_path):
    noise = np.random.default_rng(0)
    (tmp_path / "emodb" / "wav").mkdir(parents=True)
    for speaker in ("03", "08", "09"):
        for text in ("a01", "a02"):
            for emotion in "WF":
                sound = 0.1 * noise.standard_normal(RATE // 2)
                soundfile.write(tmp_path / "emodb" / "wav" / f"{speaker}{text}{emotion}a.wav", sound, RATE)
    encoder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    given = (f"--data_folder={tmp_path / 'emodb'}", f"--encoder={encoder}", "--untrained=True", "--mode=LoRA")
    given += ("--epochs=1", "--valid_speakers=0")
    train("LeBenchmark/AER", tmp_path / "run", *given)
    with pytest.raises(ConfigError, match="holds a run with train_clips=null, not 1"):
        train("LeBenchmark/AER", tmp_path / "run", *given, "--train_clips=1")


def test_a_detector_of_more_recordings_is_not_tested_on_what_it_learned_from(tmp_path):
    noise, folder = np.random.default_rng(1), tmp_path / "own"

    def record(site):
        (folder / f"site{site}").mkdir(parents=True)
        time, sound = np.arange(2 * RATE) / RATE, 0.02 * noise.standard_normal(8 * RATE)
        sound[2 * RATE : 4 * RATE] += 0.2 * np.sin(2 * np.pi * (1000 + 150 * time) * time)
        soundfile.write(folder / f"site{site}" / "a.wav", sound, RATE)
        write_annotations(folder / f"site{site}" / "a.Table.1.selections.txt", [Annotation(2.0, 4.0, "great call")])

    for site in range(5):
        record(site)
    given = (f"--data_folder={folder}", "--classes=[great call]", "--encoder=logmel-40-25hz", "--window=4.0")
    given += ("--normalize_layers=False", "--prepare.shares.test=0.4", "--epochs=1")
    first = train("Gibbons/detection", tmp_path / "run", *given, hparams="own.yaml")
    tested = {record["recording"] for record in first["records"]}
    given += ("--matching.dtc=0.4",)  # how a hit is counted may change
    again = train("Gibbons/detection", tmp_path / "run", *given, hparams="own.yaml")
    assert {record["recording"] for record in again["records"]} == tested
    assert again["cost"]["audio_hours"] == first["cost"]["audio_hours"], "not trained again"
    for site in range(5, 8):
        record(site)
    with pytest.raises(ConfigError, match="run/save: holds checkpoints of a run on other data: its (train|valid) set"):
        train("Gibbons/detection", tmp_path / "run", *given, hparams="own.yaml")
