"""Stems: from features at 100 Hz to frames at the encoder's rate and width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError


class Stem(nn.Module, ABC):
    """What every stem is: features (B, T, F) to frames (B, ceil(T / factor), D), blind to padding.

    Attributes
    ----------
    n_features : int
        Features per frame F.
    dim : int
        Width D of the output.
    factor : int
        Subsampling.
    """

    def __init__(self, n_features: int, dim: int, factor: int) -> None:
        super().__init__()
        self.n_features, self.dim, self.factor = n_features, dim, factor

    @abstractmethod
    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample: (B, T, F), (B, T) -> (B, ceil(T / factor), D), zero where not valid, and its validity."""

    @abstractmethod
    def macs(self, n_frames: int) -> int:
        """Multiply-accumulates for ``n_frames`` feature frames."""

    def init_state(self, batch: int) -> Any:
        """State before the first chunk of ``batch`` streams; nothing by default."""
        return ()

    def step(self, features: Tensor, valid: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Subsample the next chunk (B, t, F) of each stream, t a multiple of the factor but in the last chunk.

        Returns
        -------
        tuple[Tensor, Tensor, Any]
            What `forward` gives, and the new state. By default `forward` sees no further than its groups of frames.
        """
        return *self(features, valid), state

    def state_floats(self) -> int:
        """Numbers of state per stream."""
        return 0


class StackingStem(Stem):
    """Stacks ``factor`` neighbouring feature frames and projects them: the cheapest subsampling there is.

    Arguments
    ---------
    n_features : int
        Features per frame F.
    dim : int
        Width D of the output.
    factor : int
        Subsampling, 4 or 8 as a rule.

    Example
    -------
    >>> frames, valid = StackingStem(80, 16)(torch.randn(1, 9, 80), torch.ones(1, 9, dtype=torch.bool))
    >>> frames.shape, valid.shape
    (torch.Size([1, 3, 16]), torch.Size([1, 3]))
    """

    def __init__(self, n_features: int, dim: int, factor: int = 4) -> None:
        super().__init__(n_features, dim, factor)
        self.project = nn.Linear(n_features * factor, dim)

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stem.forward`."""
        stacked, valid = stack_frames(features, valid, self.factor)
        return self.project(stacked).masked_fill(~valid[..., None], 0.0), valid

    def macs(self, n_frames: int) -> int:
        """See `Stem.macs`."""
        return -(-n_frames // self.factor) * self.factor * self.n_features * self.dim


def stack_frames(features: Tensor, valid: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Concatenate each ``factor`` frames; what the last group lacks, and what is padding, is zeros.

    Returns
    -------
    tuple[Tensor, Tensor]
        (B, ceil(T / factor), factor · F), and (B, ceil(T / factor)) bool, true where the group's first frame is real.
    """
    features = features.masked_fill(~valid[..., None], 0.0)
    missing = -features.shape[1] % factor
    stacked = F.pad(features, (0, 0, 0, missing)).unflatten(1, (-1, factor)).flatten(2)
    return stacked, valid[:, ::factor]


class ConvolutionStem(Stem):
    """Strided two-dimensional convolutions over time and mel bands, then a projection.

    Each layer halves time and bands; after the first, layers are depthwise-separable, as in FastConformer (Rekesh et
    al. 2023, section 2.1). Padding is set to zero before every layer, as the edge of a lone utterance is.

    Arguments
    ---------
    n_features : int
        Mel bands F.
    dim : int
        Width D of the output.
    factor : int
        Subsampling, a power of two: 4 or 8 as a rule.
    channels : int
        Channels of the convolutions.
    """

    def __init__(self, n_features: int, dim: int, factor: int = 4, channels: int = 64) -> None:
        super().__init__(n_features, dim, factor)
        n_layers = factor.bit_length() - 1
        if factor < 2 or factor != 2**n_layers:
            raise ConfigError(f"ConvolutionStem: factor is {factor}; expected a power of two such as 4 or 8")
        self.channels = channels
        self.layers = nn.ModuleList()
        for i in range(n_layers):
            layer = nn.Sequential(nn.Conv2d(channels if i else 1, channels, 3, 2, groups=channels if i else 1))
            if i:
                layer.append(nn.Conv2d(channels, channels, 1))
            self.layers.append(layer.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.project = nn.Linear(channels * -(-n_features // factor), dim)

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stem.forward`."""
        frames, valid, _ = self.step(features, valid, self.init_state(features.shape[0]))
        return frames, valid

    def init_state(self, batch: int) -> tuple[Tensor, ...]:
        """The frame before the first, which is zeros, for each layer: (B, channels, 1, bands)."""
        bands = [self.n_features]
        for _ in self.layers[1:]:
            bands.append(-(-bands[-1] // 2))
        weight = self.project.weight
        return tuple(weight.new_zeros(batch, self.channels if i else 1, 1, width) for i, width in enumerate(bands))

    def step(
        self, features: Tensor, valid: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """See `Stem.step`: each layer reaches one frame back, into the chunk before."""
        if features.shape[1] == 0:
            return features.new_zeros(len(features), 0, self.dim), valid, state
        x, last = features.masked_fill(~valid[..., None], 0.0)[:, None], []
        for layer, before in zip(self.layers, state, strict=True):
            valid = valid[:, ::2]
            last.append(x[:, :, -1:])
            # Behind the frame before, and before a frame of zeros where the number is odd.
            x = torch.cat((before.to(x.dtype), F.pad(x, (0, 0, 0, x.shape[2] % 2))), dim=2)
            x = F.relu(layer(F.pad(x, (1, 1)))).masked_fill(~valid[:, None, :, None], 0.0)
        frames = self.project(x.transpose(1, 2).flatten(2)).masked_fill(~valid[..., None], 0.0)
        return frames, valid, tuple(last)

    def state_floats(self) -> int:
        """One frame of each layer's input."""
        return sum(part[0].numel() for part in self.init_state(1))

    def macs(self, n_frames: int) -> int:
        """See `Stem.macs`."""
        total, frames, bands = 0, n_frames, self.n_features
        for i in range(len(self.layers)):
            frames, bands = -(-frames // 2), -(-bands // 2)
            total += frames * bands * self.channels * (9 if i == 0 else 9 + self.channels)
        return total + frames * bands * self.channels * self.dim
