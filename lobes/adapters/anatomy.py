"""What parts an encoder has, by their role: of ours, whatever the mixer, and of Hugging Face's and torchaudio's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lobes.adapters.foreign import call_projections, reads_weights
from lobes.adapters.sites import Site, is_foreign, is_peft, pretrained_model, without_peft
from lobes.encoders import Block, EfficientNetV2, Encoder, FeedForward, MaskedConvolution, Stem
from lobes.encoders.block import ParallelMix
from lobes.encoders.efficientnet import FusedMBConv, PictureStem
from lobes.errors import ConfigError
from lobes.mixers import SDPA, Luna, MLPMixer, TokenMixer
from lobes.mixers.convolution import DepthwiseConvolution

#: What a layer, linear or of convolution, can be to an encoder.
ROLES = {
    "frontend": "what makes frames of a waveform or of features, before the first block",
    "mixer": "the token mixer: in attention, its query, key, value and out",
    "query": "attention's queries; SDPA and its like project queries, keys and values at once, and that one layer is "
    "what query, key and value name",
    "key": "attention's keys",
    "value": "attention's values",
    "out": "the mixer's last projection",
    "ffn": "the feed-forward, both layers",
    "ffn_up": "its first, widening layer",
    "ffn_down": "its second, narrowing layer",
    "convolution": "the convolution module of a block, and the convolutions of EfficientNetV2, ours",
}

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Names of the layers of attention, ours and Hugging Face's.
_ATTENTION = {
    "qkv": {"query", "key", "value"},
    **dict.fromkeys(("query", "q_proj", "linear_q"), {"query"}),
    **dict.fromkeys(("key", "k_proj", "linear_k"), {"key"}),
    **dict.fromkeys(("value", "v_proj", "linear_v"), {"value"}),
    **dict.fromkeys(("out", "out_proj", "o_proj", "linear_out"), {"out"}),
}
#: Layers whose weights their owner reads without calling them: what stands in their place would not be heard.
_READ_DIRECTLY = {MLPMixer: ("expand", "contract"), Luna: ("memory_key", "memory_value"), DepthwiseConvolution: None}
_FRONTEND = re.compile(r"(^|\.)(feature_extractor|feature_projection|patch_embeddings)\.")


class Layer(NamedTuple):
    """A layer of a pretrained encoder."""

    name: str
    """From the pretrained model on."""
    module: nn.Module
    """The pretrained layer itself, whatever stands around it."""
    parent: nn.Module
    roles: frozenset[str]


class Attention(NamedTuple):
    """Softmax attention, ours or foreign."""

    module: nn.Module
    """That computes it."""
    query: nn.Module
    """Layer of the queries; of ours, of keys and values too."""
    key: nn.Module
    value: nn.Module
    out: nn.Module
    num_heads: int
    fused: bool
    """Whether queries, keys and values are the thirds of one layer's output."""


