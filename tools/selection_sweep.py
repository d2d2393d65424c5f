"""Which data does a student need, and how little of it? Every strategy, at several budgets, with several seeds.

    LOBES_DATA=/corpora python tools/selection_sweep.py                   # FSDD: situations A and C, a twentieth
    LOBES_DATA=/corpora python tools/selection_sweep.py --situations A --shares 0.02 0.05 0.2 0.5
    LOBES_DATA=/corpora python tools/selection_sweep.py --recipe LibriSpeech/distillation
    LOBES_DATA=/corpora python tools/selection_sweep.py --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
    python tools/selection_sweep.py --table                               # what there is so far
    python tools/selection_sweep.py --table --publish                     # also into the recipe's sweep.csv and README

Each run is one that the recipe's `train.py` gives, of as many steps of as many seconds of audio whatever the budget, so
that updates and seconds that are heard are the same for all. Run again, it goes on where it was stopped. Differences to
`random` are paired by speaker and seed; intervals are clustered by speaker where there are several, else by seed.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from lobes.dataio.corpora.fsdd_pool import SPEAKERS
from lobes.dataio.manifest import read_meta
from lobes.errors import DataError
from lobes.evaluation import mean_metric, paired_bootstrap, read_result, save_figure
from lobes.evaluation.plots import COLOURS, WIDTH, new_figure, styled
from lobes.training import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
#: The situations of each recipe, and the speakers that are a target, one after the other; `all` is no speaker's.
SITUATIONS: dict[str, dict[str, Sequence[str]]] = {
    "FSDD/distillation": {"A": SPEAKERS, "C": ["all"], "B": ["all"]},
    "LibriSpeech/distillation": {"mixed": ["all"], "speech": ["all"]},
}
#: What comes with lobes; None is a run of the recipe's `teacher.yaml`.
TEACHERS = {"FSDD/distillation": None, "LibriSpeech/distillation": "sm-tiny"}
STRATEGIES = {
    "random": "!new:lobes.selection.Random",
    "contrastive": "!new:lobes.selection.ContrastiveLM",
    "target-kNN": "!new:lobes.selection.TargetKNN",
    "target-LM": "!new:lobes.selection.TargetLM",
    "unit-KL": "!new:lobes.selection.UnitKL",
    "FLMI": "!new:lobes.selection.MutualInformation",
    "facility": "!new:lobes.selection.FacilityLocation",
    "clusters": "!new:lobes.selection.ClusterBalance",
    "longest": "!new:lobes.selection.Longest",
    "loss-high": "!new:lobes.selection.ByColumn",
    "loss-low": "!new:lobes.selection.ByColumn {largest: False}",
}
#: These go by the losses of a proxy: the student of `random` with the same budget and seed.
BY_PROXY = ("loss-high", "loss-low")
FULL = "full"
COLUMNS = (
    "situation", "share", "strategy", "runs", "r2", "difference", "low", "high", "p", "wins", "probe", "of_teacher",
    "selection_cpu_seconds",
)  # fmt: skip
MARKERS = re.compile(r"(<!-- sweep -->\n).*?(\n<!-- /sweep -->)", re.DOTALL)
R2 = mean_metric("r2", "r2", higher_is_better=True)


class Cell(NamedTuple):
    """One run."""

    situation: str
    speaker: str
    seed: int
    share: float
    strategy: str

    def folder(self, out: Path) -> Path:
        """Where it goes."""
        return out / self.situation / self.speaker / f"{self.share:g}" / self.strategy / str(self.seed)


def main() -> None:
    """Run what has not been run, then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="FSDD/distillation", choices=list(SITUATIONS))
    parser.add_argument("--situations", nargs="*", metavar="NAME", help="the first two of the recipe by default")
    parser.add_argument("--speakers", nargs="*", help="of situation A; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--shares", nargs="*", type=float, default=[0.05], help="of the pool's seconds")
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--teacher", help="in place of tiny.yaml's")
    parser.add_argument("--out", type=Path, help="recipes/<recipe>/results/sweep by default")
    parser.add_argument("--part", default="0/1", help="INDEX/COUNT of several processes")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--publish", action="store_true", help="write sweep.csv and the README of the recipe too")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of tiny.yaml, such as steps=100")
    options = parser.parse_args()
    known = SITUATIONS[options.recipe]
    chosen = {name: known[name] for name in options.situations or list(known)[:2]}
    if options.speakers:
        chosen = {name: found if found == ["all"] else options.speakers for name, found in chosen.items()}
    folder = ROOT / "recipes" / options.recipe
    out = (options.out or folder / "results" / "sweep").resolve()
    cells = planned(chosen, options.seeds, options.shares, options.strategies)
    if not options.table:
        index, count = map(int, options.part.split("/"))
        trainer = load(folder)
        teacher = options.teacher or TEACHERS[options.recipe] or folder / "results" / "teacher" / "1"
        settings = [f"teacher={teacher}", *options.set]
        for cell in part_of(cells, index, count):
            if not (cell.folder(out) / "result.json").is_file():
                trainer.main(arguments(cell, out, settings))
    rows = table([cell for cell in cells if (cell.folder(out) / "result.json").is_file()], out)
    save(rows, out / "sweep.csv")
    save_figure(figure(rows), out / "sweep.svg")
    print(markdown(rows))
    if options.publish:
        save(rows, folder / "sweep.csv")
        publish(folder)


