"""The leaderboard's cells: planned from a YAML, run once each by however many processes, gone on with, chosen."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from lobes.errors import ConfigError, LobesError
from lobes.evaluation import read_result
from lobes.training import HparamsFile

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import leaderboard  # noqa: E402
import leaderboard_cells  # noqa: E402

FORK = multiprocessing.get_context("fork")
BOARD = """
title: Test
models: {good: enc-good, bad: {encoder: enc-bad, untrained: True}}
tasks:
    toy: {recipe: recipes/Toy/task, options: {diary: '%(folder)s/diary', TASK}}
EXTRA
"""
#: A recipe that notes when it begins and ends, and does what its options say.
RECIPE = """
import os, signal, time
from pathlib import Path
from lobes.errors import DataError
from lobes.evaluation import accuracy, label_records, write_result

def main(argv):
    given = dict(option[2:].split("=", 1) for option in argv[1:] if "=" in option)
    note = lambda word: open(given["diary"], "a").write(f"{word} {given['output_folder']}\\n")
    note("begin")
    print("hello from the recipe")
    lr, seed = float(given.get("opt_class.lr", 0)), int(given["seed"])
    if given["name"] == given.get("fails"):
        raise DataError("no\\naudio")
    if given["name"] == given.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(given.get("seconds", 0)))
    right = {"good": 16, "bad": 8}[given["name"]] + seed % 2
    records = label_records(["a"] * 20, ["a"] * right + ["b"] * (20 - right), [str(i) for i in range(20)],
                            [f"s{i % 5}" for i in range(20)])
    # The better on the validation split is not the better on the test split.
    other = {"valid": {0.1: 0.9, 0.01: 0.7}[lr]} if lr and "silent" not in given else {}
    write_result(given["output_folder"], task="toy", system=given["name"], metric=accuracy, records=records, seed=seed,
                 other_metrics=other, wall_seconds=36.0, parameters_total=10, macs_per_second=5.0)
    note("end")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Write a board of a recipe that takes no time, and its YAML."""
    recipe = tmp_path / "recipes" / "Toy" / "task"
    (recipe / "hparams").mkdir(parents=True)
    (recipe / "hparams" / "tiny.yaml").write_text("seed: 1\n")
    (recipe / "train.py").write_text(RECIPE)
    monkeypatch.setattr(leaderboard_cells, "ROOT", tmp_path)

    def write(task: str = "", extra: str = "") -> Path:
        path = tmp_path / "board.yaml"
        text = BOARD.replace("TASK", task).replace("EXTRA", extra).replace("%(folder)s", str(tmp_path))
        path.write_text(text.replace(", }", "}"))
        return path

    return write


def begun(folder: Path, word: str = "begin") -> list[str]:
    """Folders of cells, in the order in which they began, or ended."""
    diary = folder / "diary"
    lines = diary.read_text().split("\n") if diary.exists() else []
    start = f"{word} {folder}/results/leaderboard/"
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(board: Path, *options: str) -> None:
    """As a process of its own, which ends with the code that the shell would see."""
    leaderboard.main([str(board), *options])


def start(board: Path, *options: str):
    process = FORK.Process(target=run, args=(board, *options))
    process.start()
    return process


def test_a_plan_is_models_times_modes_times_heads_times_seeds(toy, tmp_path):
    board = toy(
        "",
        "    heads: {recipe: recipes/Toy/task, modes: [frozen, LoRA], heads: {linear: {head: x, width: null}, big:"
        " {head: y}}, learning_rates: [1e-1, 0.01], options: {cache: '{out}/x/{task}-{model}-{seed}'},"
        " models: [good]}\nseeds: [1, 2]",
    )
    known, cells = leaderboard_cells.plan(board)
    assert len(cells) == 2 * 2 + 2 * 2 * 2 * 2 and [cell.seed for cell in cells] == [1] * 10 + [2] * 10
    assert cells[1].argv == [
        "hparams/tiny.yaml", f"--output_folder={tmp_path}/results/leaderboard/toy/bad/default/default/1", "--name=bad",
        "--seed=1", f"--diary={tmp_path}/diary", "--encoder=enc-bad", "--untrained=True", "--noprogressbar",
    ]  # fmt: skip
    last = cells[5]
    assert last.folder.relative_to(known["out"]) == Path("heads/good/frozen/big/1/lr-0.01")
    assert {"--mode=frozen", "--head=x", "--width=null", "--opt_class.lr=0.01"} <= set(cells[3].options)
    assert f"--cache={tmp_path}/results/leaderboard/x/heads-good-1" in last.options


def test_options_of_a_model_may_be_for_some_recipes_or_tasks(toy):
    board = toy("", "    odd one: {recipe: recipes/Toy/task, options: {cache: '{model}'}}")
    text = board.read_text()
    only = "only_in: {recipes/Toy/task: {width: 3, depth: 2}, odd one: {width: 4}}"
    board.write_text(text.replace("good: enc-good", f"'good, wide/1': {{encoder: enc-good, {only}}}"))
    cells = {(cell.task, cell.model): cell.options for cell in leaderboard_cells.plan(board)[1]}
    assert {"--width=3", "--depth=2"} <= set(cells["toy", "good, wide/1"])
    assert {"--width=4", "--depth=2", "--cache=good-wide-1"} <= set(cells["odd one", "good, wide/1"])
    for options in (cells["toy", "bad"], cells["odd one", "bad"]):
        assert not any("width" in option or "only_in" in option for option in options)


def test_every_part_of_an_array_has_its_share(toy, tmp_path):
    board = toy("", "seeds: [1, 2, 3]")
    for index in range(4):
        run(board, "--part", f"{index}/4")
    found = begun(tmp_path)
    assert len(found) == len(set(found)) == 6
    with pytest.raises(LobesError, match="--part is '4/4'"):
        run(board, "--part", "4/4")


def test_finished_cells_are_not_run_again(toy, tmp_path, capsys):
    board = toy("", "seeds: [1, 2]")
    run(board)
    first = begun(tmp_path)
    assert len(first) == 4 and "[4/4] toy · bad · seed 2: done" in capsys.readouterr().out
    run(board)
    assert begun(tmp_path) == first
    run(board, "--list")
    assert capsys.readouterr().out.count("done      toy") == 4
    assert not list((tmp_path / "results").rglob("claim.json")), "claims are given up"
    log = next((tmp_path / "results").rglob("run.log"))
    assert log.read_text() == "hello from the recipe\n"
    told = json.loads((log.parent / "result.json").read_text())["command"]
    folder = log.parent.relative_to(tmp_path)
    assert told.startswith(f"python recipes/Toy/task/train.py hparams/tiny.yaml --output_folder={folder} --name=")


def test_two_processes_never_run_the_same_cell(toy, tmp_path):
    board = toy("seconds: 0.05", "seeds: [1, 2, 3]")
    processes = [start(board) for _ in range(3)]
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    found = begun(tmp_path)
    assert len(found) == len(set(found)) == 6


def test_a_killed_run_goes_on_and_repeats_only_what_it_was_at(toy, tmp_path):
    board = toy("seconds: 0.6", "seeds: [1, 2]")
    process = start(board)
    until(lambda: len(begun(tmp_path)) == 2)
    inner = json.loads(next((tmp_path / "results").rglob("claim.json")).read_text())["pid"]
    for pid in (process.pid, inner):
        os.kill(pid, signal.SIGKILL)
    process.join()
    assert begun(tmp_path, "end") == ["toy/good/default/default/1"]
    run(board)
    assert begun(tmp_path).count("toy/good/default/default/1") == 1
    assert begun(tmp_path).count("toy/bad/default/default/1") == 2
    assert len(begun(tmp_path)) == 5 and len(begun(tmp_path, "end")) == 4


def test_a_cell_that_outlives_its_leaderboard_is_left_to_it(toy, tmp_path, capsys):
    board = toy("seconds: 2", "")
    process = start(board)
    until(lambda: begun(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    leaderboard.main([str(board), "--part", "0/2"])
    assert "1 cells are being run by other processes" in capsys.readouterr().out
    until(lambda: begun(tmp_path, "end"))
    assert begun(tmp_path) == ["toy/good/default/default/1"]


def test_being_told_to_stop_is_not_a_failure(toy, tmp_path):
    board = toy("seconds: 30", "")
    process = start(board)
    until(lambda: begun(tmp_path))
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 85 and not list((tmp_path / "results").rglob("failed.json"))
    assert not list((tmp_path / "results").rglob("claim.json"))


def test_a_failed_cell_is_noted_and_does_not_stop_the_others(toy, tmp_path, capsys):
    board = toy("fails: good", "seeds: [1, 2]")
    with pytest.raises(LobesError, match=r"2 of 4 cells failed \(toy · good · seed 1: DataError: no audio;"):
        run(board)
    assert len(begun(tmp_path, "end")) == 2
    with pytest.raises(LobesError, match="2 of 4"):
        run(board)
    assert len(begun(tmp_path)) == 4, "what failed is not tried again"
    with pytest.raises(LobesError):
        run(board, "--retry")
    assert len(begun(tmp_path)) == 6
    run(board, "--table")
    text = (tmp_path / "results" / "leaderboard" / "leaderboard.md").read_text()
    assert "| toy | good | default | default | 1 |  | DataError: no audio |" in text and "| bad | default |" in text


def test_a_cell_that_is_killed_is_noted(toy):
    with pytest.raises(LobesError, match="good · seed 1: its process ended with SIGKILL, perhaps for want of memory"):
        run(toy("dies: good"))


def test_the_learning_rate_is_chosen_on_the_validation_split(toy, tmp_path):
    board = toy("", "    tuned: {recipe: recipes/Toy/task, options: {diary: /dev/null}, learning_rates: [0.1, 0.01]}")
    run(board)
    _, cells = leaderboard_cells.plan(board)
    entries, failed = leaderboard_cells.collect(cells)
    assert not failed and [e.learning_rates for e in entries if e.task == "tuned"] == [{1: 0.1}] * 2
    assert entries[-1].all_seconds == 72.0, "of both learning rates"
    next(cell for cell in cells if cell.rate == 0.01).folder.joinpath("result.json").unlink()
    entries, failed = leaderboard_cells.collect(cells)
    assert len(entries) == 3 and failed[0]["error"] == "not run yet", "no choice before all of them have been run"


def test_without_a_figure_on_the_validation_split_there_is_no_choice(toy, tmp_path):
    options = "options: {diary: /dev/null, silent: 1}, learning_rates: [0.1, 0.01], models: [good]"
    board = toy("", f"    tuned: {{recipe: recipes/Toy/task, {options}}}")
    run(board)
    _, failed = leaderboard_cells.collect(leaderboard_cells.plan(board)[1])
    assert len(failed) == 1 and "no other_metrics['valid'], the accuracy on the validation split" in failed[0]["error"]


def test_lower_is_better_where_it_is():
    def result(valid, higher):
        return {"other_metrics": {"valid": valid}, "metric": {"higher_is_better": higher, "name": "x"}}

    assert leaderboard_cells.best_rate({0.1: result(0.3, True), 0.2: result(0.2, True)}) == 0.1
    assert leaderboard_cells.best_rate({0.1: result(0.3, False), 0.2: result(0.2, False)}) == 0.2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("tasks:", "task:"), "'task' is not one of"),
        (("models: {good: enc-good,", "models: {good: {untrained: True},"), "good: encoder is missing"),
        (("recipes/Toy/task", "recipes/Toy/tusk"), "tusk/train.py is not there"),
        (("bad: {", "'good!': {"), "both go to"),
        (("toy: {", "toy: {learning_rates: high, "), "expected a list of numbers"),
        (("toy: {", "toy: {models: [none], "), "'none' is not one of good, bad"),
        (("toy: {", "toy: {modes: frozen, "), "expected a list of names"),
        (("True}}", "True, only_in: {recipes/Toy/tusk: {}}}}"), "bad: only_in: 'recipes/Toy/tusk' is no task"),
        (("True}}", "True, only_in: {toy: 3}}}"), "bad: only_in: toy: is 3, expected names"),
        (("title: Test", "title: [Test"), "board.yaml"),
    ],
)
def test_a_board_that_is_wrong_is_refused(toy, change, complaint):
    board = toy()
    board.write_text(board.read_text().replace(*change))
    with pytest.raises(ConfigError, match=complaint):
        leaderboard_cells.plan(board)


def test_cells_of_other_options_are_not_mixed_up(toy):
    board = toy()
    run(board)
    with pytest.raises(ConfigError, match=r"was run with other options \(--seconds=0\)"):
        leaderboard_cells.plan(toy("seconds: 0"))


def test_nor_are_those_of_other_hparams_or_recipes(toy, tmp_path):
    board = toy()
    run(board)
    recipe = tmp_path / "recipes" / "Toy" / "task"
    shutil.copy(recipe / "hparams" / "tiny.yaml", recipe / "hparams" / "other.yaml")
    shutil.copytree(recipe, recipe.with_name("more"))
    text = board.read_text()
    for change, complaint in (
        (
            ("recipe: recipes/Toy/task", "recipe: recipes/Toy/task, hparams: other.yaml"),
            "hparams tiny.yaml, other.yaml",
        ),
        (("recipe: recipes/Toy/task", "recipe: recipes/Toy/more"), "recipe recipes/Toy/task, recipes/Toy/more"),
    ):
        board.write_text(text.replace(*change))
        with pytest.raises(ConfigError, match=complaint):
            leaderboard_cells.plan(board)


def test_finished_cells_may_be_moved(toy, tmp_path):
    board = toy("prepare: '{out}/manifests'")
    run(board)
    (tmp_path / "results" / "leaderboard").rename(tmp_path / "elsewhere")
    known, cells = leaderboard_cells.plan(board, tmp_path / "elsewhere")
    assert len(cells) == 2 and all(cell.done for cell in cells)
    run(board, "--out", str(tmp_path / "elsewhere"), "--table")
    assert (tmp_path / "elsewhere" / "leaderboard.html").is_file()


def test_nothing_to_show_is_said(toy):
    with pytest.raises(LobesError, match="no finished cell"):
        run(toy(), "--table")


def test_the_example_is_a_board(tmp_path):
    known, cells = leaderboard_cells.plan(ROOT / "tools" / "leaderboard.yaml", tmp_path)
    assert len(cells) == 4 + 12 + 24 + 36 + 4 + 12 + 4 and known["published"][0].is_file()
    assert len((ROOT / "tools" / "leaderboard.yaml").read_text().splitlines()) <= 70


def test_the_example_gives_recipes_what_they_know(tmp_path):
    """Log-mel features have one layer, which normalising would but spoil, wherever a recipe can be told so."""
    _, cells = leaderboard_cells.plan(ROOT / "tools" / "leaderboard.yaml", tmp_path)
    told = 0
    for cell in (cell for cell in cells if cell.seed == 1):
        given = dict(option[2:].split("=", 1) for option in cell.options if "=" in option and "--device" not in option)
        file = HparamsFile(
            ROOT / cell.recipe / "hparams" / cell.hparams, "\n".join(f"{k}: {v}" for k, v in given.items())
        )
        heard = file.get("head") is not None and "normalize_layers" in file.tree
        if cell.model == "log-mel" and heard:
            told += 1
            assert file.get("normalize_layers") is False
        else:
            assert file.get("normalize_layers", True) is True
    assert told == 4


@pytest.mark.slow
@pytest.mark.data
def test_a_recipe_on_real_data(tmp_path, lobes_data):
    """Log-mel features tell digits of unheard speakers far better than chance, which is a tenth."""
    board = tmp_path / "board.yaml"
    board.write_text(
        "models: {log-mel: logmel}\ntasks:\n    digits: {recipe: recipes/FSDD/digits, options:"
        " {device: cpu, prepare.max_takes: 2}}\n"
    )
    leaderboard.main([str(board), "--out", str(tmp_path / "out")])
    leaderboard.main([str(board), "--out", str(tmp_path / "out"), "--table"])
    result = read_result(tmp_path / "out" / "digits" / "log-mel" / "default" / "default" / "1")
    assert 0.3 < result["metric"]["value"] < 0.95
    assert "log-mel" in (tmp_path / "out" / "leaderboard.md").read_text()
