"""Bottleneck adapters after the mixers and the feed-forwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.base import Adaptation
from lobes.adapters.sites import Site, like, site_at
from lobes.encoders import Block, FeedForward, MaskedConvolution
from lobes.errors import ConfigError

#: What may have a bottleneck after it, and the layer of Hugging Face's encoders that is the last of it.
_PLACES = {"mixer": "out", "ffn": "ffn_down", "convolution": "convolution"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Houlsby(Adaptation):
    """Bottlenecks after a layer's parts (Houlsby et al. 2019, "Parameter-Efficient Transfer Learning", figure 2).

    y + U φ(D y) between what a part gives and its residual, with D to m channels, φ = GELU, and U zero at the start.
    After a feed-forward alone (``targets: [ffn]``) it is the adapter of Pfeiffer et al. 2021. On HuBERT-base
    ``bottleneck: 32``, two to a layer, trains 1.270 %. A Conformer block of ours has two feed-forwards, hence three.

    Arguments
    ---------
    bottleneck : int
        Channels m.
    targets : list of str
        ``mixer``, ``ffn``, and in blocks of ours ``convolution``.
    """

    bottleneck: int = 32
    targets: Sequence[str] = ("mixer", "ffn")

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise ConfigError(f"{type(self).__name__}: bottleneck is {self.bottleneck}; expected 1 channel or more")

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        insert_bottlenecks(anatomy, name, type(self).__name__, self.targets, self.bottleneck)


class Bottleneck(nn.Module):
    """y + U GELU(D y) of each frame for itself: (..., D) to (..., D)."""

    def __init__(self, dim: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, bottleneck), nn.Linear(bottleneck, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, y: Tensor) -> Tensor:
        """Apply it."""
        return y + self.up(F.gelu(self.down(y)))


class AfterBranches(Site):
    """`lobes.encoders.Block.after`: a bottleneck for some of the branches of a block."""

    def forward(self, number: int, y: Tensor) -> Tensor:
        """What the part of that branch gave, adapted."""
        working = self.working
        return working[str(number)](y) if working is not None and str(number) in working else y


class AfterLayer(Site):
    """A bottleneck after a layer, hung on it as a hook."""

    def hook(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """The layer's output, adapted."""
        return None if self.working is None else self.working(output)


def insert_bottlenecks(anatomy: Anatomy, name: str, method: str, targets: Sequence[str], bottleneck: int) -> None:
    """Put bottlenecks after the parts of given roles."""
    wrong = [target for target in targets if target not in _PLACES]
    if wrong:
        raise ConfigError(f"{method}: target '{wrong[0]}'; expected some of {', '.join(_PLACES)}")
    if anatomy.foreign:
        roles = [_PLACES[target] for target in targets]
        for layer in anatomy.layers(method, roles):
            site, new = site_at(layer.module, "bottleneck_site", AfterLayer)
            weight: Any = layer.module.weight
            site.adapters[name] = like(Bottleneck(weight.shape[0], bottleneck), weight)
            if new:
                layer.module.register_forward_hook(site.hook)
        return
    places = [(block, str(number), role) for block in anatomy.blocks() for number, role in enumerate(_roles(block))]
    missing = [target for target in targets if target not in {role for _, _, role in places}]
    if missing or not places:
        has = ", ".join(dict.fromkeys(role for _, _, role in places)) or "no Block of ours"
        raise ConfigError(f"{method}: targets are {list(targets)}, but the encoder has {has}; change targets")
    for block in anatomy.blocks():
        numbers = [number for owner, number, role in places if owner is block and role in targets]
        if numbers:
            parts = nn.ModuleDict({number: Bottleneck(block.dim, bottleneck) for number in numbers})
            site_at(block, "after", AfterBranches)[0].adapters[name] = like(parts, anatomy.weight)


def _roles(block: Block) -> list[str]:
    kinds = {FeedForward: "ffn", MaskedConvolution: "convolution"}
    return [kinds.get(type(part), "mixer") for _, _, part in block.branches()]


def zero_initialised(layer: Any) -> Any:
    """A layer that gives nothing at the start."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer
