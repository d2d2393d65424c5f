"""Scaled dot-product attention with rotary positions: the honest baseline of every efficient mixer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.attention import Prefix, positioned, window_block, windowed_attention
from lobes.mixers.base import Chunks, TokenMixer


class SDPAState(NamedTuple):
    """What a stream keeps: the last L frames' keys (before rotation), values and validity."""

    keys: Tensor  # (B, H, L, D/H)
    values: Tensor  # (B, H, L, D/H)
    valid: Tensor  # (B, L), bool


class SDPA(TokenMixer):
    """Multi-head self-attention (Vaswani et al. 2017, eq. 1) through PyTorch's fused kernels, with RoPE.

    Padded keys are masked out. Over a whole utterance the cost grows with T². In chunks a frame sees its chunk and
    ``left_context`` frames before it, in the causal form itself and as many: a stream keeps that many keys and values,
    and the cost grows with T.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads; D / num_heads must be even.
    causal : bool
        See the past only.
    left_context : int
        Frames of the past that a frame sees in chunks or in the causal form.
    dropout : float
        Dropout of attention weights in training.

    Attributes
    ----------
    prefix : nn.Module, optional
        Gives a `Prefix`, or None: keys and values that every frame sees besides. None but where `lobes.adapters` has
        put something here.

    Example
    -------
    >>> mixer = SDPA(8, num_heads=2)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(
        self, dim: int, num_heads: int = 4, causal: bool = False, left_context: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__(dim)
        if dim % (2 * num_heads):
            raise ConfigError(f"SDPA: dim {dim} is not a multiple of 2 * num_heads = {2 * num_heads}; change either")
        self.num_heads, self.left_context, self.dropout = num_heads, left_context, dropout
        self.causal = causal
        # torch.export pins the number of windows: their step is exported instead.
        self.exportable = not causal
        self.prefix: nn.Module | None
        self.register_module("prefix", None)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Attend over each utterance's real frames. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        query, key, value = self._heads(x, valid)
        query, key, prefix = positioned(query, key, self._prefix())
        if self.causal or chunks is not None:
            size = 1 if self.causal or chunks is None else chunks.size
            left = self._left(chunks.left if chunks else None)
            y = windowed_attention(query, key, value, valid, left, size, self._dropout, prefix)
            return self._project(y, valid)
        return self._project(self._attend_whole(query, key, value, valid, prefix), valid)

    def init_state(self, batch: int, left: int | None = None) -> SDPAState:
        """An empty past for ``batch`` streams; see `TokenMixer.init_state`."""
        kept = self._left(left)
        empty = self.out.weight.new_zeros(batch, self.num_heads, kept, self.dim // self.num_heads)
        return SDPAState(empty, empty.clone(), empty.new_zeros(batch, kept, dtype=torch.bool))

    def step(self, x: Tensor, valid: Tensor, state: SDPAState) -> tuple[Tensor, SDPAState]:
        """Attend from a chunk (B, t, D) to itself and the kept past; see `TokenMixer.step`."""
        query, key, value = self._heads(x, valid)
        keys, values = torch.cat((state.keys, key), dim=2), torch.cat((state.values, value), dim=2)
        known = torch.cat((state.valid, valid), dim=1)
        kept = state.keys.shape[2]
        # Rotating from the start of the window, not of the stream, keeps the angles small for ever.
        rotated, rotated_keys, prefix = positioned(query, keys, self._prefix(), start=kept)
        visible = known[:, None, None, :]
        if self.causal:
            behind = (
                torch.arange(x.shape[1], device=x.device)[:, None] + kept - torch.arange(keys.shape[2], device=x.device)
            )
            visible = visible & (behind >= 0) & (behind <= kept)
        y = self._project(_attend(rotated, rotated_keys, values, visible, 0.0, prefix), valid)
        last = slice(keys.shape[2] - kept, None)
        return y, SDPAState(keys[:, :, last], values[:, :, last], known[:, last])

    def macs(self, n_frames: int) -> int:
        """4 T D² for the projections, 2 T² D for attention (causal: 4 D w for each frame, in blocks of w)."""
        projections = 4 * n_frames * self.dim**2
        if not self.causal:
            return projections + 2 * n_frames**2 * self.dim
        block = window_block(n_frames, self.left_context, 1)
        return projections + 4 * -(-n_frames // block) * block**2 * self.dim

    def state_floats(self) -> int:
        """Keys and values of ``left_context`` frames, and their validity."""
        return self.left_context * (2 * self.dim + 1)

    @property
    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0

    def _left(self, left: int | None) -> int:
        return self.left_context if left is None else min(self.left_context, left)

    def _prefix(self) -> Prefix | None:
        return None if self.prefix is None else self.prefix()

    def _heads(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # A weight of zero does not silence a padded NaN: 0 · NaN is NaN.
        x = x.masked_fill(~valid[..., None], 0.0)
        split = self.qkv(x).unflatten(-1, (3, self.num_heads, self.dim // self.num_heads))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        return query, key, value

    def _attend_whole(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor, prefix: Prefix | None) -> Tensor:
        return _attend(query, key, value, valid[:, None, None, :], self._dropout, prefix)

    def _project(self, y: Tensor, valid: Tensor) -> Tensor:
        return self.out(y.transpose(1, 2).flatten(2)).masked_fill(~valid[..., None], 0.0)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, dropout: float, prefix: Prefix | None
) -> Tensor:
    if prefix is not None:
        key, value, visible = prefix.before(key, value, visible)
    # A query with nothing to see (an utterance of no frames) would be 0/0: let it see all, its output is dropped.
    visible = visible | ~visible.any(-1, keepdim=True)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
