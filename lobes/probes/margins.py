"""Softmax losses with a margin, for embeddings that are compared by their cosine."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError


class _MarginSoftmax(nn.Module):
    """Cosines to one direction per speaker, the true one made harder, scaled, into a cross-entropy.

    Parameters
    ----------
    dim : int
        Width E of the embeddings.
    n_speakers : int
        Number S of speakers trained on.
    margin : float
        How much harder; 0 or more.
    scale : float
        Cosines are multiplied by it.

    Raises
    ------
    ConfigError
        Fewer than two speakers, or a margin or scale out of range.
    """

    def __init__(self, dim: int, n_speakers: int, margin: float = 0.2, scale: float = 30.0) -> None:
        super().__init__()
        if n_speakers < 2:
            raise ConfigError(f"n_speakers is {n_speakers}: expected 2 or more speakers to train on")
        if not (0 <= margin < math.pi and scale > 0):
            raise ConfigError(f"margin is {margin}, scale {scale}: expected 0 or more (and below pi), and above 0")
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(n_speakers, dim))
        nn.init.xavier_normal_(self.weight)

    def harder(self, cosine: Tensor) -> Tensor:
        """The cosines (B,) to the true speakers, with the margin."""
        raise NotImplementedError

    def forward(self, embeddings: Tensor, speakers: Tensor) -> Tensor:
        """Mean loss of embeddings (B, E) whose speakers are (B,), int64; a scalar, in float32 at least."""
        wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        with torch.autocast(wide.device.type, enabled=False):
            cosine = F.linear(F.normalize(wide, dim=-1), F.normalize(self.weight.to(wide.dtype), dim=-1))
            place = speakers.unsqueeze(1)
            harder = self.harder(cosine.gather(1, place))
            return F.cross_entropy(self.scale * cosine.scatter(1, place, harder), speakers)


class AMSoftmax(_MarginSoftmax):
    """Additive margin: cos θ − m for the true speaker (Wang et al. 2018, "Additive margin softmax").

    SUPERB's loss for speaker verification. Parameters as the base class has them: ``dim``, ``n_speakers``,
    ``margin``, ``scale``.

    Example
    -------
    >>> loss = AMSoftmax(4, 3)(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> loss.shape
    torch.Size([])
    """

    def harder(self, cosine: Tensor) -> Tensor:
        """Cosine less margin."""
        return cosine - self.margin


class AAMSoftmax(_MarginSoftmax):
    """Additive angular margin: cos(θ + m) for the true speaker (Deng et al., CVPR 2019, "ArcFace").

    Beyond θ = π − m, where cos(θ + m) would rise again, cos θ − m sin m goes on falling. The margin is in radians.

    Example
    -------
    >>> AAMSoftmax(4, 3, margin=0.2)(torch.randn(2, 4), torch.tensor([0, 2])).shape
    torch.Size([])
    """

    def harder(self, cosine: Tensor) -> Tensor:
        """Cosine of the angle and the margin."""
        # The slope of the sine is infinite at 1 and -1: kept just off.
        sine = (1.0 - cosine.square()).clamp(min=1e-7).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine <= math.cos(math.pi - self.margin)
        return torch.where(beyond, cosine - self.margin * math.sin(self.margin), turned)
