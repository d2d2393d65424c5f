"""Encoder folders through SpeechBrain's classes, ours and its own, without network or links."""

from __future__ import annotations

import pytest
import soundfile
import torch

from lobes.errors import CheckpointError, DataError
from lobes.export import SafetensorsPretrainer, SSLEncoder, build_encoder, save_encoder


@pytest.fixture
def saved(tmp_path, encoder, hparams_text):
    """The encoder's folder."""
    return save_encoder(encoder, tmp_path / "enc", hparams_text)


def test_encode_batch_is_the_encoder(saved, encoder, batch):
    model = SSLEncoder.from_hparams(source=saved, run_opts={"device": "cpu"})
    output = model.encode_batch(*batch)
    with torch.no_grad():
        expected = encoder(*batch)
    assert torch.equal(output.frames, expected.frames) and torch.equal(output.valid, expected.valid)
    assert not output.frames.requires_grad
    assert torch.equal(model(batch[0]).frames, model.encode_batch(batch[0], torch.ones(2)).frames)


def test_encode_file_reads_any_rate_and_channels(tmp_path, saved):
    model = SSLEncoder.from_hparams(source=str(saved), run_opts={"device": "cpu"})
    time = torch.arange(8000) / 16000
    tone = 0.1 * torch.sin(2 * torch.pi * 440 * time)
    soundfile.write(tmp_path / "mono.wav", tone.numpy(), 16000)
    soundfile.write(tmp_path / "stereo.wav", torch.stack([tone, tone], 1)[::2].numpy(), 8000)
    mono, stereo = model.encode_file(tmp_path / "mono.wav"), model.encode_file(str(tmp_path / "stereo.wav"))
    assert mono.shape == stereo.shape == (13, 16)  # 50 feature frames of 10 ms, stacked by 4
    with pytest.raises(DataError):
        model.encode_file(tmp_path / "missing.wav")


def test_errors_are_ours_and_nothing_is_left_behind(tmp_path, saved):
    with pytest.raises(CheckpointError, match="no folder"):
        SSLEncoder.from_hparams(source=tmp_path / "nowhere")
    (saved / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        SSLEncoder.from_hparams(source=saved)
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_speechbrains_own_class_reads_the_folder(tmp_path, saved, encoder, batch):
    from speechbrain.inference.encoders import WaveformEncoder

    model = WaveformEncoder.from_hparams(source=str(saved), savedir=tmp_path / "cache", run_opts={"device": "cpu"})
    with torch.no_grad():
        assert torch.equal(model.encode_batch(*batch).frames, encoder(*batch).frames)
    weights = [path for path in (tmp_path / "cache").iterdir() if "safetensors" in path.name or "ckpt" in path.name]
    assert not weights, "the weights are linked or copied"


@pytest.mark.parametrize("half", [False, True])
def test_what_the_pretrainer_loads_is_bit_equal_to_what_was_saved(tmp_path, encoder, hparams_text, half):
    source = save_encoder(encoder, tmp_path / "source", hparams_text, half=half)
    fresh = build_encoder((source / "hyperparams.yaml").read_text())
    pretrainer = SafetensorsPretrainer({"encoder": fresh})
    pretrainer.collect_files(default_source=source)
    pretrainer.load_collected()
    loaded = fresh.state_dict()
    for name, tensor in encoder.state_dict().items():
        expected = tensor.half().float() if half else tensor
        assert torch.equal(loaded[name], expected), name


def test_speechbrains_own_class_finds_no_weights_in_a_folder_without(tmp_path, saved):
    from speechbrain.inference.encoders import WaveformEncoder

    (saved / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        WaveformEncoder.from_hparams(source=str(saved), savedir=tmp_path / "cache", run_opts={"device": "cpu"})
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() and not path.exists()]
