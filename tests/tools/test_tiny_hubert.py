"""tools/tiny_hubert.py: a folder as of the hub, the same for the same seed, that recipes take by its path."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lobes.encoders import HuggingFaceEncoder
from lobes.errors import LobesError
from lobes.export import load_encoder

TOOL = Path(__file__).parents[2] / "tools" / "tiny_hubert.py"
WAVE = torch.randn(2, 9000), torch.tensor([1.0, 0.5])


@pytest.fixture
def tool(monkeypatch):
    """Call the tool with arguments."""
    spec = importlib.util.spec_from_file_location("tiny_hubert", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", ["tiny_hubert.py", *map(str, arguments)])
        module.main()

    return call


def test_it_is_read_as_a_model_of_the_hub_is(tool, tmp_path, capsys):
    before = torch.get_rng_state()
    tool(tmp_path / "hubert")
    assert torch.equal(torch.get_rng_state(), before), "nobody else's draws change"
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "hubert")
    files = {path.name for path in (tmp_path / "hubert").iterdir()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json"}
    encoder = load_encoder(tmp_path / "hubert")
    assert isinstance(encoder, HuggingFaceEncoder) and encoder.frame_rate == 50 and len(encoder(*WAVE).layers) == 5
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 1.5e6
    kept = load_file(tmp_path / "hubert" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in encoder.model.state_dict().items() if name in kept)
    assert not torch.equal(load_encoder(tmp_path / "hubert", untrained=True)(*WAVE).frames, encoder(*WAVE).frames)


def test_a_seed_gives_its_weights(tool, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("a", 1)):  # the last in place
        tool(tmp_path / name, "--seed", seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_another_folder_is_left_as_it_is(tool, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert", "hidden_size": 768}))
    with pytest.raises(LobesError, match="no HuBERT of this tool's sizes; give the name of a new folder"):
        tool(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == 768
