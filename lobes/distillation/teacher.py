"""Teachers: frozen encoders, some of whose layers a student is to predict."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lobes.encoders import absolute_lengths, frame_mask
from lobes.errors import ConfigError


class Targets(NamedTuple):
    """What a teacher says of a batch."""

    layers: list[Tensor]
    """Per layer (B, T, D), float32."""
    valid: Tensor
    """(B, T), bool."""


class Teacher(nn.Module):
    """An encoder that is not trained, and which of its layers count.

    Parameters
    ----------
    encoder : nn.Module
        Keeps the Encoder contract: one of ours, or a model from elsewhere behind it. So what it says of an utterance
        does not depend on its batch, and targets that were computed once, alone, are those of any batch.
    layers : sequence of int
        Negative ones count from the last.

    Raises
    ------
    ConfigError
        There is no such layer, or the layers have different widths.

    Attributes
    ----------
    dim : int
        Width of its layers.
    frame_rate, sample_rate : float, int
        Hz.
    """

    def __init__(self, encoder: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        dims: list[int] = list(encoder.layer_dims)  # type: ignore[arg-type]
        wrong = [layer for layer in layers if not -len(dims) <= layer < len(dims)]
        if not layers or wrong:
            raise ConfigError(
                f"teacher: layers {list(layers)}; it has {len(dims)}, the first is 0 (what its blocks begin with)"
            )
        self.layers = [layer % len(dims) for layer in layers]
        if len({dims[layer] for layer in self.layers}) > 1:
            raise ConfigError(
                f"teacher: layers {self.layers} have widths {[dims[i] for i in self.layers]}; choose equals"
            )
        self.encoder = encoder.requires_grad_(False).eval()
        self.dim = dims[self.layers[0]]
        self.frame_rate = float(encoder.frame_rate)  # type: ignore[arg-type]
        self.sample_rate = int(encoder.sample_rate)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Teacher:
        """As for every module, but it stays in evaluation mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Targets:
        """Targets of waveforms (B, samples) of relative lengths (B,)."""
        output = self.encoder(waveform, lengths)
        return Targets([output.layers[layer].float() for layer in self.layers], output.valid)

    def fingerprint(self) -> str:
        """SHA-256 of what its targets depend on: class, weights and buffers, layers, rates."""
        digest = hashlib.sha256(f"{type(self.encoder).__qualname__} {self.layers} {self.sample_rate}".encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            data = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def cached_targets(batch: Any) -> Targets | None:
    """The targets that a dataset has put into a batch (`TargetCache.attach`), if it has."""
    if not hasattr(batch, "targets"):
        return None
    values, lengths = batch.targets
    valid = frame_mask(absolute_lengths(lengths, values.shape[1]), values.shape[1])
    return Targets(list(values.float().unbind(2)), valid)
