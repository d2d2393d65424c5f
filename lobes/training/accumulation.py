"""What one optimizer step is made of: micro-batches on every process, weighed as one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lobes.training.parallel import gather, sum_over_ranks


@dataclass
class Totals:
    """Sums over all micro-batches and processes of one optimizer step."""

    loss_sum: float
    """Sum of loss x weight."""
    weight: float
    """Sum of the weights."""
    nonfinite: int
    """How many micro-batches had a loss that is NaN or infinite."""
    requeue: bool
    """Whether any process was told to stop and come back."""
    interrupt: bool
    """Whether any process was interrupted by a person."""
    save: bool
    """Whether process 0 wants a checkpoint now."""
    seconds: float
    """Seconds of audio."""
    stats: dict[str, float] = field(default_factory=dict)
    """Means of the logged statistics, weighted as the loss is."""


def to_floats(values: Sequence[Tensor | float]) -> list[float]:
    """Turn scalars, on whatever device, into floats with one transfer."""
    tensors = [value.detach().reshape(()) for value in values if isinstance(value, Tensor)]
    if not tensors:
        return [float(value) for value in values]
    device = next((tensor.device for tensor in tensors if not tensor.is_cpu), torch.device("cpu"))
    dtype = torch.float64 if device.type == "cpu" else torch.float32  # Apple's GPUs have no float64
    moved = iter(torch.stack([tensor.to(device, dtype) for tensor in tensors]).tolist())
    return [next(moved) if isinstance(value, Tensor) else float(value) for value in values]


class AccumulationGroup:
    """Collects the micro-batches of this process until the optimizer steps, then sums over processes.

    Let l and w be loss and weight of micro-batch i on process r. The step should follow the gradient of
    sum(w l) / sum(w) over all i and r. Each backward pass therefore takes w l, and the gradients, which
    DistributedDataParallel has averaged over R processes, are multiplied by R / sum(w) once sum(w) is known.

    Examples
    --------
    >>> group = AccumulationGroup()
    >>> group.add(torch.tensor(1.0), 1.0, {"accuracy": 0.5}, ["a"])
    >>> group.add(torch.tensor(4.0), 2.0, {"accuracy": 0.8}, ["b"])
    >>> totals = group.reduce()
    >>> totals.loss_sum / totals.weight, round(totals.stats["accuracy"], 3), len(group)
    (3.0, 0.7, 0)
    """

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._clear()

    def __len__(self) -> int:
        return len(self._losses)

    def _clear(self) -> None:
        self._losses: list[Tensor] = []
        self._weights: list[float] = []
        self._stats: list[Mapping[str, Tensor | float]] = []
        self._ids: list[list[str]] = []
        self._seconds = 0.0

    def add(
        self,
        loss: Tensor,
        weight: float,
        stats: Mapping[str, Tensor | float],
        ids: Sequence[str] = (),
        seconds: float = 0.0,
    ) -> None:
        """Add a micro-batch.

        Parameters
        ----------
        loss : Tensor, shape ()
            Its mean loss.
        weight : float
            How many predictions that is the mean of.
        stats : dict
            Scalars worth logging, means over the same predictions.
        ids : sequence of str
            Its items, to name them if the loss is not finite.
        seconds : float
            Of audio in it.
        """
        self._seconds += seconds
        self._losses.append(loss.detach())
        self._weights.append(weight)
        self._stats.append(stats)
        self._ids.append(list(ids))

    def reduce(self, requeue: bool = False, interrupt: bool = False, save: bool = False) -> Totals:
        """Sum over processes and begin a new group. Every process must call this together.

        The three flags are this process's wishes; each holds in the result where any process has it.
        """
        losses = to_floats(self._losses)
        pairs = [(loss, weight) for loss, weight in zip(losses, self._weights, strict=True) if weight > 0]
        finite = [(loss, weight) for loss, weight in pairs if math.isfinite(loss)]
        self.nonfinite_ids = [
            item
            for loss, weight, ids in zip(losses, self._weights, self._ids, strict=True)
            if weight > 0 and not math.isfinite(loss)
            for item in ids
        ]
        new_keys = any(key not in self._keys for stats in self._stats for key in stats)
        sums = sum_over_ranks(
            [
                sum(loss * weight for loss, weight in finite),
                sum(weight for _, weight in pairs),
                len(pairs) - len(finite),
                requeue,
                interrupt,
                save,
                new_keys,
                self._seconds,
            ]
        )
        stats = self._reduce_stats(agree=sums[6] > 0)
        self._clear()
        requeue, interrupt, save = (total > 0 for total in sums[3:6])
        return Totals(sums[0], sums[1], round(sums[2]), requeue, interrupt, save, sums[7], stats)

    def _reduce_stats(self, agree: bool) -> dict[str, float]:
        """Weighted means; the processes agree on the names whenever one of them has a new one."""
        if agree:
            mine = dict.fromkeys([*self._keys, *(key for stats in self._stats for key in stats)])
            self._keys = list(gather(mine))
        if not self._keys:
            return {}
        numerators = dict.fromkeys(self._keys, 0.0)
        denominators = dict.fromkeys(self._keys, 0.0)
        for stats, weight in zip(self._stats, self._weights, strict=True):
            for key, value in zip(stats, to_floats(list(stats.values())), strict=True):
                if weight > 0 and math.isfinite(value):
                    numerators[key] += value * weight
                    denominators[key] += weight
        sums = sum_over_ranks([*numerators.values(), *denominators.values()])
        half = len(self._keys)
        return {key: sums[i] / sums[half + i] for i, key in enumerate(self._keys) if sums[half + i] > 0}
