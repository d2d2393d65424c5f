"""Time cut into fixed blocks: what mixers have in common that mix so many frames and no other number of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lobes.errors import ConfigError


def checked_block(name: str, block: int) -> int:
    """The block of the mixer of that name, once it is certain that it is one."""
    if block < 1:
        raise ConfigError(f"{name}: block is {block}; expected a positive number of frames")
    return block


def in_blocks(x: Tensor, valid: Tensor, block: int) -> Tensor:
    """Cut (B, T, D) into (B ceil(T / block), block, D), zero where not valid and past the last frame.

    Example
    -------
    >>> in_blocks(torch.ones(1, 3, 1), torch.tensor([[True, True, False]]), 2)[..., 0]
    tensor([[1., 1.],
            [0., 0.]])
    """
    n_frames = x.shape[1]
    # torch.export takes one block for another case than several, so a length left open makes two at least. Nor does it
    # see that whole blocks can be viewed as blocks, or cut from: hence `unfold`, and padding by less than nothing.
    n_blocks = n_frames // block + 2 if isinstance(n_frames, torch.SymInt) else -(-n_frames // block)
    missing = n_blocks * block - n_frames
    x = F.pad(x, (0, 0, 0, missing)).masked_fill_(~F.pad(valid, (0, missing))[..., None], 0.0)
    return x.unfold(1, block, block).flatten(0, 1).transpose(1, 2) if n_frames else x.new_zeros(0, block, x.shape[2])


def from_blocks(blocks: Tensor, valid: Tensor) -> Tensor:
    """Back to (B, T, D), zero where not valid."""
    y = blocks.reshape(valid.shape[0], -1, blocks.shape[2])
    return F.pad(y, (0, 0, 0, valid.shape[1] - y.shape[1])).masked_fill_(~valid[..., None], 0.0)
