"""Tiny teachers and students of every kind and rate."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

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
