"""AVES-style checkpoints: two files in torchaudio's format, and what torchaudio's own model gives for them."""

from __future__ import annotations

import json

import pytest
import torch
import torchaudio
from upstream_cases import AVES, AVES_LARGE

from lobes.encoders import TorchaudioEncoder
from lobes.errors import CheckpointError, ConfigError
from lobes.evaluation.cost import counted_macs

NAME = "aves-base-bio.torchaudio"


def save(folder, config, older_names=False):
    """A random model in the two files in which AVES is published."""
    torch.manual_seed(1)
    model = torchaudio.models.wav2vec2_model(**config, aux_num_out=None).eval()
    state = model.state_dict()
    if older_names:
        conv = "encoder.transformer.pos_conv_embed.conv."
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            state[conv + old] = state.pop(f"{conv}parametrizations.weight.{new}")
    torch.save(state, folder / f"{NAME}.pt")
    (folder / f"{NAME}.model_config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize("older_names", [False, True])
@pytest.mark.parametrize("config", [AVES, AVES_LARGE], ids=["base", "large"])
@torch.no_grad()
def test_it_gives_what_extract_features_gives(tmp_path, config, older_names):
    model = save(tmp_path, config, older_names)
    encoder, wave = TorchaudioEncoder(tmp_path / f"{NAME}.pt").eval(), torch.randn(2, 9000)
    output = encoder(wave, torch.ones(2))
    expected, _ = model.extract_features(wave)
    assert len(output.layers) == len(expected) + 1 == len(encoder.layer_dims)
    for ours, theirs in zip(output.layers[1:], expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.frames, model(wave)[0], atol=1e-5, rtol=1e-5)


def test_the_model_by_itself_reads_padding_although_it_is_given_lengths(tmp_path):
    model, batch = save(tmp_path, AVES), torch.randn(2, 20000)
    alone = model.extract_features(batch[:1, :9000])[0][-1]
    beside = model.extract_features(batch, torch.tensor([9000, 20000]))[0][-1]
    assert (beside[0, : alone.shape[1]] - alone[0]).abs().max() > 1e-2


def test_a_folder_and_random_weights(tmp_path):
    model = save(tmp_path, AVES)
    known = model.encoder.feature_projection.projection.weight
    encoder = TorchaudioEncoder(tmp_path, frozen="front-end")
    assert torch.equal(encoder.model.encoder.feature_projection.projection.weight, known)
    assert not any(p.requires_grad for p in encoder.model.feature_extractor.parameters())
    other = TorchaudioEncoder(tmp_path, untrained=True)
    assert not torch.equal(other.model.encoder.feature_projection.projection.weight, known)


def test_training_has_no_layer_drop_and_uses_every_weight():
    encoder = TorchaudioEncoder(AVES).train()
    batch = torch.randn(2, 9000), torch.tensor([1.0, 0.6])
    torch.testing.assert_close(encoder(*batch).frames, encoder(*batch).frames)
    encoder(*batch).frames.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("config", [AVES, AVES_LARGE], ids=["base", "large"])
def test_macs_equal_the_counted_products(config):
    encoder, wave = TorchaudioEncoder(config).eval(), torch.randn(1, 16000)
    assert encoder.macs(1.0) == counted_macs(lambda: encoder(wave, torch.ones(1))).total


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such file; expected the weights"):
        TorchaudioEncoder(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="has 0 files"):
        TorchaudioEncoder(tmp_path)
    save(tmp_path, AVES)
    config = tmp_path / f"{NAME}.model_config.json"
    config.write_text(json.dumps(AVES | {"encoder_layers": 3}))
    with pytest.raises(ConfigError, match="encoder_layers.*expected the arguments of torchaudio.models.wav2vec2_model"):
        TorchaudioEncoder(tmp_path)
    config.write_text(json.dumps(AVES | {"encoder_num_layers": 3}))
    with pytest.raises(CheckpointError, match="weights are missing"):
        TorchaudioEncoder(tmp_path)
    config.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TorchaudioEncoder(tmp_path)
