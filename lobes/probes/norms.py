"""Standardisation of features, pooled or frame by frame, over the training set."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PooledNorm(nn.BatchNorm1d):
    """Zero mean and unit deviation of each feature over the training set, with no weights of its own.

    The batch normalisation without affine part that makes a linear probe independent of the features' scales (He et
    al. 2022, "Masked Autoencoders", appendix A.1). A single utterance is normalised by the running statistics in
    training too, so that the last batch of an epoch may be as small as it likes.

    Arguments
    ---------
    dim : int
        Width D of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        if self.training and len(x) <= 1:
            return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(x)


class FrameNorm(PooledNorm):
    """The same over all real frames of the training set.

    The layers of a pretrained encoder hold a large constant part, the same in every frame. A probe that has to learn
    it away first is slower on them than on random weights or on log-mel features, which are centred.

    Example
    -------
    >>> import torch
    >>> valid = torch.tensor([[True, True, False]])
    >>> FrameNorm(1)(torch.tensor([[[3.0], [5.0], [99.0]]]), valid).flatten().round(decimals=3).tolist()
    [-1.0, 1.0, 0.0]
    """

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:  # type: ignore[override]
        """Frames (B, T, D) and mask (B, T) to (B, T, D), zero in padded frames."""
        frames = super().forward(x[valid])
        return x.new_zeros(x.shape).masked_scatter(valid.unsqueeze(-1), frames.to(x.dtype))
