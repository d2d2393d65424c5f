"""What a probe learns of a batch is the same whether one process has it or two share it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lobes.probes import ccc_loss
from lobes.probes.norms import FrameNorm, PooledNorm
from lobes.probes.processes import shared_backward, sum_over_processes

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from toy_brain import in_ranks  # noqa: E402

ROWS = torch.linspace(-1, 3, 60).square().view(12, 5)


def shares() -> list[slice]:
    """What each of two processes has of 12 rows."""
    return [slice(0, 4), slice(4, 12)]


def normalise(folder: Path) -> None:
    rank = torch.distributed.get_rank()
    norm, frames = PooledNorm(5), FrameNorm(5)
    rows, valid = ROWS[shares()[rank]], torch.ones(1, len(ROWS[shares()[rank]]), dtype=torch.bool)
    few = PooledNorm(5)
    nothing = few(ROWS[: 1 if rank else 0])  # a single utterance, and none beside it
    found = {"rows": norm(rows), "frames": frames(rows[None], valid)[0], "mean": norm.running_mean}
    found |= {"var": norm.running_var, "count": norm.num_batches_tracked, "few": few.running_mean, "one": nothing}
    torch.save({name: value.clone() for name, value in found.items()}, folder / f"{rank}.pt")


def test_statistics_are_those_of_all_processes(tmp_path):
    assert in_ranks(normalise, tmp_path) == [0, 0]
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    alone = PooledNorm(5)
    expected = alone(ROWS)
    for name in ("rows", "frames"):
        torch.testing.assert_close(torch.cat([part[name] for part in both]), expected, atol=1e-5, rtol=0)
    for part in both:
        torch.testing.assert_close(part["mean"], alone.running_mean)
        torch.testing.assert_close(part["var"], alone.running_var)
        assert part["count"] == 1 and not part["few"].any(), "one row has no deviation: nothing is learnt of it"
    torch.testing.assert_close(both[1]["one"], ROWS[:1], atol=1e-4, rtol=1e-4)


FACTORS = torch.linspace(0.5, 2, 5)


def loss_of(rows: torch.Tensor, factors: torch.Tensor, first: int) -> torch.Tensor:
    """Of the rows from `first` on, each with a weight of its own, on features that are trained."""
    weights = torch.arange(first + 1.0, first + 1 + len(rows))[:, None]
    features = (rows * factors).sin()
    return (weights * PooledNorm(5)(features).tanh()).sum()


def descend(folder: Path) -> None:
    rank = torch.distributed.get_rank()
    part, found = shares()[rank], []
    for counts in ((True, True), (True, False), (False, True)):
        factors = FACTORS.clone().requires_grad_()
        loss = loss_of(ROWS[part], factors, part.start)
        with shared_backward(counts[rank]):
            (loss if counts[rank] else 0 * factors.sum()).backward()
        found.append(factors.grad)
    torch.save(found, folder / f"{rank}.pt")


def test_the_gradient_of_statistics_is_that_of_all_processes_where_all_count(tmp_path):
    assert in_ranks(descend, tmp_path) == [0, 0]
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    factors = FACTORS.clone().requires_grad_()
    loss_of(ROWS, factors, 0).backward()
    torch.testing.assert_close(both[0][0] + both[1][0], factors.grad, atol=1e-4, rtol=1e-4)
    # Where one process goes back through nothing, the other does not wait for it.
    for nothing, something, turn in ((1, 0, 1), (0, 1, 2)):
        assert not both[nothing][turn].any() and both[something][turn].abs().max() > 0.1
        assert (both[something][turn] - both[something][0]).abs().max() > 0.01


def agree(folder: Path) -> None:
    rank = torch.distributed.get_rank()
    weight = torch.ones(5, requires_grad=True)
    rows, rated, valid = batch()
    part = shares()[rank]
    loss, steps = ccc_loss(rows[part] * weight, rated[part], valid[part], together=True)
    loss.backward()
    torch.save((loss.detach(), steps, weight.grad), folder / f"{rank}.pt")


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions, ratings and validity (12, 5)."""
    valid = torch.ones(12, 5, dtype=torch.bool)
    valid[3, 2:] = False
    return ROWS.sin(), ROWS.cos() + 0.3 * ROWS, valid


def test_agreement_is_that_of_all_processes_and_so_is_its_gradient(tmp_path):
    weight = torch.ones(5, requires_grad=True)
    rows, rated, valid = batch()
    expected, steps = ccc_loss(rows * weight, rated, valid)
    expected.backward()
    assert in_ranks(agree, tmp_path) == [0, 0]
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [part[1] for part in both] == [steps, steps] == [57.0, 57.0]
    for part in both:
        torch.testing.assert_close(part[0], expected.detach())
    # DistributedDataParallel averages gradients.
    torch.testing.assert_close((both[0][2] + both[1][2]) / 2, weight.grad)


def test_alone_a_sum_is_what_it_is():
    values = torch.ones(3, requires_grad=True)
    assert sum_over_processes(values) is values
    loss, _ = ccc_loss(*batch(), together=True)
    assert loss == pytest.approx(ccc_loss(*batch())[0].item())
