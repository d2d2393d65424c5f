"""Standardisation of pooled features."""

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
        """(B, D) to (B, D)."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)
        return super().forward(x)
