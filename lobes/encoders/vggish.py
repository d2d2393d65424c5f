"""VGGish: the convolutional network of AudioSet's first features, on windows of 0.96 s."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lobes.encoders.filterbank import VGGishMel
from lobes.encoders.hf_source import load_state
from lobes.encoders.pictures import PictureEncoder
from lobes.errors import ConfigError

FRAMES, BANDS = 96, 64


class VGGish(PictureEncoder):
    """A VGG of 3 x 3 convolutions on 96 frames of 64 mel bands (Hershey et al. 2017, section 3.2, and its release).

    The released network is VGG's configuration A with four groups of convolutions: 64, 128, 256 twice and 512 twice
    channels, a maximum over 2 x 2 after each group, two linear maps of width 4096 and one of 128, whose output before
    any activation is the embedding: 72,141,184 weights. Layers are the means over the picture after each group, and
    the embedding, which is also ``frames``.

    Arguments
    ---------
    weights : str or Path, optional
        ``.safetensors`` or ``.pth`` with the names of the release's port to PyTorch (``features.0.weight`` to
        ``embeddings.4.bias``, linear maps reading time, bands, channels); random weights without.
    hop : float
        Seconds from window to window.
    channels : list of int
        Channels of the four groups.
    hidden, dim : int
        Widths of the linear maps.
    layers : list of int, optional
        Which layers to give, from 0; by default all, the last of which, 4 or -1, is the embedding. A probe that weights
        layers, and one that chooses among them, need layers of one width.
    frozen : str
        As for `HuggingFaceEncoder`.

    Raises
    ------
    ConfigError
        There is no such layer, or not four groups.

    Example
    -------
    >>> import torch
    >>> encoder = VGGish(channels=[4, 8, 8, 8], hidden=16, dim=12)
    >>> output = encoder(torch.randn(2, 32000), torch.tensor([1.0, 0.4]))
    >>> output.frames.shape, output.valid.sum(1), encoder.layer_dims
    (torch.Size([2, 3, 12]), tensor([3, 1]), [4, 8, 8, 8, 12])
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        hop: float = 0.96,
        channels: Sequence[int] = (64, 128, 256, 512),
        hidden: int = 4096,
        dim: int = 128,
        layers: Sequence[int] | None = None,
        frozen: str = "nothing",
    ) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ConfigError(f"VGGish: channels is {list(channels)}; expected four numbers")
        self.model = _Network(channels, hidden, dim)
        if weights is not None:
            load_state(self.model, weights, "features.0.weight")
        widths = [*channels, dim]
        chosen = range(len(widths)) if layers is None else layers
        if not chosen or not all(-len(widths) <= layer < len(widths) for layer in chosen):
            raise ConfigError(
                f"VGGish: layers is {list(chosen)}; expected some of 0 to {len(widths) - 1}, or None for all"
            )
        self.layers = [layer % len(widths) for layer in chosen]
        self.channels, self.hidden, self.dim = list(channels), hidden, dim
        self.layer_dims = [widths[layer] for layer in self.layers]
        self.set_up(VGGishMel(), math.log(0.01), 0.0, 1.0, FRAMES / 100, hop, frozen)

    def arguments(self) -> dict[str, Any]:
        """See `UpstreamEncoder.arguments`."""
        sizes = {"channels": self.channels, "hidden": self.hidden, "dim": self.dim, "layers": self.layers}
        return {**sizes, "hop": 1 / self.frame_rate, "frozen": self.frozen}

    def look(self, pictures: Tensor) -> list[Tensor]:
        """See `PictureEncoder.look`."""
        *groups, embedding = self.model(pictures)
        known = [*(x.mean((2, 3)) for x in groups), embedding]
        return [*(known[layer] for layer in self.layers), embedding]

    def picture_macs(self) -> int:
        """See `PictureEncoder.picture_macs`."""
        total, positions = 0, FRAMES * BANDS
        for module in self.model.features:
            if isinstance(module, nn.Conv2d):
                total += positions * 9 * module.in_channels * module.out_channels
            elif isinstance(module, nn.MaxPool2d):
                positions //= 4
        maps = (module for module in self.model.embeddings if isinstance(module, nn.Linear))
        return total + sum(module.in_features * module.out_features for module in maps)

    def front_end(self) -> Iterable[nn.Module]:
        """See `UpstreamEncoder.front_end`: the convolutions."""
        return [self.model.features]


class _Network(nn.Module):
    """(N, 96, 64) pictures to the (N, C, T, F) after each group and the (N, D) embedding."""

    def __init__(self, channels: Sequence[int], hidden: int, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width, depth in zip(channels, (1, 1, 2, 2), strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        flat = (FRAMES // 16) * (BANDS // 16) * before
        maps = [nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, dim)]
        self.embeddings = nn.Sequential(*maps)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x, groups = pictures[:, None], []
        for module in self.features:
            x = module(x)
            if isinstance(module, nn.MaxPool2d):
                groups.append(x)
        return [*groups, self.embeddings(x.permute(0, 2, 3, 1).flatten(1))]
