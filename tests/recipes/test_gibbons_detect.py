"""detect.py: from a folder of recordings to tables, on the command line."""

from __future__ import annotations

import subprocess
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from recipe_runner import script

from lobes.detection import Detector, save_detector
from lobes.evaluation import EventRule
from lobes.export import encoder_text, load_encoder
from lobes.probes import FrameLinear


def detect(*arguments: object) -> subprocess.CompletedProcess[str]:
    return script("Gibbons/detection/detect.py", *arguments)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A head that hears whatever is loud between 1 and 2 kHz."""
    head, rule = partial(FrameLinear, dropout=0.0), EventRule(0.5, min_duration=0.2, min_gap=0.3)
    detector = Detector(load_encoder("logmel-25hz"), head, ["tone"], window=4.0, rules={"tone": rule}).eval()
    probe = detector.model.probe
    centres = torch.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82)[1:-1]
    hertz = 700 * (10 ** (centres / 2595) - 1)
    with torch.no_grad():
        probe.head.output.weight[:] = ((hertz > 1000) & (hertz < 2000)).float().repeat(4) / 40
        probe.head.output.bias.fill_(-2.0)
    return save_detector(detector, tmp_path_factory.mktemp("model"), encoder_text("logmel-25hz"))


def test_a_recording_becomes_tables(model, tmp_path):
    noise = 0.01 * np.random.default_rng(0).standard_normal(20 * 16000)
    for start in (3, 11):
        noise[start * 16000 : (start + 1) * 16000] += 0.2 * np.sin(2 * np.pi * 1500 * np.arange(16000) / 16000)
    soundfile.write(tmp_path / "in.wav", noise, 16000)
    ended = detect(model, tmp_path / "in.wav", "--out", tmp_path / "out", "--threads", 1, "--channel", 1)
    assert ended.returncode == 0, ended.stderr
    assert (
        ended.stdout.startswith("2 detections in 1 files, 0.01 h; 0.01 h of it now") and "x real time" in ended.stdout
    )
    starts = [float(line.split("\t")[0]) for line in (tmp_path / "out/audacity/in.txt").read_text().splitlines()]
    assert starts == pytest.approx([3.0, 11.0], abs=0.15)
    assert (tmp_path / "out" / "index.html").is_file()


def test_a_mistake_is_one_line_and_code_2(model, tmp_path):
    ended = detect(model, tmp_path / "none", "--out", tmp_path / "out")
    assert ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 1 and "does not exist" in ended.stderr
