"""A small encoder and the hyperparameters of the experiment that made it."""

from __future__ import annotations

import io

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn

HPARAMS = """
seed: 3
dim: 16
output_folder: results/somewhere
band: (0.0, 4000.0)
features: !new:lobes.encoders.LogMel
    n_mels: 40
attention: !name:lobes.mixers.SDPA
    num_heads: 2
opt_class: !name:torch.optim.AdamW
    lr: 1e-3
encoder: !new:lobes.encoders.Encoder
    features: !ref <features>
    stem: !new:lobes.encoders.StackingStem
        n_features: 40
        dim: !ref <dim>
    dim: !ref <dim>
    depth: 2
    mixer:
        - !name:lobes.mixers.SummaryMixing
        - !ref <attention>
    dropout: 1e-1
"""


@pytest.fixture
def hparams_text() -> str:
    """HyperPyYAML of an experiment, with references and much that is not the encoder."""
    return HPARAMS


@pytest.fixture
def encoder() -> nn.Module:
    """What those hyperparameters build, in evaluation mode."""
    torch.manual_seed(11)
    return load_hyperpyyaml(io.StringIO(HPARAMS))["encoder"].eval()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two utterances of 0.5 s and 0.25 s: waveform and relative lengths."""
    return torch.randn(2, 8000), torch.tensor([1.0, 0.5])
