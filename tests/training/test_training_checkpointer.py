"""Checkpoints: what does not fit or cannot be read is explained or passed over, and the files are SpeechBrain's."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import speechbrain as sb
import torch
from torch import nn

from lobes.errors import CheckpointError
from lobes.training import Checkpointer


def checkpointer(folder: Path, width: int = 3, **recoverables: Any) -> Checkpointer:
    model = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))
    return Checkpointer(folder, {"model": model, **recoverables})


def save(folder: Path, value: float, **options: Any) -> Path:
    saver = checkpointer(folder)
    nn.init.constant_(saver.recoverables["model"][0].weight, value)
    return saver.save_checkpoint(meta={"value": value}, **options).path


def test_another_architecture_is_one_line_with_both_shapes(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    with pytest.raises(CheckpointError) as error:
        checkpointer(tmp_path, width=5).recover_if_possible()
    message = str(error.value)
    assert "'model' does not fit: parameter '0.weight' is (3, 2) in the checkpoint and (5, 2) in this model" in message
    assert "another output_folder" in message
    assert "\n" not in message


def test_missing_and_unexpected_parameters_are_named(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    smaller = Checkpointer(tmp_path, {"model": nn.Sequential(nn.Linear(2, 3))})
    with pytest.raises(CheckpointError, match=r"'1.weight' is \(1, 3\) in the checkpoint and absent in this model"):
        smaller.recover_if_possible()
    larger = Checkpointer(tmp_path, {"model": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1), nn.Linear(1, 1))})
    with pytest.raises(CheckpointError, match=r"'2.weight' is absent in the checkpoint and \(1, 1\) in this model"):
        larger.recover_if_possible()


def test_an_optimizer_of_another_model_is_explained(tmp_path: Path) -> None:
    def optimizer(n: int) -> torch.optim.Optimizer:
        return torch.optim.SGD([nn.Parameter(torch.ones(1)) for _ in range(n)], lr=0.1)

    checkpointer(tmp_path, optimizer=optimizer(1)).save_checkpoint()
    with pytest.raises(CheckpointError, match="'optimizer' does not fit: .*parameter group"):
        checkpointer(tmp_path, optimizer=optimizer(2)).recover_if_possible()


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_truncate, Path.unlink, lambda file: file.write_bytes(b"\0" * 100)])
@pytest.mark.parametrize("file", ["model.ckpt", "CKPT.yaml"])
def test_a_damaged_checkpoint_is_passed_over(
    damage: Any, file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1.0)
    newest = save(tmp_path, 2.0)
    damage(newest / file)
    loader = checkpointer(tmp_path)
    assert loader.recover_if_possible().meta["value"] == 1.0
    assert loader.recoverables["model"][0].weight[0, 0] == 1.0
    if damage is not Path.unlink or file != "CKPT.yaml":  # without a meta file it is not a checkpoint at all
        assert f"{newest} " in caplog.text


def test_only_damaged_checkpoints_are_an_error_and_none_are_not(tmp_path: Path) -> None:
    assert checkpointer(tmp_path).recover_if_possible() is None
    _truncate(save(tmp_path, 1.0) / "model.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be read .*model.ckpt.*remove that folder"):
        checkpointer(tmp_path).recover_if_possible()


def test_the_best_is_found_by_its_meta(tmp_path: Path) -> None:
    for value in (1.0, 3.0, 2.0):
        save(tmp_path, value)
    assert checkpointer(tmp_path).recover_if_possible(max_key="value").meta["value"] == 3.0
    assert checkpointer(tmp_path).recover_if_possible(min_key="value").meta["value"] == 1.0
    saver = checkpointer(tmp_path)
    saver.save_and_keep_only(meta={"value": 0.0}, max_keys=["value"])
    assert sorted(found.meta["value"] for found in saver.list_checkpoints()) == [0.0, 3.0]


def test_a_named_checkpoint_is_replaced(tmp_path: Path) -> None:
    first = save(tmp_path, 1.0, name="best")
    assert save(tmp_path, 2.0, name="best") == first
    (found,) = checkpointer(tmp_path).list_checkpoints()
    assert found.meta["value"] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["CKPT+best"]


def test_a_full_disk_leaves_the_checkpoints_before(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    saver = checkpointer(tmp_path)

    def full(obj: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    saver.add_recoverable("other", nn.Linear(1, 1), custom_save_hook=full)
    with pytest.raises(CheckpointError, match="could not be written: .*No space left"):
        saver.save_checkpoint()
    assert [found.meta["value"] for found in saver.list_checkpoints()] == [1.0]


class _Trap:
    def __reduce__(self) -> Any:
        return os.mkdir, ("trapped",)


def test_loading_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # ours asks for it explicitly
    path = save(tmp_path / "save", 1.0)
    torch.save(_Trap(), path / "model.ckpt", pickle_module=pickle)
    with pytest.raises(CheckpointError):
        checkpointer(tmp_path / "save").recover_if_possible()
    assert not (tmp_path / "trapped").exists()


def test_files_are_speechbrains(tmp_path: Path) -> None:
    saved = save(tmp_path / "ours", 1.0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    theirs = sb.utils.checkpoints.Checkpointer(tmp_path / "ours", {"model": model})
    assert theirs.recover_if_possible().path == saved
    assert model[0].weight[0, 0] == 1.0
    sb.utils.checkpoints.Checkpointer(tmp_path / "theirs", {"model": model}).save_checkpoint()
    ours = checkpointer(tmp_path / "theirs")
    assert ours.recover_if_possible() is not None
    assert ours.recoverables["model"][0].weight[0, 0] == 1.0
