"""recipes/MiniFrench/ASR on a few minutes of generated speech."""

from __future__ import annotations

import math

import pytest
from recipe_runner import steps, train, untrained_encoder

from lobes.dataio import read_manifest
from lobes.evaluation import cer, char_errors
from lobes.training import Checkpointer

RECIPE = "MiniFrench/ASR"


@pytest.fixture
def data(minifrench_folder):
    """Four minutes, two thirds of them to train on."""
    return (f"--data_folder={minifrench_folder}", "--prepare.hours=0.06", "--train_loader.batch_seconds=25")


def test_probe_learns_to_spell_what_it_hears(data, tmp_path):
    few = ("--steps=60", "--opt_class.lr=0.008", "--head.hidden=64")
    result = train(RECIPE, tmp_path, "--encoder=logmel-25hz", "--normalize_layers=False", *data, *few)
    assert result["metric"]["name"] == "cer" and result["metric"]["n_groups"] == 8
    assert result["metric"]["value"] < 0.85, "it is 0.70; nothing written would be 1"
    assert result["generated_speech"] is True
    kept = Checkpointer(tmp_path / "save").find_checkpoint(min_key="cer")
    assert result["other_metrics"]["valid"] == pytest.approx(kept.meta["cer"]), "of the checkpoint that was tested"

    texts = {row["id"]: row["text"] for row in read_manifest(tmp_path / "manifests" / "test.csv").rows}
    ids = [record["id"] for record in result["records"]]
    hypotheses = [record["hypothesis"] for record in result["records"]]
    again = char_errors([texts[name] for name in ids], hypotheses, ids, ids)
    assert cer(again) == pytest.approx(result["metric"]["value"])
    others = [texts[name] for name in ids[1:] + ids[:1]]
    assert cer(char_errors(others, hypotheses, ids, ids)) > result["metric"]["value"] + 0.02, "another's text; 0.75"


def test_fine_tuning_trains_the_encoder_too(data, tmp_path):
    folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    given = (f"--encoder={folder}", "--untrained=True", "--head.hidden=16", "--steps=3")
    result = train(RECIPE, tmp_path / "run", *given, *data, hparams="finetune.yaml")
    assert result["cost"]["parameters_trained"] == result["cost"]["parameters_total"] > 20_000
    assert [math.isfinite(float(row["loss"])) for row in steps(tmp_path / "run")] == [True] * 3
