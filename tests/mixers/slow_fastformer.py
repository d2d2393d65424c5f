"""Fastformer frame by frame."""

from __future__ import annotations

import torch


def slow_fastformer(mixer, x, spans, chunks=None):
    width = mixer.dim // mixer.num_heads
    query, key, value = mixer.qkv(x).chunk(3, dim=-1)
    heads = []
    for h in range(mixer.num_heads):
        one = slice(h * width, (h + 1) * width)
        products, columns = [], []
        for t, (_, end) in enumerate(spans):
            # The end of frame t's own chunk: what its product with the global query was made of.
            products.append(_pool(query[:end, one], mixer.query_weight[h]) * key[t, one])
        for t, (_, end) in enumerate(spans):
            columns.append(_pool(torch.stack(products[:end]), mixer.key_weight[h]) * value[t, one])
        heads.append(torch.stack(columns))
    return mixer.out(torch.cat(heads, dim=-1)) + query


def _pool(values, weight):
    """Softmax over time of the scores, then the weighted sum."""
    scores = torch.stack([weight @ value / len(weight) ** 0.5 for value in values])
    return sum(a * value for a, value in zip(torch.softmax(scores, 0), values, strict=True))
