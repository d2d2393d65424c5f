"""A pretraining recipe, killed and resumed, or shared by two processes, gives the losses of one undisturbed process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipe_runner import QUIET, RECIPES, SMALL, leave, start, steps

from lobes.evaluation import read_result

RECIPE = "LibriSpeech/SSL"
N_STEPS = 20


def options(folder: Path, data: Path) -> list[str]:
    """Twenty steps, four an epoch, with a checkpoint after every third."""
    few = ("--optimizer_step_limit=20", "--train_loader.batch_seconds=10", "--ckpt_interval_steps=3")
    return ["hparams/tiny.yaml", f"--output_folder={folder}", f"--data_folder={data}", *few, *SMALL]


def kill_at(step: int, folder: Path, argv: list[str]) -> None:
    """Start the recipe, or go on with it, and kill -9 it as soon as it has written the row of a step."""
    process = start(RECIPE, *argv)
    deadline = time.monotonic() + 60
    while not (folder / "train_log.csv").exists() or not any(row["step"] == str(step) for row in steps(folder)):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_killed_three_times_the_losses_are_the_same_to_the_last_digit(librispeech_folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    dropout = "--encoder.dropout=0.1"  # so that random numbers have to go on, too
    assert leave(RECIPE, *options(whole, librispeech_folder), dropout)[0] == 0
    expected = steps(whole)
    assert [row["step"] for row in expected] == [str(step) for step in range(1, N_STEPS + 1)]

    argv = [*options(parts, librispeech_folder), dropout]
    killed = sorted(random.SystemRandom().sample(range(2, N_STEPS), 3))
    for step in killed:
        kill_at(step, parts, argv)
    assert leave(RECIPE, *argv)[0] == 0
    assert steps(parts) == expected, f"killed after steps {killed}"
    assert len({row["loss"] for row in expected}) == N_STEPS
    records = [read_result(folder)["records"] for folder in (whole, parts)]
    assert records[0] == records[1]


@pytest.mark.slow
def test_two_processes_of_torchrun_equal_one(librispeech_folder, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert leave(RECIPE, *options(one, librispeech_folder))[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(RECIPES / RECIPE / "train.py"), *options(two, librispeech_folder), *QUIET]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for column in ("loss", "lr", "grad_norm", "masked_accuracy"):
        values = [[float(row[column]) for row in steps(folder)] for folder in (one, two)]
        assert len(values[0]) == N_STEPS
        assert values[1] == pytest.approx(values[0], abs=1e-4), column
    results = [read_result(folder) for folder in (one, two)]
    items = [{record["id"]: record["predictions"] for record in result["records"]} for result in results]
    assert items[0] == items[1], "each held-out utterance is scored once, with the same masks"
