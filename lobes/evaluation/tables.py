"""Markdown tables in README files, generated from committed `results.csv` rows between two markers.

In a README, each on a line of its own::

    <!-- results: results.csv columns=system,result,parameters task="FSDD digits" sort=value -->
    <!-- /results -->

The path is relative to the README. `columns=` chooses columns (those of `results.csv`, and `result`: the value with its
interval), `sort=` orders by one (`sort=-value` downwards), and any other `column=value` keeps matching rows only. Of
rows with the same task, system, metric, seed and data the last one counts. Figures on generated audio are marked.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lobes.errors import DataError
from lobes.evaluation.metrics import PERCENT
from lobes.evaluation.results import COLUMNS, GENERATED, read_rows

Row = Mapping[str, str]

DEFAULT_COLUMNS = (
    "task", "system", "result", "n_items", "n_groups", "parameters", "audio_hours", "macs_per_second", "data",
)  # fmt: skip
TITLES = {
    "result": "result [95 % interval]",
    "n_items": "items",
    "n_groups": "groups",
    "audio_hours": "audio seen",
    "wall_seconds": "time",
    "macs_per_second": "MACs per second of audio",
}
NUMERIC = {
    "result", "value", "low", "high", "n_items", "n_groups", "seed", "parameters", "audio_hours", "wall_seconds",
    "macs_per_second",
}  # fmt: skip
NOTE = "*Generated speech: these figures come from synthetic voices and say little of real recordings.*"
OPENING = re.compile(r"^<!--\s*results:\s*(?P<options>.*?)\s*-->\s*$")
CLOSING = re.compile(r"^<!--\s*/results\s*-->\s*$")


def percent_or_plain(metric: str, value: float) -> str:
    """Return a value as people read it: percent with one decimal for rates, else three significant digits.

    Example
    -------
    >>> percent_or_plain("wer", 0.1834), percent_or_plain("loss", 2.34567)
    ('18.3', '2.35')
    """
    return f"{100 * value:.1f}" if metric in PERCENT else f"{value:.3g}"


def metric_title(metric: str) -> str:
    """Return a metric's name with its unit.

    Example
    -------
    >>> metric_title("wer"), metric_title("slot_f1"), metric_title("loss")
    ('WER (%)', 'slot F1 (%)', 'loss')
    """
    name = metric.upper() if len(metric) <= 3 or metric == "bleu" else metric.replace("f1", "F1").replace("_", " ")
    return f"{name} (%)" if metric in PERCENT else name


def quantity(value: float, unit: str = "") -> str:
    """Return a large number with three significant digits and its prefix.

    Example
    -------
    >>> quantity(95_412_000), quantity(812), quantity(1.34e9, "MACs"), quantity(0)
    ('95.4 M', '812', '1.34 G MACs', '0')
    """
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{_three(value / factor)} {prefix} {unit}".strip()
    return f"{_three(value)} {unit}".strip()


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    Example
    -------
    >>> duration(42), duration(250), duration(9000)
    ('42 s', '4.17 min', '2.5 h')
    """
    if seconds < 99.5:
        return f"{_three(seconds)} s"
    return f"{_three(seconds / 60)} min" if seconds < 5970 else f"{_three(seconds / 3600)} h"


def _three(value: float) -> str:
    """Three significant digits without an exponent or trailing zeros."""
    digits = f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
    return f"{float(digits):g}" if "e" in digits else digits


def cell(row: Row, column: str, show_metric: bool = False) -> str:
    """Return one cell of a table as text; `result` names its metric when asked to."""
    metric = row["metric"]
    if column in ("value", "low", "high"):
        return percent_or_plain(metric, float(row[column]))
    if column == "result":
        value, low, high = (percent_or_plain(metric, float(row[name])) for name in ("value", "low", "high"))
        name = f"{metric_title(metric)} " if show_metric else ""
        return f"{name}{value} [{low}, {high}]"
    text = row[column]
    if not text:
        return "–"
    if column in ("parameters", "macs_per_second"):
        return quantity(float(text))
    if column in ("audio_hours", "wall_seconds"):
        return duration(float(text) * (3600 if column == "audio_hours" else 1))
    return text


