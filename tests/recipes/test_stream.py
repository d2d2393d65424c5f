"""stream.py encodes a file as it arrives, as the offline pass does."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
import soundfile
from recipe_runner import SMALL, script, steps, train


def stream(*options: str) -> subprocess.CompletedProcess[str]:
    return script("LibriSpeech/SSL/stream.py", *options)


@pytest.mark.parametrize("rate", [16000, pytest.param(8000, marks=pytest.mark.slow)])
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


@pytest.mark.slow
def test_an_encoder_pretrained_for_streaming_learns_and_streams(librispeech_folder, tmp_path):
    few = ("--train_loader.batch_seconds=30", "--objective.codebook_size=64", "--objective.n_codebooks=1", "--steps=30")
    data = f"--data_folder={librispeech_folder}"
    train("LibriSpeech/SSL", tmp_path / "run", data, *few, *SMALL, hparams="streaming.yaml")
    rows = steps(tmp_path / "run")
    first, last = (sum(float(row["loss"]) for row in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last < first - 0.1, f"{first:.2f} to {last:.2f} nats"
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(scale=0.1, size=40000), 16000)
    ended = stream(str(tmp_path / "noise.wav"), f"--encoder={tmp_path / 'run'}", "--check")
    assert ended.returncode == 0, ended.stderr
    assert float(re.search(r"offline pass in chunks: (\S+)", ended.stdout)[1]) < 1e-4
