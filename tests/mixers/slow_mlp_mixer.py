"""MLP-Mixer feature by feature."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def slow_mlp_mixer(mixer, x, spans, chunks=None):
    y = torch.zeros_like(x)
    for first in range(0, len(x), mixer.block):
        part = x[first : first + mixer.block]
        for feature in range(x.shape[1]):
            column = x.new_zeros(mixer.block)
            for t, frame in enumerate(part):
                column[t] = frame[feature]
            mixed = mixer.contract(F.gelu(mixer.expand(column)))
            y[first : first + len(part), feature] = mixed[: len(part)]
    return y
