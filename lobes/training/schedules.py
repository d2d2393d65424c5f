"""Learning-rate schedules that depend on the optimizer step alone, so that resuming needs no state of theirs."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch.optim import Optimizer

from lobes.errors import ConfigError


class WarmupCosine:
    """Linear warm-up from nothing, then half a cosine down to a floor.

    Each parameter group's own learning rate is multiplied by the same factor, so that their ratios stay. The cosine is
    that of SGDR (Loshchilov and Hutter 2017, equation 5) without restarts.

    Parameters
    ----------
    warmup : int
        Optimizer steps until the full learning rate.
    total : int
        Optimizer steps until the floor; it stays there afterwards.
    floor : float
        Factor at the end, between 0 and 1.

    Raises
    ------
    ConfigError
        An option is out of range.

    Examples
    --------
    >>> schedule = WarmupCosine(warmup=10, total=110)
    >>> [round(schedule.factor(step), 3) for step in (1, 5, 10, 60, 110, 200)]
    [0.1, 0.5, 1.0, 0.5, 0.0, 0.0]
    """

    def __init__(self, warmup: int, total: int, floor: float = 0.0) -> None:
        if not 0 <= warmup <= total:
            raise ConfigError(f"warmup is {warmup}: expected 0 to total = {total} optimizer steps")
        if not 0 <= floor <= 1:
            raise ConfigError(f"floor is {floor}: expected a factor between 0 and 1")
        self.warmup, self.total, self.floor = int(warmup), int(total), float(floor)

    def factor(self, step: int) -> float:
        """Multiplier of the learning rate in optimizer step `step`, counted from 1."""
        if step < self.warmup:
            return step / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def __call__(self, optimizer: Optimizer, step: int) -> None:
        """Set the learning rates for optimizer step `step`, counted from 1."""
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.factor(step)


def apply_schedule(schedule: Any, optimizer: Optimizer, step: int) -> None:
    """Set the learning rate for the coming optimizer step with one of our schedules or one of SpeechBrain's.

    Parameters
    ----------
    schedule : callable
        Called as ``schedule(optimizer, step)``, or as ``schedule(optimizer)`` where it takes nothing else
        (SpeechBrain's Noam and others, which count their calls themselves).
    optimizer : Optimizer
        Whose groups are changed.
    step : int
        The coming optimizer step, counted from 1.
    """
    if len(inspect.signature(schedule).parameters) > 1:
        schedule(optimizer, step)
    else:
        schedule(optimizer)
