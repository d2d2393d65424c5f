"""Recipes, run as a user runs them: in this process, in one of their own, or from the shell."""

from __future__ import annotations

import csv
import functools
import importlib.util
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch._dynamo  # noqa: F401  torch.optim imports it, for seconds, which every forked process would repeat

from lobes.evaluation import read_result
from lobes.export import encoder_yaml
from lobes.training import HparamsFile, run

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
#: Every run of a test: on the processor, where figures repeat, and quietly.
QUIET = ("--device=cpu", "--noprogressbar")
#: 0.2 instead of 1.3 million parameters, for a recipe that pretrains.
SMALL = ("--encoder.dim=48", "--encoder.depth=2")
_LIMIT = 120  # seconds


@functools.cache
def load(recipe: str) -> ModuleType:
    """The train.py of `<Corpus>/<task>`, imported once."""
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", recipe) + "_train", RECIPES / recipe / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(recipe: str, folder: Path, *options: str, hparams: str = "tiny.yaml") -> dict[str, Any]:
    """Run a recipe in this process; return its ``result.json``."""
    load(recipe).main([f"hparams/{hparams}", f"--output_folder={folder}", *QUIET, *options])
    return read_result(folder)


def start(recipe: str, *argv: str, stderr: IO[str] | None = None) -> BaseProcess:
    """Start a recipe in a forked process, which need not import for seconds what is imported here."""
    arguments = (load(recipe).main, [*argv, *QUIET], stderr)
    process = multiprocessing.get_context("fork").Process(target=_child, args=arguments)
    process.start()
    return process


def leave(recipe: str, *argv: str) -> tuple[int, str]:
    """Run a recipe in a process of its own until it ends; return the exit code and standard error."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stderr:
        process = start(recipe, *argv, stderr=stderr)
        process.join(_LIMIT)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{recipe} {' '.join(argv)} hangs")
        stderr.seek(0)
        return process.exitcode, stderr.read()


def _child(main: Any, argv: list[str], stderr: IO[str] | None) -> None:
    if stderr is not None:
        os.dup2(stderr.fileno(), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    run(functools.partial(main, argv))


def script(path: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run `recipes/<path>` as from the shell, in its folder, in a forked process that need not import for seconds."""
    file = RECIPES / path
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        arguments = (file, [str(value) for value in argv], out, err)
        process = multiprocessing.get_context("fork").Process(target=_script, args=arguments)
        process.start()
        process.join(_LIMIT)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{path} {' '.join(arguments[1])} hangs")
        texts = [log.read_text(encoding="utf-8") for log in (out, err)]
        return subprocess.CompletedProcess([path, *arguments[1]], process.exitcode or 0, *texts)


def torchrun(
    recipe: str, folder: Path, *options: str, hparams: str = "tiny.yaml", processes: int = 2
) -> dict[str, Any]:
    """Run a recipe by torchrun, on processes of one thread; return its ``result.json``."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "train.py"]
    command = [sys.executable, *launch, f"hparams/{hparams}", f"--output_folder={folder}", *QUIET, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=RECIPES / recipe, env=environment, capture_output=True, text=True, timeout=2 * _LIMIT
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return read_result(folder)


def _script(file: Path, argv: list[str], out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))
    os.chdir(file.parent)
    sys.argv = [file.name, *argv]
    sys.path.insert(0, str(file.parent))
    runpy.run_path(str(file), run_name="__main__")


def steps(folder: Path) -> list[dict[str, str]]:
    """The rows of ``train_log.csv``, as they are written."""
    with open(folder / "train_log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def skipped(folder: Path) -> dict[str, str]:
    """What a ``skipped.csv`` lists, with the reasons."""
    with open(folder / "skipped.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return dict(rows)


def untrained_encoder(folder: Path, leaf: str = "tiny.yaml", **options: Any) -> Path:
    """Make an encoder's folder without weights: enough for ``--untrained=True``."""
    folder.mkdir(parents=True)
    source = folder / "source.yaml"
    source.write_text(f"encoder: !include:{ROOT / 'hparams' / 'encoders' / leaf}\n", encoding="utf-8")
    text = HparamsFile(source, {f"encoder.{name}": value for name, value in options.items()}).text
    (folder / "hyperparams.yaml").write_text(encoder_yaml(text), encoding="utf-8")
    return folder
