"""Learned keys and values that every frame attends to."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from lobes.adapters.anatomy import Anatomy, Attention
from lobes.adapters.base import Adaptation
from lobes.adapters.foreign import is_torchaudio, reads_weights, see_prefix
from lobes.adapters.sites import Site, like, site_at
from lobes.errors import ConfigError
from lobes.mixers.attention import Prefix

#: The name under which Hugging Face's models find attention with prefixes.
_INTERFACE = "lobes_prefix"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixTuning(Adaptation):
    """Learned keys and values before those of the frames (Li & Liang 2021, "Prefix-Tuning", section 4.2).

    Every real frame of every layer sees them, and no frame's position matters to them, so that they work in chunks and
    streams. They are learned themselves, without the paper's network in front of them, which only helps to train long
    prefixes and is dropped in the end. It does not begin as the pretrained encoder: the prefix takes its share of
    attention from the first step on. On HuBERT-base ``length: 10`` trains .195 %.

    It is for attention: `SDPA` and `LocalSDPA` of ours, WavLM, torchaudio's Wav2Vec2 and HuBERT, and Hugging Face's
    Transformers that use its attention interface with ``sdpa``.

    Arguments
    ---------
    length : int
        Keys and values P of each layer.
    std : float
        Deviation of keys and values at the start.
    """

    length: int = 10
    std: float = 0.02

    @property
    def identity(self) -> bool:
        """Not so: a prefix takes attention away from frames."""
        return False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"PrefixTuning: length is {self.length}; expected 1 or more")

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        attentions = anatomy.attentions("PrefixTuning")
        kind = attentions[0].module
        if anatomy.foreign and not reads_weights(kind) and not is_torchaudio(kind):
            _use_interface(anatomy.root)
        for attention in attentions:
            site, _ = site_at(attention.module, "prefix", PrefixSite)
            if is_torchaudio(attention.module):
                see_prefix(attention.module)
            prefix = KeysAndValues(*head_shape(attention), self.length, self.std)
            site.adapters[name] = like(prefix, attention.out.weight)  # type: ignore[arg-type]


class KeysAndValues(nn.Module):
    """P keys and P values of each head: (H, P, d) each."""

    def __init__(self, num_heads: int, width: int, length: int, std: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(num_heads, length, width) * std)
        self.values = nn.Parameter(torch.randn(num_heads, length, width) * std)


class PrefixSite(Site):
    """The ``prefix`` of an attention."""

    def forward(self) -> Prefix | None:
        """The keys and values that all frames see."""
        return None if self.working is None else Prefix(self.working.keys, self.working.values)


def head_shape(attention: Attention) -> tuple[int, int]:
    """Heads, and the width of one."""
    inside: Any = attention.out
    return attention.num_heads, inside.in_features // attention.num_heads


def _use_interface(root: Any) -> None:
    """Have a model of Hugging Face look for prefixes in its attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    implementation = root.config._attn_implementation
    positions = getattr(root.config, "position_embeddings_type", None) or ""
    if positions.startswith("relative"):
        raise ConfigError(
            f"PrefixTuning: position_embeddings_type of {type(root).__name__} is '{positions}', which gives a prefix "
            "none; expected another encoder, or LLaMAAdapter"
        )
    if implementation == _INTERFACE:
        return
    if implementation != "sdpa" or not root._can_set_attn_implementation():
        raise ConfigError(
            f"PrefixTuning: attn_implementation of {type(root).__name__} is '{implementation}'; expected 'sdpa' in a "
            "model that uses the attention interface of transformers: load it with attn_implementation='sdpa'"
        )
    AttentionInterface.register(_INTERFACE, _attend_with_prefix)
    AttentionMaskInterface.register(_INTERFACE, sdpa_mask)
    root.config._attn_implementation = _INTERFACE


def _attend_with_prefix(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Hugging Face's ``sdpa``, with the prefix of the module before keys and values (B, H, T, d)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    site = getattr(module, "prefix", None)
    prefix = site() if isinstance(site, PrefixSite) else None
    if prefix is not None:
        key, value, attention_mask = prefix.before(key, value, attention_mask)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
