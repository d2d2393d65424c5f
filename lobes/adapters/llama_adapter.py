"""Gated attention prompts, and with them scales and biases of all linear layers: LLaMA-Adapter, versions 1 and 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.adapters.anatomy import Anatomy, Attention
from lobes.adapters.base import Adaptation
from lobes.adapters.prefix import head_shape
from lobes.adapters.sites import Site, like, site_at
from lobes.adapters.tuning import NORMS, own_parameters, tune
from lobes.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LLaMAAdapter(Adaptation):
    """Attention to learned prompts, faded in (Zhang et al. 2024, "LLaMA-Adapter", eq. 3-7).

    In each of the top layers P learned frames pass through its own frozen projections of keys and values. Frames attend
    to them in a softmax of their own, whose outcome is multiplied by tanh g and added to that of the attention to
    frames; each head has its gate g, zero at the start. Prompts have no position; they work in chunks and streams. On
    HuBERT-base ``length: 10`` in all layers trains .098 %.

    It is for attention, as `PrefixTuning`.

    Arguments
    ---------
    length : int
        Prompts P of each layer.
    layers : int, optional
        How many of the top layers get them; all by default.
    """

    length: int = 10
    layers: int | None = None

    def __post_init__(self) -> None:
        if self.length < 1 or (self.layers is not None and self.layers < 1):
            raise ConfigError(
                f"{type(self).__name__}: length is {self.length} and layers {self.layers}; expected 1 or more"
            )

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        attentions = anatomy.attentions(type(self).__name__)
        if self.layers is not None and self.layers > len(attentions):
            raise ConfigError(
                f"{type(self).__name__}: layers is {self.layers}; expected at most the encoder's {len(attentions)}"
            )
        for attention in attentions[-(self.layers or len(attentions)) :]:
            insert_prompts(attention, name, self.length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LLaMAAdapterV2(LLaMAAdapter):
    """`LLaMAAdapter`, with scales and biases of layers, and norms (Gao et al. 2023, "LLaMA-Adapter V2", section 3).

    Every linear layer of the blocks gets a learned scale and bias of its outputs, s ∘ (W x + b), one and zero at the
    start (eq. 2-3), and the norms inside the blocks train. Prompts pass through the projections without these. On
    HuBERT-base ``length: 10`` and ``layers: 8`` train .280 %: 61,536 parameters in prompts and gates of the top 8
    layers, 165,888 in scales and biases and 36,864 in norms of all.

    Arguments
    ---------
    length, layers
        As for `LLaMAAdapter`.
    """

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        super()._insert(anatomy, name)
        targets = [role for role in ("mixer", "ffn") if role in anatomy.roles()]
        for layer in anatomy.layers(type(self).__name__, targets):
            site, new = site_at(layer.module, "scale_site", ScaledLayer)
            weight: Any = layer.module.weight
            site.adapters[name] = like(ScaleAndBias(weight.shape[0]), weight)
            if new:
                # Before the hook that takes the queries.
                layer.module.register_forward_hook(site.hook, prepend=True)
        norms = _norms_inside(anatomy)
        tune(anatomy, name, [(place, m, a) for place, m, a in own_parameters(anatomy.root) if m in norms])


class GatedPrompts(nn.Module):
    """P prompts (P, D), and a gate of each head (H,)."""

    def __init__(self, dim: int, num_heads: int, length: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(length, dim))
        self.gates = nn.Parameter(torch.zeros(num_heads))


class GatedAttention(Site):
    """Attention to prompts beside an attention to frames, hung as hooks on its projections.

    Arguments
    ---------
    attention : Attention
        The one beside it.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        # In a list they are not this module's children: the encoder owns them.
        self._projections: list[Any] = [attention.query, attention.key, attention.value]
        self._fused = attention.fused
        self._queries: Tensor | None = None

    def keep_queries(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        """A hook on what gives the queries (B, T, D), or of queries, keys and values (B, T, 3 D)."""
        self._queries = None if self.working is None else self._thirds(output)[0]

    def add(self, layer: nn.Module, args: Any) -> tuple[Tensor] | None:
        """A hook on the last projection, with the outcome of the attention to frames on its way in: (B, T, D)."""
        queries, working = self._queries, self.working
        if working is None or queries is None:
            return None
        self._queries = None
        heads = len(working.gates)
        keys, values = self._keys_and_values(working.prompts)
        split = (part.unflatten(-1, (heads, -1)).transpose(-2, -3) for part in (queries, keys, values))
        query, key, value = split
        told = F.scaled_dot_product_attention(
            query, *(part.to(query.dtype).expand(len(query), -1, -1, -1) for part in (key, value))
        )
        gated = torch.tanh(working.gates).to(told.dtype)[:, None, None] * told
        # WavLM's comes with time first, and frames of all utterances in one axis.
        added = gated.transpose(1, 2).flatten(2).to(args[0].dtype)
        return (args[0] + added.reshape(args[0].shape),)

    def _keys_and_values(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Through the layer's own projections, which their hooks must not hear: (P, D) each."""
        if self._fused:
            _, key, value = self._projections[0].weight.chunk(3)
            _, key_bias, value_bias = self._projections[0].bias.chunk(3)
            return F.linear(prompts, key, key_bias), F.linear(prompts, value, value_bias)
        key, value = (F.linear(prompts, layer.weight, layer.bias) for layer in self._projections[1:])
        return key, value

    def _thirds(self, output: Tensor) -> Any:
        return output.chunk(3, dim=-1) if self._fused else (output,)


class ScaleAndBias(nn.Module):
    """s and b of s ∘ (y + b): (D,) each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))


class ScaledLayer(Site):
    """Scale and bias of a layer's output, hung on it as a hook."""

    def hook(self, layer: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """The layer's output, adapted."""
        working = self.working
        return None if working is None else ((output + working.bias) * working.scale).to(output.dtype)


def insert_prompts(attention: Attention, name: str, length: int) -> None:
    """Put gated prompts beside an attention."""
    site, new = site_at(attention.module, "gated_prompts", GatedAttention, attention)
    heads, width = head_shape(attention)
    site.adapters[name] = like(GatedPrompts(heads * width, heads, length), attention.out.weight)  # type: ignore[arg-type]
    if new:
        attention.query.register_forward_hook(site.keep_queries)
        attention.out.register_forward_pre_hook(site.add)


def _norms_inside(anatomy: Anatomy) -> set[nn.Module]:
    """Normalisation layers inside the blocks."""
    blocks: Sequence[nn.Module] = anatomy.blocks() or [
        anatomy.block_of(attention) for attention in anatomy.attentions("LLaMAAdapterV2")
    ]
    return {m for block in blocks for m in block.modules() if isinstance(m, NORMS)}
