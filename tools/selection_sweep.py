"""Which data does a student need, and how little of it? Every strategy, at several budgets, with several seeds.

    LOBES_DATA=/corpora python tools/selection_sweep.py                   # FSDD: situations A and C, a twentieth
    LOBES_DATA=/corpora python tools/selection_sweep.py --situations A --shares 0.02 0.05 0.2 0.5
    LOBES_DATA=/corpora python tools/selection_sweep.py --recipe LibriSpeech/distillation
    LOBES_DATA=/corpora python tools/selection_sweep.py --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
    python tools/selection_sweep.py --table                               # what there is so far
    python tools/selection_sweep.py --table --publish                     # also into the recipe's sweep.csv and README

Each run is one that the recipe's `train.py` gives, of as many steps of as many seconds of audio whatever the budget:
epochs of a small choice are as long as those of the pool, so that updates and seconds that are heard are the same for
all but for how well clips fill a batch (column `hours`). FSDD's teacher is trained first where it is not there. Run
again, it goes on where it was stopped. Differences to `random` and to the full pool are paired by speaker and seed;
intervals are clustered by speaker where there are several, else by seed; p-values are adjusted for the strategies of a
budget (Holm). A folder in which published rows are missing, or have fewer runs, is published with `--drop` only.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from lobes.dataio.corpora.fsdd_pool import SPEAKERS
from lobes.dataio.manifest import atomic_write, read_meta
from lobes.errors import ConfigError
from lobes.evaluation import bootstrap_interval, holm, mean_metric, paired_bootstrap, read_result, save_figure
from lobes.evaluation.plots import COLOURS, WIDTH, new_figure, styled
from lobes.evaluation.tables import put_between
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
    "random-as-long": "!new:lobes.selection.RandomAsLong",
    "contrastive": "!new:lobes.selection.ContrastiveLM",
    "target-kNN": "!new:lobes.selection.TargetKNN",
    "target-LM": "!new:lobes.selection.TargetLM",
    "unit-KL": "!new:lobes.selection.UnitKL",
    "FLQMI": "!new:lobes.selection.FLQMI",
    "FLMI": "!new:lobes.selection.FLMI",
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
    "situation", "share", "strategy", "runs", "r2", "r2_low", "r2_high", "difference", "low", "high", "p", "wins",
    "full_difference", "full_low", "full_high", "probe", "of_teacher", "hours", "hearing_cpu_seconds",
    "selection_cpu_seconds",
)  # fmt: skip
SETTINGS = "settings.json"
R2 = mean_metric("r2", "r2", higher_is_better=True)


class Key(NamedTuple):
    """A row of the table."""

    situation: str
    share: float
    strategy: str


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
    parser.add_argument("--drop", action="store_true", help="publish even if published rows or runs are lost by it")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of tiny.yaml, such as steps=100")
    options = parser.parse_args()
    known = SITUATIONS[options.recipe]
    chosen = {name: known[name] for name in options.situations or list(known)[:2]}
    if options.speakers:
        chosen = {name: found if found == ["all"] else options.speakers for name, found in chosen.items()}
    folder = ROOT / "recipes" / options.recipe
    out = (options.out or folder / "results" / "sweep").resolve()
    if not options.table:
        index, count = map(int, options.part.split("/"))
        trainer = load(folder / "train.py")
        teacher = options.teacher or TEACHERS[options.recipe] or trained_teacher(folder, index)
        settings = [f"teacher={teacher}", *options.set]
        claim(out, settings)
        for cell in part_of(planned(chosen, options.seeds, options.shares, options.strategies), index, count):
            if not (cell.folder(out) / "result.json").is_file():
                trainer.main(arguments(cell, out, settings))
    rows = table(finished(out), out)
    save(rows, out / "sweep.csv")
    save_figure(figure(rows), out / "sweep.svg")
    print(markdown(rows))
    if options.publish:
        if not options.drop:
            keeps_published(rows, folder / "sweep.csv")
        save(rows, folder / "sweep.csv")
        publish(folder)


def trained_teacher(folder: Path, index: int) -> Path:
    """The run of the recipe's `teacher.yaml`; the first of several processes trains it, the others wait."""
    teacher = folder / "results" / "teacher" / "1"
    if index == 0 and not (teacher / "result.json").is_file():
        given = ["hparams/teacher.yaml", f"--output_folder={teacher}", "--device=cpu", "--noprogressbar"]
        # hparams/ is found beside the train.py that is run, which is another recipe's.
        given[0] = str(folder / given[0])
        load(ROOT / "recipes" / "LibriSpeech" / "SSL" / "train.py").main(given)
    while not (teacher / "result.json").is_file():
        time.sleep(5.0)
    return teacher


