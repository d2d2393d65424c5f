"""Teachers: frozen encoders, some of whose layers a student is to predict."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lobes.encoders import absolute_lengths, frame_mask
from lobes.errors import ConfigError

#: Attributes that say nothing of what a module computes in evaluation.
_OF_EVERY_MODULE = {*vars(nn.Module()), "gradient_checkpointing", "name_or_path", "source"}
#: Of a model's configuration: where it is from, and by which versions it was written.
_NOT_HEARD = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}


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
        """SHA-256 of what its targets depend on: classes and options, weights and buffers, layers, rates."""
        digest = hashlib.sha256(f"{self.layers} {self.sample_rate} {self.frame_rate}".encode())
        for name, module in self.encoder.named_modules():
            digest.update(f"{name} {type(module).__qualname__} {_options(module)}".encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            data = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {data.dtype} {tuple(data.shape)}".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _options(module: nn.Module) -> list[str]:
    """What a module was built with, as far as it is plain values, such as a number of heads, which no weight tells."""
    known = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    config = known.pop("config", None)  # of Hugging Face
    if hasattr(config, "to_dict"):
        known |= {f"config.{name}": value for name, value in config.to_dict().items() if name not in _NOT_HEARD}
    return sorted(f"{name}={value!r}" for name, value in known.items() if value is not None and _plain(value))


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int | float)


def cached_targets(batch: Any) -> Targets | None:
    """The targets that a dataset has put into a batch (`TargetCache.attach`), if it has."""
    if not hasattr(batch, "targets"):
        return None
    values, lengths = batch.targets
    valid = frame_mask(absolute_lengths(lengths, values.shape[1]), values.shape[1])
    return Targets(list(values.float().unbind(2)), valid)
