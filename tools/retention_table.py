"""The tables and figures of tools/retention.py: from what was measured of each run, to what is said of each tuning."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lobes.errors import DataError
from lobes.evaluation import auc, ratio_metric, save_figure, uar
from lobes.evaluation.leaderboard import Entry, entry_interval, metric_named, over_seeds_alone
from lobes.evaluation.plots import COLOURS, WIDTH, new_figure, styled
from lobes.evaluation.seeds import compare_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
COLUMNS = (
    "task", "system", "seed", "method", "trainable_share", "metric", "value", "low", "high", "digits", "digits_change",
    "digits_low", "digits_high", "masked_change", "masked_low", "masked_high", "loss_change", "cka_speech", "cka_calls",
    "weight_change", "effective_rank",
)  # fmt: skip
#: Means over seeds; the others are texts, or edges of intervals.
_MEANS = ("trainable_share", "value", "digits", "loss_change", "cka_speech", "cka_calls", "weight_change")


def write_tables(rows: Sequence[Row], out: Path) -> str:
    """Write `retention.csv`, `layers.csv`, `retention.svg` and, where there are curves, `curve.svg`.

    Parameters
    ----------
    rows : sequence of mapping
        Of `retention.measure`, each with its ``result``.
    out : Path
        The folder.

    Returns
    -------
    str
        The main columns, over seeds, as Markdown.
    """
    _write_csv(map(flat, rows), COLUMNS, out / "retention.csv")
    _write_csv(layer_rows(rows), ("task", "system", "seed", "layer", "cka_speech", "cka_calls"), out / "layers.csv")
    summaries = summarise(rows)
    save_figure(retention_figure(summaries), out / "retention.svg")
    if curves := mean_curves(rows):
        save_figure(curve_figure(curves), out / "curve.svg")
    return markdown(summaries)


def _write_csv(rows: Iterable[Row], columns: Sequence[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.4g}" if isinstance(v, float) else v for name, v in row.items()})


def flat(row: Row) -> dict[str, Any]:
    """A run's figures, means over its folds, by the columns of `retention.csv`."""
    metric, digits, folds = row["metric"], row["digits"], row["folds"]

    def mean(name: str) -> float | str:
        values = [np.asarray(fold[name]) for fold in folds if name in fold]
        return float(np.mean([value if value.ndim == 0 else value[-1] for value in values])) if values else ""

    masked = row.get("masked", {"change": "", "low": "", "high": ""})
    losses = [after - before for before, after in (fold["loss"] for fold in folds if "loss" in fold)]
    return {
        "task": row["task"], "system": row["system"], "seed": row["seed"], "method": folds[0]["method"],
        "trainable_share": mean("share"), "metric": metric["name"],
        "value": metric["value"], "low": metric["low"], "high": metric["high"],
        "digits": digits["before"] + digits["change"], "digits_change": digits["change"],
        "digits_low": digits["low"], "digits_high": digits["high"],
        "masked_change": masked["change"], "masked_low": masked["low"], "masked_high": masked["high"],
        "loss_change": float(np.mean(losses)) if losses else "",
        "cka_speech": mean("cka_speech"), "cka_calls": mean("cka_calls"),
        "weight_change": mean("weight_change"), "effective_rank": mean("effective_rank"),
    }  # fmt: skip


def layer_rows(rows: Iterable[Row]) -> Iterable[dict[str, Any]]:
    """Linear CKA of each layer of each run with the pretrained encoder's, means over folds; layer 0 is the lowest."""
    for row in rows:
        about = {name: row[name] for name in ("task", "system", "seed")}
        kinds = ("cka_speech", "cka_calls")
        values = [np.mean([fold[kind] for fold in row["folds"]], axis=0).tolist() for kind in kinds]
        for layer, pair in enumerate(zip(*values, strict=True)):
            yield {**about, "layer": layer, **dict(zip(kinds, pair, strict=True))}


