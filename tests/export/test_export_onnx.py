"""ONNX files: what ONNX Runtime computes is what PyTorch computes, for any batch, in steps, and nearly so in int8."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import onnx
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from lobes.encoders import ConvolutionStem, Encoder, LogMel, StackingStem
from lobes.encoders.lengths import relative_lengths
from lobes.errors import CheckpointError, ConfigError
from lobes.evaluation.cost import time_in_turns
from lobes.export import OnnxEncoder, OnnxStep, export_onnx, export_step, load_encoder, quantise_onnx, verify_onnx
from lobes.export import onnx as onnx_module
from lobes.export.graph import GraphFeatures
from lobes.mixers import SDPA, Chunks, HyperMixing, LocalSDPA, SummaryMixing

TINY = Path(__file__).parents[2] / "hparams" / "encoders" / "tiny.yaml"
CHUNK, LEFT = 4, 12


def tiny() -> Encoder:
    """The encoder of 1.3 million parameters that the recipes train, with the same fresh weights each time."""
    torch.manual_seed(1)
    return load_hyperpyyaml(f"encoder: !include:{TINY}")["encoder"].eval()


def small(*mixers, **options) -> Encoder:
    torch.manual_seed(1)
    features, stem = LogMel(n_mels=20, normalise=options.pop("normalise", True)), options.pop("stem", None)
    return Encoder(features, stem or StackingStem(20, 16), 16, len(mixers), mixers, kernel=5, **options).eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tiny encoder, its file with layers, and the report of the export."""
    encoder, path = tiny(), tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    return encoder, path, export_onnx(encoder, path, layers=True)