class Anatomy:
    """The parts of an encoder.

    Arguments
    ---------
    encoder : nn.Module
        One of ours, a model of Hugging Face or of torchaudio, or a module that holds one.

    Attributes
    ----------
    encoder : nn.Module
        What was given.
    root : nn.Module
        The pretrained model itself.
    foreign : bool
        Whether that is Hugging Face's or torchaudio's.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder, self.root = encoder, pretrained_model(encoder)
        self.foreign = is_foreign(self.root)

    def layers(
        self, method: str, targets: Sequence[str], kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
    ) -> list[Layer]:
        """The layers of given roles and kinds, in the order of the encoder.

        Raises
        ------
        ConfigError
            If a role has none, naming the roles of the encoder that have some.
        """
        known = [layer for layer in self._all_layers() if isinstance(layer.module, kinds)]
        for target in targets:
            if not any(target in layer.roles for layer in known):
                raise ConfigError(f"{method}: {_no_target(target, known, self.root)}")
        found = [layer for layer in known if layer.roles & set(targets)]
        for parent in {layer.parent for layer in found if reads_weights(layer.parent)}:
            call_projections(parent)
        return found

    def attentions(self, method: str) -> list[Attention]:
        """All softmax attention, in the order of the encoder.

        Raises
        ------
        ConfigError
            If there is none, naming what has it.
        """
        found = list(self._own_attentions() if not self.foreign else self._foreign_attentions())
        if not found:
            raise ConfigError(
                f"{method}: {_kind(self.root)} has no softmax attention; expected an Encoder whose mixer is SDPA or "
                "LocalSDPA, or a Transformer of Hugging Face or torchaudio such as HubertModel or Wav2Vec2Model"
            )
        for attention in found:
            if reads_weights(attention.module):
                call_projections(attention.module)
        return found

    @property
    def weight(self) -> Tensor:
        """One of its weights: where and of what type they are."""
        layer: Any = next(self._all_layers(), None)
        if layer is not None:
            return layer.module.weight
        return next(chain(self.root.parameters(), self.root.buffers()), torch.zeros(0))

    def blocks(self) -> list[Block]:
        """Blocks of an encoder of ours; none of others."""
        return [module for module in self.root.modules() if isinstance(module, Block)]

    def block_of(self, attention: Attention) -> nn.Module:
        """The layer of the encoder that an attention belongs to: the least that has a feed-forward too."""
        feed_forwards = {id(layer.module) for layer in self._all_layers() if "ffn" in layer.roles}
        block = attention.module
        while not any(id(module) in feed_forwards for module in block.modules()):
            block = self.parent_of(block)
        return block

    def roles(self) -> dict[str, int]:
        """How many layers each role has."""
        counts = Counter(role for layer in self._all_layers() for role in layer.roles)
        return {role: counts[role] for role in ROLES if counts[role]}

    def parent_of(self, child: nn.Module) -> nn.Module:
        """The module that holds another."""
        return next(parent for parent in self.encoder.modules() if any(c is child for c in parent.children()))

    def _all_layers(self) -> Iterator[Layer]:
        for name, module, ancestors in _leaves(self.root, "", ()):
            roles = _foreign_roles(name) if self.foreign else _own_roles(name, ancestors)
            if roles:
                yield Layer(name, module, ancestors[-1], frozenset(roles))

    def _own_attentions(self) -> Iterator[Attention]:
        for mixer in self.root.modules():
            if isinstance(mixer, SDPA):
                qkv, out = without_peft(mixer.qkv), without_peft(mixer.out)
                yield Attention(mixer, qkv, qkv, qkv, out, mixer.num_heads, fused=True)

    def _foreign_attentions(self) -> Iterator[Attention]:
        layers = [layer for layer in self._all_layers() if "mixer" in layer.roles]
        for query in (layer for layer in layers if "query" in layer.roles):
            # Its own projections stand beside it; the last one may stand beside its parent.
            place = query.name.rpartition(".")[0]
            of = {role: _nearest(layers, place, role) for role in ("key", "value", "out")}
            heads = next(
                getattr(query.parent, n) for n in ("num_heads", "num_attention_heads") if hasattr(query.parent, n)
            )
            yield Attention(query.parent, query.module, of["key"], of["value"], of["out"], heads, fused=False)


def roles(encoder: nn.Module) -> dict[str, int]:
    """The roles that an encoder's layers have, which is what `targets` of a method may name, with their numbers.

    Example
    -------
    >>> from lobes.encoders import LogMel, PlainBlock, StackingStem
    >>> from lobes.mixers import SDPA
    >>> roles(Encoder(LogMel(), StackingStem(80, 16), 16, 2, SDPA, block=PlainBlock))
    {'frontend': 1, 'mixer': 4, 'query': 2, 'key': 2, 'value': 2, 'out': 2, 'ffn': 4, 'ffn_up': 2, 'ffn_down': 2}
    """
    return Anatomy(encoder).roles()


def _leaves(module: nn.Module, name: str, ancestors: tuple) -> Iterator[tuple[str, nn.Module, tuple]]:
    """Linear layers and convolutions with their names and ancestors, seen through what was put around them."""
    pretrained = without_peft(module)
    if isinstance(pretrained, _LAYERS):
        yield name, pretrained, ancestors
    elif not isinstance(module, Site) and not is_peft(module):
        for child_name, child in module.named_children():
            yield from _leaves(child, f"{name}.{child_name}" if name else child_name, (*ancestors, module))


def _own_roles(name: str, ancestors: tuple) -> set[str]:
    last = name.rpartition(".")[2]
    for ancestor in reversed(ancestors):
        for owner, names in _READ_DIRECTLY.items():
            if isinstance(ancestor, owner) and (names is None or last in names):
                return set()
        if isinstance(ancestor, (FeedForward, FusedMBConv)) and last in ("expand", "project"):
            return {"ffn", "ffn_up" if last == "expand" else "ffn_down"}
        if isinstance(ancestor, (TokenMixer, ParallelMix)):
            return {"mixer"} | _ATTENTION.get(last, set())
        if isinstance(ancestor, (Stem, PictureStem)):
            return {"frontend"}
        if isinstance(ancestor, (MaskedConvolution, FusedMBConv)):
            return {"mixer"} if last in ("squeeze", "excite") else {"convolution"}
    return set()


def _foreign_roles(name: str) -> set[str]:
    if re.search(r"(^|\.)decoder", name):
        return set()
    last = name.rpartition(".")[2]
    if name.endswith("attention.output.dense"):
        last = "out_proj"
    if last in _ATTENTION:
        return {"mixer"} | _ATTENTION[last]
    if last in ("intermediate_dense", "fc1") or name.endswith("intermediate.dense"):
        return {"ffn", "ffn_up"}
    if last in ("output_dense", "fc2") or name.endswith("output.dense"):
        return {"ffn", "ffn_down"}
    return {"frontend"} if _FRONTEND.search(name) else set()


def _nearest(layers: list[Layer], place: str, role: str) -> nn.Module:
    while True:
        for layer in layers:
            if role in layer.roles and layer.name.startswith(f"{place}."):
                return layer.module
        place = place.rpartition(".")[0]


def _no_target(target: str, known: list[Layer], root: nn.Module) -> str:
    if target not in ROLES:
        return f"target '{target}' is no role; expected some of {', '.join(ROLES)}"
    counts = Counter(role for layer in known for role in layer.roles)
    has = ", ".join(f"{role} ({counts[role]})" for role in ROLES if counts[role]) or "none at all"
    return f"no layer of {_kind(root)} that it can adapt is a '{target}'; expected targets among {has}"


def _kind(root: Any) -> str:
    if isinstance(root, Encoder):
        mixers = dict.fromkeys(type(block.mixer).__name__ for block in root.blocks)
        return f"an {type(root).__name__} of {', '.join(mixers) or 'no blocks'}"
    if isinstance(root, EfficientNetV2):
        return "EfficientNetV2"
    return type(root).__name__
