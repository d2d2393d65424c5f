"""The start of an experiment: what a folder may be gone on with."""

from __future__ import annotations

import pytest

from lobes.errors import ConfigError
from lobes.training.experiment import _check_folder, _Options, _with_numbers
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


def test_a_longer_run_of_the_same_is(run_folder, tmp_path):
    _check_folder(run_folder, document(tmp_path, "encoder: a\nuntrained: False\nsteps: 20\n"))


def test_a_folder_without_checkpoints_is_free(run_folder, tmp_path):
    (run_folder / "save" / "CKPT+1").rmdir()
    _check_folder(run_folder, document(tmp_path, "encoder: b\nuntrained: False\nsteps: 10\n"))


def test_the_step_limit_of_the_command_line_is_a_number():
    _, options, _ = _Options.from_command_line_args(["x.yaml", "--optimizer_step_limit=12"])
    assert _with_numbers(options).optimizer_step_limit == 12
    _, options, _ = _Options.from_command_line_args(["x.yaml", "--optimizer_step_limit=soon"])
    with pytest.raises(ConfigError, match="optimizer_step_limit is 'soon'"):
        _with_numbers(options)
