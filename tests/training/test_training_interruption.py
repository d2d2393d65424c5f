"""Runs that are stopped, killed or resumed give the losses of a run that was not."""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from toy_brain import fit, in_child, in_ranks, make_brain

from lobes import training
from lobes.training import EXIT_INTERRUPTED, EXIT_REQUEUE, checkpointer

EPOCHS = 3


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "train_log.csv", newline="") as file:
        return list(csv.DictReader(file))


def train(folder: Path, after_batch: Any = None, **options: Any) -> None:
    """Train with dropout, workers, accumulation and validation: everything that draws numbers or keeps a position."""
    options = {"grad_accumulation_factor": 2, "ckpt_interval_steps": 2, "dropout": 0.5, **options}
    schedule = training.WarmupCosine(warmup=4, total=12)
    hparams = {"after_batch": after_batch, "lr_scheduler": schedule, "seed": 5}
    brain, counter = make_brain(folder, epochs=EPOCHS, **options, **hparams)
    fit(brain, counter, valid=True, num_workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The log of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_child(train, folder) == 0
    found = rows(folder)
    assert [row["step"] for row in found] == [str(n + 1) for n in range(len(found))]
    assert len(found) >= 12
    assert len({row["lr"] for row in found}) > 8
    return found


def send(number: int, batch: int) -> Any:
    """A hook that after some batches sends a signal to this process and its loader's workers, as SLURM does."""

    def hook(brain: Any) -> None:
        if len(brain.seen) == batch:
            processes = [*(worker.pid for worker in multiprocessing.active_children()), os.getpid()]
            sender = os.fork()
            if sender == 0:
                for process in processes:
                    os.kill(process, number)
                os._exit(0)
            os.waitpid(sender, 0)

    return hook


def test_kill_9_three_times_then_resume(whole: list[dict[str, str]], tmp_path: Path) -> None:
    generator = random.Random(11)
    for _ in range(3):
        hook = send(signal.SIGKILL, generator.randrange(2, 9))
        assert in_child(train, tmp_path, hook) == -signal.SIGKILL
    assert in_child(train, tmp_path) == 0
    assert rows(tmp_path) == whole


def _killed_while_saving(folder: Path, saves: int) -> None:
    """Train until the checkpoint of that number is in part on the disk."""
    synchronise, calls = checkpointer._synchronise, []

    def kill_or_synchronise(path: Path) -> None:
        calls.append(path.name)
        if calls.count("model.ckpt") == saves:
            for worker in multiprocessing.active_children():
                worker.kill()  # it would live on for five seconds, and be waited for
            os.kill(os.getpid(), signal.SIGKILL)
        synchronise(path)

    checkpointer._synchronise = kill_or_synchronise
    train(folder, ckpt_interval_steps=1)


def test_kill_9_while_saving(whole: list[dict[str, str]], tmp_path: Path) -> None:
    for saves in (1, 3):
        assert in_child(_killed_while_saving, tmp_path, saves) == -signal.SIGKILL
    assert list((tmp_path / "save").glob(".staging+*"))
    assert in_child(train, tmp_path) == 0
    assert rows(tmp_path) == whole
    assert not list((tmp_path / "save").glob(".staging+*"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, EXIT_REQUEUE), (signal.SIGUSR1, EXIT_REQUEUE), (signal.SIGINT, EXIT_INTERRUPTED)],
)
def test_signals_save_and_resume(number: int, code: int, whole: list[dict[str, str]], tmp_path: Path) -> None:
    assert in_child(train, tmp_path, send(number, 5)) == code
    assert len(rows(tmp_path)) == 3  # the step of batches 5 and 6 was finished
    assert in_child(train, tmp_path) == 0
    assert rows(tmp_path) == whole


def _stopped_in_validation(folder: Path) -> None:
    brain, counter = make_brain(folder, epochs=EPOCHS, dropout=0.5, seed=5)
    evaluate = brain.evaluate_batch
    calls = []

    def evaluate_batch(batch: Any, stage: Any) -> Any:
        calls.append(stage)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(batch, stage)

    brain.evaluate_batch = evaluate_batch
    try:
        fit(brain, counter, valid=True)
    finally:
        assert len(calls) == 2
        assert list(brain.stage_losses) == [("TRAIN", 1)]


def test_a_stop_in_validation_resumes_there(tmp_path: Path) -> None:
    assert in_child(_stopped_in_validation, tmp_path / "parts") == EXIT_REQUEUE
    rest = fit(*make_brain(tmp_path / "parts", epochs=EPOCHS, dropout=0.5, seed=5), valid=True)
    uninterrupted = fit(*make_brain(tmp_path / "whole", epochs=EPOCHS, dropout=0.5, seed=5), valid=True)
    assert rest.stage_losses == uninterrupted.stage_losses
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def _one_rank_is_stopped(folder: Path) -> None:
    # Not whether there is a folder: the other process may just have made it.
    again = any((folder / "save").glob("CKPT*"))
    hook = send(signal.SIGTERM, 3) if os.environ["RANK"] == "1" and not again else None
    train(folder, after_batch=hook, ckpt_interval_steps=0)


