"""Small collectives over the processes of a `torchrun`; each is the identity in a single process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

import torch
from speechbrain.utils.distributed import MainProcessContext, is_distributed_initialized
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lobes.errors import LobesError

Result = TypeVar("Result")
Item = TypeVar("Item")


def world_size() -> int:
    """Number of processes that train together."""
    return torch.distributed.get_world_size() if is_distributed_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; process 0 writes the files."""
    return torch.distributed.get_rank() if is_distributed_initialized() else 0


def _device() -> torch.device:
    """Where the backend wants its tensors."""
    if torch.distributed.get_backend() == torch.distributed.Backend.NCCL:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Sum each of a few numbers over all processes, in float64.

    Every process must call this the same number of times with equally many values.

    Examples
    --------
    >>> sum_over_ranks([1, 2.5])
    [1.0, 2.5]
    """
    if world_size() == 1:
        return [float(value) for value in values]
    total = torch.tensor(values, dtype=torch.float64, device=_device())
    torch.distributed.all_reduce(total)
    return total.tolist()


@overload
def gather(items: list[Item]) -> list[Item]: ...
@overload
def gather(items: dict[str, Item]) -> dict[str, Item]: ...
def gather(items: Any) -> Any:
    """Collect per-item results over all processes; every process gets them all.

    Parameters
    ----------
    items : list or dict
        Results of this process; lists are joined in the order of ranks, dicts are merged.

    Examples
    --------
    >>> gather({"clip-1": 0.5})
    {'clip-1': 0.5}
    """
    if world_size() == 1:
        return items
    everyone: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(everyone, items)
    if isinstance(items, dict):
        return {key: value for part in everyone for key, value in part.items()}
    return [item for part in everyone for item in part]


def on_main(func: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Run `func` in process 0 while the others wait, and return its result in all of them.

    If it fails there, process 0 raises its error and the others leave quietly, instead of waiting for ever.

    Parameters
    ----------
    func : callable
        Preparation that writes files; its result must be picklable.
    *args, **kwargs
        Handed on to `func`.

    Examples
    --------
    >>> on_main(sorted, [3, 1, 2])
    [1, 2, 3]
    """
    if world_size() == 1:
        return func(*args, **kwargs)
    outcome: list[Any] = [None, None]
    error: Exception | None = None
    if rank() == 0:
        try:
            with MainProcessContext():
                outcome[0] = func(*args, **kwargs)
        except Exception as caught:
            error = caught
            outcome[1] = 2 if isinstance(caught, LobesError) else 1
    torch.distributed.broadcast_object_list(outcome, src=0)
    if error is not None:
        raise error
    if outcome[1] is not None:
        raise SystemExit(outcome[1])
    return outcome[0]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over processes, as DistributedDataParallel does in a backward pass that synchronises."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = parameter.grad.to(_device())
        torch.distributed.all_reduce(gradient)
        parameter.grad.copy_(gradient / world_size())


class NormStatistics:
    """Running statistics of the batch normalisation layers in a module: keep, put back, average over processes.

    They change in the forward pass already, so that skipping an optimizer step does not undo what a batch with NaN
    did to them; and processes on CPU, which cannot use SyncBatchNorm, gather different ones.
    """

    def __init__(self, module: nn.Module) -> None:
        self._buffers = [
            buffer for layer in module.modules() if isinstance(layer, _NormBase) for buffer in layer.buffers()
        ]
        self._kept: list[Tensor] = []
        self.keep()

    def keep(self) -> None:
        """Remember the statistics as good."""
        self._kept = [buffer.clone() for buffer in self._buffers]

    def put_back(self) -> None:
        """Return to what was last kept."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)

    def average(self) -> None:
        """Make the statistics of all processes equal to their mean."""
        if world_size() == 1:
            return
        for buffer in self._buffers:
            if buffer.is_floating_point():
                mean = buffer.to(_device())
                torch.distributed.all_reduce(mean)
                buffer.copy_(mean / world_size())
        self.keep()


def synchronise_norms(module: nn.Module) -> nn.Module:
    """Put SyncBatchNorm in the place of batch normalisation; what derives from it has statistics of its own making.

    `torch.nn.SyncBatchNorm.convert_sync_batchnorm` would replace these too, such as `lobes.probes.norms.FrameNorm`.
    """
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        found = synchronise_norms(child)
        if found is not child:
            setattr(module, name, found)
    return module


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module that DistributedDataParallel, DataParallel or `torch.compile` wrapped."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner


def broadcast_buffers(module: nn.Module) -> None:
    """Give every process the buffers of process 0, such as a random codebook."""
    for buffer in module.buffers():
        value = buffer.to(_device())
        torch.distributed.broadcast(value, src=0)
        buffer.copy_(value)
