"""Which pretraining helps to tell primate calls? Every encoder on the same clips, leaving one recorder out.

    LOBES_DATA=/corpora python tools/gibbon_study.py                     # all, seed 1; goes on where it was stopped
    LOBES_DATA=/corpora python tools/gibbon_study.py --pools calls --seeds 2 3
    python tools/gibbon_study.py --table --publish                       # study.csv and README of recipes/Gibbons/SSL

Pools: `calls`, unlabelled clips of the forest without the recorder to be tested (one pretraining for each recorder);
`heard`, those of all recorders but its validation split's (transductive: no label of a recorder that is tested, but
its sound); `both`, calls as in `calls`, and speech; `speech`, an encoder that has heard no animal (--speech). Their
controls are `untrained`, the same architecture with random weights, and `log-mel`. Every run is one that its recipe's
command gives; results go to results/gibbons. Differences are paired over recorders, and adjusted for the pools that
are compared with one control in a task (Holm).
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study import ROOT, train

from lobes.dataio.manifest import atomic_write
from lobes.evaluation import holm, read_result
from lobes.evaluation.leaderboard import Entry, entry_interval, metric_named
from lobes.evaluation.seeds import compare_seeds
from lobes.evaluation.tables import put_between
from lobes.training import run

RECORDERS = ("S10", "S11", "S12", "S13", "S14", "S15", "S16", "S17")
POOLS = ("log-mel", "untrained", "speech", "calls", "heard", "both")
TASKS = {"call_type": "tiny.yaml", "duet": "duet.yaml"}
CONTROLS = ("log-mel", "untrained", "speech")
COLUMNS = (
    "task", "pool", "seeds", "metric", "value", "low", "high", "background", "control", "difference", "difference_low",
    "difference_high", "p",
)  # fmt: skip
RECIPE = ROOT / "recipes" / "Gibbons" / "SSL"


def main() -> None:
    """Run what has not been run yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", nargs="*", default=list(POOLS), choices=POOLS, metavar="POOL")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--recorders", nargs="*", default=list(RECORDERS), help="that are left out")
    parser.add_argument("--speech", default="sm-tiny", help="an encoder that was pretrained on speech")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gibbons")
    parser.add_argument("--steps", type=int, help="of pretraining, in place of the YAML's")
    parser.add_argument("--only_pretrain", action="store_true", help="leave the tasks for later")
    parser.add_argument("--table", action="store_true", help="run nothing; show what there is")
    parser.add_argument("--publish", action="store_true", help="write it into recipes/Gibbons/SSL, too")
    options = parser.parse_args()
    for seed in () if options.table else options.seeds:
        for pool in options.pools:
            pretrain(pool, seed, options.recorders, options.out, options.steps)
            for task in () if options.only_pretrain else options.tasks:
                probe(task, pool, seed, options.speech, options.out)
    rows = table(options.out)
    print(markdown(rows))
    if options.publish:
        save(rows, RECIPE / "study.csv")
        publish()


def pretrain(pool: str, seed: int, recorders: list[str], out: Path, steps: int | None) -> None:
    """Pretrain what a pool needs: an encoder for each recorder, or one that has heard them all."""
    hparams = "both.yaml" if pool == "both" else "tiny.yaml"
    extra = [f"--steps={steps}"] if steps else []
    for recorder in {"calls": recorders, "both": recorders, "heard": [""]}.get(pool, []):
        folder = out / "SSL" / pool / (recorder or "all") / str(seed)
        train("Gibbons/SSL", hparams, folder, pool, seed, [f"--held_out={recorder}", *extra])


def probe(task: str, pool: str, seed: int, speech: str, out: Path) -> None:
    """Probe a pool's encoders."""
    encoder = {
        "log-mel": "logmel-40-25hz",
        "untrained": speech,
        "speech": speech,
        "heard": str(out / "SSL" / "heard" / "all" / str(seed)),
    }.get(pool, str(out / "SSL" / pool / "{fold}" / str(seed)))
    options = [f"--encoder={encoder}", f"--untrained={pool == 'untrained'}"]
    options.append(f"--prepare.save_folder={out / 'manifests' / task}")
    train("Gibbons/call_type", TASKS[task], out / task / pool / str(seed), pool, seed, options)