def current_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that count: the last of each task, system, metric, seed and data, in order of first mention."""
    latest: dict[tuple[str, ...], Row] = {}
    for row in rows:
        latest[tuple(row[name] for name in ("task", "system", "metric", "seed", "data"))] = row
    return list(latest.values())


def markdown_table(rows: Sequence[Row], columns: Sequence[str] = DEFAULT_COLUMNS) -> str:
    """Return a Markdown table of rows of a `results.csv`, with a note below when any audio was generated.

    Raises
    ------
    DataError
        If there are no rows, or a column is unknown.
    """
    unknown = [name for name in columns if name != "result" and name not in COLUMNS]
    if unknown:
        raise DataError(
            f"columns: {unknown[0]!r} is unknown, expected some of result, {', '.join(COLUMNS)}; correct it"
        )
    if not rows:
        raise DataError("results: no row is left, expected at least one; check the filter in the marker")
    metrics = {row["metric"] for row in rows}
    titles = [TITLES.get(name, name) for name in columns]
    if len(metrics) == 1:
        unit = metric_title(*metrics)
        titles = [
            f"{unit} [95 % interval]" if name == "result" else unit if name == "value" else title
            for name, title in zip(columns, titles, strict=True)
        ]
    lines = [_line(titles), _line("---:" if name in NUMERIC else "---" for name in columns)]
    lines += [_line(cell(row, name, show_metric=len(metrics) > 1) for name in columns) for row in rows]
    if any(GENERATED in row["data"] for row in rows):
        lines += ["", NOTE]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in cells) + " |"


def update_text(text: str, folder: str | Path) -> str:
    """Return the README's text with every table between markers made anew; lines in code fences are left alone.

    Parameters
    ----------
    text : str
        The README.
    folder : path
        Where it lies: the paths in its markers are relative to it.

    Raises
    ------
    DataError
        If a marker is not closed, its options are wrong, or its `results.csv` is missing or not well formed.
    """
    kept: list[str] = []
    opened: tuple[int, str] | None = None
    fence = ""
    for number, line in enumerate(text.split("\n"), start=1):
        mark = line.lstrip()[:3]
        if opened is None and mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        opening = None if fence else OPENING.match(line)
        if opened is not None:
            if opening:
                break
            if CLOSING.match(line):
                kept += ["", *_table(opened[1], Path(folder), opened[0]).split("\n"), "", line]
                opened = None
            continue
        kept.append(line)
        if opening:
            opened = (number, opening["options"])
    if opened is not None:
        raise DataError(f"line {opened[0]}: '<!-- results: ... -->' is not closed; add a line '<!-- /results -->'")
    return "\n".join(kept)


def _table(options: str, folder: Path, line: int) -> str:
    try:
        location, *pairs = shlex.split(options)
        chosen = dict(pair.split("=", 1) for pair in pairs)
    except ValueError as error:
        raise DataError(
            f"line {line}: options {options!r}, expected 'results.csv columns=a,b column=value'; correct the marker"
        ) from error
    names = tuple(chosen.pop("columns", ",".join(DEFAULT_COLUMNS)).split(","))
    order = chosen.pop("sort", "")
    for name in [*chosen, *([order.lstrip("-")] if order else [])]:
        if name not in COLUMNS:
            raise DataError(f"line {line}: option {name!r}, expected columns, sort or one of {', '.join(COLUMNS)}")
    rows = [row for row in current_rows(read_rows(folder / location)) if all(row[k] == v for k, v in chosen.items())]
    if order:
        rows.sort(key=lambda row: _sort_key(row[order.lstrip("-")]), reverse=order.startswith("-"))
    return markdown_table(rows, names)


def _sort_key(text: str) -> tuple[int, float, str]:
    """Numbers by size before text by letter."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def update_file(path: str | Path, write: bool = True) -> bool:
    """Make the tables of one README anew; return whether they differ from what the file held.

    Raises
    ------
    DataError
        As `update_text`, naming the file.
    """
    path = Path(path)
    before = path.read_text(encoding="utf-8")
    try:
        after = update_text(before, path.parent)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if write and after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def find_readmes(root: str | Path) -> list[Path]:
    """Return every README.md below a folder, without hidden folders, environments and results of runs."""
    skipped = {"node_modules", "results", "build", "dist", "venv", "env", "__pycache__"}
    found = []
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in skipped)
        if "README.md" in files:
            found.append(Path(folder) / "README.md")
    return found


def put_between(path: str | os.PathLike[str], name: str, text: str, write: bool = True) -> bool:
    """Put a text between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a file; return whether that changes it.

    Raises
    ------
    DataError
        The file has no such lines.
    """
    path = Path(path)
    old = path.read_text(encoding="utf-8")
    lines = re.compile(rf"^(<!-- {name} -->\n).*?^(<!-- /{name} -->)$", re.DOTALL | re.MULTILINE)
    if not lines.search(old):
        raise DataError(f"{path}: no line '<!-- {name} -->' with '<!-- /{name} -->' below it")
    new = lines.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old)
    if write and new != old:
        path.write_text(new, encoding="utf-8")
    return new != old
