"""`result.json`, one per evaluated system, and `results.csv`, the committed rows from which README tables are made."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from lobes.errors import DataError
from lobes.evaluation.metrics import Metric
from lobes.evaluation.provenance import (
    data_state,
    git_state,
    hardware,
    package_versions,
    peak_memory,
    portable_command,
)
from lobes.evaluation.records import Record
from lobes.evaluation.statistics import bootstrap_interval

FORMAT = 1
GENERATED = "generated speech"

#: Columns of `results.csv`, in order. Values and interval are fractions.
COLUMNS = (
    "date", "task", "system", "metric", "value", "low", "high", "n_items", "n_groups", "seed", "parameters",
    "audio_hours", "wall_seconds", "macs_per_second", "data", "commit", "command",
)  # fmt: skip

NUMBER = (int, float)
#: What `read_result` expects: dotted field to types; None is allowed where it is listed.
FIELDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "date": (str,),
    "task": (str,),
    "system": (str,),
    "metric": (dict,),
    "metric.name": (str,),
    "metric.value": NUMBER,
    "metric.low": NUMBER,
    "metric.high": NUMBER,
    "metric.level": NUMBER,
    "metric.n_items": (int,),
    "metric.n_groups": (int,),
    "metric.method": (str,),
    "metric.higher_is_better": (bool,),
    "other_metrics": (dict,),
    "records": (list,),
    "seed": (int,),
    "data": (dict,),
    "data_name": (str,),
    "generated_speech": (bool,),
    "notes": (str,),
    "cost": (dict,),
    "cost.parameters_trained": (int, type(None)),
    "cost.parameters_total": (int, type(None)),
    "cost.audio_hours": (*NUMBER, type(None)),
    "cost.wall_seconds": (*NUMBER, type(None)),
    "cost.macs_per_second": (*NUMBER, type(None)),
    "cost.peak_memory_mib": (dict,),
    "git": (dict,),
    "command": (str,),
    "packages": (dict,),
    "hardware": (dict,),
}


def write_result(
    folder: str | Path,
    *,
    task: str,
    system: str,
    metric: Metric,
    records: Sequence[Record],
    seed: int,
    data: Mapping[str, str | Path] | None = None,
    data_name: str = "",
    generated_speech: bool | None = None,
    group: str | None = "group",
    level: float = 0.95,
    other_metrics: Mapping[str, float] | None = None,
    parameters_trained: int | None = None,
    parameters_total: int | None = None,
    audio_hours: float | None = None,
    wall_seconds: float | None = None,
    macs_per_second: float | None = None,
    notes: str = "",
    command: str | None = None,
) -> dict[str, Any]:
    """Evaluate the records and write `result.json` into a folder, atomically; return what was written.

    Parameters
    ----------
    folder : path
        Made if need be.
    task, system : str
        What was measured (`"FSDD digits"`), and on what (`"pretrained SummaryMixing"`).
    metric : Metric
        The main one, with which the interval is computed.
    records : sequence of dict
        One per item; kept in the file, so that systems can be compared in pairs later.
    seed : int
        Of the training run; the interval has a fixed seed of its own.
    data : dict of str to path, optional
        Manifests used, by split; their checksums are recorded.
    data_name : str
        The data in words, for tables (`"MiniFrench test"`).
    generated_speech : bool, optional
        Whether the audio is synthetic; by default, whether any manifest's sidecar says `generated: true`.
    group, level
        As for `bootstrap_interval`.
    other_metrics : dict of str to float, optional
        Further figures, by name.
    parameters_trained, parameters_total : int, optional
        Numbers of weights.
    audio_hours : float, optional
        Hours of audio seen in training, repeats included.
    wall_seconds : float, optional
        Duration of the run.
    macs_per_second : float, optional
        Multiply-accumulates per second of audio at inference.
    notes : str
        Anything that a reader of the figure must know.
    command : str, optional
        How to get the figure again; by default the command that started this program.

    Raises
    ------
    DataError
        If a record lacks a field, the metric is undefined, or a manifest does not exist.
    """
    interval = bootstrap_interval(records, metric, group=group, level=level)
    states = data_state(data or {})
    if generated_speech is None:
        generated_speech = any(state["generated"] for state in states.values())
    result = {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "task": str(task),
        "system": str(system),  # --name=7 is a number
        "metric": {"name": metric.name, **interval.as_dict(), "higher_is_better": metric.higher_is_better},
        "other_metrics": dict(other_metrics or {}),
        "seed": seed,
        "data": states,
        "data_name": data_name,
        "generated_speech": bool(generated_speech),
        "notes": notes,
        "cost": {
            "parameters_trained": parameters_trained,
            "parameters_total": parameters_total,
            "audio_hours": audio_hours,
            "wall_seconds": wall_seconds,
            "macs_per_second": macs_per_second,
            "peak_memory_mib": peak_memory(),
        },
        "git": git_state(),
        "command": portable_command() if command is None else command,
        "packages": package_versions(),
        "hardware": hardware(),
        "records": [dict(record) for record in records],
    }
    result = _plain(result)
    path = Path(folder) / "result.json"
    _validate(result, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return result


def read_result(path: str | Path) -> dict[str, Any]:
    """Read and validate a `result.json`, given the file or its folder.

    Raises
    ------
    DataError
        If the file is missing, is not JSON, or a field is missing or of another type.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected a result; run the recipe's evaluation") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}), expected a result; run the recipe's evaluation again") from error
    _validate(result, path)
    return result


