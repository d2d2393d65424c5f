"""Block-local attention: the honest rival of every linear mixer."""

from __future__ import annotations

from torch import Tensor

from lobes.errors import ConfigError
from lobes.mixers.attention import Prefix, attend_blocks, blocks, pair_blocks
from lobes.mixers.sdpa import SDPA


class LocalSDPA(SDPA):
    """Attention of each block of frames to itself and its two neighbours, through PyTorch's fused kernels, with RoPE.

    The cost grows with T times three windows. The pattern is that of Longformer's sliding window computed in chunks
    (Beltagy et al. 2020, "Longformer", section 3.1), at block granularity. In chunks or in the causal form it is a
    sliding window: a frame sees ``window`` frames before its chunk, or before itself.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads; D / num_heads must be even.
    window : int
        Frames of a block.
    causal : bool
        See the past only.
    dropout : float
        Dropout of attention weights in training.

    Example
    -------
    >>> import torch
    >>> mixer = LocalSDPA(8, num_heads=2, window=4)
    >>> mixer(torch.randn(1, 21, 8), torch.ones(1, 21, dtype=torch.bool)).shape
    torch.Size([1, 21, 8])
    """

    exportable = False

    def __init__(
        self, dim: int, num_heads: int = 4, window: int = 128, causal: bool = False, dropout: float = 0.0
    ) -> None:
        if window < 1:
            raise ConfigError(f"LocalSDPA: window is {window}; expected a positive number of frames")
        super().__init__(dim, num_heads, causal, window, dropout)
        self.window, self.exportable = window, False

    def macs(self, n_frames: int) -> int:
        """4 T D² for the projections and 6 D w for each frame of blocks of w (4 D w in the causal form)."""
        if self.causal:
            return super().macs(n_frames)
        n_blocks = -(-n_frames // self.window)
        return 4 * n_frames * self.dim**2 + 6 * n_blocks * self.window**2 * self.dim

    def _attend_whole(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor, prefix: Prefix | None) -> Tensor:
        keys, values, known = (
            pair_blocks(blocks(part, self.window), after=True) for part in (key, value, valid[:, None, :, None])
        )
        y = attend_blocks(blocks(query, self.window), keys, values, known.transpose(-1, -2), self._dropout, prefix)
        return y[:, :, : query.shape[2]]
