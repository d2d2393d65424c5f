"""The cells of a leaderboard: from its YAML to runs of recipes, and from their results to what is compared."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from lobes.dataio.manifest import atomic_write
from lobes.errors import ConfigError, DataError
from lobes.evaluation import read_result
from lobes.evaluation.leaderboard import Entry, Row

ROOT = Path(__file__).resolve().parents[1]
BOARD_KEYS = {"title", "out", "seeds", "models", "tasks", "published", "options"}
TASK_KEYS = {"recipe", "hparams", "options", "modes", "heads", "learning_rates", "learning_rate_key", "seeds", "models"}
#: The key of a model under which its options are that only some tasks or recipes get.
ONLY_IN = "only_in"
#: What a task without heads or modes, whose recipe has but one, is shown under.
ONLY = "default"


@dataclass(frozen=True)
class Cell:
    """One run: of a model in a task, in a mode, with a head, a seed and a learning rate (None: the recipe's)."""

    task: str
    model: str
    mode: str
    head: str
    seed: int
    rate: float | None
    recipe: str
    hparams: str
    options: list[str]
    out: Path

    def __str__(self) -> str:
        parts = [self.task, self.model, *(part for part in (self.mode, self.head) if part != ONLY), f"seed {self.seed}"]
        return " · ".join(parts + ([f"learning rate {self.rate:g}"] if self.rate is not None else []))

    @property
    def folder(self) -> Path:
        """Where the run goes."""
        place = self.out.joinpath(*map(slug, (self.task, self.model, self.mode, self.head)), str(self.seed))
        return place if self.rate is None else place / f"lr-{self.rate:g}"

    @property
    def claim(self) -> Path:
        """The file that says whose it is."""
        return self.folder / "claim.json"

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "result.json").is_file()

    @property
    def argv(self) -> list[str]:
        """The recipe's command line."""
        return [f"hparams/{self.hparams}", f"--output_folder={self.folder}", *self.options]

    @property
    def command(self) -> list[str]:
        """The same with the program, from the repository's root."""
        return [f"{self.recipe}/train.py", *(word.replace(f"{ROOT}/", "") for word in self.argv)]

    @property
    def note(self) -> dict[str, Any]:
        """What it is a run of, wherever the repository and the folder of the runs are."""
        places = {f"{self.out}/": "{out}/", f"{ROOT}/": ""}
        options = list(self.options)
        for place, word in places.items():
            options = [option.replace(place, word) for option in options]
        return {"options": options, "recipe": self.recipe, "hparams": self.hparams}

    def load(self) -> ModuleType:
        """The recipe's train.py."""
        path = ROOT / self.recipe / "train.py"
        spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", self.recipe) + "_train", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def slug(name: str) -> str:
    """A name as a folder's.

    >>> slug("SM-tiny, untrained")
    'SM-tiny-untrained'
    """
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or hashlib.sha256(name.encode()).hexdigest()[:8]


# --------------------------------------------------------------------------- from the YAML


def plan(path: Path, out: Path | None = None) -> tuple[dict[str, Any], list[Cell]]:
    """Read a board: title, folder and published tables, and its cells, those of the first seed first.

    Raises
    ------
    ConfigError
        A key is unknown or missing, a recipe or file does not exist, two names give one folder, or a cell that has been
        run was of something else.
    """
    board = _mapping(path)
    _keys(board, BOARD_KEYS, str(path), needed={"models", "tasks"})
    where = (out or ROOT / str(board.get("out", "results/leaderboard"))).resolve()
    known: dict[str, Any] = {
        "title": str(board.get("title", "Leaderboard")),
        "out": where,
        "published": [ROOT / name for name in board.get("published") or []],
    }
    cells = [
        cell
        for name, task in _named(board["tasks"], f"{path}: tasks").items()
        for cell in _of_task(name, task, board, where, f"{path}: tasks: {name}")
    ]
    cells.sort(key=lambda cell: cell.seed)  # stable: the rest as it was written
    folders: dict[Path, Cell] = {}
    for cell in cells:
        other = folders.setdefault(cell.folder, cell)
        if other is not cell:
            raise ConfigError(f"{path}: '{other}' and '{cell}' both go to {cell.folder}; give one another name")
        before = read_json(cell.folder / "cell.json")
        odd = _odd(before, cell.note) if before else []
        if odd:
            raise ConfigError(
                f"{cell.folder}: was run with other options ({', '.join(odd)}) than {path} gives; "
                "give another out, or delete that folder"
            )
    return known, cells


