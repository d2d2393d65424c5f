"""A layer that runs at a lower frame rate: with one factor per layer, a temporal U-Net over any mixer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.block import Block
from lobes.mixers import Chunks


class RateBlock(nn.Module):
    """Runs a block on groups of frames, and adds what it changed to every frame of the group.

    Downsampling is Zipformer's (Yao et al. 2024, "Zipformer", section 3.2): a mean of each ``factor`` frames with
    learned weights that sum to one, here over the valid frames of the group. Upsampling repeats. The residual goes
    around all of it, y = x + up(block(down(x)) - down(x)), so that what a lower rate cannot carry passes untouched,
    and any layer can have any rate.

    Arguments
    ---------
    block : Block
        What runs at the lower rate.
    factor : int
        Frames of a group, 2 or more.
    """

    def __init__(self, block: Block, factor: int) -> None:
        super().__init__()
        self.block, self.factor = block, factor
        self.weights = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)."""
        if chunks is not None:
            chunks = Chunks(chunks.size // self.factor, None if chunks.left is None else chunks.left // self.factor)
        slow, slow_valid = self._down(x, valid)
        return x + self._up(self.block(slow, slow_valid, chunks) - slow, x.shape[1])

    @property
    def mixer(self) -> Any:
        """The block's."""
        return self.block.mixer

    @property
    def streamable(self) -> bool:
        """Whether `step` works."""
        return self.block.streamable

    @property
    def granularity(self) -> int:
        """The sizes of chunks are multiples of so many frames."""
        return self.factor * self.block.granularity

    def init_state(self, batch: int, left: int | None = None) -> Any:
        """State before the first chunk."""
        return self.block.init_state(batch, None if left is None else left // self.factor)

    def step(self, x: Tensor, valid: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next chunk (B, t, D), t a multiple of the factor but in the last chunk, and the new state."""
        slow, slow_valid = self._down(x, valid)
        y, state = self.block.step(slow, slow_valid, state)
        return x + self._up(y - slow, x.shape[1]), state

    def macs(self, n_frames: int) -> int:
        """For one utterance of ``n_frames`` frames."""
        return self.block.macs(-(-n_frames // self.factor))

    def state_floats(self) -> int:
        """Numbers of state per stream."""
        return self.block.state_floats()

    def _down(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) to (B, ceil(T / factor), D); a group is valid if its first frame is."""
        missing = -x.shape[1] % self.factor
        groups = F.pad(x.masked_fill(~valid[..., None], 0.0), (0, 0, 0, missing)).unflatten(1, (-1, self.factor))
        known = F.pad(valid, (0, missing)).unflatten(1, (-1, self.factor))
        weights = self.weights.softmax(0) * known
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
        return (groups * weights[..., None].to(x.dtype)).sum(2), known[..., 0]

    def _up(self, x: Tensor, n_frames: int) -> Tensor:
        return x.repeat_interleave(self.factor, dim=1)[:, :n_frames]
