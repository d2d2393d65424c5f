"""FNet: a Fourier transform over time and features instead of attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.blocks import checked_block, from_blocks, in_blocks
from lobes.mixers.running import exact


class FNet(TokenMixer):
    """Fourier mixing (Lee-Thorp et al. 2021, "FNet", eq. 3): y = Re F_time(F_features(x)). No parameters.

    Unlike the paper's, the transforms are orthonormal, which divides the output by sqrt(T D): without it the output
    grows with the length, and the residual stream of a deep pre-norm encoder with it.

    A transform depends on its number of points, so zeros after an utterance's end are not the same as no frames.
    Without a block each utterance is transformed at its own length: the utterances of a batch that are as long as each
    other in one call, which is fast where lengths are few. With a block, time is cut into blocks of so many frames, the
    last one filled up with zeros, and no information crosses from one block to another: in an encoder that is left to
    the convolution. Then it streams, keeping nothing, and exports with PyTorch's FFT operators.

    The transform is computed in float32 at least.

    Arguments
    ---------
    dim : int
        Width D.
    block : int, optional
        Frames of a block; None for whole utterances.

    Example
    -------
    >>> mixer = FNet(8, block=4)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, block: int | None = None) -> None:
        super().__init__(dim)
        self.whole = block is None
        self.block = 1 if block is None else checked_block("FNet", block)
        # Which utterances are as long as which is not known when it is exported.
        self.streamable = self.exportable = not self.whole

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Transform utterances or their blocks. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        self._checked(chunks)  # chunks of whole blocks change nothing
        if not self.whole:
            return from_blocks(_fourier(in_blocks(x, valid, self.block)), valid)
        y, lengths = torch.zeros_like(x), valid.sum(1)
        for length in lengths[lengths > 0].unique().tolist():
            alike = valid & (lengths == length)[:, None]
            y[alike] = _fourier(x[alike].unflatten(0, (-1, length))).flatten(0, 1)
        return y

    def init_state(self, batch: int, left: int | None = None) -> tuple[()]:
        """Nothing, where it streams: a chunk is whole blocks; see `TokenMixer.init_state`."""
        return () if self.streamable else super().init_state(batch, left)

    def step(self, x: Tensor, valid: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """Transform the blocks of a chunk (B, t, D); only the last chunk's last block may be short."""
        return (self(x, valid), state) if self.streamable else super().step(x, valid, state)

    def macs(self, n_frames: int) -> int:
        """1.25 N log2 N for each transform of N points, T D or those of a block.

        That is the usual count of a fast transform: 5 N log2 N operations, half of them for real input, two to a MAC.

        Example
        -------
        >>> FNet(8, block=4).macs(5)
        400
        """
        length = n_frames if self.whole else self.block
        points = length * self.dim
        n_transforms = -(-n_frames // length) if n_frames else 0
        return round(1.25 * n_transforms * points * math.log2(max(points, 1)))


def _fourier(x: Tensor) -> Tensor:
    """Real part of the orthonormal transform of the last two axes: (..., n, D) to (..., n, D)."""
    if x.numel() == 0:  # MKL refuses it
        return x
    dim = x.shape[-1]
    half = torch.fft.rfft2(x.to(exact(x.dtype)), norm="ortho").real
    # The transform of real values is conjugate-symmetric: Re Y[-t, -d] = Re Y[t, d], indices modulo n and D.
    mirrored = half[..., 1 : (dim + 1) // 2].flip(-2, -1).roll(1, -2)
    return torch.cat((half, mirrored), dim=-1).to(x.dtype)
