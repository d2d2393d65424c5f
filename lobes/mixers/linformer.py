"""Linformer: attention to a fixed number of learned mixtures of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer


class Linformer(TokenMixer):
    """Attention with keys and values projected along time (Wang et al. 2020, "Linformer", eq. 7).

    Instead of T keys and values a frame attends to k = ``rank`` mixtures of them: softmax(Q (E K)ᵀ / √d) (F V). Cost
    grows with T. E and F have a learned column for each position, up to ``max_frames``: they are the positions that
    this mixer knows, so it has no rotary or other ones. An utterance uses the first T columns; its padding enters no
    mixture. Such a matrix cannot see what is to come, and does not stream.

    Two things are arranged otherwise than in the paper. E (X W) is computed as (E X) W, which is the same and has k
    frames to project in place of T. And the mixtures are divided by the square root of the number of frames, which E
    would have to learn for one length: with weights of variance 1 in it, the mixtures of short utterances and of long
    ones have the variance of the frames.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads; a divisor of D. They share E and F.
    rank : int
        Mixtures k.
    max_frames : int
        Frames of the longest utterance; E has as many columns.
    share : bool
        Use E for the values too (the paper's key-value sharing): half the parameters and half the cost of mixing.

    Example
    -------
    >>> mixer = Linformer(8, num_heads=2, rank=4, max_frames=10)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self, dim: int, num_heads: int = 4, rank: int = 128, max_frames: int = 2048, share: bool = True
    ) -> None:
        super().__init__(dim)
        self._check_heads(num_heads)
        for name, number in (("rank", rank), ("max_frames", max_frames)):
            if number < 1:
                raise ConfigError(f"Linformer: {name} is {number}; expected a positive number")
        self.num_heads, self.rank, self.max_frames, self.share = num_heads, rank, max_frames, share
        self.query = nn.Linear(dim, dim)
        # A bias of the keys would cancel in the softmax, one of the values is as good in the output.
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        # Transposed, so that the part for T frames is contiguous: torch.export would refuse T = max_frames otherwise.
        self.key_mixtures = nn.Parameter(torch.randn(max_frames, rank))
        if not share:
            self.value_mixtures = nn.Parameter(torch.randn(max_frames, rank))

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Attend to the mixtures of each utterance's real frames. Shapes: (B, T, D), (B, T) -> (B, T, D).

        Raises
        ------
        ConfigError
            If T > ``max_frames``, or if there are chunks.
        """
        self._checked(chunks)
        n_frames = x.shape[1]
        if n_frames > self.max_frames:
            raise ConfigError(
                f"Linformer: max_frames is {self.max_frames}, but a batch has {n_frames} frames; "
                f"cut the recordings or build it with max_frames >= {n_frames}"
            )
        x = x.masked_fill(~valid[..., None], 0.0)
        scale = valid.sum(1).clamp_min(1).to(x.dtype).rsqrt()[:, None, None]
        for_keys = self._mixtures(self.key_mixtures, x) * scale
        for_values = for_keys if self.share else self._mixtures(self.value_mixtures, x) * scale
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(for_keys), self.value(for_values))
        )
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).flatten(2)).masked_fill(~valid[..., None], 0.0)

    def macs(self, n_frames: int) -> int:
        """2 T D² + 2 k D² for the linear maps, T k D for each kind of mixture, 2 T k D for the attention."""
        mixing = (1 if self.share else 2) * n_frames * self.rank * self.dim
        return 2 * (n_frames + self.rank) * self.dim**2 + mixing + 2 * n_frames * self.rank * self.dim

    @staticmethod
    def _mixtures(weights: Tensor, x: Tensor) -> Tensor:
        # bmm itself adds up low precisions in float32.
        return torch.bmm(weights[: x.shape[1]].mT.expand(len(x), -1, -1), x)
