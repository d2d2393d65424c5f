"""Hugging Face's speech models behind the contract: what their own forward gives, from a folder, offline, trainable."""

from __future__ import annotations

import copy
import json
import logging
import math
import socket

import pytest
import torch
from upstream_cases import CONFIGS, tiny

from lobes.encoders import HuggingFaceEncoder
from lobes.errors import CheckpointError, ConfigError
from lobes.evaluation.cost import counted_macs

NO_DROPOUT = {
    "whisper": {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
    "wav2vec2-bert": {"conformer_conv_dropout": 0.0},
    "wav2vec2-conformer": {"conformer_conv_dropout": 0.0},
}
DROPOUTS = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0}


def without_dropout(name: str, **options) -> HuggingFaceEncoder:
    kind = CONFIGS[name]["model_type"]
    return tiny(
        name, options=NO_DROPOUT["whisper"] if kind == "whisper" else DROPOUTS | NO_DROPOUT.get(kind, {}), **options
    )


def shaken(encoder):
    """Weights and statistics that are ones or zeros in a new model get values that show."""
    for module in encoder.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)) and module.bias is not None:
            torch.nn.init.normal_(module.bias)
    return encoder


def padded(*utterances, fill=math.nan):
    longest = max(map(len, utterances))
    batch = torch.full((len(utterances), longest), fill)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return batch, torch.tensor([len(u) / longest for u in utterances])


