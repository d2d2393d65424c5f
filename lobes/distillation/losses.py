"""What a student's prediction costs: means over the real frames, whatever the padding.

Predictions and targets are (B, T, D), validity (B, T); each function gives a scalar. What is padded is not read, not
even where it is not a number.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def l1_cosine(
    predicted: Tensor, target: Tensor, valid: Tensor, cosine: float = 1.0, log_sigmoid: bool = True
) -> Tensor:
    """`mean |p - t| - λ log σ(cos(p, t))`: DistilHuBERT (Chang et al., ICASSP 2022).

    Parameters
    ----------
    cosine : float
        λ.
    log_sigmoid : bool
        False: `mean |p - t| - λ cos(p, t)`, as DPHuBERT has it (Peng et al., Interspeech 2023).
    """
    p, t = predicted[valid].float(), target[valid].float()
    if not len(p):
        return predicted[valid].sum()
    similar = F.cosine_similarity(p, t, dim=-1)
    similar = F.logsigmoid(similar) if log_sigmoid else similar
    return (p - t).abs().mean() - cosine * similar.mean()


def mse(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """`mean (p - t)²`: FitHuBERT's hints (Lee et al., Interspeech 2022)."""
    p, t = predicted[valid].float(), target[valid].float()
    return (p - t).square().mean() if len(p) else predicted[valid].sum()


def temporal_gram(x: Tensor, y: Tensor, valid: Tensor) -> Tensor:
    """Gram matrices over time, `x yᵀ / D` for each utterance, 0 where a frame is padded (B, T, T)."""
    x, y = (part.float().masked_fill(~valid[..., None], 0.0) for part in (x, y))
    return x @ y.transpose(1, 2) / x.shape[-1]


def gram_distance(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference of two temporal Gram matrices over the pairs of real frames of each utterance."""
    pairs = valid[:, :, None] & valid[:, None, :]
    return (student - teacher).square()[pairs].sum() / pairs.sum().clamp_min(1)


def explained(
    predicted: list[Tensor], targets: list[Tensor], valid: Tensor, means: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Residual and total sums of squares of each utterance, (B,) each: 1 - Σ residual / Σ total is R².

    Parameters
    ----------
    means : list of Tensor
        Per target (D,): what would be predicted by who has heard nothing, the mean over what is tested.
    """
    real = valid[..., None]
    residual = total = torch.zeros(len(valid), device=valid.device, dtype=torch.float64)
    for p, t, mean in zip(predicted, targets, means, strict=True):
        off = (p.double() - t.double()).masked_fill(~real, 0.0).square().sum((1, 2))
        around = (t.double() - mean.double()).masked_fill(~real, 0.0).square().sum((1, 2))
        residual, total = residual + off, total + around
    return residual, total
