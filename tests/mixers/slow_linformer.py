"""Linformer frame by frame: all keys and values first, then mixed, as the paper has it."""

from __future__ import annotations

import torch


def slow_linformer(mixer, x, spans, chunks=None):
    width, n_frames = mixer.dim // mixer.num_heads, len(x)
    for_values = mixer.key_mixtures if mixer.share else mixer.value_mixtures
    keys, values = 0, 0
    for t in range(n_frames):
        keys = keys + mixer.key_mixtures[t][:, None] * (mixer.key.weight @ x[t]) / n_frames**0.5
        values = values + for_values[t][:, None] * (mixer.value.weight @ x[t]) / n_frames**0.5
    y = []
    for t in range(n_frames):
        query, parts = mixer.query(x[t]), []
        for h in range(mixer.num_heads):
            one = slice(h * width, (h + 1) * width)
            parts.append(torch.softmax(keys[:, one] @ query[one] / width**0.5, 0) @ values[:, one])
        y.append(mixer.out(torch.cat(parts)))
    return torch.stack(y)
