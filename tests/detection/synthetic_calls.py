"""Calls made of sweeps in noise, recordings of them, and a detector for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from lobes.dataio.annotations import Annotation
from lobes.detection import Detector
from lobes.evaluation import EventRule
from lobes.export import load_encoder
from lobes.probes import FrameLinear

RATE = 16000
#: Hz at the beginning and the end of each kind of call.
SWEEPS = {"whoop": (500.0, 1100.0), "hoot": (2500.0, 1800.0)}


def with_calls(seconds: float, calls: Sequence[Annotation], rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Noise with a sweep wherever a call is said to be, float32."""
    rng = np.random.default_rng(seed)
    samples = 0.02 * rng.standard_normal(round(seconds * rate))
    for call in calls:
        first, last = round(call.start * rate), min(round(call.end * rate), len(samples))
        low, high = SWEEPS[call.label]
        time = np.arange(last - first) / rate
        pitch = low + (high - low) * time / call.duration / 2
        samples[first:last] += 0.1 * np.sin(2 * np.pi * pitch * time) * np.hanning(last - first) ** 0.25
    return samples.astype(np.float32)


def random_calls(seconds: float, seed: int, every: float = 8.0) -> list[Annotation]:
    """Calls of 0.6 to 1.5 s, one in each stretch of `every` seconds."""
    rng = np.random.default_rng(seed)
    calls = []
    for stretch in np.arange(0.0, seconds - every + 1e-6, every):
        start, length = stretch + rng.uniform(0.5, every - 2.5), rng.uniform(0.6, 1.5)
        calls.append(Annotation(float(start), float(start + length), str(rng.choice(list(SWEEPS)))))
    return calls


def write_recording(
    path: Path, seconds: float, calls: Sequence[Annotation], rate: int = RATE, channels: int = 1
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = with_calls(seconds, calls, rate)
    soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), rate)
    return path


def new_detector(**options) -> Detector:
    """A detector on log-mel features with a random head."""
    torch.manual_seed(0)
    rule = EventRule(high=0.6, low=0.4, median=0.2, min_duration=0.2, min_gap=0.2)
    options = {"window": 4.0, "hop": 2.0, "rules": dict.fromkeys(SWEEPS, rule), **options}
    options.setdefault("head", FrameLinear)
    return Detector(load_encoder("logmel-40-25hz"), classes=list(SWEEPS), **options).eval()
