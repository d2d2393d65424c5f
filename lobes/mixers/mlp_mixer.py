"""MLP-Mixer: a small perceptron along time instead of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.blocks import checked_block, from_blocks, in_blocks


class MLPMixer(TokenMixer):
    """Token mixing (Tolstikhin et al. 2021, "MLP-Mixer", eq. 1): Y = W2 gelu(W1 X) along time, alike for each feature.

    W1 and W2 (with biases) fix the number of frames, so time is cut into blocks of so many, the last one filled up
    with zeros. No information crosses from one block to another: a frame sees its block, and in an encoder the
    convolution carries on from there. It streams, keeping nothing, in chunks of whole blocks.

    Arguments
    ---------
    dim : int
        Width D.
    block : int
        Frames of a block.
    hidden : int
        Hidden units of the perceptron.

    Example
    -------
    >>> mixer = MLPMixer(8, block=4)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, block: int = 32, hidden: int = 64) -> None:
        super().__init__(dim)
        if hidden < 1:
            raise ConfigError(f"MLPMixer: hidden is {hidden}; expected a positive number of units")
        self.block, self.hidden = checked_block("MLPMixer", block), hidden
        self.expand = nn.Linear(block, hidden)
        self.contract = nn.Linear(hidden, block)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix the frames of each block. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        self._checked(chunks)  # chunks of whole blocks change nothing
        blocks = in_blocks(x, valid, self.block)
        y = _along_time(self.contract, F.gelu(_along_time(self.expand, blocks)))
        return from_blocks(y, valid)

    def init_state(self, batch: int, left: int | None = None) -> tuple[()]:
        """Nothing: a chunk is whole blocks; see `TokenMixer.init_state`."""
        return ()

    def step(self, x: Tensor, valid: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """Mix the blocks of a chunk (B, t, D); only the last chunk's last block may be short."""
        return self(x, valid), state

    def macs(self, n_frames: int) -> int:
        """2 T D hidden, with T filled up to whole blocks."""
        return 2 * -(-n_frames // self.block) * self.block * self.dim * self.hidden


def _along_time(linear: nn.Linear, blocks: Tensor) -> Tensor:
    """A linear map of the middle axis; transposing for the usual call would cost two copies."""
    return torch.baddbmm(linear.bias[:, None], linear.weight.expand(blocks.shape[0], -1, -1), blocks)
