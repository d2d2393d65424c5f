"""What tuning costs: measured on runs that keep everything, and on runs that are made to lose much."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from recipe_runner import SMALL, train
from sounds import write_librispeech

from lobes.errors import CheckpointError, DataError
from lobes.evaluation import read_result
from lobes.export import load_encoder
from lobes.training import MASKED_ACCURACY, ewc_pretext, load_pretext, pretext_loss, replay_pretext

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import retention  # noqa: E402
import tuning_study  # noqa: E402


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A short run of LibriSpeech/SSL."""
    root = tmp_path_factory.mktemp("pretrained")
    few = ("--steps=40", "--train_loader.batch_seconds=16", "--objective.codebook_size=32", "--objective.n_codebooks=1")
    train("LibriSpeech/SSL", root / "ssl", f"--data_folder={write_librispeech(root / 'openslr')}", *few, *SMALL)
    return root / "ssl"


@pytest.fixture
def tuned(danum, pretrained, tmp_path):
    """Tune by a method with some options; return the run's folder."""
    clips = danum(kinds=("duet", "noise"), clips=2)

    def tune(name: str, *options: str) -> Path:
        given = (f"--data_folder={clips}", f"--encoder={pretrained}", "--classes=[duet, noise]", f"--name={name}")
        given += ("--epochs=4", "--train_loader.batch_seconds=4")
        train("Gibbons/call_type", tmp_path / name, *given, *options, hparams="tune.yaml")
        return tmp_path / name

    return tune


pytestmark = pytest.mark.slow  # tests/adapters tests by default what it measures
LORA = "--adaptation=!name:lobes.adapters.LoRA {rank: 2}"


def test_pretext_loss_is_that_of_the_run_and_rises_with_noise(pretrained):
    pretext = load_pretext(pretrained)
    encoder = load_encoder(pretrained)
    loss, records = pretext_loss(encoder, pretext.objective, pretext.valid)
    same, _ = pretext_loss(pretext.encoder, pretext.objective, pretext.valid, batch_seconds=5.0)
    assert same == pytest.approx(loss, abs=1e-4), "whatever the batches"
    assert MASKED_ACCURACY(records) == pytest.approx(read_result(pretrained)["metric"]["value"], abs=1e-6)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    assert pretext_loss(encoder, pretext.objective, pretext.valid)[0] > loss + 0.05


def test_a_folder_without_pretraining_is_named(tmp_path, tuned):
    with pytest.raises(CheckpointError, match="holds no hyperparams.yaml"):
        load_pretext(tmp_path)
    with pytest.raises(CheckpointError, match="no run of an SSL recipe"):
        load_pretext(tuned("LoRA", LORA))


def test_controls_hold_the_encoder(pretrained):
    encoder = load_encoder(pretrained).requires_grad_(True)
    control = ewc_pretext(encoder, pretrained, strength=2.0, n_utterances=4)
    assert control().item() == 0.0
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    assert control().item() == pytest.approx(2.0 / 2 * 0.1**2 * weights, rel=1e-3), "as L2SP with that strength"
    replay = replay_pretext(load_encoder(pretrained), pretrained, strength=0.5, batch_seconds=10.0)
    losses = [replay().item() for _ in range(8)]
    assert len(set(losses)) == 8, "other clips, or other masks, each time"
    assert all(0.5 < loss < 2.0 for loss in losses)