def planned(
    situations: Mapping[str, Sequence[str]], seeds: Sequence[int], shares: Sequence[float], strategies: Sequence[str]
) -> list[Cell]:
    """All runs; those of the whole pool once for each speaker and seed."""
    chosen = {*strategies, "random"} if {*strategies} & {*BY_PROXY} else {*strategies}
    cells, names = [], [name for name in STRATEGIES if name in chosen]
    for situation, speakers in situations.items():
        for seed in seeds:
            for speaker in speakers:
                cells += [Cell(situation, speaker, seed, share, name) for share in shares for name in names]
                cells.append(Cell(situation, speaker, seed, 1.0, FULL))
    return cells


def part_of(cells: Sequence[Cell], index: int, count: int) -> list[Cell]:
    """What one of several processes runs: what goes by a proxy after that proxy, in the same process."""
    mine = [cell for cell in cells if cell.strategy not in BY_PROXY][index::count]
    return mine + [cell for cell in cells if cell.strategy in BY_PROXY and cell._replace(strategy="random") in mine]


def arguments(cell: Cell, out: Path, settings: Sequence[str]) -> list[str]:
    """The command line of a run; targets are shared by those that hear the same audio."""
    proxy = cell._replace(strategy="random").folder(out)
    return [
        "hparams/tiny.yaml",
        f"--output_folder={cell.folder(out)}",
        f"--name={cell.strategy}",
        f"--seed={cell.seed}",
        f"--share={cell.share}",
        f"--strategy={STRATEGIES.get(cell.strategy, 'null')}",
        f"--prepare.situation={cell.situation}",
        *([f"--scores={proxy / 'pool_scores.csv'}"] if cell.strategy in BY_PROXY else []),
        f"--score_pool={cell.strategy == 'random'}",
        *([f"--prepare.speaker={cell.speaker}"] if cell.situation == "A" else []),
        *(["--prepare.speaker=null"] if cell.situation in ("B", "C") else []),
        f"--prepare.save_folder={out / 'manifests' / cell.situation / cell.speaker / str(cell.seed)}",
        f"--cache={out / 'targets' / cell.situation / str(cell.seed)}",
        "--device=cpu",
        "--noprogressbar",
        *(f"--{setting}" for setting in settings),
    ]


