"""Sounds that stand for digits and for calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RECORDERS = ("S10", "S11", "S12")


def clip(noise: np.random.Generator, kind: str, hum: float) -> np.ndarray:
    """A second: a rising or a falling whistle, or none, over a recorder's hum."""
    time = np.arange(16000) / 16000
    slope = {"duet": 500.0, "long.argus": -500.0, "noise": 0.0}[kind] * (1 + 0.05 * noise.standard_normal())
    call = 0.1 * np.sin(2 * np.pi * (1000 + slope * time / 2) * time) * np.hanning(16000) if slope else 0.0
    hum_sound = 0.02 * np.sin(2 * np.pi * hum * time) * (1 + time)
    return call + hum_sound + 0.005 * noise.standard_normal(16000)


def tones(digit: int, seconds: float, noise: np.random.Generator, rate: int = 8000) -> np.ndarray:
    """Two tones in a little noise, whose pitches tell the digit: 250 Hz to 2.7 kHz, and half as much again."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 250 * 1.3**digit * (1 + 0.01 * noise.standard_normal())
    sound = 0.1 * np.sin(2 * np.pi * pitch * time) + 0.03 * np.sin(3 * np.pi * pitch * time)
    return sound + 0.003 * noise.standard_normal(len(time))


def write_librispeech(root: Path) -> Path:
    """<subset>/<speaker>/<chapter>/<id>.flac at 16 kHz with transcripts, as OpenSLR packs it."""
    noise = np.random.default_rng(0)
    for subset, speakers in {"train-clean-100": (19, 26, 27, 32), "dev-clean": (84, 174)}.items():
        for speaker in speakers:
            chapter = root / subset / str(speaker) / "198"
            chapter.mkdir(parents=True)
            names = [f"{speaker}-198-{number:04d}" for number in range(6)]
            for name in names:
                words = [tones(digit, 0.15, noise, 16000) for digit in noise.integers(0, 10, noise.integers(8, 16))]
                soundfile.write(chapter / f"{name}.flac", np.concatenate(words), 16000)
            lines = "".join(f"{name} SOME WORDS\n" for name in names)
            (chapter / f"{speaker}-198.trans.txt").write_text(lines)
    return root
