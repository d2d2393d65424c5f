"""Luna frame by frame."""

from __future__ import annotations

import torch


def slow_luna(mixer, x, spans, chunks=None):
    heads, size = mixer.num_heads, mixer.memory
    width = mixer.dim // heads
    pack = mixer.pack.weight.view(heads, size, mixer.dim)
    y = []
    for t, (_, end) in enumerate(spans):
        memory = torch.stack(
            [torch.cat([_packed(pack[h, p], mixer, x[:end], h) for h in range(heads)]) for p in range(size)]
        )
        key, value, query = memory @ mixer.memory_key.weight.T, memory @ mixer.memory_value.weight.T, mixer.query(x[t])
        parts = []
        for h in range(heads):
            one = slice(h * width, (h + 1) * width)
            parts.append(torch.softmax(key[:, one] @ query[one] / width**0.5, 0) @ value[:, one])
        y.append(mixer.out(torch.cat(parts)))
    return torch.stack(y)


def _packed(query, mixer, seen, head):
    """What one memory vector gets of the frames seen, in one head."""
    width = mixer.dim // mixer.num_heads
    weights = torch.softmax(torch.stack([query @ frame / width**0.5 for frame in seen]), 0)
    value = mixer.value.weight[head * width : (head + 1) * width]
    return sum(w * (value @ frame) for w, frame in zip(weights, seen, strict=True))
