"""Matched encoders are what the tool writes, and match."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lobes import mixers
from lobes.mixers import TokenMixer
from lobes.training import load_part

ROOT = Path(__file__).parents[2]
ENCODERS = ROOT / "hparams" / "encoders"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("match_encoders", ROOT / "tools" / "match_encoders.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_tiny_files_are_what_the_tool_writes(tool):
    for name, text in tool.files("tiny").items():
        assert (ENCODERS / "tiny" / f"{name}.yaml").read_text(encoding="utf-8") == text


def test_every_mixer_is_there_in_every_size(tool):
    of_mixers = {cls for cls, _ in tool.MIXERS.values()}
    every = {name for name in mixers.__all__ if isinstance(getattr(mixers, name), type)}
    assert of_mixers == {n for n in every if issubclass(getattr(mixers, n), TokenMixer)} - {"TokenMixer"}
    for size in tool.SIZES:
        names = {path.stem for path in (ENCODERS / size).glob("*.yaml")}
        assert {f"{name}{suffix}" for name in [*tool.MIXERS, *tool.LAYOUTS] for suffix in ("", "_macs")} <= names


@pytest.mark.parametrize("suffix", ["", "_macs"])
def test_tiny_encoders_match_the_baseline(tool, suffix):
    def measured(name: str) -> float:
        encoder = load_part(ENCODERS / "tiny" / f"{name}.yaml")
        return encoder.macs(10.0) if suffix else sum(p.numel() for p in encoder.parameters())

    baseline = measured("sdpa" + suffix)
    off = {name: measured(name + suffix) / baseline - 1 for name in tool.MIXERS}
    assert all(abs(difference) < 0.015 for difference in off.values()), off


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
def test_larger_files_are_what_the_tool_writes(tool, size):
    for name, text in tool.files(size).items():
        assert (ENCODERS / size / f"{name}.yaml").read_text(encoding="utf-8") == text
