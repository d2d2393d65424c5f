"""Tiny teachers and students of every kind and rate, and a corpus of noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from lobes.dataio import AudioDataset, audio_dataset, write_manifest
from lobes.encoders import Encoder, HuggingFaceEncoder, LogMel, StackingStem
from lobes.mixers import SummaryMixing

HUBERT = {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
          "intermediate_size": 32, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16,
          "num_conv_pos_embedding_groups": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0,
          "activation_dropout": 0.0, "feat_proj_dropout": 0.0}  # fmt: skip


def ours(dim: int = 16, depth: int = 2, factor: int = 4) -> Encoder:
    """25 Hz with four stacked frames, 50 Hz with two, 33.3 Hz with three."""
    return Encoder(LogMel(n_mels=20), StackingStem(20, dim, factor=factor), dim, depth, SummaryMixing)


def hubert(**options: object) -> HuggingFaceEncoder:
    """50 Hz, with random weights."""
    return HuggingFaceEncoder({**HUBERT, **options})


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "ours, 25 Hz": ours,
    "ours, 50 Hz": lambda: ours(factor=2),
    "ours, 33 Hz": lambda: ours(factor=3),
    "HuBERT, 50 Hz": hubert,
}


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