def load(folder: Path) -> ModuleType:
    """A recipe's train.py."""
    spec = importlib.util.spec_from_file_location(f"{folder.parent.name}_distillation_train", folder / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(cells: Sequence[Cell], out: Path) -> list[dict[str, Any]]:
    """A row for each situation, budget and strategy: its mean, and what it is more than `random`."""
    found: dict[tuple[str, float, str], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        result = read_result(cell.folder(out))
        other = result["other_metrics"]
        selection = read_meta(cell.folder(out) / "selected.csv").get("options", {}).get("selection", {})
        group = str(cell.seed) if cell.speaker == "all" else cell.speaker
        record = {"id": f"{cell.speaker}/{cell.seed}", "group": group, "r2": result["metric"]["value"]}
        record |= {"probe": other.get("probe", nan), "teacher": other.get("probe_teacher", nan)}
        found[cell.situation, cell.share, cell.strategy].append(record | {"cpu": selection.get("cpu_seconds", 0.0)})
    rows = []
    for (situation, share, strategy), records in found.items():
        mean = {name: sum(r[name] for r in records) / len(records) for name in ("r2", "probe", "teacher", "cpu")}
        row = {"situation": situation, "share": share, "strategy": strategy, "runs": len(records), "r2": mean["r2"]}
        row |= {"probe": mean["probe"], "of_teacher": mean["probe"] / mean["teacher"]}
        row["selection_cpu_seconds"] = mean["cpu"]
        rows.append(row | against_random(records, found, situation, share, strategy))
    return sorted(rows, key=lambda row: (row["situation"], row["share"], -row["r2"]))


def against_random(
    records: Sequence[Mapping[str, Any]],
    found: Mapping[tuple[str, float, str], Sequence[Mapping[str, Any]]],
    situation: str,
    share: float,
    strategy: str,
) -> dict[str, Any]:
    """Paired differences to `random` at the same budget; of the whole pool, at the smallest there is."""
    shares = sorted(s for kind, s, name in found if kind == situation and name == "random")
    if strategy == "random" or not shares:
        return {}
    control = {r["id"]: r for r in found[situation, share if share in shares else shares[0], "random"]}
    ours = [record for record in records if record["id"] in control]
    theirs = [control[record["id"]] for record in ours]
    wins = sum(a["r2"] > b["r2"] for a, b in zip(ours, theirs, strict=True))
    figures: dict[str, Any] = {"wins": f"{wins}/{len(ours)}"}
    if len({record["group"] for record in ours}) >= 2:
        compared = paired_bootstrap(ours, theirs, R2)
        figures |= {
            "difference": compared.difference,
            "low": compared.low,
            "high": compared.high,
            "p": compared.p_value,
        }
    return figures


def save(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def publish(folder: Path, change: bool = True) -> bool:
    """Put the table of a recipe's ``sweep.csv`` between the markers of its README; return whether that changed it."""
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as stream:
        texts = {"situation", "strategy", "runs", "wins"}
        rows = [{k: v if k in texts else float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    path = folder / "README.md"
    old = path.read_text(encoding="utf-8")
    if not MARKERS.search(old):
        raise DataError(f"{path}: no line '<!-- sweep -->' with '<!-- /sweep -->' below it")
    new = MARKERS.sub(lambda found: found[1] + markdown(rows) + found[2], old)
    if change and new != old:
        path.write_text(new, encoding="utf-8")
    return new != old


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    head = ["situation", "of the pool", "strategy", "runs", "R²", "less random", "wins"]
    lines = [[*head, "probe, of the teacher's", "selection, CPU s"], ["---", "---:", "---", *["---:"] * 6]]
    for row in rows:
        less = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" if "difference" in row else "–"
        probe = "–" if isnan(row["of_teacher"]) else f"{100 * row['of_teacher']:.1f} %"
        cells = [row["situation"], f"{100 * row['share']:g} %", row["strategy"], str(row["runs"])]
        cells += [f"{row['r2']:.3f}", less, row.get("wins", "–"), probe, f"{row['selection_cpu_seconds']:.2f}"]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@styled
def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Fidelity against the share of the pool that was kept: a panel for each situation, a line for each strategy."""
    situations = sorted({row["situation"] for row in rows})
    names = [name for name in STRATEGIES if any(row["strategy"] == name for row in rows)]
    panels_figure, panels = new_figure(WIDTH, 0.6 + 2.6 * len(situations), ratios=[1.0] * len(situations))
    for axes, situation in zip(panels, situations, strict=True):
        inside = [row for row in rows if row["situation"] == situation]
        for number, name in enumerate(names):
            points = sorted((row["share"], row["r2"]) for row in inside if row["strategy"] == name)
            style: dict[str, Any] = {
                "color": COLOURS[number % len(COLOURS)],
                "marker": "os^Dv*"[number // len(COLOURS)],
            }
            x, y = ([100 * share for share, _ in points], [value for _, value in points])
            axes.plot(x, y, label=name if axes is panels[0] else None, markersize=5, linewidth=1.2, **style)
        for row in inside:
            if row["strategy"] == FULL:
                axes.axhline(row["r2"], color=COLOURS[0], linestyle=":", linewidth=1.0)
                axes.annotate("all of the pool", (0.99, row["r2"]), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)  # fmt: skip  # noqa: E501
        axes.set(xscale="log", ylabel="R² on the test", title=f"situation {situation}")
        axes.grid()
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("share of the pool that is kept (%)")
    panels_figure.legend(loc="outside upper left", ncols=3, handlelength=1.0, fontsize=8)
    return panels_figure


if __name__ == "__main__":
    run(main)
