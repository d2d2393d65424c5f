"""Known faults of SpeechBrain's Brain and Checkpointer: each check fails on theirs and passes on ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speechbrain as sb
import torch
from torch import nn
from toy_brain import fit, make_brain, make_dataset

from lobes import training
from lobes.errors import LobesError

THEIRS = {"brain": sb.Brain, "checkpointer": sb.utils.checkpoints.Checkpointer}
OURS = {"brain": training.Brain, "checkpointer": training.Checkpointer}


def linear_brain(base: type, modules: dict[str, nn.Module], optimizer: Any = None, **run_opts: Any) -> Any:
    """A Brain whose loss is the sum of its module's outputs for the batch, a tensor."""

    class Linear(base):
        def compute_forward(self, batch, stage):
            return self.modules.model(batch)

        def compute_objectives(self, output, batch, stage):
            return output.sum()

    optimizer = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    return Linear(modules, optimizer, run_opts={"device": "cpu", "noprogressbar": True, **run_opts})


def zero_linear(inputs: int = 1) -> nn.Linear:
    layer = nn.Linear(inputs, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def loader(values: list[float], **options: Any) -> torch.utils.data.DataLoader:
    """A loader with one value per batch."""
    return torch.utils.data.DataLoader(torch.tensor(values)[:, None], **options)


def every_group_is_clipped(classes: dict[str, type], folder: Path) -> None:
    layer = zero_linear()

    def two_groups(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [layer.bias]}, {"params": [layer.weight]}], lr=1.0)

    brain = linear_brain(classes["brain"], {"model": layer}, two_groups, max_grad_norm=1.0)
    brain.fit(range(1), loader([100.0]))
    assert math.hypot(layer.weight.item(), layer.bias.item()) <= 1.001


def a_negative_norm_does_not_clip(classes: dict[str, type], folder: Path) -> None:
    layer = zero_linear()
    linear_brain(classes["brain"], {"model": layer}, max_grad_norm=-1.0).fit(range(1), loader([3.0]))
    assert layer.weight.item() == -3.0


def the_last_accumulation_group_is_stepped(classes: dict[str, type], folder: Path) -> None:
    layer = zero_linear()
    brain = linear_brain(classes["brain"], {"model": layer}, grad_accumulation_factor=2, max_grad_norm=100.0)
    brain.fit(range(1), loader([1.0, 3.0, 4.0]))
    assert layer.weight.item() == -((1.0 + 3.0) / 2 + 4.0)


def frozen_modules_stay_in_eval(classes: dict[str, type], folder: Path) -> None:
    frozen = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5)).requires_grad_(False)
    model = nn.Sequential(nn.Sequential(frozen), nn.Linear(8, 1))
    seen = []
    frozen.register_forward_hook(lambda module, inputs, output: seen.append(module[1].training))
    linear_brain(classes["brain"], {"model": model}).fit(range(1), loader([1.0, 2.0]))
    assert seen == [False, False]
    assert model[1].training


def meta_reads_back(classes: dict[str, type], folder: Path) -> None:
    meta = {"loss": torch.tensor(0.25), "error": np.float64(0.5), "shape": (1, 2)}
    classes["checkpointer"](folder, {"model": nn.Linear(1, 1)}).save_checkpoint(meta=meta)
    try:
        (found,) = classes["checkpointer"](folder, {"model": nn.Linear(1, 1)}).list_checkpoints()
    except Exception as error:
        raise AssertionError("unreadable") from error
    assert (found.meta["loss"], found.meta["error"], found.meta["shape"]) == (0.25, 0.5, [1, 2])


def one_nan_does_not_destroy_the_weights(classes: dict[str, type], folder: Path) -> None:
    layer = zero_linear()
    linear_brain(classes["brain"], {"model": layer}).fit(range(1), loader([1.0, float("nan"), 2.0]))
    assert layer.weight.item() == -3.0


def a_nan_does_not_destroy_batch_statistics(classes: dict[str, type], folder: Path) -> None:
    model = nn.BatchNorm1d(1)
    values = torch.tensor([[1.0], [2.0], [float("nan")], [4.0]])
    brain = linear_brain(classes["brain"], {"model": model}, skip_nonfinite_grads=True)
    brain.fit(range(1), torch.utils.data.DataLoader(values, batch_size=2))
    assert torch.isfinite(model.running_mean).all()


