"""Global batches: the same whoever shares them, within their bound, and every item exactly once."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from lobes.dataio import GlobalBatchSampler
from lobes.errors import ConfigError, DataError

SPEECH = np.clip(np.random.default_rng(0).gamma(2.0, 3.0, 1000), 0.3, 20.0)


def ranks(durations, batch_seconds, world_size, accumulation=1, epoch=0, **options):
    """Micro-batches of every rank."""
    samplers = [
        GlobalBatchSampler(
            durations,
            batch_seconds,
            world_size=world_size,
            rank=rank,
            accumulation=accumulation,
            **options,
        )
        for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    batches = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(mine) for mine in batches]
    return batches


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("epoch", [0, 3])
def test_the_union_over_ranks_is_the_batch_of_one_process(world_size, accumulation, epoch):
    (alone,) = ranks(SPEECH, 240, 1, epoch=epoch, seed=5)
    shared = ranks(SPEECH, 240, world_size, accumulation, epoch=epoch, seed=5)
    assert {len(mine) for mine in shared} == {len(alone) * accumulation}
    for step, batch in enumerate(alone):
        parts = [mine[step * accumulation + a] for mine in shared for a in range(accumulation)]
        assert all(parts), "a process without an item cannot take part in the step"
        assert sorted(item for part in parts for item in part) == sorted(batch)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize(("count", "batch_seconds"), [(1000, 240), (1000, 25), (7, 60), (37, 5000), (4, 30)])
def test_every_item_occurs_exactly_once(shuffle, world_size, count, batch_seconds):
    shared = ranks(SPEECH[:count], batch_seconds, world_size, shuffle=shuffle)
    items = [item for mine in shared for batch in mine for item in batch]
    assert sorted(items) == list(range(count))
    assert all(batch for mine in shared for batch in mine)


@pytest.mark.parametrize("batch_seconds", [20, 60, 240, 1000])
def test_padded_seconds_stay_within_the_bound_and_are_mostly_audio(batch_seconds):
    sampler = GlobalBatchSampler(SPEECH, batch_seconds, seed=1)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        padded = [len(batch) * SPEECH[batch].max() for batch in batches]
        assert max(padded) <= batch_seconds * (1 + 1e-6)
        assert sampler.padding_share == pytest.approx(1 - SPEECH.sum() / sum(padded))
        # A batch of 1,000 s is a quarter of this corpus: there, similar lengths are few.
        assert sampler.padding_share < (0.35 if batch_seconds == 1000 else 0.12)
        assert np.mean(padded) > 0.75 * batch_seconds


def test_micro_batches_are_balanced_in_items_and_seconds():
    shared = ranks(SPEECH, 300, 4, 2)
    for step in range(0, len(shared[0]), 2):
        parts = [mine[step + a] for mine in shared for a in range(2)]
        seconds = [SPEECH[part].sum() for part in parts]
        longest = max(SPEECH[part].max() for part in parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert max(seconds) - min(seconds) <= longest
        assert max(len(part) * SPEECH[part].max() for part in parts) <= 300 / 8 + longest


def test_dealing_goes_back_and_forth():
    shared = ranks([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 100, 2, max_items=8)
    assert [sorted(mine[0]) for mine in shared] == [[0, 3, 4, 7], [1, 2, 5, 6]], "18 seconds each"


def test_order_is_a_pure_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = GlobalBatchSampler(SPEECH, 100, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    sampler = GlobalBatchSampler(SPEECH, 100, seed=1)
    for epoch in (0, 7, 2):  # a resumed run has seen other epochs before, or none
        sampler.set_epoch(epoch)
        last = list(sampler)
    assert last == order(1, 2)


def test_batches_have_other_members_each_epoch_even_in_a_small_corpus():
    sampler = GlobalBatchSampler(SPEECH[:60], 60)
    members = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        members.append({frozenset(batch) for batch in sampler})
    assert len(members[0] & members[1]) < len(members[0]) / 3


def test_the_epoch_counts_when_iteration_begins():
    sampler = GlobalBatchSampler(SPEECH, 100)
    first = iter(sampler)
    sampler.set_epoch(1)
    sampler_of_zero = GlobalBatchSampler(SPEECH, 100)
    assert list(first) == list(sampler_of_zero)


def test_number_of_batches_is_the_same_in_every_epoch():
    sampler = GlobalBatchSampler(SPEECH, 50)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)


def test_an_item_longer_than_a_batch_gets_its_own_with_one_warning(caplog):
    durations = [1.0] * 20 + [50.0]
    with caplog.at_level(logging.WARNING):
        sampler = GlobalBatchSampler(durations, 10)
        assert [20] in list(sampler)
        list(sampler)
    assert [record.message.count("longer than batch_seconds=10") for record in caplog.records] == [1]


def test_a_bound_too_small_for_all_processes_gives_way_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        shared = ranks([10.0] * 10, 20, 4)
    assert all(len(batch) >= 1 for mine in shared for batch in mine)
    assert len({len(mine) for mine in shared}) == 1
    assert sorted(i for mine in shared for batch in mine for i in batch) == list(range(10))
    assert "one per micro-batch" in caplog.text


def test_max_items_bounds_batches_of_short_clips():
    sampler = GlobalBatchSampler([0.4] * 1000, 7200, max_items=64)
    assert max(map(len, sampler)) <= 64
    assert len(sampler) == 16


def test_evaluation_is_in_order_of_length_and_ranks_may_differ():
    shared = ranks([3.0, 1.0, 2.0], 3, 2, shuffle=False)
    assert shared == [[[0], [2], [1]], []]


def test_a_million_clips_take_seconds():
    durations = np.clip(np.random.default_rng(1).gamma(2.0, 4.0, 1_000_000), 0.4, 35.0)
    begin = time.perf_counter()
    sampler = GlobalBatchSampler(durations, 7200, world_size=8, rank=3, accumulation=2)
    items = sum(len(batch) for batch in sampler)
    assert time.perf_counter() - begin < 15
    assert abs(items - 125_000) < 2000
    assert sampler.padding_share < 0.06


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch_seconds": 0}, "batch_seconds"),
        ({"seed": -1}, "seed"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"accumulation": 0}, "accumulation"),
        ({"bucket_width": 0.5}, "bucket_width"),
        ({"max_items": 0}, "max_items"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ConfigError, match=word):
        GlobalBatchSampler([1.0] * 10, **{"batch_seconds": 5, **options})


@pytest.mark.parametrize("durations", [[], [1.0, 0.0], [1.0, float("nan")], [[1.0]], [-1.0]])
def test_bad_durations_are_refused(durations):
    with pytest.raises(DataError):
        GlobalBatchSampler(durations, 5)


def test_fewer_items_than_micro_batches_are_refused():
    with pytest.raises(DataError, match="2 processes x 3"):
        GlobalBatchSampler([1.0] * 5, 5, world_size=2, accumulation=3)
