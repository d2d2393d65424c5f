"""A day at 16 kHz and two hours of stereo at 96 kHz: little memory, and much faster than real time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from synthetic_calls import random_calls, with_calls

from lobes.detection import Detector, save_detector
from lobes.evaluation import EventRule
from lobes.export import encoder_text, load_encoder
from lobes.probes import FrameLinear

DETECT = Path(__file__).parents[2] / "recipes" / "Gibbons" / "detection" / "detect.py"


def write_long(path: Path, hours: float, rate: int, channels: int) -> None:
    """Ten minutes with calls, again and again, each time from another place on."""
    path.parent.mkdir(parents=True)
    samples = with_calls(600.0, random_calls(600.0, seed=1), rate)
    left = round(hours * 3600 * rate)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for turn in range(left // len(samples) + 1):
            block = np.roll(samples, 12345 * turn)[: max(left - turn * len(samples), 0)]
            file.write(np.repeat(block[:, None], channels, axis=1))


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "rate", "channels"), [(24.0, 16000, 1), (2.0, 96000, 2)], ids=["day", "96kHz"])
def test_long_recordings_need_little_memory_and_time(tmp_path, hours, rate, channels):
    """With the encoder sm-tiny, windows of 8 s every 4 s; 3 GB on disk, and minutes. -s prints the figures."""
    torch.manual_seed(1)
    rules = {"whoop": EventRule(0.5, 0.4, median=0.4, min_duration=0.5, min_gap=0.5)}
    head = Detector(load_encoder("sm-tiny"), FrameLinear, ["whoop", "rest"], ["rest"], window=8.0, rules=rules)
    model = save_detector(head.eval(), tmp_path / "model", encoder_text("sm-tiny"))
    write_long(tmp_path / "in" / "S1_20200101_000000.wav", hours, rate, channels)
    command = [sys.executable, str(DETECT), str(model), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--review", "20", "--threads", "2"])
    _, status, used = os.wait4(process.pid, 0)
    seconds, gigabytes = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    print(f"{hours:g} h at {rate} Hz x {channels}: {seconds:.0f} s of processor time, {gigabytes:.2f} GB resident")
    assert os.waitstatus_to_exitcode(status) == 0
    assert gigabytes < 1.0
    # Wall time is what other work leaves of the machine; processor time on two cores is what it takes undisturbed.
    assert 3600 * hours / (seconds / 2) > 100, "times real time, on two cores"
    assert (tmp_path / "out" / "index.html").is_file()
