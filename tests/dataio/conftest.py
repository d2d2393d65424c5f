"""Tiny audio files, good and bad in every way that real corpora are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

WriteTone = Callable[..., Path]


def write_tone(path: Path, seconds: float = 0.5, rate: int = 16000, channels: int = 1, hertz: float = 440.0) -> Path:
    """Write a quiet sine; channel c is c + 1 times as loud as the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.1 * np.sin(2 * np.pi * hertz * time)
    soundfile.write(path, np.stack([tone * (c + 1) for c in range(channels)], axis=1), rate)
    return path


def write_broken(folder: Path, suffix: str = ".wav", prefix: str = "bad_") -> dict[str, str]:
    """Write one file per fault; return file name -> a word of the reason that must be given."""
    folder.mkdir(parents=True, exist_ok=True)
    good = write_tone(folder / f"source{suffix}", 0.5).read_bytes()
    (folder / f"source{suffix}").unlink()
    faults = {
        f"{prefix}empty{suffix}": (b"", "empty"),
        f"{prefix}truncated{suffix}": (good[: len(good) // 2], ""),
        f"{prefix}text{suffix}": (b"this is no audio, whatever the file is called\n" * 20, "not readable audio"),
    }
    for name, (content, _) in faults.items():
        (folder / name).write_bytes(content)
    reasons = {name: reason for name, (_, reason) in faults.items()}
    if suffix == ".wav":
        samples = np.zeros(800, dtype=np.float32)
        samples[400] = np.nan
        soundfile.write(folder / f"{prefix}nan.wav", samples, 16000, subtype="FLOAT")
        soundfile.write(folder / f"{prefix}nothing.wav", np.zeros(0), 16000)
        reasons |= {f"{prefix}nan.wav": "NaN", f"{prefix}nothing.wav": "no samples"}
        reasons[f"{prefix}truncated.wav"] = "truncated"
    return reasons


@pytest.fixture
def tone() -> WriteTone:
    """The function that writes a sine: `tone(path, seconds, rate, channels, hertz)`."""
    return write_tone


@pytest.fixture
def broken() -> Callable[..., dict[str, str]]:
    """The function that writes broken files: `broken(folder, suffix, prefix)` -> name -> word of the reason."""
    return write_broken
