"""Encoders from elsewhere by their name alone: what `--encoder` takes, with and without `--untrained True`."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch
import torchaudio

from lobes.encoders import HuggingFaceEncoder, LogMel, PictureTransformer, TorchaudioEncoder, VGGish
from lobes.errors import CheckpointError, ConfigError
from lobes.export import encoder_text, load_encoder, save_encoder, save_hf

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
HUBERT = {**SIZES, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
WAVE = torch.randn(2, 6000), torch.tensor([1.0, 0.7])


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def hubert(tmp_path):
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(1)
    HubertModel(HubertConfig(**HUBERT)).save_pretrained(tmp_path / "hubert")
    return tmp_path / "hubert"


def test_a_folder_of_hugging_face(hubert):
    trained = load_encoder(hubert)
    assert isinstance(trained, HuggingFaceEncoder) and not trained.training
    expected = HuggingFaceEncoder(hubert).eval()(*WAVE).frames
    for source in (hubert, str(hubert), f"hf:{hubert}"):
        assert torch.equal(load_encoder(source)(*WAVE).frames, expected)


def test_one_from_elsewhere_is_saved_by_what_it_says_itself(hubert, tmp_path):
    for source in (hubert, f"hf:{hubert}", save_hf("logmel", tmp_path / "ours"), "logmel"):
        encoder = load_encoder(source)
        saved = save_encoder(encoder, tmp_path / "saved", encoder_text(source, encoder))
        assert torch.equal(load_encoder(saved)(*WAVE).frames, encoder(*WAVE).frames)
    with pytest.raises(CheckpointError, match="no folder with hyperparams.yaml"):
        encoder_text(tmp_path / "encoder.onnx", encoder)


def test_an_id_of_the_hub_that_is_in_the_cache(hubert, tmp_path, monkeypatch):
    """As `hf download facebook/hubert-tiny` leaves it; the rest of a run needs no network."""
    import huggingface_hub.constants

    cache = tmp_path / "cache" / "models--facebook--hubert-tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    shutil.copytree(hubert, cache / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    expected = load_encoder(hubert)(*WAVE).frames
    for source in ("facebook/hubert-tiny", "hf:facebook/hubert-tiny", "hf:facebook/hubert-tiny@main"):
        assert torch.equal(load_encoder(source)(*WAVE).frames, expected)
    with pytest.raises(ConfigError, match="facebook/hubert-small: no such folder"):
        load_encoder("facebook/hubert-small")


def test_untrained_is_the_same_architecture_from_the_seed(hubert):
    (hubert / "model.safetensors").unlink()  # not needed for it
    before = torch.random.get_rng_state()
    one, same, other = (load_encoder(hubert, untrained=True, seed=seed)(*WAVE).frames for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == (2, 18, 16)
    with pytest.raises(CheckpointError, match="expected its weights beside config.json"):
        load_encoder(hubert)


@pytest.fixture
def speechbrain(hubert):
    """As LeBenchmark-14K-large is shipped: config.json, and a `.ckpt` in which the model is part of another."""
    from safetensors.torch import load_file

    file = hubert / "model.safetensors"
    state = {f"model.hubert.{name}": tensor for name, tensor in load_file(file).items()}
    torch.save({**state, "model.quantizer": torch.zeros(3)}, hubert / "hubert.ckpt")
    expected = load_encoder(hubert)(*WAVE).frames
    file.unlink()
    return hubert, expected


def test_a_checkpoint_of_speechbrain_beside_its_configuration(speechbrain):
    folder, expected = speechbrain
    for source in (folder, f"hf:{folder}", folder / "hubert.ckpt", str(folder / "hubert.ckpt")):
        assert torch.equal(load_encoder(source)(*WAVE).frames, expected)
    assert not torch.equal(load_encoder(folder, untrained=True)(*WAVE).frames, expected)
    assert load_encoder(folder / "hubert.ckpt", untrained=True)(*WAVE).frames.shape == expected.shape
    (folder / "hubert.ckpt").rename(folder / "checkpoint_best.pt")
    for source in (folder, folder / "checkpoint_best.pt"):
        assert torch.equal(load_encoder(source)(*WAVE).frames, expected)
    shutil.copy(folder / "checkpoint_best.pt", folder / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"2 checkpoints \(checkpoint_best.pt, last.ckpt\).* name the one"):
        load_encoder(folder)
    assert torch.equal(load_encoder(folder / "last.ckpt")(*WAVE).frames, expected)


def test_a_checkpoint_of_speechbrain_from_the_cache(speechbrain, tmp_path, monkeypatch):
    import huggingface_hub.constants

    folder, expected = speechbrain
    cache = tmp_path / "cache" / "models--LeBenchmark--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    shutil.copytree(folder, cache / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for source in ("LeBenchmark/tiny", "hf:LeBenchmark/tiny", "hf:LeBenchmark/tiny@main"):
        assert torch.equal(load_encoder(source)(*WAVE).frames, expected)


class Evil:
    """What a pickle can do."""

    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_checkpoint_that_cannot_be_taken_says_why(speechbrain, tmp_path, monkeypatch):
    folder, _ = speechbrain
    monkeypatch.chdir(tmp_path)
    state = torch.load(folder / "hubert.ckpt", weights_only=True)
    torch.save({"args": Evil(), "model": state}, folder / "hubert.ckpt")
    with pytest.raises(CheckpointError, match="hubert.ckpt: cannot be read .* fairseq's checkpoints, is never run"):
        load_encoder(folder)
    assert not (tmp_path / "ran").exists()
    torch.save({"model": {"encoder.layers.0.self_attn.k_proj.weight": torch.zeros(2)}}, folder / "hubert.ckpt")
    with pytest.raises(CheckpointError, match="under Transformers' names: these are fairseq's"):
        load_encoder(folder)
    with pytest.raises(ConfigError, match="none.ckpt: no such file"):
        load_encoder(folder / "none.ckpt")
    (folder / "config.json").unlink()
    for source in (folder, folder / "hubert.ckpt"):
        with pytest.raises(ConfigError, match="no config.json beside the weights"):
            load_encoder(source)


def test_a_model_of_pictures(tmp_path):
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(**SIZES, image_size=32)).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, PictureTransformer) and encoder(*WAVE).frames.shape == (2, 1, 16)


def test_a_checkpoint_of_torchaudio(tmp_path):
    config = {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [[8, 10, 5], [8, 8, 8], [8, 8, 8]],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 16,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 1,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 24,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.1,
    }
    torch.manual_seed(5)
    model = torchaudio.models.wav2vec2_model(**config, aux_num_out=None).eval()
    torch.save(model.state_dict(), tmp_path / "aves.torchaudio.pt")
    (tmp_path / "aves.torchaudio.model_config.json").write_text(json.dumps(config))
    expected = model(WAVE[0][:1])[0]
    for source in (tmp_path, tmp_path / "aves.torchaudio.pt"):
        encoder = load_encoder(source)
        assert isinstance(encoder, TorchaudioEncoder)
        torch.testing.assert_close(encoder(*WAVE).frames[:1], expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(load_encoder(tmp_path, untrained=True)(*WAVE).frames[:1], expected)
    save_encoder(encoder, tmp_path / "saved", encoder.hparams_text())
    assert torch.equal(load_encoder(tmp_path / "saved")(*WAVE).frames, encoder(*WAVE).frames)


def test_saved_as_an_encoder_folder_it_needs_no_source(tmp_path, hubert):
    encoder = HuggingFaceEncoder(hubert, options={"hidden_dropout": 0.0}, normalise=False, frozen="front-end").eval()
    save_encoder(encoder, tmp_path / "saved", encoder.hparams_text())
    (hubert / "config.json").unlink()
    loaded = load_encoder(tmp_path / "saved")
    assert torch.equal(loaded(*WAVE).frames, encoder(*WAVE).frames)
    assert not loaded.normalise and loaded.frozen == "front-end" and loaded.model.config.hidden_dropout == 0.0


def test_the_others_too(tmp_path):
    vit = {"model_type": "vit", **SIZES, "image_size": 32}
    encoders = [
        PictureTransformer(vit, window=0.3, hop=0.1, pool="mean", scale=(-4.0, 9.0)),
        VGGish(channels=[4, 4, 4, 4], hidden=8, dim=6, hop=0.32, frozen="front-end"),
    ]
    for encoder in encoders:
        save_encoder(encoder.eval(), tmp_path / "saved", encoder.hparams_text())
        loaded = load_encoder(tmp_path / "saved")
        assert torch.equal(loaded(*WAVE).frames, encoder(*WAVE).frames) and loaded.frozen == encoder.frozen
    with pytest.raises(ConfigError, match="features are given"):
        PictureTransformer(vit, features=LogMel(normalise=False)).hparams_text()


def test_what_save_hf_wrote_comes_back(tmp_path):
    save_hf("sm-tiny", tmp_path)
    assert torch.equal(load_encoder(tmp_path)(*WAVE).frames, load_encoder("sm-tiny")(*WAVE).frames)
    with pytest.raises(CheckpointError, match="untrained is True"):
        load_encoder(tmp_path, untrained=True)


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(
        ConfigError, match="nobody/no-such-model: no such folder, and as a model of the Hugging Face hub"
    ):
        load_encoder("nobody/no-such-model")
    with pytest.raises(ConfigError, match="no-such.torchaudio.pt: no such file"):
        load_encoder(tmp_path / "no-such.torchaudio.pt")
    with pytest.raises(CheckpointError, match="encoder 'no-such': no folder"):
        load_encoder("no-such")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="model_type is 'bert'; expected one of audio-spectrogram-transformer"):
        load_encoder(tmp_path)
