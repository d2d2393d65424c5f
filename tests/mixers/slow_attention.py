"""Attention one head, one query, one key at a time; rotation as complex numbers."""

from __future__ import annotations

import math

import torch


def attention(mixer, x: torch.Tensor, seen: list[range]) -> torch.Tensor:
    """`seen[t]` are the keys of query t."""
    d_head = mixer.dim // mixer.num_heads
    query, key, value = mixer.qkv(x).split(mixer.dim, dim=-1)
    rate = [10000 ** (-i / (d_head // 2)) for i in range(d_head // 2)]
    y = torch.zeros_like(x)
    for head in range(mixer.num_heads):
        part = slice(head * d_head, (head + 1) * d_head)
        q, k = (torch.complex(t[:, part][:, : d_head // 2], t[:, part][:, d_head // 2 :]) for t in (query, key))
        for i, keys in enumerate(seen):
            turn = [
                torch.tensor([complex(math.cos((i - j) * r), math.sin((i - j) * r)) for r in rate], dtype=torch.cdouble)
                for j in keys
            ]
            products = [
                (q[i] * t * k[j].conj()).real.sum() / math.sqrt(d_head) for j, t in zip(keys, turn, strict=True)
            ]
            weights = torch.stack(products).softmax(0)
            y[i, part] = sum(w * value[j, part] for w, j in zip(weights, keys, strict=True))
    return mixer.out(y)


def slow_sdpa(mixer, x, spans, chunks=None):
    if not mixer.causal and chunks is None:
        return attention(mixer, x, [range(len(x))] * len(x))
    left = mixer.left_context if chunks is None or chunks.left is None else min(mixer.left_context, chunks.left)
    return attention(mixer, x, [range(max(0, start - left), end) for start, end in spans])


def slow_local_sdpa(mixer, x, spans, chunks=None):
    if mixer.causal or chunks is not None:
        return slow_sdpa(mixer, x, spans, chunks)
    starts = [t // mixer.window * mixer.window for t in range(len(x))]
    seen = [range(max(0, start - mixer.window), min(len(x), start + 2 * mixer.window)) for start in starts]
    return attention(mixer, x, seen)
