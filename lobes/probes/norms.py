"""Standardisation of features, pooled or frame by frame, over the training set."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.probes.processes import shared_sum, sum_over_processes, training_processes


class PooledNorm(nn.BatchNorm1d):
    """Zero mean and unit deviation of each feature over the training set, with no weights of its own.

    The batch normalisation without affine part that makes a linear probe independent of the features' scales (He et
    al. 2022, "Masked Autoencoders", appendix A.1). A single utterance is normalised by the running statistics in
    training too, so that the last batch of an epoch may be as small as it likes.

    Statistics are those of the batches of all processes together, and so are their gradients where the features are
    trained too (`lobes.probes.processes.shared_backward`), so that a head learns the same on one process as on several.

    Arguments
    ---------
    dim : int
        Width D of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False)

    def forward(self, x: Tensor, heard: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D); rows that the mask `heard` (N,) leaves out, of utterances without a frame, are 0."""
        if heard is not None:
            rows = PooledNorm.forward(self, x[heard])
            return rows.new_zeros(x.shape).masked_scatter(heard.unsqueeze(-1), rows)
        if self.training and training_processes() > 1:
            count = sum_over_processes(torch.tensor(float(len(x)), device=x.device))
            return self._together(x, count) if count > 1 else self._as_before(x)
        return self._as_before(x) if self.training and len(x) <= 1 else super().forward(x)

    def _as_before(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, eps=self.eps)

    def _together(self, x: Tensor, count: Tensor) -> Tensor:
        """Batch normalisation of `count` rows, of which this process has some."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        wide, momentum = x.float(), 0.1 if self.momentum is None else self.momentum
        total = shared_sum if wide.requires_grad else sum_over_processes
        mean = total(wide.sum(0)) / count
        variance = total((wide - mean).square().sum(0)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), momentum)
        return ((wide - mean) * (variance + self.eps).rsqrt()).to(x.dtype)


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
