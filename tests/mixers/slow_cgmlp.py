"""Convolutional gating frame by frame."""

from __future__ import annotations

import torch
from slow_convnext import slow_convolution
from torch.nn import functional as F


def slow_cgmlp(mixer, x, spans, chunks=None):
    weight = torch.cat((mixer.expand.weight, mixer.expand_gate.weight))
    bias = torch.cat((mixer.expand.bias, mixer.expand_gate.bias))
    both = [F.gelu(weight @ frame + bias) for frame in x]
    gate = slow_convolution(mixer.convolution, [mixer.norm(h[mixer.width :]) for h in both], spans)
    return torch.stack([mixer.project(h[: mixer.width] * g) for h, g in zip(both, gate, strict=True)])
