"""A day at 16 kHz and two hours of stereo at 96 kHz: little memory, much faster than real time, and killed within."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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

#: Runs a command, then prints its seconds and gigabytes. It is a process of its own: Linux counts what the one that
#: starts a process has had in memory as the process's, and the tests have had long recordings.
MEASURED = """
import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9)
sys.exit(os.waitstatus_to_exitcode(status))
"""
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


def kill_within(command: list[str], state: Path, hours: float) -> None:
    """Begin, and kill as soon as the scores of so many hours of a recording are kept."""
    process = subprocess.Popen(command)
    while not (found := list(state.glob("*.partial"))) or json.loads(found[0].read_text())["frames"] < hours * 90000:
        assert process.poll() is None, "it came to its end before it was killed"
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def written(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "rate", "channels"), [(24.0, 16000, 1), (2.0, 96000, 2)], ids=["day", "96kHz"])
def test_long_recordings_need_little_memory_and_time(tmp_path, hours, rate, channels):
    """With the encoder sm-tiny, windows of 8 s every 4 s; 3 GB on disk, and twice some minutes. -s prints the figures.

    The second run is killed when a third, and again when two thirds of the recording are done: it goes on there, and
    writes the same.
    """
    torch.manual_seed(1)
    rules = {"whoop": EventRule(0.5, 0.4, median=0.4, min_duration=0.5, min_gap=0.5)}
    head = Detector(load_encoder("sm-tiny"), FrameLinear, ["whoop", "rest"], ["rest"], window=8.0, rules=rules)
    model = save_detector(head.eval(), tmp_path / "model", encoder_text("sm-tiny"))
    write_long(tmp_path / "in" / "S1_20200101_000000.wav", hours, rate, channels)
    command = [sys.executable, str(DETECT), str(model), str(tmp_path / "in"), "--review", "20", "--threads", "2"]
    whole = [sys.executable, "-c", MEASURED, *command, "--out", str(tmp_path / "out")]
    said = subprocess.run(whole, check=True, capture_output=True, text=True).stdout
    seconds, gigabytes = map(float, said.splitlines()[-1].split())
    print(f"{hours:g} h at {rate} Hz x {channels}: {seconds:.0f} s of processor time, {gigabytes:.2f} GB resident")
    assert gigabytes < 1.0
    # Wall time is what other work leaves of the machine; processor time on two cores is what it takes undisturbed.
    assert 3600 * hours / (seconds / 2) > 100, "times real time, on two cores"
    assert (tmp_path / "out" / "index.html").is_file()
    stopped = tmp_path / "stopped"
    command += ["--out", str(stopped)]
    for share in (1 / 3, 2 / 3):
        kill_within(command, stopped / "state", share * hours)
    last = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert written(stopped) == written(tmp_path / "out"), "the same to the last byte"
    assert float(last.split(" h of it now")[0].split("; ")[-1]) <= hours / 3 + 0.1, "what was kept is not done again"