@pytest.fixture(scope="module")
def int8(whole):
    """The same in int8."""
    return quantise_onnx(whole[1], whole[1].with_name("tiny.int8.onnx"))


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    """An encoder of both kinds of state and both kinds of stem state, and the file of its step from audio on."""
    mixers = SummaryMixing, partial(SDPA, num_heads=2, left_context=LEFT)
    encoder = small(*mixers, normalise="running", stem=ConvolutionStem(20, 16, channels=4))
    path = tmp_path_factory.mktemp("onnx") / "step.onnx"
    export_step(encoder, path, Chunks(CHUNK, LEFT), audio=True)
    return encoder, path


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, in standard deviations."""
    return float((ours - theirs).abs().max() / theirs.std())


@pytest.mark.parametrize("lengths", [[1], [1600], [16000, 7, 9999], [48123, 48123, 160, 0, 31999]])
def test_any_batch_of_any_length_equals_pytorch(whole, lengths):
    encoder, path, _ = whole
    waveform = 0.1 * torch.randn(len(lengths), max(lengths))
    relative = relative_lengths(torch.tensor(lengths), max(lengths))
    ours = OnnxEncoder(path)(waveform, relative)
    with torch.no_grad():
        theirs = encoder(waveform, relative)
    assert torch.equal(ours.valid, theirs.valid) and len(ours.layers) == len(theirs.layers) == 5
    for mine, its in zip([ours.frames, *ours.layers], [theirs.frames, *theirs.layers], strict=True):
        assert mine.shape == its.shape and off(mine, its) < 1e-4


def test_an_utterance_alone_equals_the_same_beside_garbage(whole):
    encoder = OnnxEncoder(whole[1])
    utterance = torch.randn(1, 7777)
    batch = torch.full((2, 20001), torch.nan)
    batch[0, :7777], batch[1] = utterance, torch.randn(20001)
    alone = encoder(utterance, torch.ones(1)).frames[0]
    padded = encoder(batch, torch.tensor([7777 / 20001, 1.0])).frames[0]
    torch.testing.assert_close(padded[: len(alone)], alone, atol=1e-5, rtol=1e-5)
    assert not padded[len(alone) :].any()


def test_features_equal_the_fourier_transform():
    for options in ({}, {"window": 0.03, "hop": 0.0101}, {"sample_rate": 22050}, {"low": 300.0, "high": 3000.0}):
        features = LogMel(n_mels=20, **options)
        waveform = torch.randn(2, 9001)
        ours, valid = GraphFeatures(features)(waveform, torch.tensor([9001, 4000]))
        theirs, expected = features(waveform, torch.tensor([9001, 4000]) / 9001)
        assert torch.equal(valid, expected)
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_the_report_says_how_far_it_is_and_how_large(whole):
    encoder, path, report = whole
    assert report.bytes == path.stat().st_size and report == verify_onnx(encoder, path)
    assert list(report.largest) == ["frames", *(f"layer_{i}" for i in range(5))]
    assert 0 < report.typical["frames"] < report.largest["frames"] <= report.error < 1e-4
    other = tiny().train()
    torch.nn.init.normal_(other.norm.bias.data, std=0.1)
    assert verify_onnx(other, path).error > 0.1 and other.training


def test_the_file_says_what_it_is(whole, tmp_path):
    encoder, path, _ = whole
    loaded = load_encoder(path)
    assert isinstance(loaded, OnnxEncoder) and not loaded.training
    for name in ("sample_rate", "frame_rate", "dim", "layer_dims"):
        assert getattr(loaded, name) == getattr(encoder, name)
    assert loaded.macs(10.0) == encoder.macs(10.0) and loaded.macs(1.0) < loaded.macs(1.5) < loaded.macs(2.0)
    empty = loaded(torch.zeros(2, 0), torch.ones(2))
    assert empty.frames.shape == (2, 0, 144) and empty.valid.shape == (2, 0)
    with pytest.raises(CheckpointError, match="untrained"):
        load_encoder(path, untrained=True)
    graph = onnx.load(path).graph
    axes = {v.name: [a.dim_param or a.dim_value for a in v.type.tensor_type.shape.dim] for v in graph.input}
    assert axes == {"waveform": ["batch", "samples"], "lengths": ["batch"]}
    assert {file.suffix for file in path.parent.iterdir()} == {".onnx"}, "weights or temporary files lie beside it"


def test_int8_is_a_third_of_the_size_and_close(whole, int8):
    encoder, path, report = whole
    quantised = verify_onnx(encoder, int8)
    assert quantised.bytes <= 0.35 * report.bytes
    assert 1e-4 < quantised.typical["frames"] < 0.05 and quantised.error < 0.5
    loaded = OnnxEncoder(int8)
    assert loaded.layer_dims == encoder.layer_dims and loaded.macs(2.0) == encoder.macs(2.0)
    kinds = [node.op_type for node in onnx.load(int8).graph.node]
    assert kinds.count("MatMul") == 3, "the Fourier transform and the mel bands stay in float, and nothing else does"
    assert kinds.count("MatMulInteger") == 41


@pytest.mark.slow
def test_stacked_weights_stay_in_float_and_the_rest_becomes_int8(tmp_path):
    encoder = small(partial(HyperMixing, num_heads=2, hidden=8))
    export_onnx(encoder, tmp_path / "whole.onnx")
    path = quantise_onnx(tmp_path / "whole.onnx", tmp_path / "int8.onnx")
    assert 1e-4 < verify_onnx(encoder, path).typical["frames"] < 0.1
    weights = {tuple(weight.dims): weight.data_type for weight in onnx.load(path).graph.initializer}
    assert weights[2, 8, 8] == onnx.TensorProto.FLOAT and onnx.TensorProto.INT8 in weights.values()


def test_int8_is_faster_than_pytorch_on_one_thread(whole, int8):
    waveform, lengths = 0.1 * torch.randn(1, 160000), torch.ones(1)
    models = {"torch": whole[0], "int8": OnnxEncoder(int8, threads=1)}
    with torch.inference_mode():
        times = time_in_turns({name: partial(model, waveform, lengths) for name, model in models.items()}, rounds=30)
    assert times["int8"].best < times["torch"].best


def stream(step: OnnxStep, waveform: torch.Tensor, hop: int, window: int) -> torch.Tensor:
    """All frames of one recording, chunk after chunk."""
    state, frames = step.init_state(1), []
    n_feature_frames = -(-waveform.shape[1] // hop)
    for start in range(0, n_feature_frames, 4 * CHUNK):
        valid = torch.arange(start, start + 4 * CHUNK)[None] < n_feature_frames
        audio = waveform[:, start * hop :][:, : (4 * CHUNK - 1) * hop + window]
        missing = (4 * CHUNK - 1) * hop + window - audio.shape[1]
        output, state = step(torch.nn.functional.pad(audio, (0, missing)), valid, state)
        frames.append(output.frames[output.valid])
    return torch.cat(frames)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [16000, 20001, 300])
def test_steps_from_audio_on_equal_the_whole_in_chunks(streaming, samples):
    encoder, path = streaming
    waveform = torch.randn(1, samples)
    ours = stream(OnnxStep(path), waveform, encoder.features.hop_samples, encoder.features.window_samples)
    with torch.no_grad():
        theirs = encoder(waveform, torch.ones(1), Chunks(CHUNK, LEFT)).frames[0]
    assert ours.shape == theirs.shape and off(ours, theirs) < 1e-4


@pytest.mark.slow
def test_int8_steps_are_close(streaming, tmp_path):
    encoder, path = streaming
    quantised = quantise_onnx(path, tmp_path / "step.int8.onnx")
    assert 1e-4 < verify_onnx(encoder, quantised).typical["frames"] < 0.1
    assert [state["fill"] for state in OnnxStep(quantised).about["states"]][:3] == [-500.0, 900.0, 100.0]
    kinds = [node.op_type for node in onnx.load(quantised).graph.node]
    assert "Softmax" in kinds and "IsNaN" not in kinds, "attention is guarded against rows that there are not"


@pytest.mark.slow
def test_steps_from_features_on_need_no_streaming_features(tmp_path):
    encoder = small(partial(SDPA, num_heads=2, causal=True, left_context=6), causal=True)
    report = export_step(encoder, tmp_path / "step.onnx", Chunks(2))
    assert report.error < 1e-4
    with pytest.raises(ConfigError, match="normalise"):
        export_step(encoder, tmp_path / "audio.onnx", Chunks(2), audio=True)
    with pytest.raises(ConfigError, match="chunks is None"):
        export_step(encoder, tmp_path / "none.onnx", None)
    assert [path.name for path in tmp_path.iterdir()] == ["step.onnx"]


def test_a_mixer_that_cannot_be_exported_is_named_with_those_that_can(tmp_path):
    encoder = small(SummaryMixing, partial(LocalSDPA, num_heads=2))
    with pytest.raises(ConfigError, match="LocalSDPA of block 1.*export_step.*SummaryMixing") as caught:
        export_onnx(encoder, tmp_path / "local.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="Linear; expected"):
        export_onnx(torch.nn.Linear(2, 2), tmp_path / "linear.onnx")


def test_nothing_is_written_when_the_two_disagree(whole, tmp_path, monkeypatch):
    encoder, path, _ = whole
    monkeypatch.setattr(onnx_module, "_traced", lambda *args: onnx.load(path))
    other = tiny()
    torch.nn.init.normal_(other.norm.bias.data)
    target = tmp_path / "other.onnx"
    target.write_text("what was there")
    with pytest.raises(CheckpointError, match="standard deviations off PyTorch"):
        export_onnx(other, target)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["what was there"]


@pytest.mark.slow
def test_a_step_is_no_encoder(streaming):
    with pytest.raises(CheckpointError, match="expected 'encoder'"):
        load_encoder(streaming[1])


def test_other_files_are_refused_in_one_line(whole, tmp_path):
    encoder, path, _ = whole
    (tmp_path / "text.onnx").write_text("no model")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    for name, message in {
        "missing": "no such file",
        "text": "cannot run it",
        "foreign": "no metadata",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_encoder(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        quantise_onnx(tmp_path / "text.onnx", tmp_path / "int8.onnx")
    with pytest.raises(CheckpointError, match=r"frames \(1, 25, 144\), expected \(1, 25, 16\)"):
        verify_onnx(small(SummaryMixing), path)
    with pytest.raises(CheckpointError, match="marks other frames"):
        verify_onnx(small(SummaryMixing, stem=StackingStem(20, 16, 8)), path)


def test_importing_the_package_imports_no_extra():
    code = "import lobes.export, sys; print({'onnx', 'onnxscript', 'onnxruntime', 'transformers'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_without_the_extra_one_line_says_what_to_install(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for use in (lambda: load_encoder(whole[1]), lambda: export_onnx(whole[0], tmp_path / "tiny.onnx")):
        with pytest.raises(ConfigError, match=r"onnxruntime.*pip install 'lobes\[export\]'") as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_attention_keeps_the_same_promises(tmp_path):
    torch.manual_seed(1)
    encoder = Encoder(LogMel(n_mels=40), StackingStem(40, 144), 144, 4, SDPA, ffn_factor=2.0).eval()
    report = export_onnx(encoder, tmp_path / "sdpa.onnx")
    path = quantise_onnx(tmp_path / "sdpa.onnx", tmp_path / "sdpa.int8.onnx")
    quantised = verify_onnx(encoder, path)
    assert quantised.bytes <= 0.35 * report.bytes and quantised.typical["frames"] < 0.05
    test_int8_is_faster_than_pytorch_on_one_thread((encoder, None, report), path)
