"""Data loaders that share a corpus over processes and can be resumed exactly."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from lobes.errors import ConfigError
from lobes.hyperyaml.tree import nearest
from lobes.training.parallel import rank, world_size
from lobes.training.rng import get_state, seed_cpu, set_state
from lobes.training.signals import shield_worker

#: What the Brain decides, so that `train_loader` and `valid_loader` cannot.
_GIVEN_BY_BRAIN = {"durations", "world_size", "rank", "accumulation"}


class SeededItems(Dataset):
    """A map-style dataset whose random augmentation depends on (seed, epoch, index) alone.

    It then is the same in whatever worker process, order or number of processes an item is loaded, and after a resume.

    Parameters
    ----------
    dataset : Dataset
        Any dataset with `__getitem__`; its other attributes are reachable through this one.
    seed : int
        Not negative.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        # Shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers the items draw."""
        self._epoch.fill_(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        # What `torch.utils.data` calls for a batch: the process's own random state is put back once, not per item.
        state, items = get_state(), []
        try:
            for index in indices:
                seed_cpu(self.seed, int(self._epoch), int(index))
                items.append(self.dataset[index])
        finally:
            set_state(state)
        return items

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class Shard(Sampler):
    """Every `world_size`-th entry of a sampler, starting at `rank`: nothing is left out, nothing comes twice.

    Parameters
    ----------
    entries : Sampler, range or list
        Indices or batches of indices, in the same order on every process.
    rank, world_size : int
        Which share, of how many.

    Examples
    --------
    >>> list(Shard(range(5), 1, 2)), len(Shard(range(5), 0, 2))
    ([1, 3], 3)
    """

    def __init__(self, entries: Any, rank: int, world_size: int) -> None:
        self.entries, self.rank, self.world_size = entries, rank, world_size

    def __iter__(self) -> Iterator[Any]:
        return (entry for place, entry in enumerate(self.entries) if place % self.world_size == self.rank)

    def __len__(self) -> int:
        return len(range(self.rank, len(self.entries), self.world_size))


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell the epoch to every part of a loader that orders or draws by it, in single-process runs too."""
    loader = getattr(loader, "loader", loader)  # inside SpeechBrain's LoopedLoader
    for part in ("batch_sampler", "sampler", "dataset"):
        setter = getattr(getattr(loader, part, None), "set_epoch", None)
        if setter is not None:
            setter(epoch)


def prepare(
    dataset: Any, stage: sb.Stage, options: dict[str, Any], *, seed: int, accumulation: int
) -> tuple[Any, dict[str, Any]]:
    """Turn a dataset and the options of a recipe into a dataset and options for `torch.utils.data.DataLoader`.

    Parameters
    ----------
    dataset : Dataset
        With `batch_seconds`, a `DynamicItemDataset` whose entries have a `duration` in seconds.
    stage : Stage
        Training shuffles by default; validation and test are shared over processes without repeating an item.
    options : dict
        Those of `DataLoader`, and, where `batch_seconds` is among them, of `lobes.dataio.GlobalBatchSampler`.
    seed : int
        For the order and for random augmentation.
    accumulation : int
        Micro-batches per optimizer step, in training.

    Raises
    ------
    ConfigError
        An option does not exist, or the dataset cannot be shared over processes.
    """
    options = dict(options)
    if isinstance(dataset, IterableDataset):
        _check_iterable(dataset, stage)
        return dataset, options
    _check_names(options)
    if isinstance(dataset, DynamicItemDataset) and "collate_fn" not in options:
        from lobes.dataio import collate

        options["collate_fn"] = collate
    # Otherwise each epoch would draw from the global generator, and a resumed one once more.
    options.setdefault("generator", torch.Generator().manual_seed(seed))
    if options.get("num_workers", 0) > 0:
        options["worker_init_fn"] = functools.partial(_start_worker, then=options.get("worker_init_fn"))
    if "batch_seconds" in options:
        options = _with_batch_sampler(dataset, stage, options, seed, accumulation)
    elif stage != sb.Stage.TRAIN and world_size() > 1:
        options = _sharded(dataset, options)
    return SeededItems(dataset, seed), options


def check_shared(loader: Any, what: str) -> None:
    """Refuse a ready-made loader in a run of several processes, each of which would see all of its data.

    Raises
    ------
    ConfigError
        The loader was not made by `Brain.make_dataloader`.
    """
    inner = getattr(loader, "loader", loader)
    shared = isinstance(inner.dataset, SeededItems) or getattr(inner.dataset, "sharded_over_ranks", False)
    if isinstance(inner, DataLoader) and world_size() > 1 and not shared:
        raise ConfigError(
            f"{what}: this DataLoader would give all of its data to each of {world_size()} processes; "
            "pass the dataset instead, or make the loader with brain.make_dataloader"
        )


def _start_worker(number: int, then: Callable[[int], None] | None) -> None:
    shield_worker()
    if then is not None:
        then(number)


def _check_iterable(dataset: IterableDataset, stage: sb.Stage) -> None:
    if world_size() > 1 and not getattr(dataset, "sharded_over_ranks", False):
        raise ConfigError(
            f"{stage.name.lower()} dataset: the IterableDataset {type(dataset).__name__} would give all of its data to "
            f"each of {world_size()} processes; let it share them and set its attribute sharded_over_ranks to True, "
            "or use a map-style dataset"
        )


def _check_names(options: dict[str, Any]) -> None:
    names = set(inspect.signature(DataLoader.__init__).parameters) - {"self", "dataset"} | {"looped_nominal_epoch"}
    if "batch_seconds" in options or any(name not in names for name in options):
        names |= _sampler_options() | {"batch_seconds"}
    for name in options:
        if name not in names:
            raise ConfigError(f"loader option '{name}' does not exist{nearest(name, sorted(names))}")


def _sampler_options() -> set[str]:
    from lobes.dataio.samplers import GlobalBatchSampler

    return set(inspect.signature(GlobalBatchSampler.__init__).parameters) - {"self"} - _GIVEN_BY_BRAIN


def _with_batch_sampler(
    dataset: Any, stage: sb.Stage, options: dict[str, Any], seed: int, accumulation: int
) -> dict[str, Any]:
    from lobes.dataio.samplers import GlobalBatchSampler

    chosen = {name: options.pop(name) for name in _sampler_options() if name in options}
    training = stage == sb.Stage.TRAIN
    defaults = {"shuffle": training, "seed": seed}
    sampler = GlobalBatchSampler(
        _durations(dataset, stage),
        **{**defaults, **chosen},
        world_size=world_size(),
        rank=rank(),
        accumulation=accumulation if training else 1,
    )
    return {**options, "batch_sampler": sampler}


def _durations(dataset: Any, stage: sb.Stage) -> list[float]:
    """Seconds of each item, from the manifest."""
    try:
        if hasattr(dataset, "durations"):
            return list(dataset.durations)
        return [float(dataset.data[key]["duration"]) for key in dataset.data_ids]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{stage.name.lower()} loader: batch_seconds needs a manifest with a 'duration' in seconds for every item "
            f"({type(error).__name__}: {error}); give batch_size instead, or mend the manifest"
        ) from error


def _sharded(dataset: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Share the items, or the batches where a batch sampler is given, over processes."""
    if options.get("batch_sampler") is not None:
        return {**options, "batch_sampler": Shard(options["batch_sampler"], rank(), world_size())}
    if options.pop("shuffle", False):
        raise ConfigError("loader option 'shuffle' is for training: validation and test are read in order")
    entries = options.get("sampler") or range(len(dataset))
    return {**options, "sampler": Shard(entries, rank(), world_size())}
