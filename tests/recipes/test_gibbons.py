"""recipes/Gibbons on whistles in the layouts of the corpora: a rising one is a duet, a hum tells the recorder."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import soundfile
from recipe_runner import SMALL, skipped, steps, train, untrained_encoder
from sounds import RECORDERS, clip

from lobes.dataio import read_manifest
from lobes.errors import DataError
from lobes.export import load_encoder

LOGMEL = "--encoder=logmel-40-25hz"

CLASSES = "--classes=[duet, long.argus, noise]"


def test_calls_are_told_apart_at_a_recorder_that_was_not_heard(danum, tmp_path):
    result = train("Gibbons/call_type", tmp_path / "run", f"--data_folder={danum()}", LOGMEL, CLASSES)
    metric, other = result["metric"], result["other_metrics"]
    assert metric["name"] == "uar" and metric["value"] > 0.9, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (54, 3)
    assert other["background_value"] < 0.6, "a hum tells the recorder, not the call; chance is 1/3"
    rows = read_manifest(tmp_path / "run" / "folds" / "S11" / "train.csv").rows
    assert {row["group"] for row in rows} == {"S10", "S12"}
    with open(tmp_path / "run" / "confusion.csv", encoding="utf-8") as file:
        (corner, *classes), *table = csv.reader(file)
    assert classes == [name for name, *_ in table] == ["duet", "long.argus", "noise"]
    assert [sum(map(int, counts)) for _, *counts in table] == [18, 18, 18]
    right = sum(int(counts[place]) for place, (_, *counts) in enumerate(table))
    assert right / 54 == pytest.approx(metric["value"]), "of as many clips of each"
    assert (tmp_path / "run" / "confusion.svg").stat().st_size > 2000
    clips = embeddings(tmp_path / "run")
    assert sorted((clip["id"], clip["call_type"], clip["group"]) for clip in clips) == sorted(
        (record["id"], record["target"], record["group"]) for record in result["records"]
    )
    assert {clip["features"] for clip in clips} == {"logmel-40-25hz, layer 0"}
    assert abs(sum(float(clip["x"]) for clip in clips)) < 0.01 < max(float(clip["x"]) for clip in clips)
    picture = (tmp_path / "run" / "embeddings.svg").read_text()
    assert all(f">{text}<" in picture for text in ("by call_type", "by group", "duet", *RECORDERS))


def embeddings(run):
    """The rows of embeddings.csv."""
    with open(run / "embeddings.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


SWAP = "--swap=!name:lobes.dataio.background.BackgroundSwap {snr_db: -10.0}"


@pytest.mark.parametrize("leaks", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_backgrounds_of_others_lead_astray_what_rests_on_them(danum, tmp_path, leaks):
    given = (f"--data_folder={danum(leaks=leaks)}", LOGMEL, CLASSES, "--probe.strengths=[0.1]")
    plain = train("Gibbons/call_type", tmp_path / "plain", *given)
    result = train("Gibbons/call_type", tmp_path / "run", *given, SWAP)
    other = result["other_metrics"]
    assert result["records"] == plain["records"], "the model and its test stay what they were"
    assert other["background_value"] == plain["other_metrics"]["background_value"]
    assert "swapped_value" not in plain["other_metrics"]
    if leaks:
        assert result["metric"]["value"] > 0.9 and other["swapped_value"] < 0.4
    else:
        assert other["swapped_low"] <= other["swapped_value"] <= result["metric"]["value"]
        assert other["swapped_value"] > 0.6


@pytest.mark.slow
def test_a_background_that_tells_the_call_is_shown(danum, tmp_path):
    given = (f"--data_folder={danum(leaks=True)}", LOGMEL, CLASSES)
    result = train("Gibbons/call_type", tmp_path / "run", *given)
    assert result["other_metrics"]["background_value"] > 0.9 and result["metric"]["value"] > 0.9


def test_a_duet_is_found_among_noise(danum, tmp_path):
    data = f"--data_folder={danum(kinds=('duet', 'noise'))}"
    result = train("Gibbons/call_type", tmp_path / "run", data, LOGMEL, hparams="duet.yaml")
    assert result["metric"]["name"] == "auc" and result["metric"]["value"] > 0.95
    assert {record["target"] for record in result["records"]} == {0, 1}


def test_a_class_that_is_not_there_is_named(danum, tmp_path):
    with pytest.raises(Exception, match="hornbill.helmeted"):
        train("Gibbons/call_type", tmp_path / "run", f"--data_folder={danum(clips=1)}", LOGMEL)


@pytest.mark.slow
def test_pretraining_never_hears_the_recorder_that_is_held_out(danum, tmp_path):
    folder = danum(clips=2)
    cc0 = tmp_path / "borneo_sulawesi_cc0"
    (cc0 / "FocalRecordings").mkdir(parents=True)
    soundfile.write(cc0 / "FocalRecordings" / "FemaleGibbon_1.wav", clip(np.random.default_rng(1), "duet", 4000), 16000)
    given = (f"--data_folder={tmp_path}", *SMALL, "--steps=3", "--train_loader.batch_seconds=4")
    run = tmp_path / "ssl" / "{fold}"
    for recorder in RECORDERS:
        train("Gibbons/SSL", tmp_path / "ssl" / recorder, *given, f"--held_out={recorder}")
        parts = [read_manifest(tmp_path / "ssl" / recorder / "manifests" / f"{p}.csv") for p in ("train", "valid")]
        assert all(f"_{recorder}_" not in row["wav"] for part in parts for row in part.rows)
        assert len(steps(tmp_path / "ssl" / recorder)) == 3
    with pytest.raises(DataError, match="held_out names 'S99'"):
        train("Gibbons/SSL", tmp_path / "ssl" / "S99", *given, "--held_out=S99")
    # Each fold is tested with the encoder that has not heard it.
    result = train("Gibbons/call_type", tmp_path / "run", f"--data_folder={folder}", f"--encoder={run}", CLASSES)
    log = (tmp_path / "run" / "log.txt").read_text()
    last = re.findall(r"(S\d+): layer (\d+)", log)[-1]  # the calls' come after the background's
    named = {clip["features"] for clip in embeddings(tmp_path / "run")}
    assert named == {f"{str(run).format(fold=last[0])}, layer {last[1]}"}, "one fold's encoder, for all clips"
    assert len(embeddings(tmp_path / "run")) == 18
    assert result["metric"]["n_items"] == 18 and len(load_encoder(tmp_path / "ssl" / "S10").layer_dims) == 3
    assert all(f"{recorder}: layer" in log for recorder in RECORDERS)


@pytest.mark.slow
def test_skipped_clips_are_listed(danum, tmp_path):
    folder = danum()
    (folder / "duet_S10_20180620_080003_9.5_10.5_.wav").write_bytes(b"no audio")
    result = train("Gibbons/call_type", tmp_path / "run", f"--data_folder={folder}", LOGMEL, CLASSES)
    assert result["metric"]["n_items"] == 54
    assert list(skipped(tmp_path / "run" / "manifests")) == ["duet_S10_20180620_080003_9.5_10.5_.wav"]


@pytest.mark.parametrize("method", ["LoRA(rank=2)", pytest.param("FullFineTuning()", marks=pytest.mark.slow)])
def test_one_switch_chooses_how_the_encoder_is_tuned(danum, tmp_path, method):
    name, options = method.rstrip(")").split("(")
    swap = SWAP if name == "LoRA" else "--swap=null"
    tag = f"--adaptation=!name:lobes.adapters.{name}" + (f" {{{options.replace('=', ': ')}}}" if options else "")
    folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    given = (f"--data_folder={danum(kinds=('duet', 'noise'), clips=2)}", f"--encoder={folder}", "--untrained=True")
    given += ("--classes=[duet, noise]", "--epochs=2", "--train_loader.batch_seconds=4", tag, swap)
    result = train("Gibbons/call_type", tmp_path / "run", *given, hparams="tune.yaml")
    encoder = load_encoder(folder, untrained=True)
    own = sum(p.numel() for p in encoder.parameters())
    trained = result["cost"]["parameters_trained"]
    head = 2 * 32 * 2 + 2 + 2
    if name == "FullFineTuning":
        assert trained == own - 2 * 32 + head, "but for the norm of the output frames, which a probe does not read"
    else:
        assert head < trained < 0.3 * own
    assert result["metric"]["n_items"] == 12 and result["other_metrics"]["background_value"] is not None
    assert ("swapped_value" in result["other_metrics"]) == (name == "LoRA")
    assert (tmp_path / "run" / "confusion.csv").is_file() and not (tmp_path / "run" / "embeddings.csv").exists()