def compiling_uses_dynamic_shapes(classes: dict[str, type], folder: Path) -> None:
    asked = {}

    def fake_compile(module: nn.Module, **options: Any) -> nn.Module:
        asked.update(options)
        return module

    brain = linear_brain(classes["brain"], {"model": zero_linear()}, compile=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", fake_compile)
        brain.fit(range(1), loader([1.0]))
    assert asked["dynamic"] is True


class _EpochSampler(torch.utils.data.Sampler):
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Any:
        return iter([[0], [1]])

    def __len__(self) -> int:
        return 2


def the_sampler_is_told_the_epoch(classes: dict[str, type], folder: Path) -> None:
    sampler = _EpochSampler()
    options = {"batch_sampler": sampler}
    brain = linear_brain(classes["brain"], {"model": zero_linear()})
    brain.fit(range(1, 3), torch.tensor([[1.0], [2.0]]), train_loader_kwargs=options)
    assert sampler.epochs == [1, 2]


def checkpoints_are_saved_between_steps(classes: dict[str, type], folder: Path) -> None:
    saved = []
    options = {"grad_accumulation_factor": 2, "ckpt_interval_steps": 1}
    brain = linear_brain(classes["brain"], {"model": zero_linear()}, **options)
    brain.checkpointer = classes["checkpointer"](folder)
    brain._save_intra_epoch_ckpt = lambda: saved.append(brain.step)
    brain.fit(range(1), loader([1.0] * 4))
    assert saved == [2, 4]


def a_crash_leaves_no_half_checkpoint(classes: dict[str, type], folder: Path) -> None:
    def crash(obj: Any, path: Path) -> None:
        raise KeyboardInterrupt

    recoverables = {"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}
    checkpointer = classes["checkpointer"](folder, recoverables, custom_save_hooks={"b": crash})
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint()
    assert checkpointer.list_checkpoints() == []


def saving_does_not_slow_down(classes: dict[str, type], folder: Path) -> None:
    checkpointer = classes["checkpointer"](folder, {"model": nn.Linear(1, 1)})
    searches: list[int] = []
    search = checkpointer.find_checkpoints
    checkpointer.find_checkpoints = lambda *args, **options: searches.append(1) or search(*args, **options)
    counts = []
    for _ in range(3):
        searches.clear()
        checkpointer.save_and_keep_only()
        counts.append(len(searches))
    assert counts[0] == counts[-1]


class _Crash(Exception):
    pass


def a_resumed_run_draws_the_same_numbers(classes: dict[str, type], folder: Path) -> None:
    def crash(brain: Any) -> None:
        if len(brain.seen) == 4:
            raise _Crash

    loader_options = {"batch_size": 4, "shuffle": True}
    options = {"base": classes["brain"], "dropout": 0.5, "ckpt_interval_steps": 1}

    def train(name: str, **more: Any) -> Any:
        brain, counter = make_brain(folder / name, **options, **more)
        brain.fit(counter, make_dataset(), train_loader_kwargs=loader_options)
        return brain

    whole = train("whole")
    with pytest.raises(_Crash):
        train("parts", after_batch=crash)
    rest = train("parts")
    # The batch that crashed is trained on again: its checkpoint would have come after it.
    assert rest.seen == whole.seen[3:]
    assert rest.stage_losses == whole.stage_losses


CHECKS: list[Callable[[dict[str, type], Path], None]] = [
    every_group_is_clipped,
    a_negative_norm_does_not_clip,
    the_last_accumulation_group_is_stepped,
    frozen_modules_stay_in_eval,
    meta_reads_back,
    one_nan_does_not_destroy_the_weights,
    a_nan_does_not_destroy_batch_statistics,
    compiling_uses_dynamic_shapes,
    the_sampler_is_told_the_epoch,
    checkpoints_are_saved_between_steps,
    a_crash_leaves_no_half_checkpoint,
    saving_does_not_slow_down,
    a_resumed_run_draws_the_same_numbers,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_ours_is_free_of_the_fault(check: Callable[[dict[str, type], Path], None], tmp_path: Path) -> None:
    check(OURS, tmp_path)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_theirs_has_the_fault(check: Callable[[dict[str, type], Path], None], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check(THEIRS, tmp_path)


def test_patience_with_nan_ends_in_one_line() -> None:
    brain = linear_brain(training.Brain, {"model": zero_linear()}, nonfinite_patience=1)
    with pytest.raises(LobesError, match="not finite 2 time.*nonfinite_patience = 1"):
        brain.fit(range(1), loader([float("nan")] * 3))


def test_toy_learns(tmp_path: Path) -> None:
    """The toy that the other tests rely on does train."""
    brain = fit(*make_brain(tmp_path, epochs=20), valid=True)
    assert brain.stage_losses["VALID", 20] < 0.6 * brain.stage_losses["VALID", 1]
