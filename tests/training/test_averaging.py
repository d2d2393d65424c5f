"""The mean of checkpoints: of one it is itself, of several the arithmetic mean; whole numbers are not averaged."""

from __future__ import annotations

import pytest
import torch
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from torch import nn

from lobes.errors import CheckpointError, ConfigError
from lobes.training import Checkpointer, average_checkpoints


def save(folder, losses, width=3, **meta):
    """A checkpoint for each loss; weights are random, and the norm has seen one batch more each time."""
    model = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
    checkpointer = Checkpointer(folder, {"model": model})
    states = []
    for number, loss in enumerate(losses):
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        model(torch.randn(5, 2))
        checkpointer.save_checkpoint(meta={"loss": loss, "unixtime": float(number), **meta}, name=f"{width}-{number}")
        states.append({key: value.clone() for key, value in model.state_dict().items()})
    return checkpointer, states


def test_the_average_of_one_is_itself(tmp_path):
    checkpointer, states = save(tmp_path, [3.0, 1.0, 2.0])
    for options, expected in (({}, 2), ({"min_key": "loss"}, 1), ({"max_key": "loss"}, 0)):
        mean = average_checkpoints(checkpointer, "model", 1, **options)
        assert all(torch.equal(mean[key], value) for key, value in states[expected].items()), options


def test_the_average_of_several_is_the_arithmetic_mean(tmp_path):
    checkpointer, states = save(tmp_path, [3.0, 1.0, 2.0, 5.0])
    for options, chosen in (({}, [3, 2, 1]), ({"min_key": "loss"}, [1, 2, 0])):
        mean = average_checkpoints(checkpointer, "model", 3, **options)
        for key, value in mean.items():
            assert value.dtype == states[0][key].dtype
            if value.is_floating_point():
                expected = torch.stack([states[i][key] for i in chosen]).mean(0)
                assert torch.allclose(value, expected, atol=1e-7) and not torch.equal(value, states[chosen[0]][key])
            else:
                assert torch.equal(value, states[chosen[0]][key]), "the number of batches that the first has seen"
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module.load_state_dict(average_checkpoints(checkpointer, "model", 9))
    assert torch.allclose(module[0].bias, torch.stack([state["0.bias"] for state in states]).mean(0), atol=1e-7)


def test_what_cannot_be_averaged_is_one_line(tmp_path):
    empty = Checkpointer(tmp_path / "empty", {"model": nn.Linear(1, 1)})
    with pytest.raises(CheckpointError, match="has no checkpoint of 'model' after an epoch"):
        average_checkpoints(empty, "model", 2)
    with pytest.raises(ConfigError, match="count is 0"):
        average_checkpoints(empty, "model", 0)
    within, _ = save(tmp_path / "within", [1.0], **{INTRA_EPOCH_CKPT_FLAG: True})
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        average_checkpoints(within, "model", 1)
    mixed, _ = save(tmp_path / "mixed", [1.0])
    save(tmp_path / "mixed", [1.0], width=4)
    with pytest.raises(CheckpointError, match="of different architectures"):
        average_checkpoints(mixed, "model", 2)
    damaged, _ = save(tmp_path / "damaged", [1.0])
    next((tmp_path / "damaged").glob("CKPT+*/model.ckpt")).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        average_checkpoints(damaged, "model", 1)
