"""recipes/FSDD/digits on tone pairs whose pitch tells the digit, in the layout in which the corpus is downloaded."""

from __future__ import annotations

import pytest
import torch
from recipe_runner import QUIET, script, steps, train, untrained_encoder

from lobes.dataio import read_manifest
from lobes.encoders import HuggingFaceEncoder
from lobes.errors import DataError
from lobes.evaluation import read_result
from lobes.export import load_encoder, save_encoder
from lobes.training import Checkpointer

RECIPE = "FSDD/digits"
LOGMEL = "--encoder=logmel"
SPEAKERS = ("ann", "bob", "cleo")


def test_probe_hears_the_pitch_of_unheard_speakers(fsdd_folder, tmp_path):
    result = train(RECIPE, tmp_path / "run", f"--data_folder={fsdd_folder(speakers=SPEAKERS)}", LOGMEL)
    metric, cost = result["metric"], result["cost"]
    assert metric["name"] == "accuracy" and metric["value"] > 0.9
    assert (metric["n_items"], metric["n_groups"]) == (60, 3)
    assert len({record["id"] for record in result["records"]}) == 60, "each recording is tested once"
    assert cost["parameters_trained"] == cost["parameters_total"] == 2 * 80 * 10 + 10, "linear on mean and deviation"
    # Two of three speakers, three times.
    heard = sum(row["duration"] for row in read_manifest(tmp_path / "run" / "manifests" / "all.csv").rows)
    assert cost["audio_hours"] == pytest.approx(2 * heard / 3600, rel=1e-3)


def test_the_memory_for_features_is_given_on_the_command_line(fsdd_folder, tmp_path):
    data = f"--data_folder={fsdd_folder(speakers=SPEAKERS)}"
    with pytest.raises(DataError, match="at most features_gib=1e-06; give more"):
        train(RECIPE, tmp_path / "run", data, LOGMEL, "--features_gib=0.000001")


@pytest.mark.parametrize("probe", ["KNNProbe", "MLPProbe {n_points: 2, max_epochs: 12}"])
def test_hears_probes_take_the_place_of_logistic_regression(fsdd_folder, tmp_path, probe):
    data = f"--data_folder={fsdd_folder(speakers=SPEAKERS)}"
    runs = [
        train(RECIPE, tmp_path / str(seed), data, LOGMEL, f"--probe=!name:lobes.probes.{probe}", f"--seed={seed}")
        for seed in (1, 2)
    ]
    assert all(run["metric"]["value"] > 0.7 for run in runs), "chance is a tenth"
    assert all((run["cost"]["parameters_trained"] > 1e5) == probe.startswith("MLP") for run in runs)


def test_only_the_labelled_takes_are_trained_on(fsdd_folder, tmp_path):
    data = f"--data_folder={fsdd_folder(speakers=SPEAKERS)}"
    result = train(RECIPE, tmp_path / "run", data, LOGMEL, "--train_takes=1")
    rows = read_manifest(tmp_path / "run" / "manifests" / "all.csv").rows
    labelled = sum(row["duration"] for row in rows if row["take"] == "0")
    assert result["metric"]["n_items"] == len(rows), "all takes of the speaker left out are tested"
    assert result["cost"]["audio_hours"] == pytest.approx(2 * labelled / 3600, rel=1e-3)


def test_shuffled_labels_teach_nothing(fsdd_folder, tmp_path):
    data = f"--data_folder={fsdd_folder(shuffled=True, takes=4, speakers=SPEAKERS)}"
    metric = train(RECIPE, tmp_path / "run", data, LOGMEL)["metric"]
    assert metric["value"] < 0.25 and metric["low"] < 0.15, "chance is 0.1"


def test_fine_tuning_moves_the_encoder(fsdd_folder, tmp_path):
    speakers = ("ann", "bob")
    folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    data = f"--data_folder={fsdd_folder(takes=1, speakers=speakers)}"
    given = (f"--encoder={folder}", "--untrained=True", data, "--epochs=1", "--train_loader.batch_seconds=1")
    result = train(RECIPE, tmp_path / "run", *given, hparams="finetune.yaml")
    before = load_encoder(folder, untrained=True, seed=1).state_dict()
    assert result["metric"]["n_items"] == 20
    assert result["cost"]["parameters_trained"] == result["cost"]["parameters_total"] > 20_000
    for speaker in speakers:
        fold = tmp_path / "run" / "folds" / speaker
        assert len(steps(fold)) > 1
        saved = Checkpointer(fold / "save").find_checkpoint().paramfiles["model"]
        after = torch.load(saved, weights_only=True)
        assert all((after[f"encoder.{name}"] != weight).any() for name, weight in before.items() if weight.ndim == 2)


def test_faster_encoders_cost_less(fsdd_folder, tmp_path):
    data = f"--data_folder={fsdd_folder(speakers=SPEAKERS)}"
    folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=4)
    half, one = "!name:lobes.encoders.Downsampled {way: average}", "!name:lobes.encoders.first_blocks {n_blocks: 1}"
    slower = train(RECIPE, tmp_path / "slower", data, LOGMEL, f"--faster={half}")
    fewer = train(RECIPE, tmp_path / "fewer", data, f"--encoder={folder}", "--untrained=True", f"--faster={one}")
    assert slower["metric"]["value"] > 0.8
    assert slower["cost"]["macs_per_second"] == pytest.approx(load_encoder("logmel").macs(10.0) / 20, rel=0.01)
    short = train(RECIPE, tmp_path / "short", data, f"--encoder={hubert(tmp_path / 'hubert')}", f"--faster={one}")
    assert short["cost"]["macs_per_second"] == pytest.approx(load_encoder(tmp_path / "hubert").macs(10.0, 1) / 10)
    assert fewer["cost"]["macs_per_second"] < 0.75 * load_encoder(folder, untrained=True).macs(10.0) / 10


def hubert(folder):
    """A HuBERT of two blocks, as a run leaves it."""
    config = {"model_type": "hubert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 32, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16,
              "num_conv_pos_embedding_groups": 4}  # fmt: skip
    encoder = HuggingFaceEncoder(config)
    return save_encoder(encoder, folder, encoder.hparams_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "HuBERT"])
def test_a_clip_that_is_told_early_costs_less(kind, fsdd_folder, tmp_path):
    folder = tmp_path / "encoder"
    folder = hubert(folder) if kind == "HuBERT" else untrained_encoder(folder, dim=32, depth=2)
    given = (f"--encoder={folder}", "--untrained=True", "--epochs=12", "--train_loader.batch_seconds=2", *QUIET)
    data = f"--data_folder={fsdd_folder(takes=4, speakers=SPEAKERS)}"
    thresholds = "--thresholds=[0.05, 0.4, 1.1]"
    ended = script(
        f"{RECIPE}/early_exit.py",
        "hparams/early_exit.yaml",
        f"--output_folder={tmp_path / 'run'}",
        *given,
        data,
        thresholds,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    first, between, last = (read_result(tmp_path / "run" / name) for name in ("0.05", "0.4", "1.1"))
    macs = [result["cost"]["macs_per_second"] for result in (first, between, last)]
    whole = load_encoder(folder, untrained=True)
    assert macs[0] < macs[1] < macs[2] == pytest.approx(whole.macs(10.0) / 10)
    assert last["metric"]["n_items"] == 120
    assert kind == "HuBERT" or last["metric"]["value"] > 0.3, "chance is 0.1"
