"""FNet as a sum over every frame and feature of the transformed stretch."""

from __future__ import annotations

import math

import torch


def slow_fnet(mixer, x, spans, chunks=None):
    dim = x.shape[1]
    y = []
    for t in range(len(x)):
        length = len(x) if mixer.whole else mixer.block
        first = t // length * length
        rows = []
        for s, frame in enumerate(x[first : first + length]):
            angles = [[2 * math.pi * ((t - first) * s / length + d * e / dim) for e in range(dim)] for d in range(dim)]
            rows.append(torch.tensor(angles, dtype=x.dtype).cos() @ frame)
        y.append(sum(rows) / math.sqrt(length * dim))
    return torch.stack(y)
