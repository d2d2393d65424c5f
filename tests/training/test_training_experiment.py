"""The start of an experiment: what a folder may be gone on with."""

from __future__ import annotations

import re

import pytest

from lobes.errors import ConfigError
from lobes.training.experiment import Options, _check_folder, _with_numbers
from lobes.training.hparams import HparamsFile


@pytest.fixture
def run_folder(tmp_path):
    """A folder with a checkpoint of a run on the encoder `a`."""
    folder = tmp_path / "run"
    (folder / "save" / "CKPT+1").mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text("encoder: a\nuntrained: False\nsteps: 10\n", encoding="utf-8")
    return folder


def document(tmp_path, text: str) -> HparamsFile:
    path = tmp_path / "new.yaml"
    path.write_text(text, encoding="utf-8")
    return HparamsFile(path)


def test_a_run_of_something_else_is_not_gone_on_with(run_folder, tmp_path):
    other = document(tmp_path, "encoder: b\nuntrained: False\nsteps: 10\n")
    with pytest.raises(ConfigError, match="holds a run with encoder=a, not b; give another --output_folder"):
        _check_folder(run_folder, other)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            "strategy: !new:lobes.selection.Longest",
            "strategy=!new:lobes.selection.TargetKNN, not !new:lobes.selection.Longest",
        ),  # noqa: E501
        ("strategy: null", "strategy=!new:lobes.selection.TargetKNN, not null"),
        ("share: 1.0", "share=0.05, not 1.0"),
        (
            "prepare: !name:lobes.dataio.corpora.prepare_fsdd_pool {situation: B, data_folder: x}",
            "prepare.situation=A, not B",
        ),  # noqa: E501
        ("adaptation: !name:lobes.adapters.LoRA {rank: 8}", "adaptation.rank=4, not 8"),
        (
            "adaptation: !name:lobes.adapters.BitFit",
            "adaptation=!name:lobes.adapters.LoRA, not !name:lobes.adapters.BitFit",
        ),  # noqa: E501
        ("prepare: !name:lobes.dataio.corpora.prepare_fsdd_pool {situation: A, data_folder: elsewhere}", None),
        ("teacher: a run", None),  # what the older file does not have
    ],
)
def test_what_was_chosen_and_how_it_was_tuned_are_part_of_a_run(changed, named, run_folder, tmp_path):
    lines = {
        "strategy": "!new:lobes.selection.TargetKNN",
        "share": "0.05",
        "prepare": "!name:lobes.dataio.corpora.prepare_fsdd_pool {situation: A, data_folder: x}",
        "adaptation": "!name:lobes.adapters.LoRA {rank: 4}",
    }
    (run_folder / "hyperparams.yaml").write_text("".join(f"{k}: {v}\n" for k, v in lines.items()), encoding="utf-8")
    key, value = changed.split(": ", 1)
    other = document(tmp_path, "".join(f"{k}: {v}\n" for k, v in (lines | {key: value}).items()))
    if named is None:
        _check_folder(run_folder, other)
        return
    with pytest.raises(ConfigError, match=re.escape(f"holds a run with {named};")):
        _check_folder(run_folder, other)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ("train_clips: null", "train_clips: 1", "train_clips=null, not 1"),
        ("train_hours: 0.2", "train_hours: 0.1", "train_hours=0.2, not 0.1"),
        ("classes: [noise, duet]", "classes: [duet, noise]", "classes=[noise, duet], not [duet, noise]"),
        (
            "folds: !name:lobes.dataio.make_folds {n_folds: 4}",
            "folds: !name:lobes.dataio.make_folds {n_folds: 2}",
            "folds.n_folds=4, not 2",
        ),
        (
            "opt_class: !name:torch.optim.SGD {lr: 0.1}",
            "opt_class: !name:torch.optim.SGD {lr: 0.2}",
            "opt_class.lr=0.1, not 0.2",
        ),
        ("metric: slot_f1", "metric: intent_accuracy", "metric=slot_f1, not intent_accuracy"),
        ("metric: cer", "metric: per", "metric=cer, not per"),
        ("metric: cer", "metric: wer", None),  # of a recogniser both are kept, and the checkpoint is the same
        ("decoder: {beam: 1}", "decoder: {beam: 8}", None),
        (
            "cut_seconds: {train: 4.0, test: 4.0}",
            "cut_seconds: {train: 3.0}",
            "cut_seconds.train=4.0, not 3.0",
        ),
        ("cut_seconds: {train: 4.0, test: 4.0}", "cut_seconds: {train: 4.0, test: 3.0}", None),
        ("train_loader: {batch_seconds: 8}", "train_loader: {batch_seconds: 4}", None),
    ],
)
def test_what_it_learns_from_and_is_chosen_by_is_too(before, now, named, run_folder, tmp_path):
    (run_folder / "hyperparams.yaml").write_text(before + "\n", encoding="utf-8")
    if named is None:
        _check_folder(run_folder, document(tmp_path, now + "\n"))
        return
    with pytest.raises(ConfigError, match=re.escape(f"holds a run with {named};")):
        _check_folder(run_folder, document(tmp_path, now + "\n"))


def test_a_longer_run_of_the_same_is(run_folder, tmp_path):
    _check_folder(run_folder, document(tmp_path, "encoder: a\nuntrained: False\nsteps: 20\n"))


def test_a_folder_without_checkpoints_is_free(run_folder, tmp_path):
    (run_folder / "save" / "CKPT+1").rmdir()
    _check_folder(run_folder, document(tmp_path, "encoder: b\nuntrained: False\nsteps: 10\n"))


def test_the_step_limit_of_the_command_line_is_a_number():
    _, options, _ = Options.from_command_line_args(["x.yaml", "--optimizer_step_limit=12"])
    assert _with_numbers(options).optimizer_step_limit == 12
    _, options, _ = Options.from_command_line_args(["x.yaml", "--optimizer_step_limit=soon"])
    with pytest.raises(ConfigError, match="optimizer_step_limit is 'soon'"):
        _with_numbers(options)
