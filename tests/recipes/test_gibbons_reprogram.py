"""Adversarial reprogramming: a frozen classifier of digits tells calls apart by what is added to its input alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from recipe_runner import QUIET, RECIPES, load, steps, train, untrained_encoder

from lobes.adapters import LabelMapping, load_adapter
from lobes.dataio import read_audio
from lobes.errors import CheckpointError, ConfigError
from lobes.training import Checkpointer, HparamsFile, load_classifier, map_labels

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import retention  # noqa: E402

CLASSES = ["duet", "long.argus", "noise"]
SHORT = ("--epochs=8", "--train_loader.batch_seconds=12")


@pytest.fixture
def source(fsdd_folder, tmp_path) -> Path:
    """A short run of FSDD/digits with finetune.yaml."""
    folder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    data = f"--data_folder={fsdd_folder(speakers=('ann', 'bob'))}"
    given = (f"--encoder={folder}", "--untrained=True", data, "--epochs=6", "--train_loader.batch_seconds=4")
    train("FSDD/digits", tmp_path / "digits", *given, hparams="finetune.yaml")
    return tmp_path / "digits"


def kept(fold: Path) -> dict[str, torch.Tensor]:
    """The tensors of a fold's checkpoint."""
    return torch.load(Checkpointer(fold / "save").find_checkpoint().paramfiles["model"], weights_only=True)


def test_only_what_is_added_to_the_clips_is_learned(danum, source, tmp_path):
    given = (f"--data_folder={danum()}", f"--source_task={source}", f"--classes={CLASSES}", *SHORT, "--encoder_lr=0.01")
    result = train("Gibbons/call_type", tmp_path / "run", *given, hparams="reprogram.yaml")
    assert result["cost"]["parameters_trained"] == 16000, "a second of samples"
    assert (result["metric"]["name"], result["metric"]["n_items"]) == ("uar", 54)
    before = kept(source / "folds" / "ann")
    after = kept(tmp_path / "run" / "folds" / "S10")
    [(name, delta)] = [(name, after.pop(name)) for name in list(after) if "delta" in name]
    assert delta.shape == (16000,) and delta.abs().max() > 1e-3
    assert after.pop("probe.head.mapping.groups").shape == (3, 1)
    assert before.keys() == {name.replace("head.head", "head") for name in after}
    for key, value in after.items():
        assert torch.equal(value, before[key.replace("head.head", "head")]), key
    for recorder in ("S10", "S11", "S12"):
        losses = [float(row["loss"]) for row in steps(tmp_path / "run" / "folds" / recorder)]
        assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), "the loss falls"

    control = train("Gibbons/call_type", tmp_path / "control", *given, "--untrained=True", hparams="reprogram.yaml")
    assert control["cost"]["parameters_trained"] == 16000
    random = kept(tmp_path / "control" / "folds" / "S10")
    weight = "probe.head.head.output.weight"
    assert not torch.equal(random[weight], after[weight])
    assert torch.equal(random[weight], kept(tmp_path / "control" / "folds" / "S11")[weight]), "the same for all folds"
    assert torch.equal(random["probe.head.mapping.groups"], LabelMapping(10, 3, 1, seed=1).groups)

    # What was learned is kept by itself, and put back into the source task's classifier says the same.
    model = map_labels(load_classifier(source), lambda *n: LabelMapping(*n, per_target=1, seed=1), 3)
    load_adapter(model.encoder, tmp_path / "run" / "folds" / "S10" / "adapter")
    assert torch.equal(model.encoder.state_dict()[name.removeprefix("encoder.")], delta)
    for record in [record for record in result["records"] if record["group"] == "S10"][::3]:
        waveform = read_audio(tmp_path / "danum_clips" / f"{record['id']}.wav")[None]
        with torch.no_grad():
            output = model.encoder(waveform, torch.ones(1))
            found = model.probe(output.layers, output.valid)
        assert CLASSES[int(found.argmax())] == record["prediction"]