def claim(out: Path, settings: Sequence[str]) -> None:
    """Write down what the runs of a folder have in common, or refuse a folder of others."""
    path = out / SETTINGS
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else sorted(settings)
    if known != sorted(settings):
        raise ConfigError(
            f"{out}: holds runs with {' '.join(known)}, not {' '.join(sorted(settings))}; give another --out"
        )
    if not path.is_file():
        atomic_write(path, json.dumps(known) + "\n")


def finished(out: Path) -> list[Cell]:
    """What there is in a folder, in the order of `STRATEGIES`."""
    names = [*STRATEGIES, FULL]
    cells = []
    for path in out.glob("*/*/*/*/*/result.json"):
        situation, speaker, share, strategy, seed = path.relative_to(out).parts[:-1]
        if strategy in names and situation != "manifests":
            cells.append(Cell(situation, speaker, int(seed), float(share), strategy))
    return sorted(cells, key=lambda cell: (*cell[:4], names.index(cell.strategy)))


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


def load(path: Path) -> ModuleType:
    """A recipe's train.py."""
    spec = importlib.util.spec_from_file_location("_".join(path.parts[-3:-1]), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(cells: Sequence[Cell], out: Path) -> list[dict[str, Any]]:
    """A row for each situation, budget and strategy: its mean, and what it is more than `random` and than all."""
    found: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        result = read_result(cell.folder(out))
        other = result["other_metrics"]
        selection = read_meta(cell.folder(out) / "selected.csv").get("options", {}).get("selection", {})
        group = str(cell.seed) if cell.speaker == "all" else cell.speaker
        record = {"id": f"{cell.speaker}/{cell.seed}", "group": group, "r2": result["metric"]["value"]}
        record |= {"probe": other.get("probe", nan), "teacher": other.get("probe_teacher", nan)}
        record |= {"hours": result["cost"]["audio_hours"], "cpu": selection.get("cpu_seconds", 0.0)}
        found[Key(cell.situation, cell.share, cell.strategy)].append(
            record | {"hearing": selection.get("hearing_cpu_seconds", 0.0)}
        )
    rows = []
    for key, records in found.items():
        names = ("r2", "probe", "teacher", "hours", "hearing", "cpu")
        mean = {name: sum(record[name] for record in records) / len(records) for name in names}
        row = {**key._asdict(), "runs": len(records), **{name: mean[name] for name in ("r2", "probe", "hours")}}
        row |= {"of_teacher": mean["probe"] / mean["teacher"], "hearing_cpu_seconds": mean["hearing"]}
        row["selection_cpu_seconds"] = mean["cpu"]
        if len({record["group"] for record in records}) >= 2:
            interval = bootstrap_interval(records, R2)
            row |= {"r2_low": interval.low, "r2_high": interval.high}
        row |= against(records, control(found, key, "random"), ("difference", "low", "high", "p", "wins"))
        row |= against(records, control(found, key, FULL), ("full_difference", "full_low", "full_high"))
        rows.append(row)
    for family in {(row["situation"], row["share"]) for row in rows}:
        compared = [row for row in rows if (row["situation"], row["share"]) == family and "p" in row]
        for row, p_value in zip(compared, holm([row["p"] for row in compared]), strict=True):
            row["p"] = p_value
    return sorted(rows, key=lambda row: (row["situation"], row["share"], -row["r2"]))


def control(found: Mapping[Key, Sequence[Any]], key: Key, strategy: str) -> Sequence[Mapping[str, Any]]:
    """The runs that others are compared with: of the same budget, or the smallest that there is of `random`."""
    if key.strategy == strategy:
        return ()
    if strategy == FULL:
        return found.get(key._replace(share=1.0, strategy=FULL), ())
    shares = sorted(k.share for k in found if k.situation == key.situation and k.strategy == strategy)
    share = key.share if key.share in shares else min(shares, default=key.share)
    return found.get(key._replace(share=share, strategy=strategy), ())


def against(
    records: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    """Paired differences of runs with one speaker and seed, under `names`: difference, interval, p-value, wins."""
    known = {record["id"]: record for record in others}
    ours = [record for record in records if record["id"] in known]
    theirs = [known[record["id"]] for record in ours]
    if not ours:
        return {}
    wins = sum(a["r2"] > b["r2"] for a, b in zip(ours, theirs, strict=True))
    figures: dict[str, Any] = {"wins": f"{wins}/{len(ours)}"}
    if len({record["group"] for record in ours}) >= 2:
        compared = paired_bootstrap(ours, theirs, R2)
        values = (compared.difference, compared.low, compared.high, compared.p_value)
        figures |= dict(zip(names, values, strict=False))
    return {name: figures[name] for name in names if name in figures}


def save(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    atomic_write(path, text.getvalue())


def keeps_published(rows: Sequence[Mapping[str, Any]], published: Path) -> None:
    """Refuse rows that would take published ones away, or some of their runs.

    Raises
    ------
    ConfigError
        With what would be lost.
    """
    if not published.is_file():
        return
    with published.open(encoding="utf-8", newline="") as stream:
        before = {Key(r["situation"], float(r["share"]), r["strategy"]): int(r["runs"]) for r in csv.DictReader(stream)}
    now = {Key(r["situation"], float(f"{r['share']:.4g}"), r["strategy"]): r["runs"] for r in rows}
    lost = [
        f"{key.situation} {100 * key.share:g} % {key.strategy} ({now.get(key, 0)} of {runs} runs)"
        for key, runs in before.items()
        if now.get(key, 0) < runs
    ]
    if lost:
        raise ConfigError(
            f"{published}: has {len(lost)} rows that are not there, or have fewer runs: {', '.join(lost)}; nothing was "
            "published: run them into the same --out, or give --drop to do without them"
        )


def publish(folder: Path, change: bool = True) -> bool:
    """Put the table of a recipe's ``sweep.csv`` between the markers of its README; return whether that changed it."""
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as stream:
        texts = {"situation", "strategy", "runs", "wins"}
        rows = [{k: v if k in texts else float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    return put_between(folder / "README.md", "sweep", markdown(rows), change)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table, and what it costs to hear a pool."""
    head = ["situation", "of the pool", "strategy", "runs", "R²", "less random", "p", "wins", "less all of the pool"]
    lines = [[*head, "probe, of the teacher's", "hours heard", "ranking, CPU s"], ["---", "---:", "---", *["---:"] * 9]]
    for row in rows:
        differences = [
            f"{row[name]:+.3f} [{row[low]:+.3f}, {row[high]:+.3f}]" if name in row else "–"
            for name, low, high in (("difference", "low", "high"), ("full_difference", "full_low", "full_high"))
        ]
        p_value = "–" if "p" not in row else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
        probe = "–" if isnan(row["of_teacher"]) else f"{100 * row['of_teacher']:.1f} %"
        cells = [row["situation"], f"{100 * row['share']:g} %", row["strategy"], str(row["runs"]), f"{row['r2']:.3f}"]
        cells += [differences[0], p_value, row.get("wins", "–"), differences[1], probe, f"{row['hours']:.2f}"]
        lines.append([*cells, f"{row['selection_cpu_seconds']:.2f}"])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    heard = [row["hearing_cpu_seconds"] for row in rows if row["hearing_cpu_seconds"]]
    if not heard:
        return text
    return (
        f"{text}\n\nUnits and embeddings of pool and target, which all but random and the longest go by, take "
        f"{min(heard):.1f} to {max(heard):.1f} CPU s, once for all strategies; `loss-high` and `loss-low` a run of the "
        "proxy besides."
    )


@styled
def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Fidelity, and the probe where there is one, against the share of the pool that was kept, with intervals.

    A panel for each situation and figure, a line for each strategy.
    """
    situations = sorted({row["situation"] for row in rows})
    names = [name for name in STRATEGIES if any(row["strategy"] == name for row in rows)]
    panels_of = [(situation, "r2") for situation in situations]
    panels_of += [(s, "of_teacher") for s in situations if not any(isnan(r["of_teacher"]) for r in rows if r["situation"] == s)]  # fmt: skip  # noqa: E501
    panels_figure, panels = new_figure(WIDTH, 0.6 + 2.6 * len(panels_of), ratios=[1.0] * len(panels_of))
    for axes, (situation, column) in zip(panels, panels_of, strict=True):
        inside = [row for row in rows if row["situation"] == situation]
        scale = 1.0 if column == "r2" else 100.0
        for number, name in enumerate(names):
            points = sorted((row for row in inside if row["strategy"] == name), key=lambda row: row["share"])
            colour, marker = COLOURS[number % len(COLOURS)], "os^Dv*"[number // len(COLOURS)]
            x = [100 * row["share"] * 1.02 ** (number - len(names) / 2) for row in points]  # side by side
            y = [scale * row[column] for row in points]
            error = None
            if column == "r2" and all("r2_low" in row for row in points):
                error = [[row["r2"] - row["r2_low"] for row in points], [row["r2_high"] - row["r2"] for row in points]]
            style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.2}
            axes.errorbar(x, y, error, label=name if axes is panels[0] else None, elinewidth=0.8, **style)
        for row in inside:
            if row["strategy"] == FULL:
                axes.axhline(scale * row[column], color=COLOURS[0], linestyle=":", linewidth=1.0)
                axes.annotate("all of the pool", (0.99, scale * row[column]), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)  # fmt: skip  # noqa: E501
        label = "R² on the test" if column == "r2" else "probe (% of the teacher's)"
        axes.set(xscale="log", ylabel=label, title=f"situation {situation}")
        axes.grid()
        axes.set_axisbelow(True)
    panels[-1].set_xlabel("share of the pool that is kept (%)")
    panels_figure.legend(loc="outside upper left", ncols=3, handlelength=1.0, fontsize=8)
    return panels_figure


if __name__ == "__main__":
    run(main)
