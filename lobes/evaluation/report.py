"""One self-contained HTML page for a set of results: nothing is fetched, everything that is needed is inside."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lobes.errors import DataError
from lobes.evaluation.plots import inline_svg, layer_weights_figure, loss_figure, results_figure
from lobes.evaluation.tables import duration, metric_title, percent_or_plain, quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

CSS = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --quiet: #59636e; --rule: #d8dee4;
  --panel: #f6f8fa; --warn: #8a5a00; --warn-panel: #fff6e0; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e6e9ed; --quiet: #9aa4ae; --rule: #343a42;
  --panel: #1c2026; --warn: #f0c060; --warn-panel: #2c2413; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 50rem; padding: 3rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%; overflow-wrap: break-word; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 0.75rem; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 2.75rem 0 0.5rem; }
p { margin: 0.5rem 0 1rem; max-width: 40rem; }
.summary { font-size: 1.08rem; }
.generated { margin: 1.5rem 0; padding: 0.75rem 1rem; border-left: 4px solid var(--warn);
  background: var(--warn-panel); max-width: none; }
.generated strong { color: var(--warn); }
.caption { font-size: 0.92rem; font-weight: 600; margin: 0.75rem 0 0.35rem; }
.wide { overflow-x: auto; margin: 0 0 0.5rem; background:
  linear-gradient(to left, var(--page) 50%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--rule), transparent) right / 0.9rem 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0 0.4rem 1.1rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
thead th { font-weight: 500; color: var(--quiet); vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 500; }
th:first-child { padding-left: 0; text-align: left; white-space: normal; min-width: 7.5rem; position: sticky; left: 0;
  background: var(--page); }
.interval, .quiet { color: var(--quiet); }
.quiet { font-size: 0.9rem; }
figure { margin: 1rem 0 1.5rem; }
figure svg { display: block; width: 100%; height: auto; max-width: 30rem; }
figcaption { color: var(--quiet); font-size: 0.9rem; margin-top: 0.4rem; max-width: 40rem; }
pre { overflow-x: auto; padding: 0.8rem 1rem; background: var(--panel); border: 1px solid var(--rule);
  border-radius: 4px; font: 0.86rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.2rem; font-size: 0.92rem; margin: 0.5rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; min-width: 0; }
@media (max-width: 34rem) { body { padding: 1.75rem 1rem 3rem; } h1 { font-size: 1.45rem; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.5rem; } }
@media print { body { padding: 0; } pre { white-space: pre-wrap; } }
"""


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str,
    results: Sequence[Result],
    curves: Mapping[str, Any] | None = None,
    curve_unit: str = "",
    layer_weights: Mapping[str, Sequence[float]] | None = None,
    figures: Sequence[tuple[Figure, str]] = (),
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Write the page, atomically.

    Parameters
    ----------
    path : path
        Where, for example `report.html`.
    title, summary : str
        What this is, and one paragraph on what was done and why. Plain text.
    results : sequence of dict
        As `write_result` and `read_result` give them, in the order in which to show them.
    curves : dict of str to path, or to (steps, values), optional
        Training logs, as for `loss_figure`; logs that don't exist raise.
    curve_unit : str
        Unit of the loss.
    layer_weights : dict of str to sequence of float, optional
        As for `layer_weights_figure`.
    figures : sequence of (Figure, caption), optional
        Further figures, after the others.
    notes : sequence of str
        Paragraphs below the table: what a reader must know of these figures.
    commands : sequence of str
        Shell lines that make them again; by default those that the results name.

    Raises
    ------
    DataError
        If there are no results, or a training log is missing.
    """
    if not results:
        raise DataError("results: none to report, expected at least one; evaluate a system first")
    body = [f"<h1>{_text(title)}</h1>", f'<p class="summary">{_text(summary)}</p>', _generated(results)]
    body += ["<h2>Results</h2>", *(_table(task, rows) for task, rows in _by_task(results).items()), _reading(results)]
    body += [f"<p>{_text(note)}</p>" for note in notes]
    body += ["<h2>Figures</h2>", *_figures(results, curves, curve_unit, layer_weights, figures)]
    lines = list(commands) or list(dict.fromkeys(result["command"] for result in results))
    body += ["<h2>How to reproduce</h2>", f"<pre><code>{_text(chr(10).join(lines))}</code></pre>", _origin(results)]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _text(text: Any) -> str:
    return html.escape(str(text))


def _by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    tasks: dict[str, list[Result]] = {}
    for result in results:
        tasks.setdefault(result["task"], []).append(result)
    return tasks


def _generated(results: Sequence[Result]) -> str:
    """Return the notice that must stand above any figure made on synthetic audio."""
    tasks = [task for task, rows in _by_task(results).items() if any(row["generated_speech"] for row in rows)]
    if not tasks:
        return ""
    where = "" if len(tasks) == len(_by_task(results)) else f" ({_text(', '.join(tasks))})"
    return (
        f'<p class="generated" role="note"><strong>Generated speech.</strong> The audio behind these figures{where} was'
        " made by a speech synthesiser. They show that everything runs and how systems compare on it; they say little"
        " of real recordings.</p>"
    )


def _table(task: str, rows: Sequence[Result]) -> str:
    """Return the table of one task: result with interval, then what it cost."""
    names = list(dict.fromkeys(row["metric"]["name"] for row in rows))
    data = list(dict.fromkeys(row["data_name"] for row in rows if row["data_name"]))
    marked = " (generated speech)" if any(row["generated_speech"] for row in rows) else ""
    caption = _text(f"{task}: {', '.join(data)}{marked}" if data else f"{task}{marked}")
    unit = metric_title(names[0]) if len(names) == 1 else "result"
    heads = ["system", f"{unit} [interval]", "parameters", "trained", "audio seen", "MACs / s", "time", "memory"]
    unbroken = (_text(head).replace(" / ", "&nbsp;/&nbsp;") for head in heads)
    lines = "".join(f'<th scope="col">{head}</th>' for head in unbroken)
    body = "".join(_row(row, named=len(names) > 1) for row in rows)
    return (
        f'<p class="caption">{caption}</p><div class="wide" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<thead><tr>{lines}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(row: Result, named: bool) -> str:
    metric, cost = row["metric"], row["cost"]
    value, low, high = (percent_or_plain(metric["name"], metric[name]) for name in ("value", "low", "high"))
    prefix = f"{_text(metric_title(metric['name']))} " if named else ""
    memory = cost["peak_memory_mib"].get("cuda") or cost["peak_memory_mib"].get("process")
    cells = [
        f'{prefix}<strong>{value}</strong> <span class="interval">[{low}, {high}]</span>',
        _or_dash(cost["parameters_total"], quantity),
        _or_dash(cost["parameters_trained"], quantity),
        _or_dash(cost["audio_hours"], lambda hours: duration(3600 * hours)),
        _or_dash(cost["macs_per_second"], quantity),
        _or_dash(cost["wall_seconds"], duration),
        _or_dash(memory, lambda mib: f"{quantity(mib * 2**20)}B"),
    ]
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr><th scope="row">{_text(row["system"])}</th>{columns}</tr>'


def _or_dash(value: float | None, show: Any) -> str:
    return "–" if value is None else _text(show(value))


def _reading(results: Sequence[Result]) -> str:
    """Return how to read the table: what was scored, over what the intervals are clustered, and how."""
    methods = {
        "expanded": "cluster bootstrap, widened for the number of groups",
        "t": "Student's t over groups, with the jackknife's standard error",
        "percentile": "cluster bootstrap, percentiles",
        "two_stage": "two-stage bootstrap, groups then items",
    }
    parts = []
    for task, rows in _by_task(results).items():
        metric = rows[0]["metric"]
        better = "higher" if metric["higher_is_better"] else "lower"
        method = metric["method"].split(" ")[0]
        single = "; a single group, so the interval is over its items" if " over items" in metric["method"] else ""
        parts.append(
            f"{task}: {metric['n_items']} items in {metric['n_groups']} groups, {better} is better,"
            f" {100 * metric['level']:g} % intervals ({methods.get(method, method)}{single})."
        )
    ending = " MACs / s: multiply-accumulates per second of audio. Memory: the largest that the process held."
    return f'<p class="quiet">{_text(" ".join(parts) + ending)}</p>'


def _figures(
    results: Sequence[Result],
    curves: Mapping[str, Any] | None,
    curve_unit: str,
    layer_weights: Mapping[str, Sequence[float]] | None,
    figures: Sequence[tuple[Figure, str]],
) -> Iterable[str]:
    shown = [(results_figure(results), "Results with their intervals.")]
    if curves:
        shown.append((loss_figure(curves, unit=curve_unit), "Training loss: each step (faint) and its running mean."))
    if layer_weights:
        shown.append((layer_weights_figure(layer_weights), "Weights that the probes learnt for the encoder's layers."))
    for figure, caption in [*shown, *figures]:
        yield f"<figure>{inline_svg(figure, caption)}<figcaption>{_text(caption)}</figcaption></figure>"


def _origin(results: Sequence[Result]) -> str:
    """Return what the results were made with, each distinct value once."""

    def distinct(values: Iterable[str]) -> str:
        return _text("; ".join(dict.fromkeys(value for value in values if value)))

    entries = {
        "Date": distinct(result["date"][:10] for result in results),
        "Seeds": distinct(str(result["seed"]) for result in results),
        "Code": distinct(
            (result["git"].get("commit") or "")[:12] + (" with local changes" if result["git"].get("dirty") else "")
            for result in results
        ),
        "Data": distinct(
            f"{state['file']} (SHA-256 {state['sha256'][:12]})"
            for result in results
            for state in result["data"].values()
        ),
        "Machine": distinct(_machine(result["hardware"]) for result in results),
        "Software": distinct(
            ", ".join(f"{name} {version}" for name, version in result["packages"].items()) for result in results
        ),
        "Notes": distinct(result["notes"] for result in results),
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries.items() if text) + "</dl>"


def _machine(hardware: Mapping[str, Any]) -> str:
    cores, memory = hardware.get("cores"), hardware.get("memory_gib")
    parts = [
        hardware.get("processor") or "",
        f"{cores} cores" if cores else "",
        f"{memory:g} GiB" if memory else "",
        *(hardware.get("gpus") or []),
    ]
    return ", ".join(part for part in parts if part)
