"""The convolution module of a Conformer block, made blind to padding and streamable."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError


class MaskedConvolution(nn.Module):
    """Pointwise GLU, depthwise convolution over time, norm, SiLU, pointwise (Gulati et al. 2020, "Conformer", fig. 2).

    Two things differ from the original: padding is set to zero before the depthwise convolution, so that the frames at
    an utterance's end do not read their neighbours' padding, and the norm is over a frame's channels (LayerNorm), since
    a batch norm makes an utterance depend on its batch. The depthwise convolution runs as a two-dimensional,
    channels-last one, which needs no copy here and is many times faster on a CPU than PyTorch's one-dimensional kernel.

    Arguments
    ---------
    dim : int
        Width D.
    kernel : int
        Frames, odd.
    causal : bool
        Look at the past only; then it streams and keeps ``kernel`` - 1 frames.

    Example
    -------
    >>> MaskedConvolution(8, kernel=3)(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, kernel: int = 15, causal: bool = False) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"MaskedConvolution: kernel is {kernel}; expected an odd number of frames")
        self.dim, self.kernel, self.causal = dim, kernel, causal
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv2d(dim, dim, (kernel, 1), groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D), zero where not valid."""
        past = self.kernel - 1 if self.causal else self.kernel // 2
        gated = F.pad(self._gated(x, valid), (0, 0, past, self.kernel - 1 - past))
        return self._convolve(gated, valid)

    def init_state(self, batch: int) -> Tensor:
        """(B, kernel - 1, D) zeros: the silence before a stream."""
        if not self.causal:
            raise ConfigError("MaskedConvolution: cannot stream with causal=False; build it with causal: True")
        return self.project.weight.new_zeros(batch, self.kernel - 1, self.dim)

    def step(self, x: Tensor, valid: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next chunk (B, t, D) of each stream, and the new state."""
        gated = torch.cat((state, self._gated(x, valid)), dim=1)
        return self._convolve(gated, valid), gated[:, gated.shape[1] - (self.kernel - 1) :]

    def macs(self, n_frames: int) -> int:
        """Pointwise 3 T D², depthwise T D k."""
        return n_frames * self.dim * (3 * self.dim + self.kernel)

    def state_floats(self) -> int:
        """Numbers of state per stream."""
        return (self.kernel - 1) * self.dim if self.causal else 0

    def _gated(self, x: Tensor, valid: Tensor) -> Tensor:
        return F.glu(self.expand(x), dim=-1).masked_fill(~valid[..., None], 0.0)

    def _convolve(self, gated: Tensor, valid: Tensor) -> Tensor:
        if valid.shape[1] == 0:
            return gated.new_zeros(len(gated), 0, self.dim)
        # (B, T, D) seen as (B, D, T, 1) is already channels-last in memory.
        mixed = self.depthwise(gated[:, :, None].permute(0, 3, 1, 2))[..., 0].transpose(1, 2)
        return self.project(F.silu(self.norm(mixed))).masked_fill(~valid[..., None], 0.0)
