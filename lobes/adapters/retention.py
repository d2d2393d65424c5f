"""What a tuned encoder has kept of the pretrained one: its representations, and its weights.

Four questions, of which two are answered here: are the frames of each layer still the same (`compare_layers`, on speech
and on the calls that it was tuned for), and how far, and in how many directions, have the weights moved
(`weight_change`)? The other two need a task: whether a probe on speech finds as much as before, and by how much the
pretext task's loss has risen. `interpolate` gives the encoders between the two, which trade one task for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lobes.errors import ConfigError
from lobes.evaluation.representations import LinearCKA, effective_rank


def compare_layers(
    before: nn.Module,
    after: nn.Module,
    batches: Iterable[Any],
    device: str | torch.device = "cpu",
    every: int = 1,
) -> list[LinearCKA]:
    """Linear CKA of each layer's frames between two encoders, over the same audio.

    Both run in evaluation mode without gradients, and are left in the mode in which they were.

    Parameters
    ----------
    before, after : nn.Module
        Keep the Encoder contract, with as many layers of the same frame rate; widths may differ.
    batches : iterable of batch
        With ``sig`` (waveforms (B, S), relative lengths (B,)) and ``group`` (B strings), such as a loader of
        `lobes.dataio.audio_dataset`.
    device : str or torch.device
        Where both run.
    every : int
        Take each n-th valid frame only; neighbours differ little.

    Returns
    -------
    list of LinearCKA
        One per layer, with `value()` and, over groups, `interval()`.

    Raises
    ------
    ConfigError
        If the encoders differ in their layers or frames.
    """
    found: list[LinearCKA] = []
    modes = {module: module.training for encoder in (before, after) for module in encoder.modules()}
    before.to(device).eval(), after.to(device).eval()
    try:
        for batch in batches:
            waveform, lengths = (part.to(device) for part in batch.sig)
            with torch.inference_mode():
                old, new = before(waveform, lengths), after(waveform, lengths)
            if len(old.layers) != len(new.layers) or old.valid.shape != new.valid.shape:
                raise ConfigError(
                    f"encoders: {len(old.layers)} layers of {old.valid.shape[1]} frames and {len(new.layers)} of "
                    f"{new.valid.shape[1]}, expected the same; compare an encoder with one that was tuned from it"
                )
            found = found or [LinearCKA() for _ in old.layers]
            for row, group in enumerate(batch.group):
                kept = old.valid[row].nonzero().squeeze(1)[::every]
                for cka, x, y in zip(found, old.layers, new.layers, strict=True):
                    cka.update(x[row, kept], y[row, kept], str(group))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found


class WeightChange(NamedTuple):
    """How a weight has moved."""

    name: str
    relative: float
    """‖ΔW‖ / ‖W‖, Frobenius."""
    effective_rank: float
    """Of ΔW (Roy & Vetterli 2007), 0 if it did not move; kernels count as out × (in · width), vectors as one row."""
    n_parameters: int


def weight_change(
    before: nn.Module | Mapping[str, Tensor], after: nn.Module | Mapping[str, Tensor]
) -> list[WeightChange]:
    """How far each weight is from where it was, and in how many directions it has moved.

    Parameters
    ----------
    before, after : nn.Module or mapping of str to Tensor
        An encoder or its `state_dict`. Weights that only one of them has (an adapter's own) are no change of these;
        merge first, where the method allows it, to see what an adapter amounts to.

    Returns
    -------
    list of WeightChange
        One for each floating-point weight that both have, in the order of `before`.

    Raises
    ------
    ConfigError
        If they have no weight in common, or one has another shape.
    """
    old, new = (weights(part) for part in (before, after))
    found = []
    for name in (name for name in old if name in new):
        w, moved = old[name].double(), new[name].double()
        if w.shape != moved.shape:
            raise ConfigError(f"{name}: shapes {tuple(w.shape)} and {tuple(moved.shape)}, expected the same")
        delta = moved - w
        norm = float(w.norm())
        relative = float(delta.norm()) / norm if norm else float("inf") if delta.any() else 0.0
        matrix = delta.reshape(len(delta), -1) if delta.ndim > 1 else delta.reshape(1, -1)
        rank = float(effective_rank(matrix)) if delta.any() else 0.0
        found.append(WeightChange(name, relative, rank, w.numel()))
    if not found:
        raise ConfigError("weights: the two have none in common; compare an encoder with one that was tuned from it")
    return found


def total_change(before: nn.Module | Mapping[str, Tensor], after: nn.Module | Mapping[str, Tensor]) -> float:
    """‖Δw‖ / ‖w‖ of all weights that both have, as one vector."""
    old, new = (weights(part) for part in (before, after))
    common = [name for name in old if name in new]
    moved = sum(float((new[name].double() - old[name].double()).square().sum()) for name in common)
    size = sum(float(old[name].double().square().sum()) for name in common)
    return (moved / size) ** 0.5 if size else 0.0


def interpolate(
    before: nn.Module | Mapping[str, Tensor], after: nn.Module | Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Weights ``(1 - share) · before + share · after``: WiSE-FT (Wortsman et al., CVPR 2022, eq. 1).

    Parameters
    ----------
    before, after : nn.Module or mapping of str to Tensor
        With the same weights.
    share : float
        0 gives `before`, 1 `after`, exactly.

    Returns
    -------
    dict of str to Tensor
        For `load_state_dict(strict=False)`, in the types of `before`.

    Raises
    ------
    ConfigError
        If their weights differ in name or shape: an adapter has to be merged first.
    """
    old, new = (weights(part) for part in (before, after))
    different = {name for name in old.keys() | new.keys() if name not in old or name not in new}
    different |= {name for name in old.keys() & new.keys() if old[name].shape != new[name].shape}
    if different:
        raise ConfigError(
            f"interpolate: {len(different)} weights are not in both, {min(different)} first; merge the adapter, or "
            "take an encoder that was fine-tuned"
        )
    ends = {0.0: old, 1.0: new}
    if share in ends:
        return {name: w.clone() for name, w in ends[share].items()}
    return {name: torch.lerp(w.double(), new[name].double(), share).to(w.dtype) for name, w in old.items()}


def weights(encoder: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Its floating-point parameters and buffers, by name, on the CPU."""
    state = encoder.state_dict() if isinstance(encoder, nn.Module) else encoder
    return {name: w.detach().cpu() for name, w in state.items() if isinstance(w, Tensor) and w.is_floating_point()}
