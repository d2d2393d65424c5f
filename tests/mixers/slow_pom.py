"""PoM frame by frame."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def polynomial(mixer, frame: torch.Tensor) -> torch.Tensor:
    parts = []
    for weight, bias in zip(
        mixer.factors.weight.chunk(mixer.degree), mixer.factors.bias.chunk(mixer.degree), strict=True
    ):
        factor = F.gelu(weight @ frame + bias)
        parts.append(parts[-1] * factor if parts else factor)
    return torch.cat(parts)


def slow_pom(mixer, x, spans, chunks=None):
    y = []
    for t, (_, end) in enumerate(spans):
        mean = sum(polynomial(mixer, frame) for frame in x[:end]) / end
        y.append(mixer.out(torch.sigmoid(mixer.select(x[t])) * mean))
    return torch.stack(y)
