"""Attention of models from elsewhere, so computed that adapters are heard: WavLM's, and torchaudio's."""

from __future__ import annotations

import math
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def reads_weights(module: nn.Module) -> bool:
    """Whether it is an attention whose projections would not be heard if something stood in their place."""
    return hasattr(module, "torch_multi_head_self_attention") and hasattr(module, "gru_rel_pos_linear")


def call_projections(attention: Any) -> None:
    """Have WavLM's attention call its projections, and see keys and values of a ``prefix`` if it has one.

    Hugging Face's hands the weights of query, key, value and out to one function of PyTorch's, so that an adapter
    around these layers does nothing, without an error. What is computed is the same, to the last bit.
    """
    attention.torch_multi_head_self_attention = types.MethodType(_attend_with_bias, attention)


def is_torchaudio(module: nn.Module) -> bool:
    """Whether it is torchaudio's attention, which knows no prefix."""
    return type(module).__name__ == "SelfAttention" and type(module).__module__.startswith("torchaudio.")


def see_prefix(attention: Any) -> None:
    """Have torchaudio's attention see keys and values of its ``prefix``; without one it computes what it did."""
    attention.forward = types.MethodType(_attend, attention)


def _attend(self: Any, x: Tensor, attention_mask: Tensor | None = None, **unused: Any) -> tuple[Tensor, None]:
    """Scaled dot-product attention of frames (B, T, D), seeing what a mask (B, 1, T, T) has true."""
    query, key, value = (
        layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        for layer in (self.q_proj, self.k_proj, self.v_proj)
    )
    prefix = self.prefix()
    if prefix is not None:
        key, value, attention_mask = prefix.before(key, value, attention_mask)
    y = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=self.dropout if self.training else 0.0
    )
    return self.out_proj(y.transpose(1, 2).flatten(2)), None


def _attend_with_bias(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention with additive position bias (Chen et al. 2022, "WavLM", eq. 1-4).

    Arguments
    ---------
    hidden_states : Tensor
        (B, T, D).
    attention_mask : Tensor, optional
        (B, T), true at real frames.
    gated_position_bias : Tensor
        (B · H, T, T).

    Returns
    -------
    tuple[Tensor, Tensor]
        (B, T, D), and the mean weights of the heads (B, H, T, T), as Hugging Face gives them.
    """
    batch, n_frames, dim = hidden_states.shape
    # Time first, as PyTorch's function has it: other layouts round otherwise.
    by_time = hidden_states.transpose(0, 1)
    query, key, value = (
        layer(by_time).view(n_frames, batch * self.num_heads, self.head_dim).transpose(0, 1)
        for layer in (self.q_proj, self.k_proj, self.v_proj)
    )
    bias = gated_position_bias
    if attention_mask is not None:
        hidden = attention_mask.ne(1)[:, None, None, :].expand(-1, self.num_heads, -1, -1)
        bias = bias.masked_fill(hidden.reshape(batch * self.num_heads, 1, n_frames), -math.inf)
    prefix = self.prefix() if getattr(self, "prefix", None) is not None else None
    if prefix is not None:
        keys, values = (part.repeat(batch, 1, 1).to(key.dtype) for part in prefix)
        key, value = torch.cat((keys, key), dim=1), torch.cat((values, value), dim=1)
        bias = F.pad(bias, (keys.shape[1], 0))
    scaled = query * math.sqrt(1.0 / self.head_dim)
    weights = F.dropout(torch.baddbmm(bias, scaled, key.transpose(-2, -1)).softmax(-1), self.dropout, self.training)
    mixed = torch.bmm(weights, value).transpose(0, 1).reshape(n_frames * batch, dim)
    output = self.out_proj(mixed).view(n_frames, batch, dim).transpose(0, 1)
    means = weights.view(batch, self.num_heads, n_frames, -1).mean(1, keepdim=True)
    return output, means.expand(-1, self.num_heads, -1, -1)
