"""From frames to one vector per utterance.

Padded frames are never read, and an utterance without frames gives finite numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Added to a variance before its root, whose slope at 0 is infinite.
EPSILON = 1e-6


def masked_moments(x: Tensor, weights: Tensor) -> Tensor:
    """Return mean and standard deviation over time side by side, (B, 2·D), computed in float32 at least.

    Parameters
    ----------
    x : tensor (B, T, D)
        Zero in padded frames.
    weights : tensor (B, T, 1)
        Share of each frame: summing to 1 over time, or all 0 for an utterance without frames (mean 0).
    """
    wide = x if x.dtype == torch.float64 else x.float()
    mean = (weights * wide).sum(1)
    variance = (weights * (wide - mean.unsqueeze(1)).square()).sum(1)
    return torch.cat([mean, (variance + EPSILON).sqrt()], dim=-1).to(x.dtype)


class MeanStdPool(nn.Module):
    """Mean and standard deviation over the valid frames (statistics pooling: Snyder et al., ICASSP 2018).

    Parameters
    ----------
    dim : int
        Dimension D of the frames; the output has `dim_out` = 2·D.

    Example
    -------
    >>> frames = torch.tensor([[[1.0], [3.0], [99.0]]])
    >>> MeanStdPool(1)(frames, torch.tensor([[True, True, False]])).round(decimals=3).tolist()
    [[2.0, 1.0]]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.dim_out = 2 * dim

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (B, 2·D), mean before deviation, from frames (B, T, D) and mask (B, T)."""
        count = valid.sum(1, keepdim=True).clamp(min=1)
        return masked_moments(x.masked_fill(~valid.unsqueeze(-1), 0.0), (valid / count).unsqueeze(-1))


class AttentivePool(nn.Module):
    """Mean and standard deviation weighted by attention (Okabe, Koshinaka & Shinoda, Interspeech 2018, eq. 3-6).

    Parameters
    ----------
    dim : int
        Dimension D of the frames; the output has `dim_out` = 2·D.
    hidden : int
        Width of the layer that scores the frames.

    Example
    -------
    >>> AttentivePool(8)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.dim = dim
        self.dim_out = 2 * dim
        self.score = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (B, 2·D), mean before deviation, from frames (B, T, D) and mask (B, T)."""
        padding = ~valid.unsqueeze(-1)
        x = x.masked_fill(padding, 0.0)
        score = self.score(x)
        score = score if score.dtype == torch.float64 else score.float()
        # The smallest number, not -inf, keeps a row without any valid frame (and its gradient) finite.
        weights = score.masked_fill(padding, torch.finfo(score.dtype).min).softmax(1).masked_fill(padding, 0.0)
        return masked_moments(x, weights)
