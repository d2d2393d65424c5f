"""What a leaderboard is read as: CSV, Markdown, and one interactive HTML page that fetches nothing."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lobes.evaluation.leaderboard import PAIR_COLUMNS, ROW_COLUMNS, Row
from lobes.evaluation.tables import metric_title, quantity

PAGES = Path(__file__).parent / "pages"
Board = Mapping[str, Sequence[Any]]

READING = (
    "Intervals hold 95 %, clustered by group, over seeds and items where there are several seeds. `p` is of the paired "
    "difference to the best system of the same task, mode and head, adjusted for all pairs of them (Holm). Costs are "
    "those of one run; `all runs` adds those with learning rates that were not chosen on the validation split."
)
PUBLISHED = "Published figures are other people's, on their own set-ups: they are neither ranked nor tested against."


def write_board(folder: str | Path, board: Board, title: str) -> list[Path]:
    """Write `leaderboard.csv`, `pairs.csv`, `leaderboard.md` and `leaderboard.html`, each atomically.

    Parameters
    ----------
    folder : path
        Made if need be.
    board : mapping
        From `lobes.evaluation.leaderboard.make_board`, and `failed`: rows with ``task``, ``model``, ``mode``, ``head``,
        ``seed``, ``rate`` and ``error``.
    title : str
        Plain text.

    Returns
    -------
    list of Path
    """
    from lobes.dataio.manifest import atomic_write

    texts = {
        "leaderboard.csv": _csv(ROW_COLUMNS, board["rows"]),
        "pairs.csv": _csv(PAIR_COLUMNS, board["pairs"]),
        "leaderboard.md": markdown(board, title),
        "leaderboard.html": page(board, title),
    }
    for name, text in texts.items():
        atomic_write(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Values are fractions; numbers have the six digits that a table can need."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue()


def page(board: Board, title: str) -> str:
    """The HTML page, with everything inside."""
    from lobes.evaluation.results import _plain

    rows = [{**row, "unit": _unit(row)} for row in board["rows"]]
    data = json.dumps(_plain({**board, "rows": rows}), ensure_ascii=False, allow_nan=False)
    return (PAGES / "leaderboard.html").read_text(encoding="utf-8") % {
        "title": html.escape(title),
        "reading": html.escape(READING.replace("`", "")),
        "published": html.escape(PUBLISHED),
        "style": (PAGES / "leaderboard.css").read_text(encoding="utf-8"),
        "script": (PAGES / "leaderboard.js").read_text(encoding="utf-8"),
        # Nothing in it may end the element that holds it.
        "data": data.replace("<", "\\u003c"),
    }


# --------------------------------------------------------------------------- Markdown


def markdown(board: Board, title: str) -> str:
    """The tables as Markdown: by task, over tasks, agreement of heads, published figures, failures."""
    ours = [row for row in board["rows"] if not row["published"]]
    published = [row for row in board["rows"] if row["published"]]
    parts = [f"# {title}", READING]
    for task in dict.fromkeys(row["task"] for row in ours):
        rows = [row for row in ours if row["task"] == task]
        parts += [f"## {task}", *_generated(rows), _task(rows)]
    for found in board["ranks"]:
        parts += _rank_lines(found)
    if board["taus"]:
        parts += ["## Do two heads rank models alike?", "Kendall's tau-b, 1 the same order, with 95 % interval."]
        cells = [
            [
                row["task"],
                row["mode"],
                row["head"],
                row["other"],
                str(row["models"]),
                _with_interval(row, "tau", "{:.2f}"),
            ]
            for row in board["taus"]
        ]
        parts.append(_table(["task", "mode", "head", "other head", "models", "tau-b"], cells))
    if published:
        parts += ["## Published", PUBLISHED]
        cells = [
            [row["task"], row["model"], row["head"], figure(row, "value"), _unit(row), row["source"]]
            for row in published
        ]
        parts.append(_table(["task", "model", "head", "value", "metric", "source"], cells))
    if board.get("failed"):
        parts.append("## Failed and missing")
        names = ("task", "model", "mode", "head", "seed", "rate", "error")
        parts.append(_table(names, [["" if row[n] is None else str(row[n]) for n in names] for row in board["failed"]]))
    parts += [f"- {note}" for note in board["notes"]]
    return "\n\n".join(parts) + "\n"


def figure(row: Row, column: str) -> str:
    """A figure as people read it: percent with one decimal for rates, else three significant digits.

    >>> figure({"value": 0.1834, "percent": True}, "value"), figure({"tau": 0.5, "percent": False}, "tau")
    ('18.3', '0.5')
    """
    value = row[column]
    if value is None:
        return ""
    if row.get("published"):  # as it was printed
        return f"{100 * value if row['percent'] else value:.4g}"
    return f"{100 * value:.1f}" if row["percent"] else f"{value:.3g}"


def _task(rows: Sequence[Row]) -> str:
    """The systems of a task, the best first."""
    metric = f"{_unit(rows[0])} {'↑' if rows[0]['higher_is_better'] else '↓'}"
    header = ["model", "mode", "head", f"{metric} [95 %]", "seeds", "p", "trained", "total", "MACs/s", "hours", "kWh"]
    cells = []
    for row in sorted(rows, key=lambda row: row["value"], reverse=rows[0]["higher_is_better"]):
        value = f"{figure(row, 'value')} [{figure(row, 'low')}, {figure(row, 'high')}]"
        best = "best" if row["best"] else "" if row["p_best"] is None else p_text(row["p_best"])
        amounts = [_amount(row[name]) for name in ("parameters_trained", "parameters_total", "macs_per_second")]
        hours, kwh = ("" if row[name] is None else f"{row[name]:.3g}" for name in ("wall_hours", "kwh"))
        cells.append([row["model"], row["mode"], row["head"], value, str(row["seeds"]), best, *amounts, hours, kwh])
    return _table(header, cells)


def p_text(value: float) -> str:
    """A p-value with as many digits as it deserves.

    >>> p_text(0.2345), p_text(0.0000004)
    ('0.234', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _rank_lines(found: Row) -> list[str]:
    lines = [f"## Mean ranks, {found['mode']}", f"Over {', '.join(found['tasks'])}; 1 is best."]
    if found["systems"]:
        cells = [[system["model"], _with_interval(system, "rank", "{:.2f}")] for system in found["systems"]]
        lines.append(_table(["model", "mean rank [95 % over test items and seeds]"], cells))
    else:
        lines.append("Fewer than two models have all tasks.")
    if found["friedman"]:
        lines.append(
            f"Friedman over tasks: {found['friedman']['statistic']:.2f}, p {p_text(found['friedman']['p'])}; by Nemenyi"
            f" mean ranks differ when {found['critical_difference']:.2f} apart."
        )
    lines += [f"Left out: {model}, which lacks {', '.join(lacks)}." for model, lacks in found["left_out"].items()]
    if not found["resampled"]:
        lines.append("Tasks whose items cannot be resampled add nothing to the intervals.")
    return lines


def _with_interval(row: Row, column: str, form: str) -> str:
    value, low, high = (row[name] for name in (column, "low", "high"))
    if value is None or math.isnan(value):
        return "undefined"
    return form.format(value) + (f" [{form.format(low)}, {form.format(high)}]" if low is not None else "")


def _generated(rows: Sequence[Row]) -> list[str]:
    if not any(row["generated"] for row in rows):
        return []
    return ["*Generated speech: these figures come from synthetic voices and say little of real recordings.*"]


def _unit(row: Row) -> str:
    name = metric_title(row["metric"]).removesuffix(" (%)")
    return f"{name} (%)" if row["percent"] else name


def _amount(value: float | None) -> str:
    return "" if value is None else quantity(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
