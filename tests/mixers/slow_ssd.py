"""State space duality frame by frame: the recurrence itself, head by head."""

from __future__ import annotations

import torch
from slow_convnext import slow_convolution
from torch.nn import functional as F


def slow_ssd(mixer, x, spans, chunks=None):
    z, inner, steps = (x @ mixer.input.weight.T).split((mixer.width, mixer.n_convolved, mixer.n_heads), dim=-1)
    y = slow_recurrence(mixer.recurrence, inner, steps)
    if mixer.bidirectional:
        y = y + slow_recurrence(mixer.backward_recurrence, inner.flip(0), steps.flip(0)).flip(0)
    gated = y * F.silu(z)
    scale = (gated.pow(2).mean(-1, keepdim=True) + mixer.norm.eps) ** -0.5
    return (gated * scale * mixer.norm.weight) @ mixer.output.weight.T


def slow_recurrence(part, inner, steps):
    causal = [(t, t + 1) for t in range(len(inner))]
    convolved = F.silu(slow_convolution(part.convolution, inner, causal))
    width = part.n_heads * part.head_dim
    y = torch.zeros(len(inner), part.n_heads, part.head_dim, dtype=inner.dtype)
    for head in range(part.n_heads):
        memory = torch.zeros(part.state, part.head_dim, dtype=inner.dtype)
        for t, frame in enumerate(convolved):
            x = frame[head * part.head_dim : (head + 1) * part.head_dim]
            b, c = frame[width : width + part.state], frame[width + part.state :]
            step = F.softplus(steps[t, head] + part.step_bias[head])
            memory = torch.exp(-part.log_rate[head].exp() * step) * memory + step * torch.outer(b, x)
            y[t, head] = memory.T @ c + part.skip[head] * x
    return y.flatten(1)