def _validate(result: Any, path: Path) -> None:
    if not isinstance(result, dict):
        raise DataError(f"{path}: a JSON {type(result).__name__}, expected an object; this is not a result.json")
    if result.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{path}: field 'format' is {result['format']!r}, expected {FORMAT}; write it with this version of lobes"
        )
    for field, types in FIELDS.items():
        value: Any = result
        for key in field.split("."):
            if key not in value:
                raise DataError(f"{path}: field {field!r} missing; write results with lobes.evaluation.write_result")
            value = value[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise DataError(f"{path}: field {field!r} is {value!r}, expected {expected}; write the result again")
    metric = result["metric"]
    if not metric["low"] <= metric["value"] <= metric["high"]:
        raise DataError(
            f"{path}: metric {metric['value']} lies outside its interval [{metric['low']}, {metric['high']}];"
            " write the result again"
        )


def _plain(value: Any) -> Any:
    """Return the value as JSON knows it: NumPy and torch scalars as numbers, paths as text, non-finite as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise DataError(
        f"result: {value!r} is a {type(value).__name__}, expected numbers, text, lists or dicts; convert it"
    )


# --------------------------------------------------------------------------- results.csv


def result_row(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of `results.csv` that stands for a result.

    Raises
    ------
    DataError
        If its interval is not one of 95 %, as all of the file are.
    """
    metric, cost = result["metric"], result["cost"]
    if metric["level"] != 0.95:
        raise DataError(f"level: {metric['level']}, expected 0.95 as in all rows of results.csv; evaluate at 0.95")
    name = result["data_name"] or ", ".join(sorted(result["data"])) or "unnamed"
    commit = (result["git"].get("commit") or "")[:12] + ("+changes" if result["git"].get("dirty") else "")
    row: dict[str, Any] = {
        "date": result["date"][:10],
        "task": result["task"],
        "system": result["system"],
        "metric": metric["name"],
        "value": _rounded(metric["value"]),
        "low": _rounded(metric["low"]),
        "high": _rounded(metric["high"]),
        "n_items": metric["n_items"],
        "n_groups": metric["n_groups"],
        "seed": result["seed"],
        "parameters": cost["parameters_total"],
        "audio_hours": _rounded(cost["audio_hours"]),
        "wall_seconds": _rounded(cost["wall_seconds"]),
        "macs_per_second": _rounded(cost["macs_per_second"]),
        "data": f"{name} ({GENERATED})" if result["generated_speech"] else name,
        "commit": commit,
        "command": result["command"],
    }
    return {column: "" if row[column] is None else str(row[column]) for column in COLUMNS}


def _rounded(value: float | None) -> float | int | None:
    """Return a number with the six significant digits that a table can need."""
    return None if value is None else float(f"{value:.6g}")


def append_row(results_csv: str | Path, result: Mapping[str, Any]) -> dict[str, str]:
    """Append a result to a `results.csv`, made with its header when missing; return the row.

    Raises
    ------
    DataError
        If the file has other columns, or the interval is not one of 95 %.
    """
    path = Path(results_csv)
    row = result_row(result)
    new = not path.is_file() or path.stat().st_size == 0
    if not new:
        read_rows(path)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.writeheader()
    elif not path.read_bytes().endswith(b"\n"):
        text.write("\n")
    writer.writerow(row)
    with path.open("a", encoding="utf-8", newline="") as stream:  # one write: processes can share the file
        stream.write(text.getvalue())
    return row


def read_rows(results_csv: str | Path) -> list[dict[str, str]]:
    """Read a `results.csv`.

    Raises
    ------
    DataError
        If the file is missing, or its header or a row is not as `append_row` writes it.
    """
    path = Path(results_csv)
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a results.csv; run the recipe, or correct the path")
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        header = tuple(reader.fieldnames or ())
        if header != COLUMNS:
            odd = sorted(set(header) ^ set(COLUMNS)) or ["their order"]
            raise DataError(
                f"{path}: columns differ in {', '.join(odd)}, expected {','.join(COLUMNS)}; mend the header"
            )
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise DataError(f"{path}: line {reader.line_num} has another number of columns; mend the line")
            for column in ("value", "low", "high"):
                try:
                    float(row[column])
                except ValueError as error:
                    raise DataError(
                        f"{path}: line {reader.line_num}: {column} is {row[column]!r}, expected a number; mend it"
                    ) from error
            rows.append(row)
    return rows
