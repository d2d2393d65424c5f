"""Figures: loss curves, layer weights, results with intervals.

Each function returns a matplotlib `Figure`; `save_figure` writes it byte for byte the same every time, `inline_svg`
makes it part of a page whose colours it follows. Colours are those of Okabe & Ito (2008), which colour-blind readers
tell apart. matplotlib is imported at the first figure, never through pyplot: no window, no global state.
"""

from __future__ import annotations

import csv
import functools
import html
import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from lobes.errors import DataError
from lobes.evaluation.metrics import HIGHER_IS_BETTER, PERCENT
from lobes.evaluation.tables import metric_title, percent_or_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe-Ito without yellow and black, which vanish on a light or dark page.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, RULE = "#24292f", "#d8dee4"
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lobes",
    "savefig.dpi": 180,
}
#: In a page, letters are drawn with the reader's fonts, all of them narrower than the one that the layout is made with.
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
#: Inches. On a phone the figure is about as wide as this, so that its letters keep their size.
WIDTH = 4.7


P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under this module's style, which matplotlib reads when things are made and when they are drawn."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return inside


def read_curve(train_log: str | Path, y: str = "loss", x: str = "step") -> tuple[list[float], list[float]]:
    """Return two columns of a `train_log.csv`, rows without a finite value of either left out.

    Raises
    ------
    DataError
        If the file or a column is missing.
    """
    path = Path(train_log)
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a training log; train first, or correct the path")
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for name in (x, y):
            if name not in (reader.fieldnames or ()):
                raise DataError(
                    f"{path}: no column {name!r}, have {', '.join(reader.fieldnames or ())}; choose another"
                )
        points = [(_number(row[x]), _number(row[y])) for row in reader]
    kept = [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in kept], [b for _, b in kept]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


@styled
def loss_figure(
    curves: Mapping[str, str | Path | tuple[Sequence[float], Sequence[float]]], y: str = "loss", unit: str = ""
) -> Figure:
    """Draw training curves, each one raw (faint) and smoothed by a running mean over a fortieth of its length.

    Parameters
    ----------
    curves : dict of str to path, or to (steps, values)
        A `train_log.csv` per system; `y` names its column.
    y : str
        What is drawn, label of the vertical axis.
    unit : str
        Its unit, for the label (`"nats"`).

    Raises
    ------
    DataError
        If a log or its column is missing, or there is no point at all.
    """
    points = {
        n: read_curve(c, y) if isinstance(c, (str, Path)) else (list(c[0]), list(c[1])) for n, c in curves.items()
    }
    points = {name: curve for name, curve in points.items() if curve[0]}
    if not points:
        raise DataError(f"curves: no finite {y!r} to draw, expected at least one logged step; train first")
    figure, (axes,) = new_figure(WIDTH, 3.0)
    for index, (name, (steps, values)) in enumerate(points.items()):
        colour = COLOURS[index % len(COLOURS)]
        width = max(1, len(values) // 40)
        axes.plot(steps, values, color=colour, alpha=0.25 if width > 1 else 1.0, linewidth=0.8)
        if width > 1:
            axes.plot(steps, _running_mean(values, width), color=colour, linewidth=1.6)
        axes.plot([], [], color=colour, linewidth=1.6, label=name)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"{y.replace('_', ' ')} ({unit})" if unit else y.replace("_", " "))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if any(points):
        axes.legend(loc="upper right")
    return figure


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last `width` values at each point; of all so far at the start."""
    total, means = 0.0, []
    for position, value in enumerate(values):
        total += value - (values[position - width] if position >= width else 0.0)
        means.append(total / min(position + 1, width))
    return means


@styled
def layer_weights_figure(weights: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the weights that probes give to the layers of an encoder (`WeightedLayerSum.weights()`), as bars.

    Parameters
    ----------
    weights : dict of str to sequence of float
        Per system, a weight per layer; each set sums to 1. Layer 0 is the first that the encoder gives.

    Raises
    ------
    DataError
        If there is nothing to draw.
    """
    if not weights or not all(len(values) for values in weights.values()):
        raise DataError("weights: nothing to draw, expected at least one layer per system; pass the probe's weights()")
    columns = 2 if max(map(len, weights)) <= 20 else 1  # as many names as fit beside each other
    figure, (axes,) = new_figure(WIDTH, 2.3 + 0.2 * math.ceil(len(weights) / columns))
    width = 0.8 / len(weights)
    longest = max(len(values) for values in weights.values())
    for index, (name, values) in enumerate(weights.items()):
        places = [layer - 0.4 + (index + 0.5) * width for layer in range(len(values))]
        heights = [100 * float(value) for value in values]
        axes.bar(places, heights, width=0.92 * width, color=COLOURS[index % len(COLOURS)], label=name)
    axes.set_xticks(range(longest))
    axes.set_xlabel("layer (0: first)")
    axes.set_ylabel("weight (%)")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if any(weights):
        figure.legend(loc="outside upper left", ncols=columns, handlelength=1.2)  # above the axes, clear of the bars
    return figure


