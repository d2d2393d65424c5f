"""Scaled dot-product attention with rotary positions: the honest baseline of every efficient mixer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import TokenMixer


class SDPAState(NamedTuple):
    """What a stream keeps: the last L frames' keys (before rotation), values and validity."""

    keys: Tensor  # (B, H, L, D/H)
    values: Tensor  # (B, H, L, D/H)
    valid: Tensor  # (B, L), bool


def rotate(x: Tensor, start: int = 0, base: float = 10000.0) -> Tensor:
    """Rotary position embedding (Su et al. 2021, "RoFormer", eq. 34) along the next-to-last axis.

    Angles are computed in float64, so that long recordings lose nothing to rounding.

    Arguments
    ---------
    x : Tensor
        (..., T, d) with even d.
    start : int
        Position of the first frame; the others follow.
    base : float
        Wavelengths run from 2 pi to 2 pi * base frames.

    Returns
    -------
    Tensor
        (..., T, d). Products of rotated queries and keys depend on the difference of their positions alone.
    """
    n_frames, half = x.shape[-2], x.shape[-1] // 2
    rate = base ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angle = torch.arange(start, start + n_frames, device=x.device, dtype=torch.float64)[:, None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class SDPA(TokenMixer):
    """Multi-head self-attention (Vaswani et al. 2017, eq. 1) through PyTorch's fused kernels, with RoPE.

    Cost grows with T². Padded keys are masked out; in the causal form a frame sees itself and ``left_context``
    frames before it, and a stream keeps that many keys and values.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads; D / num_heads must be even.
    causal : bool
        See the past only.
    left_context : int
        Frames of the past that a frame sees in the causal form.
    dropout : float
        Dropout of attention weights in training.

    Example
    -------
    >>> mixer = SDPA(8, num_heads=2)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self, dim: int, num_heads: int = 4, causal: bool = False, left_context: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__(dim)
        if dim % (2 * num_heads):
            raise ConfigError(f"SDPA: dim {dim} is not a multiple of 2 * num_heads = {2 * num_heads}; change either")
        self.num_heads, self.left_context, self.dropout = num_heads, left_context, dropout
        self.causal = self.streamable = causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Attend over each utterance's real frames. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        query, key, value = self._heads(x, valid)
        visible = valid[:, None, None, :]
        if self.causal:
            visible = visible & self._band(x.shape[1], x.shape[1], x.device)
        return self._attend(rotate(query), rotate(key), value, visible, valid)

    def init_state(self, batch: int) -> SDPAState:
        """An empty past for ``batch`` streams."""
        if not self.streamable:
            return super().init_state(batch)
        empty = self.out.weight.new_zeros(batch, self.num_heads, self.left_context, self.dim // self.num_heads)
        return SDPAState(empty, empty, empty.new_zeros(batch, self.left_context, dtype=torch.bool))

    def step(self, x: Tensor, valid: Tensor, state: SDPAState) -> tuple[Tensor, SDPAState]:
        """Attend from a chunk (B, t, D) to itself and the kept past; see `TokenMixer.step`."""
        if not self.streamable:
            return super().step(x, valid, state)
        query, key, value = self._heads(x, valid)
        keys, values = torch.cat((state.keys, key), dim=2), torch.cat((state.values, value), dim=2)
        known = torch.cat((state.valid, valid), dim=1)
        # Rotating from the start of the window, not of the stream, keeps the angles small for ever.
        rotated = rotate(query, start=keys.shape[2] - query.shape[2])
        visible = known[:, None, None, :] & self._band(query.shape[2], keys.shape[2], x.device)
        y = self._attend(rotated, rotate(keys), values, visible, valid)
        kept = slice(keys.shape[2] - self.left_context, None)
        return y, SDPAState(keys[:, :, kept], values[:, :, kept], known[:, kept])

    def macs(self, n_frames: int) -> int:
        """4 T D² for the projections and 2 T² D for the attention (T · left_context in the causal form)."""
        seen = min(n_frames, self.left_context + 1) if self.causal else n_frames
        return 4 * n_frames * self.dim**2 + 2 * n_frames * seen * self.dim

    def state_floats(self) -> int:
        """Keys and values of ``left_context`` frames, and their validity."""
        return self.left_context * (2 * self.dim + 1) if self.streamable else 0

    def _heads(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # A weight of zero does not silence a padded NaN: 0 · NaN is NaN.
        x = x.masked_fill(~valid[..., None], 0.0)
        split = self.qkv(x).unflatten(-1, (3, self.num_heads, self.dim // self.num_heads))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        return query, key, value

    def _band(self, n_queries: int, n_keys: int, device: torch.device) -> Tensor:
        """(n_queries, n_keys), true where a query, aligned to the end of the keys, may look."""
        behind = (torch.arange(n_queries, device=device)[:, None] + n_keys - n_queries) - torch.arange(
            n_keys, device=device
        )
        return (behind >= 0) & (behind <= self.left_context)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor, valid: Tensor) -> Tensor:
        # A query with nothing to see (an utterance of no frames) would be 0/0: let it see all, its output is dropped.
        visible = visible | ~visible.any(-1, keepdim=True)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return self.out(y.transpose(1, 2).flatten(2)).masked_fill(~valid[..., None], 0.0)
