"""What holds a tuned encoder near the pretrained one: terms that are added to the loss of the new task.

Each is called without arguments, and gives what to add: `loss + control()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lobes.errors import ConfigError


class L2SP(nn.Module):
    """Squared distance from the starting point (Li, Grandvalet & Davoine, ICML 2018, eq. 1 of L²-SP).

    `strength / 2 · ‖w - w₀‖²` over the weights that are trained when it is made.

    Parameters
    ----------
    encoder : nn.Module
        With its pretrained weights, those to train already chosen.
    strength : float
        α.

    Raises
    ------
    ConfigError
        If none of the encoder's weights is trained: an adapter leaves them where they are.

    Example
    -------
    >>> layer = nn.Linear(2, 1)
    >>> control = L2SP(layer, strength=0.5)
    >>> with torch.no_grad():
    ...     _ = layer.bias.add_(2.0)
    >>> control().item()
    1.0
    """

    def __init__(self, encoder: nn.Module, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self._trained = _trained(encoder, type(self).__name__)
        for number, parameter in enumerate(self._trained.values()):
            self.register_buffer(f"start_{number}", parameter.detach().clone(), persistent=False)

    def forward(self) -> Tensor:
        """The term, ()."""
        total = sum(self._weighed(name, (w - start).square()).sum() for name, w, start in self._pairs())
        return 0.5 * self.strength * torch.as_tensor(total)

    def _weighed(self, name: str, squares: Tensor) -> Tensor:
        return squares

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        for number, (name, parameter) in enumerate(self._trained.items()):
            yield name, parameter, getattr(self, f"start_{number}").to(parameter.device)


class EWC(L2SP):
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017, eq. 3).

    `strength / 2 · Σ Fᵢ (wᵢ - w₀ᵢ)²`: weights that the old task needs are held, the others are free.

    F is scaled to a mean of 1 over the weights that are held, so that `strength` means what it means for `L2SP`: where
    all weights move equally far, the terms are equal. Unscaled, F depends on the size of the encoder and on the old
    loss, a mean over frames: that of sm-tiny and its pretraining has a mean near 1e-6, with which a λ of 100 holds
    nothing.

    Parameters
    ----------
    encoder : nn.Module
        As for `L2SP`.
    strength : float
        λ, for the scaled F.
    importance : mapping of str to Tensor
        F, from `fisher` on the old task, by the encoder's names of its parameters.
    scaled : bool
        False: F as it is given, as in eq. 3, for a λ that was chosen for it.

    Raises
    ------
    ConfigError
        As for `L2SP`, or if a trained weight has no importance of its shape, or if none has any.

    Example
    -------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> control = EWC(layer, strength=0.5, importance={"weight": torch.tensor([[3e-6, 1e-6]])})
    >>> with torch.no_grad():
    ...     _ = layer.weight.add_(2.0)
    >>> round(control().item(), 4)  # as L2SP's: 0.25 · (1.5 + 0.5) · 2²
    2.0
    """

    def __init__(
        self, encoder: nn.Module, strength: float, importance: Mapping[str, Tensor], scaled: bool = True
    ) -> None:
        super().__init__(encoder, strength)
        for name, parameter in self._trained.items():
            if name not in importance or importance[name].shape != parameter.shape:
                raise ConfigError(f"EWC: importance of {name} is missing or of another shape; estimate it by fisher()")
        held = {name: importance[name] for name in self._trained}
        self._importance = _to_mean_one(held) if scaled else held

    def _weighed(self, name: str, squares: Tensor) -> Tensor:
        return squares * self._importance[name].to(squares)


def _to_mean_one(importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    total = sum(float(values.double().sum()) for values in importance.values())
    mean = total / sum(values.numel() for values in importance.values())
    if not 0 < mean < float("inf"):
        raise ConfigError(f"EWC: importance has a mean of {mean}; expected a positive one, as fisher() estimates it")
    return {name: values / mean for name, values in importance.items()}


def fisher(
    encoder: nn.Module, loss_of: Callable[[Any], Tensor], batches: Iterable[Any], limit: int | None = None
) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information: the mean of squared gradients of the old task's loss.

    Parameters
    ----------
    encoder : nn.Module
        With its pretrained weights; its gradients are cleared.
    loss_of : callable
        Batch to loss (), of the pretext task or of a speech task.
    batches : iterable
        Of one utterance each: the square of a mean over utterances would be too small.
    limit : int, optional
        Stop after so many.

    Returns
    -------
    dict of str to Tensor
        By name, for each parameter that is trained.

    Raises
    ------
    ConfigError
        If there is no batch, or nothing to train.
    """
    trained = _trained(encoder, "fisher")
    found = {name: torch.zeros_like(parameter) for name, parameter in trained.items()}
    count = 0
    for batch in batches:
        encoder.zero_grad(set_to_none=True)
        loss_of(batch).backward()
        for name, parameter in trained.items():
            if parameter.grad is not None:
                found[name] += parameter.grad.square()
        count += 1
        if count == limit:
            break
    encoder.zero_grad(set_to_none=True)
    if not count:
        raise ConfigError("fisher: no batches; give utterances of the old task")
    return {name: square / count for name, square in found.items()}


class Replay:
    """The old task again: at each call the next batch of it, for ever (experience replay; Robins 1995).

    Parameters
    ----------
    loss_of : callable
        Batch to loss ().
    batches : iterable
        Begun anew when it ends, as a loader.
    strength : float
        What its loss counts beside the new task's.
    """

    def __init__(self, loss_of: Callable[[Any], Tensor], batches: Iterable[Any], strength: float = 1.0) -> None:
        self.loss_of, self.batches, self.strength = loss_of, batches, strength
        self._next: Iterator[Any] = iter(())

    def __call__(self) -> Tensor:
        """The term, ()."""
        for _ in range(2):
            for batch in self._next:
                return self.strength * self.loss_of(batch)
            self._next = iter(self.batches)
        raise ConfigError("replay: no batches; give utterances of the old task")


def _trained(encoder: nn.Module, name: str) -> dict[str, nn.Parameter]:
    found = {key: parameter for key, parameter in encoder.named_parameters() if parameter.requires_grad}
    if not found:
        raise ConfigError(
            f"{name}: no weight of the encoder is trained, so that there is none to hold; tune the weights"
        )
    return found