def reference(name: str, encoder, wave):
    """The model's own forward on what its feature extractor gives."""
    import transformers

    extractors = {"wav2vec2-bert": "SeamlessM4TFeatureExtractor", "whisper": "WhisperFeatureExtractor"}
    extractor = getattr(transformers, extractors.get(name, "Wav2Vec2FeatureExtractor"))()
    if name == "whisper":
        extractor.n_samples = 16000  # 50 positions
        inputs = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt")
    else:
        inputs = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt")
    return encoder.model(inputs[extractor.model_input_names[0]], output_hidden_states=True)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_alone_it_gives_what_the_model_gives(name):
    encoder, wave = shaken(tiny(name)), 0.3 * torch.randn(8000) + 0.1
    output, theirs = encoder(wave[None], torch.ones(1)), reference(name, encoder, wave)
    n_frames = output.frames.shape[1]
    # Whisper's model also has frames for the silence that a piece is filled with.
    assert n_frames == (25 if name == "whisper" else 24)
    tolerance = 1e-5
    for ours, their in zip(
        [output.frames, *output.layers], [theirs.last_hidden_state, *theirs.hidden_states], strict=True
    ):
        torch.testing.assert_close(ours, their[:, :n_frames], atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("name", ["data2vec-audio", "conformer", "hubert-batch-norm", "hubert"])
@torch.no_grad()
def test_the_model_by_itself_reads_padding_where_a_mask_is_passed(name):
    """What is mended here is really broken there, and `tiny` shows it: otherwise the contract tests prove nothing."""
    encoder = shaken(tiny(name))
    wave, lengths = padded(torch.randn(8000), torch.randn(20000), fill=0.0)
    mask = torch.zeros_like(wave, dtype=torch.long)
    mask[0, :8000] = mask[1] = 1
    alone = encoder.model(wave[:1, :8000]).last_hidden_state
    beside = encoder.model(wave, attention_mask=mask).last_hidden_state
    assert (beside[0, : alone.shape[1]] - alone[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_in_training_without_dropout_it_gives_the_same(name):
    """No SpecAugment, no layer drop, no statistics of the batch."""
    encoder = shaken(without_dropout(name))
    batch = padded(torch.randn(9000), torch.randn(20000))
    expected = encoder(*batch)
    for _ in range(3):
        found = encoder.train()(*batch)
        assert len(found.layers) == len(encoder.layer_dims)
        for ours, theirs in zip([found.frames, *found.layers], [expected.frames, *expected.layers], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_blind_to_padding_and_use_every_weight(name, checkpointing):
    encoder = shaken(without_dropout(name, gradient_checkpointing=checkpointing)).train()
    mine, other = torch.randn(9000), torch.randn(20000)
    encoder(mine[None], torch.ones(1)).frames.square().sum().backward()
    alone = {key: p.grad for key, p in encoder.named_parameters() if p.requires_grad}
    # A weight without a gradient is an error under DistributedDataParallel.
    assert all(grad is not None for grad in alone.values()), [key for key, grad in alone.items() if grad is None]
    encoder.zero_grad()
    # Another batch in between: blocks that are computed again must find the padding that they had.
    loss = encoder(*padded(mine, other, torch.randn(0))).frames[0].square().sum()
    encoder(*padded(other[:4000], mine, torch.randn(12000)))
    loss.backward()
    for key, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, alone[key], atol=2e-4, rtol=2e-3, msg=lambda m, key=key: key + m)


@pytest.mark.parametrize("name", ["hubert", "wav2vec2-bert", "whisper"])
def test_a_waveform_can_be_learnt(name):
    """Adversarial reprogramming: the gradient reaches a signal that is added to the input, in training too."""
    encoder = tiny(name, frozen="all").train()
    delta = torch.zeros(9000, requires_grad=True)
    encoder(torch.randn(2, 9000) + delta, torch.ones(2)).frames.square().sum().backward()
    assert delta.grad.isfinite().all() and delta.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["hubert", "wav2vec2-bert", "whisper"])
def test_what_is_frozen_stays(name):
    encoder = tiny(name, frozen="front-end").train()
    trained = {key for key, p in encoder.named_parameters() if p.requires_grad}
    front = {id(p) for module in encoder.front_end() for p in module.parameters()}
    assert front and not any(id(p) in front for key, p in encoder.named_parameters() if key in trained)
    assert any("layers" in key for key in trained) and encoder.model.training
    everything = tiny(name, frozen="all").train()
    assert not any(p.requires_grad for p in everything.parameters()) and not everything.model.training
    with pytest.raises(ConfigError, match="frozen is 'conv'; expected one of nothing, front-end, all"):
        tiny(name, frozen="conv")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("samples", [300, 8000, 24000])
def test_macs_equal_the_counted_products(name, samples):
    encoder, wave = tiny(name), torch.randn(1, samples)
    counted, formula = counted_macs(lambda: encoder(wave, torch.ones(1))).total, encoder.macs(samples / 16000)
    if name == "whisper":  # of the Fourier transform, counter and formula have each a rule of thumb of its own
        pieces = torch.randn(-(-samples // 16000), 16000)
        counted -= counted_macs(lambda: encoder.family.features(pieces)).total
        formula -= encoder.family.features.macs(100 * len(pieces))
    elif name == "wav2vec2-bert" and formula:
        counted -= counted_macs(lambda: encoder.family.features(wave, torch.ones(1))).total
        formula -= encoder.family.features.macs((samples - 400) // 160 + 1)
    assert formula == counted and (formula > 0) == (samples > 400 or name == "whisper")


def test_published_sizes():
    from transformers import HubertConfig

    with torch.device("meta"):
        encoder = HuggingFaceEncoder(HubertConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 94_371_712
    assert (encoder.frame_rate, encoder.dim, encoder.sample_rate, len(encoder.layer_dims)) == (50.0, 768, 16000, 13)
    assert 6e9 < encoder.macs(1.0) < 8e9


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def folder(tmp_path):
    """What `save_pretrained` writes of a model with a head, and of its feature extractor."""
    from transformers import HubertConfig, HubertForCTC

    torch.manual_seed(1)
    model = HubertForCTC(HubertConfig(**{**CONFIGS["hubert"], "vocab_size": 5}))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model/preprocessor_config.json").write_text(
        json.dumps(
            {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False, "sampling_rate": 16000}
        )
    )
    return tmp_path / "model", model.hubert


def test_a_local_folder_is_read_without_a_network(folder, no_network, caplog):
    path, model = folder
    with caplog.at_level(logging.WARNING):
        encoder = HuggingFaceEncoder(path).eval()
    assert [record.name for record in caplog.records] == ["lobes.encoders.family"]
    assert "runs once for each length in a batch" in caplog.text and encoder.by_length
    assert not encoder.normalise and HuggingFaceEncoder(path, normalise=True).normalise
    for key, tensor in model.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[key], tensor)
    (path / "model.safetensors").unlink()
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    older = HuggingFaceEncoder(f"hf:{path}").model.state_dict()
    assert all(torch.equal(older[key], tensor) for key, tensor in model.state_dict().items())
    other = HuggingFaceEncoder(path, untrained=True)
    assert not torch.equal(
        other.model.encoder.layers[0].attention.k_proj.weight, model.encoder.layers[0].attention.k_proj.weight
    )
    wave = torch.randn(1, 6000)
    assert torch.equal(encoder(wave, torch.ones(1)).frames, model.eval()(wave).last_hidden_state)


def test_a_layer_norm_front_end_needs_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert not tiny("wav2vec2-layer-norm").by_length
    assert not caplog.records


def test_what_is_not_there_is_said_in_one_line(folder, no_network, tmp_path):
    path, _ = folder
    with pytest.raises(ConfigError, match="nobody/no-such-model: no such folder, .*hf download nobody/no-such-model"):
        HuggingFaceEncoder("hf:nobody/no-such-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: no config.json"):
        HuggingFaceEncoder(tmp_path / "empty")
    with pytest.raises(ConfigError, match="options has 'hidden_dropuot'.*did you mean 'hidden_dropout'"):
        HuggingFaceEncoder(path, options={"hidden_dropuot": 0.0})
    with pytest.raises(ConfigError, match="model_type is 'bert'; expected one of data2vec-audio, hubert"):
        HuggingFaceEncoder({"model_type": "bert"})
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="expected its weights beside config.json"):
        HuggingFaceEncoder(path)
    assert HuggingFaceEncoder(path, untrained=True).dim == 16


def test_weights_of_another_architecture_are_refused(folder):
    path, model = folder
    from safetensors.torch import save_file

    state = model.state_dict()
    del state["encoder.layers.1.attention.k_proj.weight"]
    save_file({key: value.clone() for key, value in state.items()}, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing .first: encoder.layers.1.attention.k_proj.weight"):
        HuggingFaceEncoder(path)


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_checkpoint_in_which_it_is_a_part(tmp_path, suffix):
    """SpeechBrain's `.ckpt` of a Wav2Vec2, as LeBenchmark-14K-large is shipped: another prefix, older names."""
    trained = tiny("wav2vec2-layer-norm").model
    state = {f"model.wav2vec2.{key}": value.clone() for key, value in trained.state_dict().items()}
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        state[f"model.wav2vec2.encoder.pos_conv_embed.conv.{old}"] = state.pop(
            f"model.wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
        )
    state["model.quantizer.codevectors"] = torch.zeros(3)
    path = tmp_path / f"wav2vec2.{suffix}"
    if suffix == "ckpt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    loaded = tiny("wav2vec2-layer-norm", weights=path)
    for key, tensor in trained.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], tensor)
    with pytest.raises(CheckpointError, match="is of shape .*the configuration is another model's"):
        tiny("wav2vec2-layer-norm", weights=path, options={"intermediate_size": 32})
    with pytest.raises(CheckpointError, match="weights are missing"):
        tiny("wav2vec2-layer-norm", weights=path, options={"num_hidden_layers": 3})
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        tiny("wav2vec2-layer-norm", weights=path)


def test_a_copy_has_hooks_of_its_own():
    encoder = shaken(tiny("conformer"))
    twin = copy.deepcopy(encoder)
    batch = padded(torch.randn(9000), torch.randn(20000))
    expected = encoder(*batch).frames
    encoder.family.padding.valid = torch.zeros(2, 62, dtype=torch.bool)  # as in the middle of another batch
    torch.testing.assert_close(twin(*batch).frames, expected)


def test_lora_of_peft_goes_into_the_model():
    peft = pytest.importorskip("peft")
    encoder = tiny("conformer", frozen="nothing")
    wave = padded(torch.randn(9000), torch.randn(20000))
    before = encoder(*wave).frames
    encoder.model = peft.get_peft_model(encoder.model, peft.LoraConfig(r=2, target_modules=["linear_q", "linear_v"]))
    torch.testing.assert_close(encoder(*wave).frames, before)
    encoder.train()(*wave).frames.square().sum().backward()
    trained = {key for key, p in encoder.named_parameters() if p.grad is not None}
    assert trained and all("lora_" in key for key in trained)
    assert len(encoder(*wave).layers) == 3
