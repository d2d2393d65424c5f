"""The tables of docs/study: from results of tools/study.py to quality.csv, and from that to the README."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lobes.errors import DataError
from lobes.evaluation import Metric, accuracy, append_row, bootstrap_interval, cer, paired_bootstrap, read_result

METRICS: dict[str, Metric] = {"digits": accuracy, "speakers": accuracy, "french": cer}
COLUMNS = (
    "probe", "system", "seeds", "value", "low", "high", "untrained", "difference", "difference_low", "difference_high",
    "parameters", "macs_per_second",
)  # fmt: skip
MARKERS = re.compile(r"(<!-- study -->\n).*?(\n<!-- /study -->)", re.DOTALL)
TITLES = {"digits": "digits, accuracy %", "speakers": "speakers, accuracy %", "french": "French, CER %"}
Results = Mapping[int, dict[str, Any]]


def write_tables(out: Path, docs: Path) -> None:
    """Write `results.csv` (a row per run), `quality.csv` (a row per system and probe) and the README's table."""
    docs.mkdir(parents=True, exist_ok=True)
    rows = list(quality(out))
    if not rows:
        raise DataError(f"{out}: no results; run tools/study.py first")
    with open(docs / "quality.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (docs / "results.csv").unlink(missing_ok=True)
    for path in sorted(out.glob("*/*/*/result.json")):
        append_row(docs / "results.csv", read_result(path))
    update(docs)


def quality(out: Path) -> Iterable[dict[str, Any]]:
    """One row per probe and system: over its seeds, alone and less its own random weights."""
    for probe, metric in METRICS.items():
        runs: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for path in sorted((out / probe).glob("*/*/result.json")):
            result = read_result(path)
            runs[result["system"]][result["seed"]] = result
        for system in sorted(name for name in runs if not name.endswith(" untrained")):
            yield row(probe, system, metric, runs[system], runs.get(f"{system} untrained", {}))


def row(probe: str, system: str, metric: Metric, trained: Results, untrained: Results) -> dict[str, Any]:
    """A line of `quality.csv`; values are fractions."""
    found = bootstrap_interval(records(trained), metric)
    common = sorted(set(trained) & set(untrained))
    ours, theirs = (records({seed: results[seed] for seed in common}) for results in (trained, untrained))
    against = paired_bootstrap(ours, theirs, metric) if common else None
    one = next(iter(trained.values()))
    cost = one["cost"]
    return {
        "probe": probe,
        "system": system,
        "seeds": len(trained),
        **{name: f"{getattr(found, name):.4f}" for name in ("value", "low", "high")},
        "untrained": f"{against.value_b:.4f}" if against else "",
        "difference": f"{against.difference:+.4f}" if against else "",
        "difference_low": f"{against.low:+.4f}" if against else "",
        "difference_high": f"{against.high:+.4f}" if against else "",
        "parameters": cost["parameters_total"] - cost["parameters_trained"],
        "macs_per_second": round(cost["macs_per_second"]),
    }


def records(results: Results) -> list[dict[str, Any]]:
    """The items of all seeds: the same item under two seeds is two, in the same group."""
    return [{**item, "id": f"{item['id']}#{seed}"} for seed in sorted(results) for item in results[seed]["records"]]


def update(docs: Path, write: bool = True) -> bool:
    """Put the table into the README between its markers; return whether that changed it."""
    path = docs / "README.md"
    old = path.read_text(encoding="utf-8")
    if not MARKERS.search(old):
        raise DataError(f"{path}: no line '<!-- study -->' with '<!-- /study -->' below it")
    new = MARKERS.sub(lambda found: found[1] + table(docs) + found[2], old)
    if write and new != old:
        path.write_text(new, encoding="utf-8")
    return new != old


def table(docs: Path) -> str:
    """Quality beside cost, the best at French first."""
    with open(docs / "quality.csv", newline="", encoding="utf-8") as file:
        by_system: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
        for line in csv.DictReader(file):
            by_system[line["system"]][line["probe"]] = line
    costs = read_costs(docs.parent / "efficiency" / "encoders.json")
    cost_columns = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    header = ["system", "seeds", *(title for p in METRICS for title in (TITLES[p], "less untrained"))]
    header += ["parameters", "MACs/s", *cost_columns]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]

    def rank(name: str) -> float:
        return float(by_system[name].get("french", {}).get("value") or "inf")

    for system in sorted(by_system, key=rank):
        probes = by_system[system]
        any_line = next(iter(probes.values()))
        cells = [system.replace("_", " "), max(line["seeds"] for line in probes.values())]
        for probe in METRICS:
            cells += quality_cells(probes.get(probe))
        cells += [f"{int(any_line['parameters']) / 1e6:.2f} M", f"{int(any_line['macs_per_second']) / 1e6:.0f} M"]
        cells += [costs.get(system, {}).get(name, "") for name in cost_columns]
        lines.append(cells)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def quality_cells(line: Mapping[str, str] | None) -> list[str]:
    """Value and difference, each with its interval, in percent; bold where the difference is not chance."""
    if line is None:
        return ["", ""]
    value, low, high = (f"{100 * float(line[name]):.1f}" for name in ("value", "low", "high"))
    if not line["difference"]:
        return [f"{value} [{low}, {high}]", ""]
    edges = [100 * float(line[name]) for name in ("difference", "difference_low", "difference_high")]
    text = f"{edges[0]:+.1f} [{edges[1]:+.1f}, {edges[2]:+.1f}]"
    return [f"{value} [{low}, {high}]", f"**{text}**" if edges[1] * edges[2] > 0 else text]


def read_costs(path: Path) -> dict[str, dict[str, str]]:
    """What tools/efficiency.py measured of the tiny encoders, where it has been published, by system."""
    if not path.is_file():
        return {}
    found: dict[str, dict[str, str]] = {}
    for line in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        size, _, system = line["name"].partition("/")
        if size == "tiny":
            found[system] = {
                "training, audio s/s": _figure(line.get("train"), "audio_per_second", "{:.0f}"),
                "chunk, ms": _figure(line.get("stream"), "chunk_median_ms", "{:.1f}"),
                "int8, MB": _figure(line.get("export"), "int8_bytes", "{:.2f}", 1e-6),
                "int8, real-time factor": _figure(line.get("export"), "int8_real_time_factor", "{:.4f}"),
            }
    return found


def _figure(part: Mapping[str, Any] | None, name: str, form: str, scale: float = 1.0) -> str:
    return form.format(scale * part[name]) if part and part.get(name) is not None else "–"
