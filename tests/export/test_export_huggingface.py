"""Encoders as Transformers' models and back: the same bits, without network, and without trust in the folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from lobes.encoders.lengths import relative_lengths
from lobes.errors import CheckpointError, ConfigError
from lobes.export import load_encoder, save_encoder
from lobes.export.huggingface import LobesConfig, LobesModel, load_hf, save_hf


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """What looks for the network fails at once, and the caches are the test's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def saved(tmp_path, encoder, hparams_text):
    """The encoder as a folder of Transformers."""
    return save_hf(save_encoder(encoder, tmp_path / "enc", hparams_text), tmp_path / "hf")


@pytest.fixture
def masked():
    """Two utterances: waveform, relative lengths, and the mask that says the same."""
    lengths = torch.tensor([8000, 4321])
    return torch.randn(2, 8000), relative_lengths(lengths, 8000), (torch.arange(8000) < lengths[:, None]).long()


def test_auto_model_computes_the_same_bits(saved, encoder, masked):
    from transformers import AutoConfig, AutoModel

    waveform, lengths, mask = masked
    model = AutoModel.from_pretrained(saved)
    assert type(model) is LobesModel and type(AutoConfig.from_pretrained(saved)) is LobesConfig
    assert not model.training and not torch.isnan(model.encoder.features.mel_matrix).any()
    with torch.no_grad():
        expected = encoder(waveform, lengths)
        output = model(waveform, attention_mask=mask, output_hidden_states=True)
        without_mask = model(waveform)
    assert torch.equal(output.last_hidden_state, expected.frames) and torch.equal(output.valid, expected.valid)
    assert all(map(torch.equal, output.hidden_states, expected.layers)) and len(output.hidden_states) == 3
    assert without_mask.hidden_states is None and without_mask.valid.all()


@pytest.mark.slow
def test_the_code_in_the_folder_finds_the_classes_by_itself(saved, tmp_path, encoder, masked):
    waveform, lengths, mask = masked
    torch.save((waveform, mask), tmp_path / "batch.pt")
    code = f"""
import torch
from transformers import AutoModel
torch.set_num_threads(1)
waveform, mask = torch.load({str(tmp_path / "batch.pt")!r})
with torch.no_grad():
    model = AutoModel.from_pretrained({str(saved)!r}, trust_remote_code=True)
    torch.save(model(waveform, attention_mask=mask).last_hidden_state, {str(tmp_path / "frames.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    with torch.no_grad():
        # Another process may lay out memory in another way, and then round in another way.
        torch.testing.assert_close(
            torch.load(tmp_path / "frames.pt"), encoder(waveform, lengths).frames, atol=1e-5, rtol=0
        )


def test_it_comes_back_as_an_encoder_of_ours_after_training_too(saved, tmp_path, encoder):
    loaded = load_hf(saved)
    assert type(loaded) is type(encoder) and not loaded.training
    assert {name: t.tolist() for name, t in loaded.state_dict().items()} == {
        name: t.tolist() for name, t in encoder.state_dict().items()
    }
    model = LobesModel.from_pretrained(saved).train()
    model(torch.randn(1, 4000)).last_hidden_state.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    torch.nn.init.normal_(model.encoder.norm.bias.data)
    model.save_pretrained(tmp_path / "trained")
    assert torch.equal(load_hf(tmp_path / "trained").norm.bias, model.encoder.norm.bias)


def test_padding_is_at_the_end_or_refused(saved, masked):
    model = LobesModel.from_pretrained(saved)
    with pytest.raises(ConfigError, match="padding at its end"):
        model(masked[0], attention_mask=masked[2].flip(1))


def test_saving_and_loading_leave_the_random_state_alone(saved):
    before = torch.get_rng_state()
    LobesModel.from_pretrained(saved)
    load_hf(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_weights_are_an_error_and_not_noise(saved):
    path = saved / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.norm.bias"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.bias is missing"):
        LobesModel.from_pretrained(saved)
    with pytest.raises(CheckpointError, match=r"1 missing \(first: norm.bias\)"):
        load_hf(saved)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_hf(saved)


def test_a_configuration_can_name_nothing_foreign(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    config["encoder_yaml"] = f"encoder: !apply:os.system ['touch {tmp_path / 'ran'}']"
    (saved / "config.json").write_text(json.dumps(config))
    for load in (load_hf, LobesModel.from_pretrained):
        with pytest.raises(CheckpointError, match="nothing was loaded"):
            load(saved)
    assert not (tmp_path / "ran").exists()
    (saved / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="encoder_yaml"):
        load_hf(saved)


def test_features_without_weights_are_saved_too(tmp_path):
    waveform, lengths = torch.randn(2, 8000), torch.tensor([1.0, 0.5])
    loaded = load_hf(save_hf("logmel-40", tmp_path / "features"))
    assert torch.equal(loaded(waveform, lengths).frames, load_encoder("logmel-40")(waveform, lengths).frames)