def test_what_a_program_costs_is_measured_beside_the_source_task(danum, fsdd_folder, source, tmp_path, monkeypatch):
    given = (f"--data_folder={danum(clips=1)}", f"--source_task={source}", f"--classes={CLASSES}", "--epochs=1")
    train("Gibbons/call_type", tmp_path / "run", *given, hparams="reprogram.yaml")
    (tmp_path / "fsdd").rename(tmp_path / "heard")
    fsdd_folder(takes=1, speakers=("ann", "bob", "cleo"))  # two to fit the probe of digits, one to test
    monkeypatch.setenv("LOBES_DATA", str(tmp_path))
    few = ["--out", str(tmp_path / "out"), "--folds", "1", "--takes", "1", "--clips", "1"]
    monkeypatch.setattr(sys, "argv", ["retention.py", str(tmp_path / "run"), *few])
    heard = []
    compare = retention.compare_layers
    monkeypatch.setattr(retention, "compare_layers", lambda *of, **rest: heard.append(of[:2]) or compare(*of, **rest))
    retention.main()
    before, after = heard[0]
    tuned = {name: value for name, value in kept(source / "folds" / "ann").items() if name.startswith("encoder.")}
    assert all(torch.equal(value, before.state_dict()[name.removeprefix("encoder.")]) for name, value in tuned.items())
    [fold] = json.loads(next((tmp_path / "out").glob("*.json")).read_text())["folds"]
    assert fold["method"] == "Reprogramming" and 0 < fold["share"] < 1
    assert all(0 <= value <= 1.001 for value in fold["cka_speech"] + fold["cka_calls"])


def test_the_classifier_of_a_run_decides_as_it_did(source):
    model = load_classifier(source / "folds" / "bob")
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in kept(source / "folds" / "bob").items())
    assert not torch.equal(model.probe.head.output.weight, load_classifier(source).probe.head.output.weight)
    random = [load_classifier(source, untrained=True, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(random[0][key], random[1][key]) for key in random[0])
    assert not torch.equal(random[0]["probe.head.output.weight"], random[2]["probe.head.output.weight"])


def test_a_source_task_that_cannot_be_used_is_told_in_one_line(danum, source, tmp_path):
    def reprogram(run: Path, *options: str) -> None:
        given = (f"--source_task={run}", f"--data_folder={tmp_path / 'danum_clips'}", f"--classes={CLASSES}")
        argv = ["hparams/reprogram.yaml", f"--output_folder={tmp_path / 'run'}", *given, *QUIET, *options]
        load("Gibbons/call_type").main(argv)

    danum(clips=1)
    with pytest.raises(ConfigError, match="has 10 labels for 3 classes: .* a lower --mapping.per_target"):
        reprogram(source, "--mapping.per_target=4")
    with pytest.raises(CheckpointError, match="nowhere: holds no hyperparams.yaml; expected the folder of a run"):
        reprogram(tmp_path / "nowhere")
    (tmp_path / "probe").mkdir()
    probe = HparamsFile(RECIPES / "FSDD" / "digits" / "hparams" / "tiny.yaml", {"encoder": "sm-tiny"})
    (tmp_path / "probe" / "hyperparams.yaml").write_text(probe.text)
    with pytest.raises(CheckpointError, match="probe: has no head .a probe on a frozen encoder"):
        reprogram(tmp_path / "probe")
    (source / "folds" / "ann" / "save").rename(source / "folds" / "ann" / "gone")
    (source / "folds" / "bob" / "save").rename(source / "folds" / "bob" / "gone")
    with pytest.raises(CheckpointError, match="digits: holds no checkpoint, and so no head; train it to its end"):
        reprogram(source)
    assert not (tmp_path / "run" / "result.json").exists()
    with pytest.raises(CheckpointError, match="ann: holds no checkpoint"):
        load_classifier(source / "folds" / "ann")


def test_a_checkpoint_without_a_head_or_of_another_encoder_is_refused(source):
    saved = Checkpointer(source / "folds" / "ann" / "save").find_checkpoint().paramfiles["model"]
    state = torch.load(saved, weights_only=True)
    torch.save({**state, "encoder.more": torch.zeros(1)}, saved)
    with pytest.raises(CheckpointError, match="digits: .*encoder.more"):
        load_classifier(source)
    torch.save({key: value for key, value in state.items() if "head" not in key}, saved)
    with pytest.raises(CheckpointError, match="holds no head .probe.head.output.weight is missing"):
        load_classifier(source)
    text = (source / "hyperparams.yaml").read_text()
    (source / "hyperparams.yaml").write_text(text.replace("faster:", "faster: 2"))
    with pytest.raises(CheckpointError, match="its encoder was changed by faster or by an adaptation"):
        load_classifier(source)
