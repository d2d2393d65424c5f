r"""Models x tasks x heads x seeds: run what has not been run, and compare fairly.

    LOBES_DATA=/corpora python tools/leaderboard.py tools/leaderboard.yaml           # goes on where it was stopped
    python tools/leaderboard.py tools/leaderboard.yaml --list                        # what there is to do
    python tools/leaderboard.py tools/leaderboard.yaml --table                       # CSV, Markdown and the HTML page
    sbatch --array=0-15 --gpus=1 --signal=USR1@180 --wrap \
        'srun python tools/leaderboard.py board.yaml --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT'

SLURM signals what srun starts, not what a batch script runs by itself: without srun a cell at the time limit is killed.
Told to stop, it saves a checkpoint, and the same command goes on.

The YAML says which (see tools/leaderboard.yaml). A cell is one run of a recipe, in a process of its own, as its command
gives it; it writes `run.log` and `result.json` into its folder. Several of these commands may work on one folder: a
cell is run by who holds its claim, and a claim ends with its process. A cell that fails is noted with its error, and
tried again with `--retry`. Of several learning rates the one counts that is best on the validation split.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from leaderboard_cells import Cell, collect, fail, plan, read_json, write_json

from lobes.errors import LobesError
from lobes.evaluation.cost import Energy
from lobes.evaluation.leaderboard import Row, make_board
from lobes.evaluation.leaderboard_page import write_board
from lobes.evaluation.published import read_published
from lobes.training import EXIT_INTERRUPTED, EXIT_REQUEUE, run
from lobes.training.claims import EXIT_LOST, Claim
from lobes.training.signals import REQUEUE_SIGNALS, RequeueAtOnce

logger = logging.getLogger(__name__)
#: A cell's process need not import for seconds what is imported here.
CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has not been run, or make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("board", type=Path, help="YAML of models, tasks, heads and seeds")
    parser.add_argument("--out", type=Path, help="in place of the YAML's")
    parser.add_argument("--part", default="0/1", metavar="INDEX/COUNT", help="of several processes")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument("--stale", type=float, default=1800, metavar="SECONDS", help="of silence of another host's run")
    parser.add_argument("--list", action="store_true", help="show the cells and how they stand")
    parser.add_argument("--table", action="store_true", help="run nothing; write what there is")
    parser.add_argument("--docs", type=Path, help="where --table writes; the folder of the runs by default")
    options = parser.parse_args(argv)
    known, cells = plan(options.board, options.out)
    if options.list:
        for cell in cells:
            print(f"{state(cell, options.stale):8}  {cell}")
        return
    if options.table:
        tabulate(known, cells, options.docs or known["out"])
        return
    index, count = _part(options.part)
    run_all(cells[index::count], options.retry, options.stale)


def tabulate(known: Mapping[str, Any], cells: Sequence[Cell], folder: Path) -> None:
    """Write all tables and the page from what has been run, and what failed."""
    entries, failed = collect(cells)
    if not entries:
        raise LobesError(f"{known['out']}: no finished cell, {len(failed)} failed; run without --table first")
    published: list[Row] = [row for path in known["published"] for row in read_published(path)]
    board = make_board(entries, published)
    paths = write_board(folder, {**board, "failed": failed}, known["title"])
    print("\n".join(str(path) for path in paths))


def run_all(cells: Sequence[Cell], retry: bool, stale: float) -> None:
    """Run the cells that are neither done nor another's, one after the other.

    Raises
    ------
    LobesError
        Cells failed; after all the others were run.
    """
    failed, elsewhere = [], 0
    for number, cell in enumerate(cells, 1):
        before = state(cell, stale)
        if before == "done":
            continue
        if before == "failed" and not retry:
            failed.append(cell)
            continue
        begun = time.monotonic()
        code = run_cell(cell, stale)
        if code in (EXIT_REQUEUE, EXIT_INTERRUPTED):
            print(f"stopped in {cell}; the same command goes on")
            raise SystemExit(code)
        after = state(cell, stale)
        if after == "todo" and code not in (0, EXIT_LOST):  # its process could not say what happened
            fail(cell, f"its process ended with {_ended(code)}; see {cell.folder / 'run.log'}")
            after = "failed"
        failed += [cell] if after == "failed" else []
        elsewhere += after in ("running", "todo")
        print(f"[{number}/{len(cells)}] {cell}: {after}, {time.monotonic() - begun:.0f} s", flush=True)
    if elsewhere:
        print(f"{elsewhere} cells are being run by other processes")
    if failed:
        errors = "; ".join(f"{cell}: {read_json(cell.folder / 'failed.json').get('error', '')}" for cell in failed)
        raise LobesError(f"{len(failed)} of {len(cells)} cells failed ({errors}); mend and give --retry")


def state(cell: Cell, stale: float) -> str:
    """`done`, `failed`, `running` (by a process that lives) or `todo`."""
    if cell.done:
        return "done"
    if Claim(cell.claim, stale).live():
        return "running"
    return "failed" if (cell.folder / "failed.json").is_file() else "todo"


def run_cell(cell: Cell, stale: float) -> int:
    """Run a cell in a process of its own, pass signals on to it, and return its exit code."""
    process = CONTEXT.Process(target=_work, args=(cell, stale))
    process.start()

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process.is_alive():
            os.kill(process.pid, number)

    earlier = {number: signal.signal(number, pass_on) for number in REQUEUE_SIGNALS}
    try:
        process.join()
    except KeyboardInterrupt:  # which the terminal sends to both
        process.join()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    return int(process.exitcode or 0)


def _work(cell: Cell, stale: float) -> None:
    """A cell's process: take its claim, run the recipe, note what happened. Whoever else has the claim does it."""
    claim = Claim(cell.claim, stale)
    if not claim.take():
        return
    code: Any = 0
    try:
        if not cell.done:
            _redirect(cell.folder / "run.log")
            with RequeueAtOnce():
                _run_recipe(cell)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except SystemExit as leaving:
        code = leaving.code or 0
        if code not in (0, EXIT_REQUEUE, EXIT_INTERRUPTED):
            fail(cell, f"left with exit code {code}")
    except BaseException as error:  # memory included: one cell that fails does not stop the others
        traceback.print_exc()
        fail(cell, f"{type(error).__name__}: {error}")
        code = 1
    claim.release()
    sys.stdout.flush()
    sys.stderr.flush()
    raise SystemExit(code)


def _run_recipe(cell: Cell) -> None:
    import torch

    (cell.folder / "failed.json").unlink(missing_ok=True)
    note = cell.folder / "cell.json"
    resumed = note.is_file()
    write_json(note, cell.note)
    on_cpu = "--device=cpu" in cell.options or not torch.cuda.is_available()
    sys.argv = cell.command  # which result.json tells
    with Energy("cpu" if on_cpu else "cuda") as energy:
        cell.load().main(cell.argv)
    if not cell.done:
        raise LobesError(f"{cell.recipe} wrote no result.json")
    if energy.joules is not None and not resumed:  # of all of the run, or it would look cheap
        write_json(note, {**read_json(note), "kwh": energy.joules / 3.6e6, "energy": energy.source})


def _redirect(path: Path) -> None:
    """Send what the recipe prints into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))


def _ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise LobesError(f"--part is {text!r}: expected INDEX/COUNT with INDEX from 0 to COUNT - 1, such as 0/4")
    return int(index), int(count)


if __name__ == "__main__":
    run(main)
