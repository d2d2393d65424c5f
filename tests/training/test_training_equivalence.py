"""Training does not depend on how a global batch is shared by processes and micro-batches."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_brain import fit, in_ranks, make_brain, make_dataset

STEPS = 20


def losses(folder: Path) -> list[float]:
    with open(folder / "train_log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    return [float(row["loss"]) for row in rows]


def train(folder: Path, accumulation: int = 1) -> None:
    options = {"grad_accumulation_factor": accumulation, "optimizer_step_limit": STEPS}
    fit(*make_brain(folder, epochs=9, **options), valid=True)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = tmp_path_factory.mktemp("one")
    train(folder)
    found = losses(folder)
    assert len(found) == STEPS
    assert sum(found[-5:]) < 0.8 * sum(found[:5])
    return found


def test_two_processes_equal_one(one_process: list[float], tmp_path: Path) -> None:
    assert in_ranks(train, tmp_path) == [0, 0]
    assert losses(tmp_path) == pytest.approx(one_process, abs=1e-4)


def test_two_processes_with_accumulation_equal_one(one_process: list[float], tmp_path: Path) -> None:
    assert in_ranks(train, tmp_path, 2) == [0, 0]
    assert losses(tmp_path) == pytest.approx(one_process, abs=1e-4)


def test_accumulation_equals_the_whole_batch(one_process: list[float], tmp_path: Path) -> None:
    train(tmp_path, accumulation=2)
    assert losses(tmp_path) == pytest.approx(one_process, abs=1e-4)


def _with_an_empty_batch(folder: Path | None) -> Any:
    """Train three steps of two micro-batches, one of which has nothing to say and a loss of NaN."""
    brain, counter = make_brain(folder, epochs=1, grad_accumulation_factor=2)
    objectives = brain.compute_objectives

    def compute_objectives(output: Any, batch: Any, stage: Any) -> torch.Tensor:
        if "item05" in batch.id and folder is not None:
            return brain.weighted(output[0] * float("nan"), 0)
        return objectives(output, batch, stage)

    brain.compute_objectives = compute_objectives
    return fit(brain, counter)


def test_a_batch_of_weight_zero_is_harmless(tmp_path: Path) -> None:
    brain = _with_an_empty_batch(tmp_path)
    assert brain.nonfinite_count == 0
    assert brain.optimizer_step == _with_an_empty_batch(None).optimizer_step
    assert all(torch.isfinite(p).all() for p in brain.modules.parameters())


def _one_rank_has_nan(folder: Path) -> None:
    rank = torch.distributed.get_rank()
    brain, counter = make_brain(folder, epochs=1)
    objectives = brain.compute_objectives

    def compute_objectives(output: Any, batch: Any, stage: Any) -> torch.Tensor:
        bad = rank == 1 and brain.step == 2
        return objectives((output[0] * float("nan"), output[1]) if bad else output, batch, stage)

    brain.compute_objectives = compute_objectives
    brain.log_stats({"first_only": 1.0} if rank == 0 else {})
    fit(brain, counter)
    weights = [p.tolist() for p in brain.modules.parameters()]
    items = brain.gather({f"{rank}-{n}": n for n in range(rank + 1)})
    found = [brain.nonfinite_count, brain.step, brain.optimizer_step, weights, items]
    (folder / f"{rank}.json").write_text(json.dumps(found))


def test_all_processes_leave_out_a_step_that_one_cannot_take(tmp_path: Path) -> None:
    assert in_ranks(_one_rank_has_nan, tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[0] == 1
    assert first[4] == {"0-0": 0, "1-0": 0, "1-1": 1}
    with open(tmp_path / "train_log.csv") as file:
        assert next(csv.DictReader(file))["first_only"] == "1.0"


def test_statistics_are_weighted_as_the_loss_is(tmp_path: Path) -> None:
    brain, counter = make_brain(tmp_path, epochs=1, grad_accumulation_factor=2, optimizer_step_limit=2)
    objectives = brain.compute_objectives

    def compute_objectives(output: Any, batch: Any, stage: Any) -> torch.Tensor:
        brain.log_stats({"same_as_loss": output[0]})
        return objectives(output, batch, stage)

    brain.compute_objectives = compute_objectives
    fit(brain, counter)
    with open(tmp_path / "train_log.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert float(row["same_as_loss"]) == pytest.approx(float(row["loss"]))
        assert float(row["lr"]) == 0.02


def test_skipped_items_are_listed_once(tmp_path: Path) -> None:
    brain, counter = make_brain(tmp_path, epochs=2)
    forward = brain.compute_forward

    def compute_forward(batch: Any, stage: Any) -> Any:
        return forward(batch, stage)

    def collate(items: list[Any]) -> Any:
        from speechbrain.dataio.batch import PaddedBatch

        batch = PaddedBatch(items)
        batch.skipped = [(item["id"], "holds, no samples") for item in items if item["id"] < "item03"]
        return batch

    brain.compute_forward = compute_forward
    brain.fit(counter, make_dataset(), train_loader_kwargs={"batch_seconds": 16, "collate_fn": collate})
    with open(tmp_path / "skipped.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"id": f"item0{n}", "reason": "holds, no samples"} for n in range(3)]
