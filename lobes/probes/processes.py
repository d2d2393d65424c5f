"""Sums over the processes that train together, for statistics of a whole batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed


def training_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(local: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; its gradient is that of this process's part.

    Every process must call this as often as the others, with equal shapes. There is no communication in the backward
    pass, which a process whose batch counts for nothing leaves out.

    Example
    -------
    >>> import torch
    >>> sum_over_processes(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    if training_processes() == 1:
        return local
    total = local.detach().clone()
    distributed.all_reduce(total)
    return local + (total - local.detach())


class _Backward:
    """Whether sums of this pass want their gradients summed, and whether all processes go through them."""

    asked = together = False


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        if not _Backward.together:
            return gradient
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def shared_sum(local: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, of which each goes on with a loss of its own.

    Its gradient is that of all processes' losses, within `shared_backward`; elsewhere that of this process's.
    Every process must call this as often as the others, with equal shapes.
    """
    if training_processes() == 1:
        return local
    _Backward.asked = True
    return _Sum.apply(local)  # type: ignore[no-any-return]


@contextmanager
def shared_backward(counts: bool) -> Iterator[None]:
    """Where to call ``backward``, after a forward pass with sums of `shared_sum`; every process must enter it.

    Arguments
    ---------
    counts : bool
        Whether this process goes back through its forward pass. Where one does not, because its batch counts for
        nothing, none waits for its gradients: each takes the other processes' part of a sum as given.
    """
    if _Backward.asked:
        everyone = torch.tensor(float(counts), device=_device())
        distributed.all_reduce(everyone, op=distributed.ReduceOp.MIN)
        _Backward.together = bool(everyone)
    try:
        yield
    finally:
        _Backward.asked = _Backward.together = False


def _device() -> torch.device:
    nccl = distributed.get_backend() == distributed.Backend.NCCL
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