def test_all_processes_stop_together(tmp_path: Path) -> None:
    assert in_ranks(train, tmp_path / "whole") == [0, 0]
    folder = tmp_path / "parts"
    assert in_ranks(_one_rank_is_stopped, folder) == [EXIT_REQUEUE, EXIT_REQUEUE]
    assert len(rows(folder)) == 2
    assert in_ranks(_one_rank_is_stopped, folder) == [0, 0]
    assert rows(folder) == rows(tmp_path / "whole")


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    train(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    train(tmp_path, optimizer_step_limit=5)
    finished = rows(tmp_path)
    assert len(finished) == 5
    train(tmp_path, optimizer_step_limit=5)
    assert rows(tmp_path) == finished


RECIPE = """
import time
import torch
from lobes.training import Brain, run, start_experiment

class Slow(Brain):
    def compute_forward(self, batch, stage):
        time.sleep(0.05)
        return self.modules.model(batch)
    def compute_objectives(self, output, batch, stage):
        return self.weighted(output.square().mean(), len(output))

def main(argv=None):
    hparams, run_opts = start_experiment(argv, __file__)
    brain = Slow(hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], torch.randn(20, 3), train_loader_kwargs=hparams["train_loader"])

if __name__ == "__main__":
    run(main)
"""
HPARAMS = """
seed: 1
output_folder: !PLACEHOLDER
model: !new:torch.nn.Linear
  in_features: 3
  out_features: 2
modules: {model: !ref <model>}
opt_class: !name:torch.optim.SGD
  lr: 0.1
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter
  limit: 1000
checkpointer: !new:lobes.training.Checkpointer
  checkpoints_dir: !ref <output_folder>/save
  recoverables:
    model: !ref <model>
    epoch_counter: !ref <epoch_counter>
train_loader: {batch_size: 2, shuffle: true}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe folder as a user has it."""
    (tmp_path / "hparams").mkdir()
    (tmp_path / "hparams" / "tiny.yaml").write_text(HPARAMS)
    (tmp_path / "train.py").write_text(RECIPE)
    return tmp_path / "train.py"


def _run_recipe(recipe: Path, *arguments: str, stop_after: float | None = None) -> None:
    sys.argv = [str(recipe), *arguments]
    if stop_after is not None:
        threading.Timer(stop_after, os.kill, (os.getpid(), signal.SIGTERM)).start()
    runpy.run_path(str(recipe), run_name="__main__")


def test_a_recipe_from_the_command_line_to_the_exit_code(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    arguments = ("hparams/tiny.yaml", f"--output_folder={folder}", "--noprogressbar")

    def stopped() -> None:
        _run_recipe(recipe, *arguments, stop_after=2.0)

    assert in_child(stopped) == EXIT_REQUEUE
    check_folder(folder)
    reached = len(rows(folder))

    def finished() -> None:
        _run_recipe(recipe, *arguments, f"--optimizer_step_limit={reached + 2}")

    assert in_child(finished) == 0
    assert len(rows(folder)) == reached + 2


def check_folder(folder: Path) -> None:
    (checkpoint,) = (folder / "save").glob("CKPT*")
    assert f"optimizer_step: {rows(folder)[-1]['step']}\n" in (checkpoint / "CKPT.yaml").read_text()
    assert (folder / "hyperparams.yaml").read_text().count("!ref") == 4
    assert "torch==" in (folder / "env.log").read_text()
    assert "first training step after" in (folder / "log.txt").read_text()
    assert (folder / "train.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hparams/tinny.yaml"], "hparams/tinny.yaml: no such file .*did you mean 'hparams/tiny.yaml'"),
        (["hparams/tiny.yaml"], "tiny.yaml: 'output_folder' has no value yet"),
        (["hparams/tiny.yaml", "--output_folder=x", "--precison=bf16"], "no key 'precison'.*'precision'"),
        (["hparams/tiny.yaml", "--output_folder=x", "--precision=fp64"], "command line: .*fp64"),
        ([], "command line: .*param_file; expected train.py hparams/FILE.yaml"),
    ],
)
def test_errors_are_one_line_and_exit_2(
    arguments: list[str], message: str, recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert in_child(_run_recipe, recipe, *arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.match(f"error: .*{message}", line), line


@pytest.mark.slow
def test_torchrun_of_a_recipe_is_stopped_and_saves(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(recipe), "hparams/tiny.yaml", f"--output_folder={folder}"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "train_log.csv").exists() or len(rows(folder)) < 3:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.terminate()  # torchrun hands the signal on
    process.communicate(timeout=60)
    check_folder(folder)