def _systems(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Runs by the name to show: the system's, with its task where there are several."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["task"], row["system"]].append(row)
    several = len({task for task, _ in found}) > 1
    return {f"{name} ({task})" if several else name: runs for (task, name), runs in found.items()}


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What is shown of each system: means over seeds, with intervals over seeds and groups; of one seed, its own."""
    summaries = []
    for name, runs in _systems(rows).items():
        flats = [flat(run) for run in runs]
        summary = {**flats[0], "system": name, "seeds": len(runs)}
        if len(runs) > 1:
            for column in _MEANS:
                values = [one[column] for one in flats]
                summary[column] = "" if "" in values else float(np.mean(values))
            results = {run["seed"]: run["result"] for run in runs}
            metric = metric_named(flats[0]["metric"])
            summary["low"], summary["high"], _ = entry_interval(Entry("", name, "", "", results), metric)
            for part in ("digits", "masked"):
                found = _change(runs, part)
                summary.update(zip((f"{part}_change", f"{part}_low", f"{part}_high"), found, strict=True))
        summaries.append(summary)
    return summaries


def _change(runs: Sequence[Row], part: str) -> tuple[Any, Any, Any]:
    """Mean over seeds of after less before, with its interval; nothing where a run was not measured in this."""
    if any(part not in run for run in runs):
        return "", "", ""
    kept = {run["seed"]: run[part]["groups"] for run in runs}
    before, after = (
        {seed: [{"id": r["group"], "group": r["group"], "right": r[when], "of": r["of"]} for r in groups]
         for seed, groups in kept.items()}
        for when in ("before", "after")
    )  # fmt: skip
    try:
        found = compare_seeds(after, before, ratio_metric("share", "right", "of"), paired=True)
    except DataError:  # a single group
        changes = [run[part]["change"] for run in runs]
        return float(np.mean(changes)), *over_seeds_alone(changes)
    return found.difference, found.low, found.high


def markdown(summaries: Sequence[Row]) -> str:
    """The main columns, for a README; points of 100."""
    lines = [
        "| tuning | seeds | trained | calls | spoken digits: change | masked accuracy: change | CKA: speech, calls "
        "| moved |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]

    def points(part: Row, low: str, high: str, change: str) -> str:
        if part[change] == "":
            return "–"
        return f"{100 * part[change]:+.1f} [{100 * part[low]:+.1f}, {100 * part[high]:+.1f}]"

    for row in summaries:
        moved = "–" if row["weight_change"] == "" else f"{row['weight_change']:.3f}"
        cells = [
            row["system"],
            str(row["seeds"]),
            f"{100 * row['trainable_share']:.2f} %",
            f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            points(row, "digits_low", "digits_high", "digits_change"),
            points(row, "masked_low", "masked_high", "masked_change"),
            f"{row['cka_speech']:.3f}, {row['cka_calls']:.3f}",
            moved,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _style(number: int) -> dict[str, Any]:
    """Colour and marker of a system; sixteen are told apart."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": "os^Dv*"[number // len(COLOURS) % 6]}


def _edges(row: Row, value: str, low: str, high: str) -> tuple[float, list[list[float]]]:
    """A figure in points, and how far its interval reaches below and above; rounding reaches nowhere."""
    centre = 100 * row[value]
    return centre, [[max(centre - 100 * row[low], 0.0)], [max(100 * row[high] - centre, 0.0)]]


@styled
def retention_figure(summaries: Sequence[Row]) -> Figure:
    """Accuracy on calls against the share that trains, and against what is left of the spoken digits."""
    figure, panels = new_figure(WIDTH, 7.0, ratios=[1.0, 1.0])
    for number, row in enumerate(summaries):
        value, error = _edges(row, "value", "low", "high")
        style: dict[str, Any] = {**_style(number), "capsize": 2, "linewidth": 1.0, "markersize": 5}
        share = max(100 * row["trainable_share"], 1e-3)
        panels[0].errorbar(share, value, error, label=row["system"], **style)
        change, across = _edges(row, "digits_change", "digits_low", "digits_high")
        panels[1].errorbar(change, value, error, across, **style)
    names = {row["metric"] for row in summaries}
    metric = {uar.name: "unweighted recall", auc.name: "AUC"}.get(names.pop(), "score") if len(names) == 1 else "score"
    panels[0].set(xscale="log", xlabel="share of the encoder that trains (%)", ylabel=f"calls: {metric} (%)")
    panels[1].set(xlabel="spoken digits after tuning less before (points)", ylabel=f"calls: {metric} (%)")
    panels[1].axvline(0, color=COLOURS[0], linewidth=0.8, linestyle=":")
    for axes in panels:
        axes.grid()
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.0, fontsize=8)
    return figure


def mean_curves(rows: Iterable[Row]) -> dict[str, list[dict[str, float]]]:
    """`share`, `digits` and `calls` of the encoders between pretrained and tuned, means over folds and seeds."""
    found = {}
    for name, runs in _systems(rows).items():
        curves = [fold["curve"] for run in runs for fold in run["folds"] if "curve" in fold]
        if curves:
            points = zip(*curves, strict=True)
            found[name] = [{key: float(np.mean([p[key] for p in point])) for key in point[0]} for point in points]
    return found


@styled
def curve_figure(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """What a probe finds of digits and of calls in the encoders between the pretrained and the tuned one."""
    figure, panels = new_figure(WIDTH, 6.0, ratios=[1.0, 1.0])
    for number, (name, points) in enumerate(curves.items()):
        shares = [100 * point["share"] for point in points]
        for axes, kind in zip(panels, ("calls", "digits"), strict=True):
            axes.plot(shares, [100 * point[kind] for point in points], label=name, markersize=5, **_style(number))
    panels[0].set(ylabel="calls: unweighted recall (%)")
    panels[1].set(xlabel="share of the way to the tuned weights (%)", ylabel="spoken digits: accuracy (%)")
    for axes in panels:
        axes.grid()
        axes.set_axisbelow(True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.0, fontsize=8)
    return figure
