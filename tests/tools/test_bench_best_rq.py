"""The benchmark compares like with like, and says so when it does not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def bench():
    """The script as a module."""
    path = Path(__file__).parents[2] / "tools" / "bench_best_rq.py"
    spec = importlib.util.spec_from_file_location("bench_best_rq", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sizes(bench):
    """A quarter of the tiny size, our feed-forwards matched."""
    return bench.match_parameters(bench.Sizes(dim=64, depth=2, heads=2, hidden=256, codes=128))


def test_both_train_on_the_same_audio_at_the_same_size(bench, sizes):
    batch = bench.waveforms(2, 8, None)
    figures = {}
    for system in bench.SYSTEMS:
        model = bench.build(system, sizes)
        before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        _, masked = bench.train_steps(model, batch, 3)
        after = [p for p in model.parameters() if p.requires_grad]
        assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True)), f"{system}: idle weights"
        figures[system] = bench.trained_parameters(model), sum(masked) / len(masked)
    parameters, masked = zip(*figures.values(), strict=True)
    assert max(parameters) / min(parameters) < 1.03
    assert masked == pytest.approx([120] * 3, rel=0.1)  # 60 % of 4 clips of 2 s at 25 frames a second


def test_what_falls_short_is_named(bench):
    def row(system, speed, memory, parameters):
        ratios = {"speed_ratio": speed, "memory_ratio": memory}
        return {"seconds": 30, "system": system, "parameters": parameters, "masked_frames": 900.0, **ratios}

    reference = row(bench.SPEECHBRAIN, 1.0, 1.0, 1000)
    assert bench.shortfalls([reference, row(bench.SUMMARY, 6.1, 0.4, 1020)]) == []
    wrong = bench.shortfalls([reference, row(bench.SUMMARY, 5.9, 0.6, 1040)])
    assert len(wrong) == 3 and "5.90x" in wrong[0] and "0.60x" in wrong[1] and "parameters" in wrong[2]


def test_ratios_are_medians_of_ratios_within_a_round(bench):
    def figures(system, seconds, peak):
        keys = {"system": system, "seconds": 5, "parameters": 1, "masked_frames": 1}
        return {**keys, "step_seconds": seconds, "peak_mb": peak}

    rounds = [
        {
            (5, bench.SPEECHBRAIN): figures(bench.SPEECHBRAIN, theirs, 100),
            (5, bench.SUMMARY): figures(bench.SUMMARY, ours, 40),
        }
        for theirs, ours in ((4, 1), (10, 2), (6, 1))
    ]
    row = bench.summarise(rounds, 60)[1]
    assert (row["speed_ratio"], row["speed_ratio_range"], row["memory_ratio"]) == (5, [4, 6], 0.4)
    assert row["audio_per_second"] == 60


def test_too_little_audio_is_said(bench, tmp_path):
    with pytest.raises(SystemExit, match="0 s of audio; expected 60 s"):
        bench.waveforms(5, 60, str(tmp_path))
