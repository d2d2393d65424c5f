"""The mixers that the contract tests run, each with its slow loop. A new mixer joins by a line in CASES."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from slow_attention import slow_local_sdpa, slow_sdpa
from slow_cgmlp import slow_cgmlp
from slow_convnext import slow_convnext, trained
from slow_fastformer import slow_fastformer
from slow_fnet import slow_fnet
from slow_hyper_mixing import slow_hyper_mixing
from slow_linear_attention import slow_linear_attention
from slow_linformer import slow_linformer
from slow_luna import slow_luna
from slow_mlp_mixer import slow_mlp_mixer
from slow_pom import slow_pom
from slow_ssd import slow_ssd
from slow_summary import slow_summary

from lobes.mixers import (
    SDPA,
    SSD,
    Chunks,
    ConvNeXt,
    ConvolutionalGating,
    Fastformer,
    FNet,
    HyperMixing,
    LinearAttention,
    Linformer,
    LocalSDPA,
    Luna,
    MLPMixer,
    PoM,
    SummaryMixing,
    TokenMixer,
)

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
    "cgmlp": Case(lambda dim: trained(ConvolutionalGating(dim, kernel=5)), slow_cgmlp),
    "cgmlp-causal": Case(lambda dim: trained(ConvolutionalGating(dim, 6, kernel=4, causal=True)), slow_cgmlp),
    "convnext": Case(lambda dim: trained(ConvNeXt(dim, kernel=5)), slow_convnext),
    "convnext-causal": Case(lambda dim: trained(ConvNeXt(dim, kernel=4, causal=True)), slow_convnext),
    "convnext-1": Case(lambda dim: trained(ConvNeXt(dim, expand=1.5, version=1)), slow_convnext),
    "convnext-1-causal": Case(lambda dim: trained(ConvNeXt(dim, kernel=3, version=1, causal=True)), slow_convnext),
    "fastformer": Case(partial(Fastformer, num_heads=2), slow_fastformer),
    "fastformer-causal": Case(partial(Fastformer, num_heads=2, causal=True), slow_fastformer),
    "fnet": Case(FNet, slow_fnet),
    "fnet-blocks": Case(partial(FNet, block=5), slow_fnet),
    "fnet-blocks-even": Case(partial(FNet, block=6), slow_fnet),
    "hyper": Case(partial(HyperMixing, num_heads=2, hidden=6), slow_hyper_mixing),
    "hyper-causal": Case(partial(HyperMixing, num_heads=2, hidden=6, causal=True), slow_hyper_mixing),
    "hyper-tied": Case(partial(HyperMixing, num_heads=1, hidden=10, tied=True), slow_hyper_mixing),
    "linear": Case(partial(LinearAttention, num_heads=2, segment=6), slow_linear_attention),
    "linear-causal": Case(partial(LinearAttention, num_heads=2, causal=True, segment=5), slow_linear_attention),
    "linformer": Case(partial(Linformer, num_heads=2, rank=6, max_frames=4096), slow_linformer),
    "linformer-apart": Case(partial(Linformer, num_heads=2, rank=5, max_frames=4096, share=False), slow_linformer),
    "luna": Case(partial(Luna, num_heads=2, memory=3), slow_luna),
    "luna-causal": Case(partial(Luna, num_heads=2, memory=3, causal=True), slow_luna),
    "mlp-mixer": Case(partial(MLPMixer, block=5, hidden=7), slow_mlp_mixer),
    "pom": Case(PoM, slow_pom),
    "pom-causal": Case(partial(PoM, degree=3, causal=True), slow_pom),
    "pom-wide": Case(partial(PoM, degree=1, expand=2), slow_pom),
    "sdpa": Case(partial(SDPA, num_heads=2), slow_sdpa),
    "sdpa-causal": Case(partial(SDPA, num_heads=2, causal=True, left_context=64), slow_sdpa),
    "sdpa-short": Case(partial(SDPA, num_heads=2, left_context=5), slow_sdpa),
    "sdpa-causal-short": Case(partial(SDPA, num_heads=2, causal=True, left_context=5), slow_sdpa),
    "local": Case(partial(LocalSDPA, num_heads=2, window=4), slow_local_sdpa),
    "local-causal": Case(partial(LocalSDPA, num_heads=2, window=4, causal=True), slow_local_sdpa),
    "ssd": Case(partial(SSD, state=6, head_dim=8, segment=4), slow_ssd),
    "ssd-short": Case(partial(SSD, state=5, head_dim=16, expand=1, kernel=1), slow_ssd),
    "ssd-bidirectional": Case(partial(SSD, state=6, head_dim=8, segment=4, bidirectional=True), slow_ssd),
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