def _odd(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two notes of a cell differ by."""
    odd = sorted(set(before["options"]) ^ set(now["options"]))
    odd += [f"{key} {before[key]}, {now[key]}" for key in ("recipe", "hparams") if before[key] != now[key]]
    return odd or ([] if before["options"] == now["options"] else ["their order"])


def _of_task(name: str, task: Mapping[str, Any], board: Mapping[str, Any], out: Path, place: str) -> list[Cell]:
    _keys(task, TASK_KEYS, place, needed={"recipe"})
    recipe, hparams = str(task["recipe"]), str(task.get("hparams", "tiny.yaml"))
    for file in (ROOT / recipe / "train.py", ROOT / recipe / "hparams" / hparams):
        if not file.is_file():
            raise ConfigError(f"{place}: {file.relative_to(ROOT)} is not there; correct recipe or hparams")
    models = _models(board, task, name, place)
    modes, heads = (_variants(task.get(key), key[:-1], f"{place}: {key}") for key in ("modes", "heads"))
    rates: list[float | None] = [*_rates(task, place)] or [None]
    shared = {**(board.get("options") or {}), **(task.get("options") or {})}
    cells = []
    for seed in task.get("seeds") or board.get("seeds") or [1]:
        for model, of_model in models.items():
            for mode, of_mode in modes.items():
                for head, of_head in heads.items():
                    given = {"name": model, "seed": seed, **shared, **of_model, **of_mode, **of_head}
                    for rate in rates:
                        tuned = {task.get("learning_rate_key", "opt_class.lr"): rate} if rate is not None else {}
                        words = {"{out}": str(out), "{task}": slug(name), "{model}": slug(model), "{seed}": str(seed)}
                        options = [_option(key, value, words) for key, value in {**given, **tuned}.items()]
                        options.append("--noprogressbar")
                        found = Cell(name, model, mode, head, seed, rate, recipe, hparams, options, out)
                        cells.append(found)
    return cells


def _rates(task: Mapping[str, Any], place: str) -> list[float]:
    rates = task.get("learning_rates") or []
    try:
        return [float(rate) for rate in rates]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place}: learning_rates is {rates!r}, expected a list of numbers") from error


def _models(board: Mapping[str, Any], task: Mapping[str, Any], title: str, place: str) -> dict[str, dict[str, Any]]:
    """Options of each model in a task; one that is but text is its encoder. Paths are from the repository's root."""
    known = _named(board["models"], "models")
    wanted = task.get("models") or list(known)
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ConfigError(f"{place}: models: {missing[0]!r} is not one of {', '.join(known)}")
    models = {}
    for name in wanted:
        options = dict(known[name]) if isinstance(known[name], Mapping) else {"encoder": known[name]}
        options |= _only_in(options.pop(ONLY_IN, None), board, str(task["recipe"]), title, f"models: {name}: {ONLY_IN}")
        if not options.get("encoder"):
            raise ConfigError(f"models: {name}: encoder is missing, expected a run, a folder, a name or hf:hub/id")
        encoder = str(options["encoder"])
        path = ROOT / encoder
        models[name] = {**options, "encoder": str(path) if path.is_dir() else encoder}
    return models


def _only_in(given: Any, board: Mapping[str, Any], recipe: str, title: str, place: str) -> dict[str, Any]:
    """Of a model's options for some recipes or tasks, those that this one gets; a task's go before its recipe's."""
    if given is None:
        return {}
    for name, options in _named(given, place).items():
        if name not in board["tasks"] and not (ROOT / name / "train.py").is_file():
            raise ConfigError(f"{place}: {name!r} is no task of the board and no recipe; correct it, or take it out")
        _named(options, f"{place}: {name}")
    return {**given.get(recipe, {}), **given.get(title, {})}


def _variants(given: Any, key: str, place: str) -> dict[str, dict[str, Any]]:
    """Names of modes or heads with their options: `[frozen, LoRA]`, or names with options of their own."""
    if not given:
        return {ONLY: {}}
    if isinstance(given, Mapping):
        return {str(name): dict(options or {}) for name, options in given.items()}
    if isinstance(given, list):
        return {str(name): {key: name} for name in given}
    raise ConfigError(f"{place} is {given!r}, expected a list of names, or names with their options")


def _option(key: str, value: Any, words: Mapping[str, str]) -> str:
    """A command-line option; `{out}` and the like in text stand for a folder, or for names that are safe in one."""
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace(word, meaning)
    return f"--{key}={'null' if value is None else value}"


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); tools/leaderboard.yaml is an example") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    return _named(found, str(path))


