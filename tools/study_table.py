"""The tables of docs/study: from results of tools/study.py to quality.csv, and from that to the README."""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lobes.errors import DataError
from lobes.evaluation import (
    Comparison,
    Metric,
    accuracy,
    append_row,
    cer,
    holm,
    read_result,
)
from lobes.evaluation.plots import read_curve
from lobes.evaluation.seeds import compare_seeds, seeds_interval
from lobes.evaluation.tables import metric_title, put_between

METRICS: dict[str, Metric] = {"french": cer, "digits": accuracy, "speakers": accuracy}
TITLES = {"french": "French, CER %", "digits": "digits, accuracy %", "speakers": "speakers, accuracy %"}
BASELINE = "sdpa"
COLUMNS = (
    "probe", "system", "seeds", "value", "low", "high", "seed_deviation",
    "untrained", "untrained_difference", "untrained_low", "untrained_high",
    "sdpa_difference", "sdpa_low", "sdpa_high", "sdpa_p_holm", "parameters", "macs_per_second", "steps_to_sdpa",
)  # fmt: skip
SMOOTH = 300  # steps over which losses of batches, of corpora that differ, are averaged: three to four epochs
Results = Mapping[int, dict[str, Any]]


def write_tables(out: Path, docs: Path) -> None:
    """Write `results.csv` (a row per run), `quality.csv` (a row per system and probe) and the README's tables."""
    docs.mkdir(parents=True, exist_ok=True)
    rows = quality(out)
    if not rows:
        raise DataError(f"{out}: no results; run tools/study.py first")
    with open(docs / "quality.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (docs / "results.csv").unlink(missing_ok=True)
    for path in sorted(out.glob("*/*/*/result.json")):
        result = read_result(path)
        system = result["system"].removesuffix(" untrained")
        # Whichever command it was run by, together with others: this one gives it alone.
        result["command"] = f"python tools/study.py --systems {system} --seeds {result['seed']}"
        append_row(docs / "results.csv", result)
    update(docs)
    draw(rows, docs)


def draw(rows: list[dict[str, Any]], docs: Path) -> None:
    """Pictures of quality against cost, both beside attention's, of all systems whose costs are known."""
    import matplotlib
    from efficiency_plots import STYLE, Quality, quality_figure, save_figure

    measured = read_measured(docs.parent / "efficiency" / "encoders.json")
    for probe, kind in PICTURES:
        what, cost_of = COSTS[kind]
        whole = cost_of(measured.get(BASELINE, {}))
        systems = {}
        for row in rows:
            cost = cost_of(measured.get(row["system"], {}))
            if row["probe"] == probe and cost and whole:
                value, low, high = (float(row[f"{BASELINE}_{part}"] or 0) for part in ("difference", "low", "high"))
                name = row["system"].replace("_", " ")
                systems[name] = cost / whole, Quality(value, low, high, METRICS[probe].name)
        if len(systems) > 1:
            title = f"{TITLES[probe].split(',')[0]}: points of {metric_title(METRICS[probe].name)} less attention's"
            with matplotlib.rc_context(STYLE):
                figure = quality_figure(systems, f"{what}, times attention's", title.replace(" (%)", ""), BASELINE)
                save_figure(figure, docs / f"{probe}-{kind}.png")


def quality(out: Path) -> list[dict[str, Any]]:
    """One row per probe and system, over its seeds: alone, less its own random weights, and less attention."""
    rows = []
    steps = steps_to_baseline(out / "pretraining")
    for probe, metric in METRICS.items():
        runs: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for path in sorted((out / probe).glob("*/*/result.json")):
            result = read_result(path)
            runs[result["system"]][result["seed"]] = result
        names = sorted(name for name in runs if not name.endswith(" untrained"))
        baseline = runs.get(BASELINE, {})
        against = {name: compare(runs[name], baseline, metric) for name in names if name != BASELINE}
        compared = {name: found for name, found in against.items() if found}
        p_values = dict(zip(compared, holm([found.p_value for found in compared.values()]), strict=True))
        for name in names:
            untrained = compare(runs[name], runs.get(f"{name} untrained", {}), metric, paired=True)
            line = {"probe": probe, "system": name, **alone(runs[name], metric)}
            line |= difference("untrained", untrained) | difference("sdpa", compared.get(name))
            line["untrained"] = f"{untrained.value_b:.4f}" if untrained else ""
            line["sdpa_p_holm"] = f"{p_values[name]:.4f}" if name in p_values else ""
            line["steps_to_sdpa"] = steps.get(name, "")
            rows.append(line)
    return rows


def alone(results: Results, metric: Metric) -> dict[str, Any]:
    """Value and interval over all seeds, the deviation between seeds, and what does not depend on the probe."""
    found = seeds_interval([result["records"] for result in results.values()], metric)
    by_seed = [result["metric"]["value"] for result in results.values()]
    cost = next(iter(results.values()))["cost"]
    return {
        "seeds": len(results),
        **{name: f"{getattr(found, name):.4f}" for name in ("value", "low", "high")},
        "seed_deviation": f"{statistics.stdev(by_seed):.4f}" if len(by_seed) > 1 else "",
        "parameters": cost["parameters_total"] - cost["parameters_trained"],
        "macs_per_second": round(cost["macs_per_second"]),
    }


def compare(ours: Results, theirs: Results, metric: Metric, paired: bool = False) -> Comparison | None:
    """The difference over seeds and items, None where one of the two has not been run.

    A seed's random weights are where its pretraining began: `paired`. Those of another system are others.
    """
    if not (set(ours) & set(theirs) if paired else ours and theirs):
        return None
    a, b = ({seed: result["records"] for seed, result in results.items()} for results in (ours, theirs))
    return compare_seeds(a, b, metric, paired=paired)


def difference(name: str, found: Comparison | None) -> dict[str, str]:
    """Columns of a comparison."""
    edges = (("difference", "difference"), ("low", "low"), ("high", "high"))
    return {f"{name}_{column}": f"{getattr(found, attribute):+.4f}" if found else "" for column, attribute in edges}


def steps_to_baseline(pretraining: Path) -> dict[str, str]:
    """Steps until a system's loss, smoothed, is that of attention after half of its steps: the mean over seeds.

    A seed fixes targets, batches and masks, so that losses of one seed can be compared. ">" stands before the number of
    all steps where a seed did not get there.
    """
    losses: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for path in sorted(pretraining.glob("*/*/result.json")):  # of finished runs only
        _, loss = read_curve(path.parent / "train_log.csv")
        if len(loss) >= 2 * SMOOTH:
            system, seed = path.parts[-3:-1]
            losses[system][seed] = [statistics.fmean(loss[i - SMOOTH : i]) for i in range(SMOOTH, len(loss) + 1)]
    targets = {seed: curve[(len(curve) + SMOOTH) // 2 - SMOOTH] for seed, curve in losses[BASELINE].items()}
    found = {}
    for system, curves in losses.items():
        common = [(curves[seed], target) for seed, target in targets.items() if seed in curves]
        reached = [next((i for i, loss in enumerate(c, SMOOTH) if loss <= target), None) for c, target in common]
        there = [step for step in reached if step is not None]
        if common:
            whole = max(len(curve) for curve, _ in common) + SMOOTH - 1
            found[system] = f"{statistics.fmean(there):.0f}" if len(there) == len(common) else f">{whole}"
    return found


def update(docs: Path, write: bool = True) -> bool:
    """Put the table into the README between its markers; return whether that changed it."""
    return put_between(docs / "README.md", "study", table(docs), write)


def table(docs: Path) -> str:
    """Two tables, the best at French first: quality beside cost; differences from random weights and attention."""
    with open(docs / "quality.csv", newline="", encoding="utf-8") as file:
        lines: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
        for line in csv.DictReader(file):
            lines[line["system"]][line["probe"]] = line
    order = sorted(lines, key=lambda name: float(lines[name].get("french", {}).get("value") or "inf"))
    costs = read_costs(docs.parent / "efficiency" / "encoders.json")
    cost_columns = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    figures = [["system", "seeds", *TITLES.values(), "steps", "parameters", "MACs/s", *cost_columns]]
    differences = [["system", *(f"{probe} less {other}" for probe in METRICS for other in ("untrained", "SDPA"))]]
    for system in order:
        probes = lines[system]
        one = next(iter(probes.values()))
        size = [f"{int(one['parameters']) / 1e6:.2f} M", f"{int(one['macs_per_second']) / 1e6:.0f} M"]
        measured = [costs.get(system, {}).get(name, "") for name in cost_columns]
        name = system.replace("_", " ")
        seeds = max(line["seeds"] for line in probes.values())
        values = [value_cell(probes.get(probe)) for probe in METRICS]
        figures.append([name, seeds, *values, one["steps_to_sdpa"] or "–", *size, *measured])
        cells = [difference_cell(probes.get(probe), other) for probe in METRICS for other in ("untrained", "sdpa")]
        differences.append([name, *cells])
    return "\n\n".join(markdown(rows) for rows in (figures, differences))


def markdown(rows: list[list[str]]) -> str:
    """A table of cells, the first row its head."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *body))


def value_cell(line: Mapping[str, str] | None) -> str:
    """Percent, with its interval, and the deviation of seeds where there are several."""
    if line is None:
        return ""
    value, low, high = (f"{100 * float(line[name]):.1f}" for name in ("value", "low", "high"))
    deviation = f" ± {100 * float(line['seed_deviation']):.1f}" if line["seed_deviation"] else ""
    return f"{value} [{low}, {high}]{deviation}"


def difference_cell(line: Mapping[str, str] | None, other: str) -> str:
    """Points, with their interval; bold where they are not chance: from attention after Holm's correction."""
    if line is None or not line[f"{other}_difference"]:
        return ""
    value, low, high = (100 * float(line[f"{other}_{name}"]) for name in ("difference", "low", "high"))
    sure = float(line["sdpa_p_holm"]) < 0.05 if other == BASELINE else low * high > 0
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if sure else text


def read_costs(path: Path) -> dict[str, dict[str, str]]:
    """Cells of what tools/efficiency.py measured of the tiny encoders, by system."""
    return {
        system: {
            "training, audio s/s": _figure(line.get("train"), "audio_per_second", "{:.0f}"),
            "use, ms/s": f"{1000 * cost:.1f}" if (cost := use_cost(line)) else "–",
            "chunk, ms": _figure(line.get("stream"), "chunk_median_ms", "{:.1f}"),
            "int8, MB": _figure(line.get("export"), "int8_bytes", "{:.2f}", 1e-6),
            "int8, ms/s": _figure(line.get("export"), "int8_real_time_factor", "{:.1f}", 1000),
        }
        for system, line in read_measured(path).items()
    }


def read_measured(path: Path) -> dict[str, dict[str, Any]]:
    """What tools/efficiency.py measured of the tiny encoders, where it has been published, by system."""
    if not path.is_file():
        return {}
    lines = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {line["name"].removeprefix("tiny/"): line for line in lines if line["name"].startswith("tiny/")}


def use_cost(line: Mapping[str, Any]) -> float | None:
    """Seconds of computation per second of audio, in the recording nearest to 20 s; None where it was not measured."""
    runs = [(abs(run["audio_seconds"] - 20), run["real_time_factor"]) for run in line.get("use", ())
            if run.get("real_time_factor")]  # fmt: skip
    return min(runs)[1] if runs else None


def training_cost(line: Mapping[str, Any]) -> float | None:
    """The same of a training step, backwards and update included."""
    speed = (line.get("train") or {}).get("audio_per_second")
    return 1 / speed if speed else None


COSTS: dict[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "use": ("computation in use", use_cost),
    "training": ("computation in training", training_cost),
}
PICTURES = (("french", "use"), ("french", "training"), ("digits", "use"))


def _figure(part: Mapping[str, Any] | None, name: str, form: str, scale: float = 1.0) -> str:
    return form.format(scale * part[name]) if part and part.get(name) is not None else "–"
