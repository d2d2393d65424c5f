"""HyperMixing head by head and frame by frame."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def made(perceptron, head: int, features: torch.Tensor) -> torch.Tensor:
    """The row of W1 or W2 that a head makes of one frame: (k)."""
    inner = F.gelu(features @ perceptron.first[head] + perceptron.first_bias[head, 0])
    return inner @ perceptron.second[head] + perceptron.second_bias[head, 0]


def slow_hyper_mixing(mixer, x, spans, chunks=None):
    heads = x.unflatten(1, (mixer.num_heads, -1)).unbind(1)
    read = mixer.write if mixer.tied else mixer.read
    y = []
    for t, (_, end) in enumerate(spans):
        outputs = []
        for head, features in enumerate(heads):
            total = sum(torch.outer(made(mixer.write, head, frame), frame) for frame in features[:end])
            outputs.append(made(read, head, features[t]) @ F.gelu(total / end))
        y.append(mixer.norm(torch.cat(outputs)))
    return torch.stack(y)
