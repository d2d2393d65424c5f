"""The convolution module of a Conformer block, made blind to padding and streamable."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers import Chunks
from lobes.mixers.convolution import DepthwiseConvolution


class MaskedConvolution(nn.Module):
    """Pointwise GLU, depthwise convolution over time, norm, SiLU, pointwise (Gulati et al. 2020, "Conformer", fig. 2).

    Two things differ from the original: padding is set to zero before the depthwise convolution, so that the frames at
    an utterance's end do not read their neighbours' padding, and the norm is over a frame's channels (LayerNorm), since
    a batch norm makes an utterance depend on its batch.

    Arguments
    ---------
    dim : int
        Width D.
    kernel : int
        Frames, odd.
    causal : bool
        Look at the past only, instead of both ways (in chunks: to the end of the chunk).

    Example
    -------
    >>> import torch
    >>> MaskedConvolution(8, kernel=3)(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, kernel: int = 15, causal: bool = False) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"MaskedConvolution: kernel is {kernel}; expected an odd number of frames")
        self.dim = dim
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = DepthwiseConvolution(dim, kernel, causal)
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D), zero where not valid."""
        return self._project(self.depthwise(self._gated(x, valid), chunks), valid)

    def init_state(self, batch: int, left: int | None = None) -> Tensor:
        """(B, past, D) zeros: the silence before a stream."""
        return self.depthwise.init_state(batch)

    def step(self, x: Tensor, valid: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next chunk (B, t, D) of each stream, and the new state."""
        y, state = self.depthwise.step(self._gated(x, valid), state)
        return self._project(y, valid), state

    def macs(self, n_frames: int) -> int:
        """Pointwise 3 T D², depthwise T D k."""
        return 3 * n_frames * self.dim**2 + self.depthwise.macs(n_frames)

    def state_floats(self) -> int:
        """Numbers of state per stream."""
        return self.depthwise.past * self.dim

    def _gated(self, x: Tensor, valid: Tensor) -> Tensor:
        return F.glu(self.expand(x), dim=-1).masked_fill(~valid[..., None], 0.0)

    def _project(self, mixed: Tensor, valid: Tensor) -> Tensor:
        return self.project(F.silu(self.norm(mixed))).masked_fill(~valid[..., None], 0.0)
