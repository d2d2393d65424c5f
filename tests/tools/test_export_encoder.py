"""tools/export_encoder.py: files that load, and a report of their size, speed and differences."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from lobes.errors import CheckpointError, ConfigError
from lobes.export import OnnxStep, build_encoder, load_encoder, save_encoder

TOOL = Path(__file__).parents[2] / "tools" / "export_encoder.py"
HPARAMS = """
encoder: !new:lobes.encoders.Encoder
    features: !new:lobes.encoders.LogMel {n_mels: 20, normalise: running}
    stem: !new:lobes.encoders.StackingStem {n_features: 20, dim: 16}
    dim: 16
    depth: 1
    mixer: !name:lobes.mixers.SummaryMixing
"""


@pytest.fixture
def export(monkeypatch):
    """Call the tool with arguments."""
    spec = importlib.util.spec_from_file_location("export_encoder", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", ["export_encoder.py", *map(str, arguments)])
        tool.main()

    return call


@pytest.mark.slow
def test_a_shipped_encoder_becomes_two_files_and_a_table(tmp_path, export, capsys):
    export("logmel-40-25hz", tmp_path / "out", "--layers")
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [row["name"] for row in told["rows"]] == ["PyTorch float32", "ONNX float32", "ONNX int8"]
    assert all(row["milliseconds"] > 0 and row["largest_difference"] < 1e-4 for row in told["rows"])
    assert told["rows"][1]["bytes"] == (tmp_path / "out" / "encoder.onnx").stat().st_size
    assert len(printed.splitlines()) == 5 and f"{told['rows'][2]['milliseconds']:.2f}" in printed
    loaded, original = load_encoder(tmp_path / "out" / "encoder.int8.onnx"), load_encoder("logmel-40-25hz")
    waveform, lengths = torch.randn(2, 9000), torch.tensor([1.0, 0.3])
    torch.testing.assert_close(
        loaded(waveform, lengths).layers[0], original(waveform, lengths).layers[0], atol=1e-4, rtol=0
    )


@pytest.mark.slow
def test_chunks_give_the_step_of_a_stream(tmp_path, export):
    save_encoder(build_encoder(HPARAMS), tmp_path / "enc", HPARAMS)
    export(tmp_path / "enc", tmp_path / "out", "--chunk", 4)
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert told["seconds"] == pytest.approx(0.16) and 0 < told["rows"][2]["typical_difference"] < 0.1
    about = OnnxStep(tmp_path / "out" / "step.int8.onnx").about
    assert about["audio"] and (about["chunk"], about["left"]) == (4, None)


def test_errors_are_one_line(tmp_path, export):
    with pytest.raises(CheckpointError, match="no folder"):
        export("nowhere", tmp_path)
    with pytest.raises(ConfigError, match="LogMelEncoder; expected an Encoder"):
        export("logmel-40-25hz", tmp_path, "--chunk", 4)
