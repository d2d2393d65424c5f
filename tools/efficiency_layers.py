"""What one layer costs with each token mixer: the variants, their measurement in a process, and what is required.

A part of `tools/efficiency.py`. A layer is pre-norm: LayerNorm, mixer, residual; LayerNorm, feed-forward of four times
the width, residual.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import lobes.mixers
from lobes.encoders import FeedForward
from lobes.errors import ConfigError
from lobes.evaluation.cost import PeakMemory, counted_macs, time_in_turns
from lobes.mixers import SDPA, TokenMixer
from lobes.mixers.attention import Prefix

REFERENCE = "SDPA"
# What mixers have to reach, against SDPA: times its speed at each length, and by what factor memory may grow from the
# first length to the second. SSD in plain PyTorch is exempt from the first.
REQUIRED_SPEED = {4000: 2.0, 16000: 4.0}
REQUIRED_AT_LEAST = {1000: 1 / 1.1}
LINEAR_MEMORY = (4000, 16000, 3.0, 5.0)


class UnfusedAttention(SDPA):
    """The same attention as three operations, which keeps T² weights per head: what published gains are measured by."""

    def _attend_whole(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor, prefix: Prefix | None) -> Tensor:
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
        return scores.masked_fill_(~valid[:, None, None, :], float("-inf")).softmax(-1) @ value


class RelativeAttention(nn.Module):
    """SpeechBrain's `RelPosMHAXL` with its positions: the default attention of its Conformers."""

    causal = streamable = False
    exportable = True

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        from speechbrain.nnet.attention import RelPosEncXL, RelPosMHAXL

        self.dim = dim
        self.positions = RelPosEncXL(dim)
        self.attention = RelPosMHAXL(dim, num_heads)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)."""
        return self.attention(x, x, x, self.positions(x), key_padding_mask=~valid)[0]

    def macs(self, n_frames: int) -> int:
        """Four maps of the frames and one of 2 T - 1 positions; scores of contents and positions, weighted values."""
        positions = 2 * n_frames - 1
        maps = (4 * n_frames + positions) * self.dim**2
        return maps + (2 * n_frames**2 + n_frames * positions) * self.dim

    def state_floats(self) -> int:
        """It does not stream."""
        return 0


class Layer(nn.Module):
    """One pre-norm layer around a mixer, or with the feed-forward alone."""

    def __init__(self, dim: int, mixer: nn.Module | None, feed_forward: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mixer = mixer
        self.feed_forward = FeedForward(dim, 4 * dim) if feed_forward else None

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)."""
        if self.mixer is not None:
            x = x + self.mixer(self.norm(x), valid)
        return x if self.feed_forward is None else x + self.feed_forward(x)


@dataclass(frozen=True)
class Variant:
    """A mixer with options, under a name of its own.

    `kind` says what is required of it: ``linear`` all, ``exempt`` no speed on long recordings, ``reference`` and
    ``baseline`` nothing. Beyond `longest` frames it is not tried.
    """

    name: str
    mixer: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: str = "linear"
    longest: int | None = None
    feed_forward: bool = True


