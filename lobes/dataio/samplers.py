"""Batches by seconds of audio that are the same however many processes share them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

#: A bucket holds at least this many batches, so that even a small corpus is mixed anew each epoch.
_MIN_BATCHES_PER_BUCKET = 2


class GlobalBatchSampler(Sampler[list[int]]):
    """Cut a corpus into global batches of at most `batch_seconds`, and deal each to the processes.

    A *global batch* is what one optimiser step sees. Items are sorted by length and cut into buckets of
    similar length; each epoch shuffles the items within a bucket and then the batches. All of that is a pure
    function of `(seed, epoch)`. Only then is each global batch dealt to `world_size * accumulation`
    micro-batches: sorted by length and dealt back and forth, so that any two micro-batches differ by at most
    one item and by at most the longest item's seconds. The union over ranks and accumulation steps is
    therefore the batch that one process would have seen, and training does not depend on the number of
    processes.

    Parameters
    ----------
    durations : sequence of float
        Seconds of each item, shape (N,), all positive.
    batch_seconds : float
        Upper bound of the padded seconds (items x longest) of a global batch.
    shuffle : bool
        True: training, as above; every rank yields the same number of micro-batches, none of them empty.
        False: evaluation, longest first; every item occurs exactly once over all ranks, which may then differ
        in their number of batches, and `accumulation` only makes the batches smaller.
    seed : int
        Not negative; with the epoch it decides the order.
    world_size, rank : int
        The number of processes, and which of them this is.
    accumulation : int
        Micro-batches of one rank per optimiser step.
    bucket_width : float
        Longest over shortest within a bucket, where the corpus is large enough; 1.1 pads some 5 %.
    max_items : int, optional
        At most this many items in a global batch, for corpora of very short clips.

    Raises
    ------
    ConfigError
        An option is out of range.
    DataError
        No item, a duration that is not a positive number, or fewer items than one step has micro-batches.

    Notes
    -----
    A training batch never has fewer than `world_size * accumulation` items, because a process without an item could
    not take part in the step. Where `batch_seconds` holds fewer items than that, the bound gives way, with one
    warning; only then do global batches depend on the number of processes. An item longer than `batch_seconds` gets
    a batch of its own (of one item per micro-batch), with one warning.

    Examples
    --------
    >>> seconds = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    >>> alone = GlobalBatchSampler(seconds, batch_seconds=8, seed=1)
    >>> sorted(item for batch in alone for item in batch), len(alone)
    ([0, 1, 2, 3, 4, 5], 3)
    >>> both = [GlobalBatchSampler(seconds, 8, seed=1, world_size=2, rank=rank) for rank in (0, 1)]
    >>> [sorted(a + b) for a, b in zip(*both)] == [sorted(batch) for batch in alone]
    True
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_seconds: float,
        *,
        shuffle: bool = True,
        seed: int = 0,
        world_size: int = 1,
        rank: int = 0,
        accumulation: int = 1,
        bucket_width: float = 1.1,
        max_items: int | None = None,
    ) -> None:
        self.durations = _checked_durations(durations)
        _check_options(batch_seconds, seed, world_size, rank, accumulation, bucket_width, max_items)
        self.batch_seconds = float(batch_seconds)
        self.shuffle = shuffle
        self.seed = int(seed)
        self.world_size, self.rank, self.accumulation = world_size, rank, accumulation
        self.bucket_width = float(bucket_width)
        self.max_items = max_items
        self.epoch = 0
        self._micro = world_size * accumulation
        self._min_items = self._micro if shuffle else 1
        if len(self.durations) < self._min_items:
            raise DataError(
                f"{len(self.durations)} items cannot be shared by {world_size} processes x {accumulation} "
                "accumulation steps: use fewer of them, or more data"
            )
        self._by_length = np.argsort(-self.durations, kind="stable").astype(np.int64)
        self._bucket, self._edges = self._cut()
        self._warn()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, a whole number from 0, whose order the next `iter()` yields."""
        if epoch < 0:
            raise ConfigError(f"epoch is {epoch}: expected 0 or more")
        self.epoch = int(epoch)

    def global_batches(self) -> list[np.ndarray]:
        """The global batches of this epoch in their order: arrays of item indices, the same on every rank."""
        order = self._by_length
        n_batches = len(self._edges) - 1
        batch_order = np.arange(n_batches)
        if self.shuffle:
            # random() and argsort, not permutation(): numpy may change how the latter uses the stream.
            random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, self.epoch])))
            order = order[np.lexsort((random.random(len(order)), self._bucket))]
            batch_order = np.argsort(random.random(n_batches), kind="stable")
        return [order[self._edges[b] : self._edges[b + 1]] for b in batch_order]

    def __iter__(self) -> Iterator[list[int]]:
        # Not a generator: the epoch is read here, even if the first next() follows another set_epoch().
        return self._micro_batches(self.global_batches())

    def __len__(self) -> int:
        """Micro-batches that this rank yields per epoch; the same for every epoch."""
        if self.shuffle:
            return (len(self._edges) - 1) * self.accumulation
        # Evaluation: micro-batch m of a batch is empty exactly when the batch has m items or fewer.
        mine = np.arange(self.rank, self._micro, self.world_size)
        return int((np.diff(self._edges)[:, None] > mine).sum())

    @property
    def padding_share(self) -> float:
        """Share of this epoch's padded seconds that is padding, over global batches, between 0 and 1."""
        batches = self.global_batches()
        sizes = np.array([len(batch) for batch in batches])
        starts = np.cumsum(sizes) - sizes
        longest = np.maximum.reduceat(self.durations[np.concatenate(batches)], starts)
        return float(1.0 - self.durations.sum() / (sizes * longest).sum())

    def _micro_batches(self, batches: list[np.ndarray]) -> Iterator[list[int]]:
        for batch in batches:
            longest_first = batch[np.lexsort((batch, -self.durations[batch]))]
            place = np.arange(len(batch)) % (2 * self._micro)
            owner = np.minimum(place, 2 * self._micro - 1 - place)  # 0 1 2 2 1 0 0 1 2 …
            for micro in range(self.rank, self._micro, self.world_size):
                items = longest_first[owner == micro]
                if len(items):
                    yield items.tolist()

    def _capacity(self, longest: float) -> int:
        """Items of at most `longest` seconds that one global batch holds."""
        items = int(self.batch_seconds / longest * (1 + 1e-9))
        if self.max_items is not None:
            items = min(items, self.max_items)
        return max(items, self._min_items)

    def _cut(self) -> tuple[np.ndarray, np.ndarray]:
        """Bucket of each item (N,) and edges of the batches (n_batches + 1,), both in order of length."""
        lengths = self.durations[self._by_length]
        falling = -lengths  # searchsorted needs a rising array
        total = len(lengths)
        buckets: list[tuple[int, int, int]] = []  # first item, end, capacity
        first = 0
        while first < total:
            capacity = self._capacity(lengths[first])
            similar = int(np.searchsorted(falling, -lengths[first] / self.bucket_width, side="right")) - first
            oversized = lengths[first] > self.batch_seconds and self._min_items == 1
            batches = 1 if oversized else max(_MIN_BATCHES_PER_BUCKET, similar // capacity)
            end = min(total, first + batches * capacity)
            # A rest too small for a batch of its own joins this bucket, whose bound is the stricter one.
            if end < total and not oversized and total - end < self._capacity(lengths[end]) / 2:
                end = total
            buckets.append((first, end, capacity))
            first = end
        if len(buckets) > 1 and buckets[-1][1] - buckets[-1][0] < self._min_items:
            _, end, _ = buckets.pop()
            first, _, capacity = buckets.pop()
            buckets.append((first, end, capacity))

        number = np.empty(total, dtype=np.int64)
        edges = [np.zeros(1, dtype=np.int64)]
        for index, (first, end, capacity) in enumerate(buckets):
            items = end - first
            number[first:end] = index
            batches = max(1, min(-(-items // capacity), items // self._min_items))
            edges.append(first + (np.arange(1, batches + 1) * items) // batches)
        return number, np.concatenate(edges)

    def _warn(self) -> None:
        longest = float(self.durations.max())
        too_long = int((self.durations > self.batch_seconds).sum())
        if too_long:
            logger.warning(
                "%d of %d items are longer than batch_seconds=%g (up to %.1f s): each gets its own batch",
                too_long,
                len(self.durations),
                self.batch_seconds,
                longest,
            )
        elif self._min_items * longest > self.batch_seconds:
            logger.warning(
                "batch_seconds=%g holds fewer than %d items of %.1f s, one per micro-batch: it is exceeded",
                self.batch_seconds,
                self._min_items,
                longest,
            )


def _checked_durations(durations: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(durations, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"durations have shape {values.shape}: expected one number of seconds per item, at least one")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        raise DataError(f"duration of item {wrong[0]} is {values[wrong[0]]} s: expected a positive number of seconds")
    return values


def _check_options(
    batch_seconds: float,
    seed: int,
    world_size: int,
    rank: int,
    accumulation: int,
    bucket_width: float,
    max_items: int | None,
) -> None:
    def require(name: str, value: object, ok: bool, expected: str) -> None:
        if not ok:
            raise ConfigError(f"{name} is {value}: expected {expected}")

    require("batch_seconds", batch_seconds, batch_seconds > 0, "a positive number of seconds")
    require("seed", seed, seed >= 0, "0 or more")
    require("world_size", world_size, world_size >= 1, "1 or more")
    require("rank", rank, 0 <= rank < world_size, f"0 to world_size - 1 = {world_size - 1}")
    require("accumulation", accumulation, accumulation >= 1, "1 or more")
    require("bucket_width", bucket_width, bucket_width >= 1, "1 or more")
    require("max_items", max_items, max_items is None or max_items >= 1, "1 or more, or null")
