"""A corpus of noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lobes.dataio import AudioDataset, audio_dataset, write_manifest


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., AudioDataset]:
    """Noise of several lengths, 16 kHz."""
    noise = np.random.default_rng(0)
    rows = []
    for number, seconds in enumerate((1.0, 0.6, 1.3, 0.45, 0.9, 1.1)):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * noise.standard_normal(round(16000 * seconds)), 16000)
        where = {"id": f"u{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": seconds}
        rows.append({**where, "duration": seconds, "sample_rate": 16000, "channel": None, "group": f"s{number % 2}"})
    path = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="noise", licence="CC0-1.0")

    def make(**options: object) -> AudioDataset:
        return audio_dataset(path, 16000, ("id", "sig", "group"), **options)

    return make


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