BASELINES: dict[str, type[nn.Module] | None] = {
    "FFN": None,
    "UnfusedAttention": UnfusedAttention,
    "RelativeAttention": RelativeAttention,
}
HEADS = {"num_heads": 8}
VARIANTS = (
    Variant("FFN only", "FFN", kind="baseline"),
    Variant("unfused attention", "UnfusedAttention", HEADS, kind="baseline"),
    Variant("SpeechBrain RelPosMHAXL", "RelativeAttention", HEADS, kind="baseline", longest=4000),
    Variant(REFERENCE, "SDPA", HEADS, kind="reference"),
    Variant("LocalSDPA 128", "LocalSDPA", HEADS | {"window": 128}, kind="baseline"),
    Variant("SummaryMixing merged", "SummaryMixing", {"form": "merged"}),
    Variant("SummaryMixing full", "SummaryMixing", {"form": "full"}),
    Variant("SummaryMixing lite", "SummaryMixing", {"form": "lite"}),
    Variant("PoM", "PoM"),
    Variant("HyperMixing", "HyperMixing", HEADS),
    Variant("Luna 16", "Luna", HEADS | {"memory": 16}),
    Variant("Luna 64", "Luna", HEADS | {"memory": 64}),
    Variant("LinearAttention", "LinearAttention", HEADS),
    Variant("FNet", "FNet"),
    Variant("FNet block 128", "FNet", {"block": 128}),
    Variant("SSD", "SSD", kind="exempt"),
    Variant("SSD bidirectional", "SSD", {"bidirectional": True}, kind="exempt"),
    Variant("SSD bidirectional, expand 1", "SSD", {"bidirectional": True, "expand": 1}, kind="exempt"),
    # Beside a feed-forward it need not be one itself; at its own width it is a whole layer.
    Variant("ConvNeXt v1, expand 2", "ConvNeXt", {"version": 1, "expand": 2}),
    Variant("ConvNeXt v2, expand 2", "ConvNeXt", {"version": 2, "expand": 2}),
    Variant("ConvNeXt v2 without FFN", "ConvNeXt", {"version": 2}, feed_forward=False),
    Variant("ConvolutionalGating", "ConvolutionalGating"),
    Variant("MLPMixer", "MLPMixer"),
    Variant("Fastformer", "Fastformer", HEADS),
    Variant("Linformer 128", "Linformer", HEADS | {"rank": 128, "max_frames": 16000}),
)


def available_variants() -> list[Variant]:
    """The variants whose mixer there is, and one with default options of every other class of `lobes.mixers`."""
    there = {
        name
        for name in lobes.mixers.__all__
        if isinstance(found := getattr(lobes.mixers, name), type)
        and issubclass(found, TokenMixer)
        and not inspect.isabstract(found)
    }
    known = [variant for variant in VARIANTS if variant.mixer in there or variant.mixer in BASELINES]
    others = sorted(there - {variant.mixer for variant in known})
    return known + [Variant(name, name, HEADS if "num_heads" in _options(name) else {}) for name in others]


def _options(name: str) -> list[str]:
    return list(inspect.signature(getattr(lobes.mixers, name)).parameters)


def build_layer(variant: Variant, dim: int) -> Layer:
    """The layer with fresh weights, the same each time."""
    torch.manual_seed(0)
    if variant.mixer in BASELINES:
        baseline = BASELINES[variant.mixer]
        return Layer(dim, None if baseline is None else baseline(dim, **variant.options), variant.feed_forward)
    try:
        mixer = getattr(lobes.mixers, variant.mixer)(dim, **variant.options)
    except TypeError as error:
        raise ConfigError(f"{variant.name}: {error}; correct its options in tools/efficiency_layers.py") from error
    return Layer(dim, mixer, variant.feed_forward)


def item_name(variant: Variant) -> str:
    """Its name in the table."""
    return variant.name


def is_of(row: dict[str, Any], variant: Variant) -> bool:
    """Whether a row was measured on this variant, with the same options."""
    return row["variant"] == asdict(variant)


