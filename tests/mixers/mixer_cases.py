"""The mixers that the contract tests run, each with its slow loop. A new mixer joins by a line in CASES."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from slow_attention import slow_local_sdpa, slow_sdpa
from slow_summary import slow_summary

from lobes.mixers import SDPA, Chunks, LocalSDPA, SummaryMixing, TokenMixer

DIM = 16


class Span(NamedTuple):
    """What frame t may see: frames before ``end``; ``start`` is where its chunk begins (t itself if causal, else 0)."""

    start: int
    end: int


class Case(NamedTuple):
    """A constructor, and ``slow(mixer, x (T, D), spans, chunks) -> (T, D)``: the equations, frame by frame."""

    build: Callable[[int], TokenMixer]
    slow: Callable[..., torch.Tensor]


CASES = {
    "sdpa": Case(partial(SDPA, num_heads=2), slow_sdpa),
    "sdpa-causal": Case(partial(SDPA, num_heads=2, causal=True, left_context=64), slow_sdpa),
    "sdpa-short": Case(partial(SDPA, num_heads=2, left_context=5), slow_sdpa),
    "sdpa-causal-short": Case(partial(SDPA, num_heads=2, causal=True, left_context=5), slow_sdpa),
    "local": Case(partial(LocalSDPA, num_heads=2, window=4), slow_local_sdpa),
    "local-causal": Case(partial(LocalSDPA, num_heads=2, window=4, causal=True), slow_local_sdpa),
    "summary": Case(SummaryMixing, slow_summary),
    "summary-causal": Case(partial(SummaryMixing, causal=True), slow_summary),
    "summary-full": Case(partial(SummaryMixing, form="full"), slow_summary),
    "summary-lite": Case(partial(SummaryMixing, form="lite"), slow_summary),
}


def spans(mixer: TokenMixer, n_frames: int, chunks: Chunks | None = None) -> list[Span]:
    """What each frame may see."""
    if mixer.causal:
        return [Span(t, t + 1) for t in range(n_frames)]
    if chunks is None:
        return [Span(0, n_frames)] * n_frames
    starts = [t // chunks.size * chunks.size for t in range(n_frames)]
    return [Span(start, min(start + chunks.size, n_frames)) for start in starts]