def test_what_is_lost_is_measured(tuned, pretrained, fsdd_folder, tmp_path, monkeypatch, capsys):
    fsdd_folder(takes=3, speakers=("ann", "bob", "cleo"))
    monkeypatch.setenv("LOBES_DATA", str(tmp_path))
    full = "--adaptation=!name:lobes.adapters.FullFineTuning"
    runs = [
        tuned("probe", "--adaptation=!name:lobes.adapters.FrozenProbe"),
        tuned("full", full, "--encoder_lr=0.05"),
        tuned("held", full, "--encoder_lr=0.05", "--control=!name:lobes.adapters.L2SP {strength: 1000.0}"),
    ]
    arguments = [*map(str, runs), "--ssl", str(pretrained), "--out", str(tmp_path / "out"), "--curve", "full"]
    monkeypatch.setattr(sys, "argv", ["retention.py", *arguments, "--folds", "2", "--takes", "3", "--clips", "4"])
    retention.main()
    with (tmp_path / "out" / "retention.csv").open(encoding="utf-8") as stream:
        probe, full_tuned, held = csv.DictReader(stream)
    assert float(probe["cka_speech"]) == pytest.approx(1.0, abs=1e-4) and float(probe["digits_change"]) == 0
    assert float(probe["trainable_share"]) == 0 == float(probe["loss_change"]) == float(probe["weight_change"])
    assert float(full_tuned["loss_change"]) > 0.05 and float(full_tuned["masked_change"]) < 0
    assert float(full_tuned["weight_change"]) > 2 * float(held["weight_change"]) > 0
    assert float(held["cka_speech"]) > float(full_tuned["cka_speech"])
    assert float(full_tuned["effective_rank"]) > 1 and float(full_tuned["trainable_share"]) > 0.9
    assert "| full |" in capsys.readouterr().out and (tmp_path / "out" / "retention.svg").stat().st_size > 5000
    saved = retention.json.loads((tmp_path / "out" / "Danum-call-type-full-1.json").read_text())
    curve = saved["folds"][0]["curve"]
    assert [point["share"] for point in curve] == [0, 0.25, 0.5, 0.75, 1]
    assert all(0 <= point["digits"] <= 1 and 0 <= point["calls"] <= 1 for point in curve)
    assert (tmp_path / "out" / "curve.svg").stat().st_size > 5000
    with (tmp_path / "out" / "layers.csv").open(encoding="utf-8") as stream:
        layers = list(csv.DictReader(stream))
    assert [row["layer"] for row in layers if row["system"] == "full"] == ["0", "1", "2"]
    assert float(layers[-1]["cka_speech"]) == pytest.approx(float(held["cka_speech"]), abs=1e-3)
    # What was measured is measured again only where it is not what is asked for.
    measured = []
    monkeypatch.setattr(retention, "measure", lambda folder, *given: measured.append(folder.name) or saved)
    retention.main()
    assert not measured
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--curve", "full", "held"])
    retention.main()
    assert measured == ["held"]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--takes", "2"])
    retention.main()
    assert measured == ["held", "probe", "full", "held"]


def test_all_methods_on_one_encoder_go_on_where_they_were_stopped(
    danum, pretrained, fsdd_folder, tmp_path, monkeypatch, capsys
):
    fsdd_folder(takes=1, speakers=("ann", "bob", "cleo"))
    danum(kinds=("duet", "noise"), clips=2)
    monkeypatch.setenv("LOBES_DATA", str(tmp_path))
    out = tmp_path / "tuning"
    arguments = ["--ssl", str(pretrained), "--out", str(out), "--docs", str(tmp_path / "docs"), "--parts", "3"]
    few = ["--set", "classes=[duet, noise]", "epochs=1", "train_loader.batch_seconds=4"]
    monkeypatch.setattr(sys, "argv", ["study", *arguments, *few, "--methods", "full, replay", "prompt"])
    tuning_study.main()
    printed = capsys.readouterr().out
    assert "| full, replay |" in printed and "| prompt |" in printed
    folder = out / "full-replay" / "1"
    assert len(list(folder.glob("folds/*/adapter"))) == 3
    assert str(pretrained) in (folder / "hyperparams.yaml").read_text().split("control:")[1]
    before = (folder / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(sys, "argv", ["study", *arguments, *few, "--methods", "full, replay"])
    tuning_study.main()
    assert (folder / "result.json").stat().st_mtime_ns == before


def test_a_run_without_an_adaptation_is_named(danum, fsdd_folder, tmp_path, monkeypatch):
    fsdd_folder(takes=1)
    monkeypatch.setenv("LOBES_DATA", str(tmp_path))
    given = (f"--data_folder={danum(kinds=('duet', 'noise'), clips=2)}", "--encoder=logmel-40-25hz")
    train("Gibbons/call_type", tmp_path / "run", *given, "--classes=[duet, noise]")
    monkeypatch.setattr(sys, "argv", ["retention.py", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    with pytest.raises(DataError, match="holds no folds"):
        retention.main()
