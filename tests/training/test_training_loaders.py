"""Loaders: options are checked, and random augmentation is a function of the item and the epoch."""

from __future__ import annotations

from typing import Any

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from toy_brain import make_brain, make_dataset

from lobes.errors import ConfigError
from lobes.training import SeededItems
from lobes.training.loaders import set_epoch


class _Noisy(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> float:
        return float(torch.rand(1)) + index


def drawn(num_workers: int, epoch: int, order: list[int], seed: int = 1) -> dict[int, float]:
    brain, _ = make_brain(seed=seed)
    loader = brain.make_dataloader(
        _Noisy(), sb.Stage.TRAIN, sampler=order, batch_size=2, num_workers=num_workers, persistent_workers=False
    )
    set_epoch(loader, epoch)
    return {int(value): float(value) for batch in loader for value in batch}


def test_augmentation_depends_on_item_epoch_and_seed_alone() -> None:
    one = drawn(0, 1, list(range(6)))
    assert len({value % 1 for value in one.values()}) == 6
    assert drawn(2, 1, [5, 4, 3, 2, 1, 0]) == one
    assert drawn(0, 2, list(range(6))) != one
    assert drawn(0, 1, list(range(6)), seed=2) != one


def test_loading_items_leaves_the_generators_alone() -> None:
    before = torch.get_rng_state()
    assert SeededItems(_Noisy(), 1)[3] != float(torch.rand(1)) + 3
    torch.set_rng_state(before)
    drawn(0, 1, [0, 1])
    assert torch.equal(torch.get_rng_state(), _state_after_making_a_brain(before))


def _state_after_making_a_brain(before: torch.Tensor) -> torch.Tensor:
    torch.set_rng_state(before)
    make_brain()
    return torch.get_rng_state()


def test_the_wrapped_dataset_is_reachable() -> None:
    dataset = make_dataset(3)
    assert SeededItems(dataset, 0).data_ids == dataset.data_ids
    with pytest.raises(AttributeError):
        SeededItems(dataset, 0).nothing  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_secnds": 4}, "'batch_secnds' does not exist .*'batch_seconds'"),
        ({"batch_seconds": 4, "num_worker": 1}, "'num_worker' does not exist .*'num_workers'"),
        ({"batch_seconds": 4, "max_item": 1}, "'max_item' does not exist .*'max_items'"),
        ({"batch_seconds": 4, "world_size": 3}, "'world_size' does not exist"),
    ],
)
def test_misspelt_options(options: dict[str, Any], message: str) -> None:
    brain, _ = make_brain()
    with pytest.raises(ConfigError, match=message):
        brain.make_dataloader(make_dataset(), sb.Stage.TRAIN, **options)


def test_batch_seconds_needs_durations() -> None:
    brain, _ = make_brain()
    with pytest.raises(ConfigError, match="train loader: batch_seconds needs a manifest with a 'duration'"):
        brain.make_dataloader(_Noisy(), sb.Stage.TRAIN, batch_seconds=4)


def test_batches_hold_the_seconds_asked_for() -> None:
    brain, _ = make_brain()
    loader = brain.make_dataloader(make_dataset(), sb.Stage.TRAIN, batch_seconds=8, collate_fn=PaddedBatch)
    frames = [batch.frames.data for batch in loader]
    assert sum(len(data) for data in frames) == len(make_dataset())
    assert all(data.shape[0] * data.shape[1] <= 8 for data in frames)