def table(out: Path) -> list[dict[str, str]]:
    """A row for each task, pool and control that there is, as texts; without a control where there is none of them."""
    rows: list[dict[str, str]] = []
    for task in TASKS:
        found = {pool: results(out / task / pool) for pool in POOLS}
        known = {pool: runs for pool, runs in found.items() if runs}
        for pool, runs in known.items():
            first = next(iter(runs.values()))
            entry = Entry(first["task"], pool, "", "", runs)
            metric = metric_named(first["metric"]["name"])
            low, high, _ = entry_interval(entry, metric)
            heard = [run["other_metrics"]["background_value"] for run in runs.values()]
            line = {"task": first["task"], "pool": pool, "seeds": str(len(runs)), "metric": first["metric"]["name"]}
            figures = {"value": entry.value, "low": low, "high": high, "background": sum(heard) / len(heard)}
            line |= {name: f"{value:.4f}" for name, value in figures.items()}
            compared = [line | against(known, pool, control) for control in CONTROLS if control in known]
            rows += [row for row in compared if row["control"] != pool] or [line]
    for control in CONTROLS:
        for task in {row["task"] for row in rows}:
            family = [row for row in rows if (row["task"], row.get("control")) == (task, control)]
            for row, p_value in zip(family, holm([float(row["p"]) for row in family]), strict=True):
                row["p"] = f"{p_value:.4f}"
    return rows


def results(folder: Path) -> dict[int, dict[str, Any]]:
    """The runs of a pool in a task, by seed."""
    return {int(path.parent.name): read_result(path.parent) for path in sorted(folder.glob("*/result.json"))}


def against(known: Mapping[str, Mapping[int, Mapping[str, Any]]], pool: str, control: str) -> dict[str, str]:
    """A pool less a control, in columns."""
    ours, theirs = ({seed: run["records"] for seed, run in known[name].items()} for name in (pool, control))
    metric = metric_named(next(iter(known[pool].values()))["metric"]["name"])
    assert metric is not None
    found = compare_seeds(ours, theirs, metric)
    values = {"difference": found.difference, "difference_low": found.low, "difference_high": found.high}
    return {"control": control, "p": f"{found.p_value:.4f}", **{name: f"{v:.4f}" for name, v in values.items()}}


def save(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def publish(change: bool = True) -> bool:
    """Put the table of ``study.csv`` between the markers of the README; return whether that changed it."""
    with (RECIPE / "study.csv").open(encoding="utf-8", newline="") as stream:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]
    return put_between(RECIPE / "README.md", "study", markdown(rows), change)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A line for each task and pool, in percent, with its differences to each control in points."""
    lines = [["task", "pretrained on", "seeds", "[95 %]", "background", *(f"less {name}" for name in CONTROLS)]]
    lines.append(["---", "---", *["---:"] * 6])
    for task, pool in dict.fromkeys((row["task"], row["pool"]) for row in rows):
        mine = {row.get("control"): row for row in rows if (row["task"], row["pool"]) == (task, pool)}
        first = next(iter(mine.values()))
        value, low, high, heard = (100 * float(first[name]) for name in ("value", "low", "high", "background"))
        cells = [f"{task}, {first['metric'].upper()}", pool, first["seeds"], f"{value:.1f} [{low:.1f}, {high:.1f}]"]
        lines.append([*cells, f"{heard:.1f}", *(less(mine.get(control)) for control in CONTROLS)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def less(row: Mapping[str, str] | None) -> str:
    """A difference in points, bold where it excludes 0 after adjustment."""
    if row is None or "difference" not in row:
        return "–"
    value, low, high = (100 * float(row[name]) for name in ("difference", "difference_low", "difference_high"))
    mark = "**" if float(row["p"]) < 0.05 else ""
    return f"{mark}{value:+.1f} [{low:+.1f}, {high:+.1f}]{mark}"


if __name__ == "__main__":
    run(main)
