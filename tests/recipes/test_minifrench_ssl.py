"""recipes/MiniFrench/SSL on two minutes of generated speech, with the tiny encoder made smaller."""

from __future__ import annotations

import math

import pytest
import torch
from recipe_runner import RECIPES, SMALL, load, steps, train

from lobes.export import load_encoder
from lobes.mixers import SDPA, SummaryMixing
from lobes.training import HparamsFile

RECIPE = "MiniFrench/SSL"
N_STEPS, CODES = 40, 256


@pytest.fixture
def options(minifrench_folder):
    """Forty steps on little audio, at a learning rate for so few."""
    few = ("--prepare.hours=0.03", "--train_loader.batch_seconds=60", f"--steps={N_STEPS}", "--opt_class.lr=0.006")
    codes = (f"--objective.codebook_size={CODES}", "--objective.n_codebooks=2")
    return (f"--data_folder={minifrench_folder}", *few, *codes, *SMALL)


def mean(rows, column):
    """Mean of a column of train_log.csv."""
    return sum(float(row[column]) for row in rows) / len(rows)


def test_pretraining_learns_and_leaves_a_loadable_encoder(options, tmp_path, monkeypatch):
    trained = []
    fit = load(RECIPE).SSL.fit
    monkeypatch.setattr(load(RECIPE).SSL, "fit", lambda brain, *args: trained.append(brain) or fit(brain, *args))
    folder = tmp_path / "run"
    result = train(RECIPE, folder, *options)

    rows = steps(folder)
    assert [int(row["step"]) for row in rows] == list(range(1, N_STEPS + 1))
    assert mean(rows[-5:], "loss") < mean(rows[:5], "loss") - 0.5, "nats; it is 0.8"
    assert mean(rows[-5:], "loss") < math.log(CODES) - 0.6, "knowing nothing costs log(codes)"
    assert mean(rows[-10:], "masked_accuracy") > 8 / CODES, "it is 22 times chance"
    assert result["metric"]["name"] == "masked accuracy" and result["metric"]["value"] > 4 / CODES
    assert result["generated_speech"] is True and result["cost"]["audio_hours"] > 0.2

    encoder, (brain,) = load_encoder(folder), trained
    own = brain.unwrapped("ssl").encoder.eval()
    sound = torch.randn(2, 20_000), torch.tensor([1.0, 0.6])
    assert torch.equal(encoder(*sound).frames, own(*sound).frames)
    assert encoder.dim == 48 and len(encoder.blocks) == 2


def test_the_same_command_again_does_nothing_more(options, tmp_path):
    folder, options = tmp_path / "run", (*options, "--optimizer_step_limit=4")
    first, weights = train(RECIPE, folder, *options), load_encoder(folder).state_dict()
    written = [folder / "train_log.csv", *folder.glob("save/*/*")]
    before = [path.read_bytes() for path in written]
    again, weights_again = train(RECIPE, folder, *options), load_encoder(folder).state_dict()
    assert len(steps(folder)) == 4
    assert [path.read_bytes() for path in written] == before and len(list(folder.glob("save/*/*"))) == len(before) - 1
    assert all(torch.equal(weights_again[name], weight) for name, weight in weights.items())
    for key in ("metric", "records", "data", "seed"):
        assert again[key] == first[key]
    assert again["cost"]["wall_seconds"] == pytest.approx(first["cost"]["wall_seconds"], abs=0.5)
    for key in ("audio_hours", "parameters_trained", "macs_per_second"):
        assert again["cost"][key] == first["cost"][key]


def test_the_baseline_is_the_same_but_for_its_mixer():
    hparams = RECIPES / RECIPE / "hparams"
    ours, theirs = (HparamsFile(hparams / name) for name in ("tiny.yaml", "tiny_sdpa.yaml"))
    assert ours.get("name") != theirs.get("name"), "each has an output folder of its own"
    for key in ("optimizer_step_limit", "opt_class", "train_loader", "max_seconds", "prepare"):
        dropped = {"save_folder"}  # which is in the output folder
        values = [file.get(key) for file in (ours, theirs)]
        values = [{k: v for k, v in x.items() if k not in dropped} if isinstance(x, dict) else x for x in values]
        assert values[0] == values[1], key
    encoders = [file.load()["encoder"] for file in (ours, theirs)]
    for encoder, mixer in zip(encoders, (SummaryMixing, SDPA), strict=True):
        assert encoder.dim == 144 and [type(block.mixer) for block in encoder.blocks] == [mixer] * 2
