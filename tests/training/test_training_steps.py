"""Single optimizer steps: precision, schedules, and the group that an epoch leaves incomplete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.nnet.schedulers import NoamScheduler
from toy_brain import fit, in_ranks, make_brain, make_dataset

from lobes import training
from lobes.errors import ConfigError


def weights(brain: Any) -> list[float]:
    return torch.cat([parameter.detach().flatten() for parameter in brain.modules.parameters()]).tolist()


def test_a_gradient_scaler_changes_nothing_but_leaves_overflows_out() -> None:
    plain = fit(*make_brain(epochs=1))
    brain, counter = make_brain(epochs=1)
    brain.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    fit(brain, counter)
    assert weights(brain) == pytest.approx(weights(plain), abs=1e-6)

    brain, counter = make_brain(epochs=1)
    brain.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    fit(brain, counter)
    left_out = len(brain.seen) - brain.optimizer_step
    assert left_out > 0
    assert brain.scaler.get_scale() == 2.0 ** (126 - left_out)
    assert brain.nonfinite_count == 0
    assert torch.isfinite(torch.tensor(weights(brain))).all()


def test_bfloat16_trains() -> None:
    brain = fit(*make_brain(epochs=10, precision="bf16", eval_precision="bf16"), valid=True)
    assert brain.stage_losses["VALID", 10] < brain.stage_losses["VALID", 1]


def test_an_infinite_gradient_of_a_finite_loss_leaves_the_step_out() -> None:
    brain, counter = make_brain(epochs=1, nonfinite_patience=9)
    brain.on_fit_batch_start = lambda batch, should_step: [p.register_hook(_explode) for p in _first(brain)]
    before = weights(brain)
    fit(brain, counter)
    assert weights(brain) == before
    assert brain.nonfinite_count == len(brain.seen)


def _first(brain: Any) -> list[torch.nn.Parameter]:
    return [next(iter(brain.modules.parameters()))] if not hasattr(brain, "seen") else []


def _explode(gradient: torch.Tensor) -> torch.Tensor:
    return gradient * float("inf")


def test_our_schedule_keeps_the_ratios_of_groups() -> None:
    brain, counter = make_brain(epochs=1, lr_scheduler=training.WarmupCosine(warmup=2, total=4, floor=0.5))
    brain.opt_class = _two_groups
    seen: list[list[float]] = []
    brain.on_optimizer_step = lambda: seen.append([group["lr"] for group in brain.optimizer.param_groups])
    fit(brain, counter)
    assert seen[:4] == [[0.5, 0.05], [1.0, 0.1], [0.75, pytest.approx(0.075)], [0.5, 0.05]]


def _two_groups(parameters: Any) -> torch.optim.Optimizer:
    first, *others = parameters
    return torch.optim.SGD([{"params": [first], "lr": 1.0}, {"params": others, "lr": 0.1}], lr=0.1)


def test_speechbrains_schedule_is_applied_before_the_step_and_resumed(tmp_path: Path) -> None:
    options = {"optimizer_step_limit": 3, "ckpt_interval_steps": 1}
    brain, counter = make_brain(tmp_path, lr_scheduler=NoamScheduler(0.1, 4), **options)
    rates: list[float] = []
    brain.on_optimizer_step = lambda: rates.append(brain.optimizer.param_groups[0]["lr"])
    fit(brain, counter)
    assert rates == pytest.approx([0.025, 0.05, 0.075])
    again, counter = make_brain(tmp_path, lr_scheduler=NoamScheduler(0.1, 4), **{**options, "optimizer_step_limit": 4})
    fit(again, counter)
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("options", [{"warmup": 5, "total": 4}, {"warmup": -1, "total": 4}])
def test_schedule_options_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="warmup is"):
        training.WarmupCosine(**options)
    with pytest.raises(ConfigError, match="floor is 2"):
        training.WarmupCosine(1, 2, floor=2)


def test_weighted_refuses_nonsense() -> None:
    brain, _ = make_brain()
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a finite number"):
            brain.weighted(torch.ones(()), weight)
    brain.weighted(torch.ones(()), 1)
    with pytest.raises(RuntimeError, match="twice"):
        brain.weighted(torch.ones(()), 1)


def _one_incomplete_group(folder: Path, batch_size: int) -> None:
    brain, counter = make_brain(epochs=1, grad_accumulation_factor=3)
    loader = {"batch_size": batch_size, "collate_fn": PaddedBatch}
    brain.fit(counter, make_dataset(), train_loader_kwargs=loader)
    assert brain.optimizer_step == 1
    (folder / f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(weights(brain)))


def test_an_incomplete_group_is_shared_too(tmp_path: Path) -> None:
    """Two processes with micro-batches of 8 and 4 items take the step that one takes on all 24."""
    assert in_ranks(_one_incomplete_group, tmp_path, 8) == [0, 0]
    _one_incomplete_group(tmp_path, 24)
    first, second, alone = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("0", "1", "alone"))
    assert first == second
    assert first == pytest.approx(alone, abs=1e-6)
