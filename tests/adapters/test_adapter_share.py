"""How many parameters each method trains: on HuBERT-base, the published shares."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from lobes.adapters import (
    CHAPTER,
    IA3,
    BitFit,
    ConvLoRA,
    DoRA,
    FrozenProbe,
    FullFineTuning,
    Houlsby,
    LayerNormTuning,
    LLaMAAdapter,
    LLaMAAdapterV2,
    LoRA,
    PrefixTuning,
    PromptTuning,
    Reprogramming,
    VeRA,
    active_adapter,
    adapter_macs,
    set_active,
    summary,
    trainable_share,
)
from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError
from lobes.mixers import SDPA
from lobes.probes import Downstream, LinearHead, Probe

QV = ("query", "value")
#: Percent of 94,371,712, to as many digits as are known.
PUBLISHED = [
    (LoRA(rank=8, targets=QV), "0.313"),
    (LoRA(rank=8, targets=["mixer"]), "0.625"),
    (LoRA(rank=8, targets=["mixer", "ffn"]), "1.406"),
    (DoRA(rank=8, targets=QV), "0.332"),
    (IA3(targets=["key", "value", "ffn_down"]), "0.059"),
    (VeRA(rank=256, targets=QV), "0.026"),
    (Houlsby(bottleneck=32), "1.270"),
    (LayerNormTuning(), "0.043"),
    (BitFit(), "0.111"),
    (ConvLoRA(rank=8), "0.100"),
    (CHAPTER(), "1.760"),
    (CHAPTER(targets=[]), "0.490"),
    (PrefixTuning(length=10), "0.195"),
    (LLaMAAdapter(length=10), "0.098"),
    (LLaMAAdapterV2(length=10, layers=8), "0.28"),
    (PromptTuning(length=20), "0.016"),
    (Reprogramming(seconds=1), "0.017"),
    (Reprogramming(seconds=10), "0.17"),
    (FullFineTuning(), "100.00"),
    (FrozenProbe(), "0.000"),
]


@pytest.mark.parametrize(("method", "percent"), PUBLISHED, ids=lambda value: str(value)[:40])
def test_shares_of_hubert_base(method, percent):
    from transformers import HubertConfig, HubertModel

    with torch.device("meta"):  # shapes are all that it takes
        model = method.apply(HubertModel(HubertConfig()))
    digits = len(percent.partition(".")[2])
    assert f"{100 * trainable_share(model):.{digits}f}" == percent
    assert f"of 94,371,712 parameters, {100 * trainable_share(model):.3f} %" in summary(model)


def test_shares_have_one_denominator_whatever_else_there_is():
    encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 2, SDPA)
    total = sum(p.numel() for p in encoder.parameters())
    BitFit().apply(encoder, "biases")
    biases = trainable_share(encoder)
    PrefixTuning(length=2).apply(encoder, "prefix")
    assert trainable_share(encoder) == 2 * 2 * 2 * 16 / total
    set_active(encoder, "biases")
    assert trainable_share(encoder) == biases
    lines = summary(encoder).splitlines()
    assert lines[0].startswith("biases (active): BitFit(), ") and lines[1].startswith("prefix: PrefixTuning(length=2")
    set_active(encoder, None)
    assert trainable_share(encoder) == 0 and "active" not in summary(encoder)


def test_a_probe_beside_it_leaves_an_adapted_encoder_as_it_is():
    encoder = Houlsby(bottleneck=2).apply(Encoder(LogMel(), StackingStem(80, 16), 16, 2, SDPA))
    share = trainable_share(encoder)
    probed = Downstream(encoder, Probe(encoder.layer_dims, LinearHead(16, 2)), frozen=None)
    assert trainable_share(encoder) == share
    set_active(probed, None)
    assert trainable_share(encoder) == 0 and all(p.requires_grad for p in probed.probe.parameters())
    groups = probed.parameter_groups(0.1)
    assert len(groups) == 1
    set_active(probed, "default")
    assert sum(p.numel() for p in probed.parameter_groups(0.1)[1]["params"]) == sum(
        p.numel() for p in encoder.parameters() if p.requires_grad
    )


def test_without_peft_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 1, SDPA)
    for method in (LoRA(), DoRA(), IA3(), VeRA()):
        with pytest.raises(ConfigError, match=r"the package peft is missing; pip install -e '.\[adapters\]'"):
            method.apply(encoder)
    assert "no adapters" in summary(encoder)
    Houlsby().apply(encoder)


YAML = """
features: !new:lobes.encoders.LogMel
    n_mels: 20
stem: !new:lobes.encoders.ConvolutionStem
    n_features: 20
    dim: 16
    channels: 8
encoder: !new:lobes.encoders.Encoder
    features: !ref <features>
    stem: !ref <stem>
    dim: 16
    depth: 2
    mixer: !name:lobes.mixers.SDPA
        num_heads: 2
adaptation: !name:lobes.adapters.{}
"""


@pytest.mark.parametrize(
    "value",
    ["FrozenProbe", "FullFineTuning", "IA3", "BitFit", "LayerNormTuning", "Reprogramming", "CHAPTER", "LLaMAAdapterV2"]
    + ["LoRA {rank: 2, targets: [mixer, ffn]}", "VeRA {rank: 4}", "ConvLoRA {rank: 2}", "DoRA {targets: [ffn_up]}"]
    + ["Houlsby {bottleneck: 3}", "PrefixTuning {length: 2}", "LLaMAAdapter {layers: 1}", "PromptTuning {length: 2}"],
)
def test_one_key_of_a_recipe_chooses_it(value):
    from hyperpyyaml import load_hyperpyyaml

    hparams = load_hyperpyyaml(YAML.format(value))
    adapted = hparams["adaptation"]().apply(hparams["encoder"])
    assert adapted is hparams["encoder"]
    assert (trainable_share(adapted) > 0) == (value != "FrozenProbe")
    assert value.partition(" ")[0] in summary(adapted)


def test_what_an_adapter_adds_is_counted():
    """25 frames a second of width 32, in two Conformer layers, of which each has three of Houlsby's adapters."""
    encoder = Encoder(LogMel(), StackingStem(80, 32), 32, 2, SDPA).train()
    encoder.blocks[0].eval()
    Houlsby(bottleneck=4).apply(encoder)
    modes = [module.training for module in encoder.modules()]
    assert adapter_macs(encoder, 2.0) == 50 * 2 * 3 * (2 * 32 * 4)
    assert [module.training for module in encoder.modules()] == modes and active_adapter(encoder) == "default"
    set_active(encoder, None)
    assert adapter_macs(encoder, 2.0) == 0
    LoRA(rank=8).apply(encoder, "merged_in_use")
    assert adapter_macs(encoder, 2.0) == 0 and adapter_macs(nn.Linear(2, 2), 2.0) == 0
    prefix = PrefixTuning(length=10).apply(Encoder(LogMel(), StackingStem(80, 32), 32, 2, SDPA))
    assert adapter_macs(prefix, 2.0) >= 2 * 50 * 10 * (32 + 32), "each frame attends to ten more, in two layers"