def _named(found: Any, place: str) -> dict[str, Any]:
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{place}: is {found!r}, expected names with what each is; see tools/leaderboard.yaml")
    return found


def _keys(found: Any, known: set[str], place: str, needed: set[str]) -> None:
    for key in sorted(set(_named(found, place)) - known):
        raise ConfigError(f"{place}: {key!r} is not one of {', '.join(sorted(known))}")
    for key in sorted(needed - set(found)):
        raise ConfigError(f"{place}: {key} is missing; see tools/leaderboard.yaml")


# --------------------------------------------------------------------------- to results


def read_json(path: Path) -> dict[str, Any]:
    """What a small JSON file holds; nothing if it is not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write it, atomically."""
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def fail(cell: Cell, error: str) -> None:
    """Note why a cell failed, in one line."""
    write_json(cell.folder / "failed.json", {"error": " ".join(error.split())[:500]})


def collect(cells: Sequence[Cell]) -> tuple[list[Entry], list[Row]]:
    """What is compared: for each system in a task its seeds, each with its best learning rate; and what failed."""
    failed: list[Row] = []
    seeds: dict[tuple[str, str, str, str], dict[int, list[Cell]]] = {}
    for cell in cells:
        system = cell.task, cell.model, cell.mode, cell.head
        seeds.setdefault(system, {}).setdefault(cell.seed, []).append(cell)
    entries = []
    for system, by_seed in seeds.items():
        results, rates, seconds, energy = {}, {}, [], []
        for seed, runs in by_seed.items():
            found = _finished(runs, failed)
            if not found:
                continue
            seconds += [result["cost"]["wall_seconds"] for result in found.values()]
            try:
                rate = best_rate(found)
            except DataError as error:
                failed.append(_failure(runs[0], str(error)))
                continue
            results[seed] = found[rate]
            if rate is not None:
                rates[seed] = rate
            chosen = next(cell for cell in runs if cell.rate == rate)
            energy.append(read_json(chosen.folder / "cell.json").get("kwh"))
        if results:
            hours = None if None in seconds else sum(seconds)
            measured = [amount for amount in energy if amount is not None]
            kwh = sum(measured) / len(measured) if len(measured) == len(energy) else None
            entries.append(Entry(*system, results, rates, hours, kwh))
    return entries, failed


def _finished(runs: Sequence[Cell], failed: list[Row]) -> dict[float | None, dict[str, Any]]:
    """Results of a seed by learning rate, once all of them have been run; a rate that failed is not chosen."""
    found: dict[float | None, dict[str, Any]] = {}
    for cell in runs:
        if cell.done:
            try:
                found[cell.rate] = read_result(cell.folder)
            except DataError as error:
                failed.append(_failure(cell, str(error)))
            continue
        reason = read_json(cell.folder / "failed.json").get("error")
        failed.append(_failure(cell, reason or "not run yet"))
        if reason is None:
            return {}
    return found


def _failure(cell: Cell, error: str) -> Row:
    known = {name: getattr(cell, name) for name in ("task", "model", "mode", "head", "seed", "rate")}
    return {**known, "error": error}


def best_rate(found: Mapping[float | None, Mapping[str, Any]]) -> float | None:
    """The learning rate with the best figure on the validation split; the test split has no say.

    Raises
    ------
    DataError
        There are several, and a run does not report `other_metrics["valid"]`, the metric on its validation split.
    """
    if len(found) == 1:
        return next(iter(found))
    scores = {}
    for rate, result in found.items():
        valid = result["other_metrics"].get("valid")
        if valid is None or not math.isfinite(valid):
            raise DataError(
                f"learning rate {rate}: its result has no other_metrics['valid'], the {result['metric']['name']} on the"
                " validation split, by which to choose; have the recipe report it, or give one learning rate"
            )
        scores[rate] = valid if result["metric"]["higher_is_better"] else -valid
    return max(scores, key=scores.__getitem__)
