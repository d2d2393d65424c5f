"""stream.py encodes a file as it arrives, as the offline pass does."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from recipe_runner import RECIPES

FOLDER = RECIPES / "LibriSpeech" / "SSL"


def stream(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "stream.py", *options]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_file_streams_as_it_encodes_offline(tmp_path, rate):
    audio = np.random.default_rng(0).normal(scale=0.1, size=3 * rate + 123)
    soundfile.write(tmp_path / "noise.wav", audio, rate)
    ended = stream(str(tmp_path / "noise.wav"), "--chunk=8", "--check", f"--out={tmp_path / 'frames.npy'}")
    assert ended.returncode == 0, ended.stderr
    assert float(re.search(r"offline pass in chunks: (\S+)", ended.stdout)[1]) < 1e-4
    assert "real-time factor" in ended.stdout and "median" in ended.stdout
    assert np.load(tmp_path / "frames.npy").shape == (76, 256)


def test_a_file_that_is_none_is_one_line_and_code_2(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    ended = stream(str(tmp_path / "text.wav"))
    assert ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 1 and "text.wav" in ended.stderr


def test_an_encoder_that_cannot_stream_says_so(tmp_path):
    soundfile.write(tmp_path / "noise.wav", np.zeros(16000), 16000)
    ended = stream(str(tmp_path / "noise.wav"), "--encoder=sm-tiny")
    assert ended.returncode == 2 and "normalise: running" in ended.stderr
