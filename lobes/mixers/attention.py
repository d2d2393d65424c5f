"""What attention mixers share: rotary positions, prefixes, and attention within windows at linear cost."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lobes.mixers.running import exact


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
    # One turn is exact enough for float32, which every runtime has a cosine of.
    angle = (angle % (2 * math.pi)).to(exact(x.dtype))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Prefix(NamedTuple):
    """Keys and values that every query sees, wherever it is: those of `lobes.adapters.PrefixTuning`."""

    keys: Tensor
    """(H, P, d)."""
    values: Tensor
    """(H, P, d)."""

    def before(self, keys: Tensor, values: Tensor, visible: Any) -> tuple[Tensor, Tensor, Any]:
        """Put them before keys and values (..., H, K, d) of frames, which are visible (..., K), all of them if None.

        What is visible may be numbers that are added to scores instead of true and false.
        """
        keys, values = (
            torch.cat((mine.to(theirs.dtype).expand(*theirs.shape[:-2], -1, -1), theirs), dim=-2)
            for mine, theirs in zip(self, (keys, values), strict=True)
        )
        if visible is None:
            return keys, values, None
        return keys, values, F.pad(visible, (self.keys.shape[-2], 0), value=float(visible.dtype == torch.bool))


def positioned(
    query: Tensor, key: Tensor, prefix: Prefix | None, start: int = 0
) -> tuple[Tensor, Tensor, Prefix | None]:
    """Queries and keys (B, H, T, d) rotated to their positions, and the prefix fit to be put before them.

    A prefix has no position: its keys must meet queries that are not rotated. So both become twice as wide: frames'
    keys are zero in the second half, which is where the plain queries are, and the prefix' keys in the first.

    Arguments
    ---------
    query, key : Tensor
        (B, H, T, d); the queries are the last ones, from position ``start`` on.
    prefix : Prefix, optional
        Without one, nothing becomes wider.
    start : int
        Position of the first query; that of the first key is 0.
    """
    rotated, keys = rotate(query, start), rotate(key)
    if prefix is None:
        return rotated, keys, None
    width = query.shape[-1]
    # Attention divides by the root of the width, which is that of both halves.
    wide = math.sqrt(2.0) * torch.cat((rotated, query), dim=-1)
    return wide, F.pad(keys, (0, width)), prefix._replace(keys=F.pad(prefix.keys, (width, 0)))


def windowed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor,
    left: int,
    size: int,
    dropout: float = 0.0,
    prefix: Prefix | None = None,
) -> Tensor:
    """Attention of each frame to its chunk and the ``left`` frames before the chunk, at a cost linear in T.

    Frames are cut into blocks of whole chunks, no shorter than ``left``: then all that a block's frames see lies in
    the block and the one before it, and one call of the fused kernel serves all blocks.

    Arguments
    ---------
    query, key, value : Tensor
        (B, H, T, d), positions already in them.
    valid : Tensor
        (B, T), bool.
    left : int
        Frames before the chunk.
    size : int
        Frames of a chunk; 1 is causal attention.
    dropout : float
        Dropout of the weights.
    prefix : Prefix, optional
        What every frame sees besides.

    Returns
    -------
    Tensor
        (B, H, T, d), without meaning where not valid.
    """
    n_frames = query.shape[2]
    block = window_block(n_frames, left, size)
    keys, values, known = (
        pair_blocks(blocks(key, block)),
        pair_blocks(blocks(value, block)),
        pair_blocks(blocks(valid[:, None, :, None], block)),
    )
    of_query = torch.arange(block, 2 * block, device=query.device)[:, None]
    chunk = torch.div(of_query, size, rounding_mode="floor") * size
    of_key = torch.arange(2 * block, device=query.device)
    visible = (of_key >= chunk - left) & (of_key < chunk + size) & known.transpose(-1, -2)
    return attend_blocks(blocks(query, block), keys, values, visible, dropout, prefix)[:, :, :n_frames]


def window_block(n_frames: int, left: int, size: int) -> int:
    """Frames of a block of `windowed_attention`: whole chunks, no fewer than are seen, no more than there are."""
    return size * max(1, -(-min(max(left, 32), n_frames) // size))


def blocks(x: Tensor, block: int) -> Tensor:
    """Cut (B, H, T, d) into (B, ceil(T / block), H, block, d), filled up with zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % block)).unflatten(2, (-1, block)).transpose(1, 2)


def pair_blocks(x: Tensor, after: bool = False) -> Tensor:
    """Each block behind the one before it, with the next one if asked: (B, n, H, w, d) to (B, n, H, 2 w or 3 w, d)."""
    empty = torch.zeros_like(x[:, :1])
    parts = [torch.cat((empty, x[:, :-1]), dim=1), x]
    if after:
        parts.append(torch.cat((x[:, 1:], empty), dim=1))
    return torch.cat(parts, dim=3)


def attend_blocks(
    query: Tensor, keys: Tensor, values: Tensor, visible: Tensor, dropout: float, prefix: Prefix | None = None
) -> Tensor:
    """Attention within blocks.

    Arguments
    ---------
    query : Tensor
        (B, n, H, w, d).
    keys, values : Tensor
        (B, n, H, k, d).
    visible : Tensor
        (B, n, 1, w or 1, k), bool.
    dropout : float
        Dropout of the weights.
    prefix : Prefix, optional
        What every frame sees besides.

    Returns
    -------
    Tensor
        (B, H, n w, d).
    """
    batch = query.shape[0]
    if prefix is not None:
        keys, values, visible = prefix.before(keys, values, visible)
    # A query with nothing to see would be 0/0: let it see all, its output is dropped.
    visible = visible | ~visible.any(-1, keepdim=True)
    query, keys, values, visible = (t.flatten(0, 1) for t in (query, keys, values, visible))
    y = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible, dropout_p=dropout)
    return y.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