@styled
def results_figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw results with their intervals: a panel per task and metric, a row per system, best direction named.

    Parameters
    ----------
    results : sequence of dict
        As `write_result` and `read_result` give them.

    Raises
    ------
    DataError
        If there are no results.
    """
    if not results:
        raise DataError("results: nothing to draw, expected at least one result; evaluate a system first")
    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        panels.setdefault((result["task"], result["metric"]["name"]), []).append(result)
    rows = [len(panel) for panel in panels.values()]
    height = sum(0.34 * count + 1.05 for count in rows)
    figure, all_axes = new_figure(WIDTH, height, ratios=[0.34 * count + 0.2 for count in rows])
    for axes, ((task, metric), panel) in zip(all_axes, panels.items(), strict=True):
        _panel(axes, task, metric, panel)
    return figure


def _panel(axes: Axes, task: str, metric: str, panel: Sequence[Mapping[str, Any]]) -> None:
    """Draw one panel of `results_figure`: dot, interval and figure of each system, from the top down."""
    scale = 100 if metric in PERCENT else 1
    for place, result in enumerate(panel):
        value, low, high = (scale * result["metric"][name] for name in ("value", "low", "high"))
        colour = COLOURS[place % len(COLOURS)]
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([value], [place], "o", color=colour, markersize=6.5)
        label = percent_or_plain(metric, result["metric"]["value"])
        axes.annotate(label, (1.0, place), (6, 0), ("axes fraction", "data"), "offset points", va="center")
    axes.set_yticks(range(len(panel)), [textwrap.fill(result["system"], 28) for result in panel])
    axes.set_ylim(len(panel) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    better = "higher is better" if metric in HIGHER_IS_BETTER else "lower is better"
    level = panel[0]["metric"]["level"]
    axes.set_xlabel(f"{metric_title(metric)}, {100 * level:g} % interval; {better}")
    generated = " (generated speech)" if any(result["generated_speech"] for result in panel) else ""
    # The title starts at the figure's edge, where there is room for it, and is drawn over an empty one that keeps it.
    axes.set_title(" ")
    corner = ("figure fraction", "axes fraction")
    title = axes.annotate(f"{task}{generated}", (0, 1), (4, 6), corner, "offset points", weight="bold", size=10.5)
    title.set_in_layout(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def new_figure(width: float, height: float, ratios: Sequence[float] = (1.0,)) -> tuple[Figure, list[Axes]]:
    """Return a figure (inches) and its axes, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": list(ratios)})
    return figure, list(grid[:, 0])


@styled
def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .svg, .png or .pdf, by the name's ending; the same figure gives the same bytes.

    Raises
    ------
    DataError
        If the ending is another one.
    """
    path = Path(path)
    metadata: dict[str, dict[str, None]] = {
        ".svg": {"Date": None},
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None},
    }
    if path.suffix not in metadata:
        raise DataError(f"{path}: figures end in .svg, .png or .pdf, not {path.suffix!r}; rename it")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata=metadata[path.suffix])
    return path


@styled
def inline_svg(figure: Figure, description: str) -> str:
    """Return a figure as an `<svg>` element for an HTML page, in the page's text colour and as wide as there is room.

    Parameters
    ----------
    figure : matplotlib Figure
        From one of the functions above.
    description : str
        What it shows, for those who can't see it.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", stream.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].strip()
    box = re.search(r'viewBox="[^"]*"', svg)
    label = html.escape(description, quote=True)
    frame = f'<svg role="img" aria-label="{label}" {box[0] if box else ""} style="stroke-linejoin: round">'
    svg = frame + svg[svg.index(">") + 1 :].replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]*|(?<=px )('[^']+'|[\w-]+)(, ('[^']+'|[\w-]+))+", _font, svg)
    return svg.replace(INK, "currentColor").replace(RULE, "var(--rule, #d8dee4)")


def _font(match: re.Match[str]) -> str:
    """Replace matplotlib's font family by the reader's, in `font-family: ...` and in `font: bold 10px ...`."""
    return f"font-family: {FONTS}" if match[0].startswith("font-family") else FONTS
