"""Depthwise convolution over time that is blind to padding, works in chunks and streams: what mixers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks


class DepthwiseConvolution(nn.Module):
    """Depthwise convolution over time of frames that are zero where padded; as many frames out as in.

    It runs as a two-dimensional, channels-last convolution, which needs no copy here and is many times faster on a CPU
    than PyTorch's one-dimensional kernel. In chunks, a frame sees the past and its chunk, and zeros for what comes
    after its chunk (dynamic chunk convolution: Li et al. 2023, "Dynamic Chunk Convolution for Unified Streaming and
    Non-Streaming Conformer ASR", section 2.2).

    Arguments
    ---------
    dim : int
        Width D.
    kernel : int
        Frames k; odd unless causal.
    causal : bool
        See the past only: the kernel ends at the present frame instead of being centred on it.

    Example
    -------
    >>> DepthwiseConvolution(8, kernel=3)(torch.randn(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, kernel: int, causal: bool = False) -> None:
        super().__init__()
        if kernel < 1 or (kernel % 2 == 0 and not causal):
            expected = "a positive number of frames" if causal else "an odd number of frames, or causal: True"
            raise ConfigError(f"DepthwiseConvolution: kernel is {kernel}; expected {expected}")
        self.dim, self.kernel, self.causal = dim, kernel, causal
        self.past = kernel - 1 if causal else kernel // 2
        self.future = kernel - 1 - self.past
        self.conv = nn.Conv2d(dim, dim, (kernel, 1), groups=dim)

    def forward(self, x: Tensor, chunks: Chunks | None = None) -> Tensor:
        """(B, T, D), zero at padded frames, to (B, T, D); padded frames of the output are not zero."""
        if self.causal:
            return self._convolve(F.pad(x, (0, 0, self.past, 0)))
        if chunks is None or chunks.size >= x.shape[1]:
            return self._convolve(x, self.past)
        return self._in_chunks(x, chunks.size)

    def init_state(self, batch: int) -> Tensor:
        """(B, past, D): the silence before ``batch`` streams."""
        return self.conv.weight.new_zeros(batch, self.past, self.dim)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next chunk (B, t, D) of each stream, zero where it has ended, and the state after it."""
        x = torch.cat((state, x), dim=1)
        seen = F.pad(x, (0, 0, 0, self.future)) if self.future else x
        return self._convolve(seen), x[:, x.shape[1] - self.past :]

    def macs(self, n_frames: int) -> int:
        """T D k."""
        return n_frames * self.dim * self.kernel

    def _in_chunks(self, x: Tensor, size: int) -> Tensor:
        """Each chunk behind the frames before it and before zeros: B · ceil(T / size) short utterances."""
        batch, n_frames, _ = x.shape
        x = F.pad(x, (0, 0, self.past, -n_frames % size))
        # (B, chunks, past + size, D), overlapping views that the next padding copies.
        pieces = x.unfold(1, self.past + size, size).transpose(2, 3)
        y = self._convolve(F.pad(pieces, (0, 0, 0, self.future)).flatten(0, 1))
        return y.reshape(batch, -1, self.dim)[:, :n_frames]

    def _convolve(self, x: Tensor, padding: int = 0) -> Tensor:
        """(B, t, D) to (B, t + 2 · padding - k + 1, D)."""
        n_frames = x.shape[1] + 2 * padding - (self.kernel - 1)
        if n_frames == 0:
            return x.new_zeros(len(x), 0, self.dim)
        # (B, t, D) seen as (B, D, t, 1) is already channels-last in memory; padding here saves a copy of the input.
        seen = x[:, :, None].permute(0, 3, 1, 2)
        y = F.conv2d(seen, self.conv.weight, self.conv.bias, padding=(padding, 0), groups=self.dim)
        return y.squeeze(-1).transpose(1, 2)