def plan(variant: Variant, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The jobs of one variant, each for a process of its own: the training step, then each length."""
    job = {"level": "layers", "variant": asdict(variant), **settings}
    lengths = [n for n in settings["lengths"] if variant.longest is None or n <= variant.longest]
    return [job | {"frames": settings["train_frames"], "train": True, "what": "training step"}] + [
        job | {"frames": n_frames, "train": False, "what": f"{n_frames} frames"} for n_frames in lengths
    ]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One variant at one length, in turns with SDPA: memory first, while the process is fresh, then time."""
    variant, device, n_frames = Variant(**job["variant"]), job["device"], job["frames"]
    reference = Variant(REFERENCE, "SDPA", HEADS)
    layers = {
        "own": build_layer(variant, job["dim"]).to(device),
        "sdpa": build_layer(reference, job["dim"]).to(device),
    }
    run = _training_step if job["train"] else _forward
    # What is loaded on first use is nobody's memory.
    for layer in layers.values():
        run(layer, *_frames(16, job["dim"], device))
    with PeakMemory(device) as memory:
        x, valid = _frames(n_frames, job["dim"], device)
        run(layers["own"], x, valid)
    turns = {name: functools.partial(run, layer, x, valid) for name, layer in layers.items()}
    times = time_in_turns(turns, job["rounds"], job["seconds"], device=device)
    own, sdpa = times["own"], times["sdpa"]
    figures = {
        "frames": n_frames,
        "best_ms": 1000 * own.best,
        "median_ms": 1000 * own.median,
        "runs": len(own.seconds),
        "sdpa_best_ms": 1000 * sdpa.best,
        "sdpa_median_ms": 1000 * sdpa.median,
        "ratio": sdpa.best / own.best,
        "memory_mb": memory.mb,
    }
    return figures | (facts(layers["own"], x, valid) if job["train"] else {})


FACTS = ("parameters", "macs", "macs_counted", "macs_by_hand", "state_floats", "abilities")


def facts(layer: Layer, x: Tensor, valid: Tensor) -> dict[str, Any]:
    """What needs no clock: size, counted and analytic multiply-accumulates, state, abilities."""
    mixer: Any = layer.mixer
    if mixer is None:
        return {"parameters": 0, "macs": 0, "macs_counted": 0, "macs_by_hand": 0, "state_floats": 0, "abilities": []}
    counted = counted_macs(lambda: mixer(x, valid))
    return {
        "parameters": sum(p.numel() for p in mixer.parameters()),
        "macs": mixer.macs(x.shape[1]),
        "macs_counted": counted.total,
        "macs_by_hand": counted.by_hand,
        "state_floats": mixer.state_floats(),
        "abilities": [name for name in ("causal", "streamable", "exportable") if getattr(mixer, name)],
    }


def _frames(n_frames: int, dim: int, device: str) -> tuple[Tensor, Tensor]:
    x = torch.randn(1, n_frames, dim, generator=torch.Generator().manual_seed(0))
    return x.to(device), torch.ones(1, n_frames, dtype=torch.bool, device=device)


@torch.inference_mode()
def _forward(layer: Layer, x: Tensor, valid: Tensor) -> None:
    layer.eval()(x, valid)


def _training_step(layer: Layer, x: Tensor, valid: Tensor) -> None:
    layer.train()(x.requires_grad_(), valid).square().mean().backward()
    layer.zero_grad(set_to_none=True)
    x.grad = None


def assemble(variant: Variant, jobs: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table from the jobs of `plan` and what each gave."""
    train, *forward = ({"frames": job["frames"]} | result for job, result in zip(jobs, results, strict=True))
    row: dict[str, Any] = {"name": variant.name, "variant": asdict(variant)}
    row |= {name: train.pop(name) for name in FACTS if name in train}
    row |= {"forward": forward, "train": train}
    return row | {"verdict": verdict(row)}


def verdict(row: dict[str, Any]) -> list[str]:
    """What a row falls short of; `["not judged"]` for baselines and where the lengths that count were not measured."""
    kind = row["variant"]["kind"]
    by_length = {figures["frames"]: figures for figures in row["forward"]}
    needed = REQUIRED_AT_LEAST | (REQUIRED_SPEED if kind == "linear" else {})
    first, last, least, most = LINEAR_MEMORY
    if kind not in ("linear", "exempt") or not {*needed, first, last} <= set(by_length):
        return ["not judged"]
    short = [f"{figures['error']} at {n}" for n, figures in by_length.items() if "error" in figures]
    for n_frames, ratio in sorted(needed.items()):
        if by_length[n_frames].get("ratio", ratio) < ratio:
            short.append(f"{by_length[n_frames]['ratio']:.2f}× SDPA at {n_frames}, expected {ratio:.2g}×")
    if "error" not in by_length[first] and "error" not in by_length[last]:
        growth = by_length[last]["memory_mb"] / by_length[first]["memory_mb"]
        if not least <= growth <= most:
            short.append(f"memory grows {growth:.1f}× from {first} to {last}, expected {least:g}× to {most:g}×")
    return short
