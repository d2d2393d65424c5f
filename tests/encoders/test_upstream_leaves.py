"""The leaves of encoders from elsewhere build what they say, from sources that need no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchaudio
from upstream_cases import AVES, CONFIGS, PICTURES, SMALL_VGGISH

from lobes.errors import ConfigError
from lobes.training import load_part

LEAVES = Path(__file__).parents[2] / "hparams" / "encoders"


@pytest.fixture
def overrides(tmp_path):
    """What a user without a network says: folders, and random weights."""

    def folder(name, config):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return {"source": str(tmp_path / name), "untrained": True}

    torch.save(torchaudio.models.wav2vec2_model(**AVES, aux_num_out=None).state_dict(), tmp_path / "aves.pt")
    (tmp_path / "aves.model_config.json").write_text(json.dumps(AVES))
    return {
        "huggingface": folder("wavlm", CONFIGS["wavlm"]) | {"options": {"hidden_dropout": 0.0}},
        "aves": {"source": str(tmp_path / "aves.pt")},
        "picture_transformer": folder("vit", PICTURES["vit"]),
        "vggish": SMALL_VGGISH,
        "time_expansion": {"encoder": folder("hubert", CONFIGS["hubert"])},
    }


@pytest.mark.parametrize("name", ["huggingface", "aves", "picture_transformer", "vggish", "time_expansion"])
def test_a_leaf_builds_an_encoder(name, overrides):
    encoder = load_part(LEAVES / f"{name}.yaml", overrides[name]).eval()
    output = encoder(torch.randn(1, encoder.sample_rate), torch.ones(1))
    assert output.frames.shape == (1, len(output.valid[0]), 16) and len(output.layers) == len(encoder.layer_dims)
    assert any(not p.requires_grad for p in encoder.parameters()) == (name not in ("picture_transformer", "vggish"))


def test_a_misspelt_argument_is_named():
    with pytest.raises(ConfigError, match="frozenn"):
        load_part(LEAVES / "vggish.yaml", {"frozenn": "all"})
