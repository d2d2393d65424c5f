"""The pictures of `tools/efficiency.py`: cost against length, and quality against cost."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lobes.errors import DataError
from lobes.evaluation.metrics import HIGHER_IS_BETTER, PERCENT
from lobes.evaluation.plots import COLOURS, INK, STYLE, save_figure
from lobes.evaluation.tables import metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#9aa2ab"
HIGHLIGHTED = 12
DASHES = ("solid", (0, (5, 2)))
BASELINE_DASHES = ((0, (1, 1.5)), (0, (6, 2)), (0, (6, 2, 1, 2)))
LABEL_SIZE = 8.0
Points = list[tuple[float, float]]


class Look(NamedTuple):
    """How a line is drawn."""

    colour: str
    dashes: Any
    width: float
    above: int


def write(document: dict[str, Any], path: Path, quality: Path | None = None) -> list[Path]:
    """Write the pictures of a document beside its JSON; return what was written."""
    import matplotlib

    drawn = []
    with matplotlib.rc_context(STYLE):
        for size, rows in by_size(document).items():
            for name, (title, unit, series) in panels(document, rows, size).items():
                if any(len(points) > 1 for points in series.values()):
                    along = "frames" if document["level"] == "layers" else "seconds of audio"
                    figure = lines_figure(series, looks(rows), title, along, unit)
                    stem = "-".join(filter(None, (path.stem, size, name)))
                    drawn.append(save_figure(figure, path.with_name(f"{stem}.png")))
        found = read_quality(quality) if quality else {}
        costs = {name: cost for name, cost in cheapness(document).items() if name in found}
        if costs:
            figure = quality_figure({name: (costs[name], found[name]) for name in costs}, cost_title(document))
            drawn.append(save_figure(figure, path.with_name(f"{path.stem}-quality.png")))
    return drawn


def by_size(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows that share a picture: layers all, encoders those of one folder, such as ``tiny/sdpa``."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in document["rows"]:
        size = row["name"].rpartition("/")[0] if document["level"] == "encoders" else ""
        groups.setdefault(size, []).append(row)
    return groups


def panels(
    document: dict[str, Any], rows: Sequence[Mapping[str, Any]], size: str
) -> dict[str, tuple[str, str, dict[str, Points]]]:
    """Title, unit and points of each picture of cost against length.

    Costs are shares of the length, so that a linear cost is level, and what differs by a third can be told apart.
    """
    on = "one GPU" if document["settings"]["device"] == "cuda" else _threads(document["settings"]["threads"])
    if document["level"] == "layers":
        of, length, runs = f"of a layer of width {document['settings']['dim']}", "frames", "forward"
        share, per = 1000, "1,000 frames"
    else:
        of, length, runs, share, per = (
            f"of {size} encoders".replace("  ", " "),
            "audio_seconds",
            "use",
            1,
            "second of audio",
        )

    def points(figure: str) -> dict[str, Points]:
        found = {
            row["name"]: [(run[length], run[figure] * share / run[length]) for run in row[runs] if run.get(figure)]
            for row in rows
        }
        return {name: values for name, values in found.items() if values}

    return {
        "time": (f"Time {of}, {on}", f"milliseconds per {per}", points("best_ms")),
        "memory": (f"Memory {of}, growth of the peak", f"MB per {per}", points("memory_mb")),
    }


def _threads(number: int) -> str:
    return f"{number} CPU thread" + "s" * (number > 1)


def looks(rows: Sequence[Mapping[str, Any]]) -> dict[str, Look]:
    """How each row is drawn: attention and baselines in ink, a dozen in all not in grey, each class of mixer once."""
    kinds = {row["name"]: _kind(row) for row in rows}
    plain = [name for name, kind in kinds.items() if kind in ("reference", "baseline")]
    coloured = [name for name in kinds if name not in plain]
    if len(rows) > HIGHLIGHTED:
        mixers = {row["name"]: row.get("variant", {}).get("mixer", row["name"]) for row in reversed(rows)}
        firsts = {mixer: name for name, mixer in mixers.items()}.values()
        coloured = [name for name in coloured if name in firsts and kinds[name] != "twin"]
    coloured = coloured[: HIGHLIGHTED - len(plain)]
    found = {row["name"]: Look(GREY, "solid", 0.9, 1) for row in rows}
    for place, name in enumerate(coloured):
        found[name] = Look(COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % 2], 1.6, 3)
    dashes = iter(BASELINE_DASHES * len(plain))
    for name in plain:
        reference = kinds[name] == "reference"
        found[name] = Look(INK, "solid" if reference else next(dashes), 2.2 if reference else 1.4, 4)
    return found


def _kind(row: Mapping[str, Any]) -> str:
    """The part that a row plays; an encoder that does as many MACs as another is its ``twin``, and needs no colour."""
    if "variant" in row:
        return row["variant"]["kind"]
    name = row["name"].rpartition("/")[2]
    return "reference" if name == "sdpa" else "twin" if name.endswith("_macs") else "linear"


def lines_figure(
    series: Mapping[str, Points], drawn_as: Mapping[str, Look], title: str, along: str, unit: str
) -> Figure:
    """Lines on logarithmic axes, each with its name at its end; names at the right edge make room for each other."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    height = max(4.2, 1.0 + 0.155 * len(series))
    figure = Figure(figsize=(8.2, height))
    axes = figure.add_axes((0.1, 0.55 / height, 0.62, 1 - 1.0 / height))
    for name, points in series.items():
        look = drawn_as[name]
        axes.plot(*zip(*points, strict=True), color=look.colour, linestyle=look.dashes, linewidth=look.width,
                  marker="o", markersize=3.2 if look.width > 1 else 2.2, zorder=look.above, clip_on=False)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    lengths = sorted({x for points in series.values() for x, _ in points})
    axes.set_xticks(lengths, [f"{x:,.0f}" for x in lengths])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    costs = [y for points in series.values() for _, y in points]
    narrow = max(costs) < 5 * min(costs)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]) if narrow else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(along)
    axes.set_title(title, pad=12)
    axes.set_ylabel(unit)
    axes.grid(which="major")
    axes.set_axisbelow(True)
    axes.set_xlim(lengths[0] / 1.08, lengths[-1])
    _name_lines(axes, series, drawn_as, lengths[-1])
    return figure


def _name_lines(axes: Axes, series: Mapping[str, Points], drawn_as: Mapping[str, Look], end: float) -> None:
    """Names beside the right edge, joined to their lines; above the end of a line that ends before it."""
    box, pixels = axes.get_window_extent(), axes.figure.dpi / 72
    complete = [name for name, points in series.items() if points[-1][0] == end]
    wanted = [float(axes.transData.transform(series[name][-1])[1] - box.y0) for name in complete]
    places = spread(wanted, 1.28 * LABEL_SIZE * pixels, 0.0, float(box.height))
    for name, start, place in zip(complete, wanted, places, strict=True):
        look = drawn_as[name]
        axes.plot([1.005, 1.04, 1.05], [start / box.height, place / box.height, place / box.height], color=look.colour,
                  linewidth=0.6, transform=axes.transAxes, clip_on=False)  # fmt: skip
        axes.text(1.056, place / box.height, _short(name), transform=axes.transAxes, va="center", size=LABEL_SIZE,
                  color=_readable(look), weight="bold" if look.width > 2 else "normal")  # fmt: skip
    for name in set(series) - set(complete):
        axes.annotate(_short(name), series[name][-1], (-5, 4), textcoords="offset points", ha="right", size=LABEL_SIZE,
                      color=_readable(drawn_as[name]), zorder=5, path_effects=_halo())  # fmt: skip


def _short(name: str) -> str:
    # The title says the size of encoders.
    return name.rpartition("/")[2]


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]


def _readable(look: Look) -> str:
    return "#6b737c" if look.colour == GREY else look.colour


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places apart to at least a gap, as little as can be, within bounds where they fit.

    Neighbours that are too close become a group about the mean of what they wanted, and groups that then touch one.
    """
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups: list[list[int]] = []

    def begin(group: list[int]) -> float:
        length = gap * (len(group) - 1)
        middle = sum(wanted[index] for index in group) / len(group)
        return min(max(middle - length / 2, low), high - length)

    for index in order:
        groups.append([index])
        while len(groups) > 1 and begin(groups[-1]) - (begin(groups[-2]) + gap * (len(groups[-2]) - 1)) < gap - 1e-9:
            last = groups.pop()
            groups[-1] += last
    placed = dict.fromkeys(order, 0.0)
    for group in groups:
        for step, index in enumerate(group):
            placed[index] = begin(group) + step * gap
    return [placed[index] for index in range(len(wanted))]


def cheapness(document: dict[str, Any]) -> dict[str, float]:
    """The cost that quality is drawn against: of a layer the time at the length nearest to 1000 frames, of an encoder
    the seconds of computation for a second of audio in the recording nearest to 20 s."""
    costs = {}
    for row in document["rows"]:
        if document["level"] == "layers":
            runs = [(abs(run["frames"] - 1000), run["best_ms"]) for run in row["forward"] if "best_ms" in run]
        else:
            runs = [(abs(run["audio_seconds"] - 20), run.get("real_time_factor")) for run in row["use"]]
            runs = [run for run in runs if run[1]]
        if runs:
            costs[row["name"]] = min(runs)[1]
    return costs


def cost_title(document: dict[str, Any]) -> str:
    """Its label."""
    if document["level"] == "layers":
        length = min(document["settings"]["lengths"], key=lambda n: abs(n - 1000))
        return f"milliseconds of one layer at {length} frames"
    return "seconds of computation per second of audio"


class Quality(NamedTuple):
    """A value with its interval, and what it is."""

    value: float
    low: float
    high: float
    metric: str


def read_quality(path: Path) -> dict[str, Quality]:
    """The last row of each system in a csv with the columns system, value, low, high, and perhaps metric and task.

    Raises
    ------
    DataError
        If a column or a number is missing, or there is more than one task or metric.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        found = {}
        for row in rows:
            value, low, high = (float(row[column]) for column in ("value", "low", "high"))
            found[row["system"]] = Quality(value, low, high, row.get("metric") or "")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"--quality {path}: {error}; expected a csv with columns system, value, low, high") from error
    kinds = sorted({f"{row.get('task') or ''} {row.get('metric') or ''}".strip() for row in rows})
    if len(kinds) > 1:
        raise DataError(f"--quality {path}: figures of {', '.join(kinds)}; expected one task and metric, keep its rows")
    return found


def quality_figure(
    systems: Mapping[str, tuple[float, Quality]], cost: str, title: str = "", baseline: str = ""
) -> Figure:
    """Quality with intervals against cost; a line joins the systems that no other beats in both.

    Arguments
    ---------
    systems : mapping
        Cost and quality of each; several must be of one metric.
    cost, title : str
        What lies along the axes; the title says the metric by default.
    baseline : str
        A system through which thin lines are drawn, that one may see who is cheaper and who better.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    metric = next(iter(systems.values()))[1].metric
    scale, higher = 100 if metric in PERCENT else 1, metric in HIGHER_IS_BETTER
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    best = pareto({name: (price, found.value) for name, (price, found) in systems.items()}, higher)
    axes.step([systems[name][0] for name in best], [scale * systems[name][1].value for name in best],
              where="post", color=COLOURS[0], linewidth=1.2, zorder=1)  # fmt: skip
    for name, (price, found) in systems.items():
        colour = COLOURS[0] if name in best else GREY
        axes.plot([price] * 2, [scale * found.low, scale * found.high], color=colour, linewidth=1.6, alpha=0.5)
        axes.plot([price], [scale * found.value], "o", color=colour, markersize=6)
    if baseline in systems:
        axes.axvline(systems[baseline][0], color=GREY, linewidth=0.8, dashes=(4, 3), zorder=0)
        axes.axhline(scale * systems[baseline][1].value, color=GREY, linewidth=0.8, dashes=(4, 3), zorder=0)
    axes.set_xscale("log")
    axes.margins(0.12, 0.08)
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"{cost} (lower is better)")
    what = title or (metric_title(metric) if metric else "value")
    axes.set_title(f"{what}; {'higher' if higher else 'lower'} is better")
    axes.grid()
    axes.set_axisbelow(True)
    figure.canvas.draw()
    _name_points(axes, systems, scale, set(best))
    return figure


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, four to nine of them unless they are very near, evenly on a logarithmic axis."""
    found: list[float] = []
    for digits in ("1", "13", "125", "1 1.5 2 3 5 7", "1 1.2 1.4 1.6 1.8 2 2.5 3 3.5 4 5 6 7 8 9"):
        steps = [float(part) for part in (digits.split() if " " in digits else digits)]
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [round(step * 10.0**decade, 12) for decade in decades for step in steps]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) >= 4:
            break
    return found


def pareto(points: Mapping[str, tuple[float, float]], higher: bool) -> list[str]:
    """Names of the points (cost, value) that no cheaper one equals in value, from cheap to dear."""
    best: list[str] = []
    for name, (_, value) in sorted(
        points.items(), key=lambda item: (item[1][0], -item[1][1] if higher else item[1][1])
    ):
        if not best or (value > points[best[-1]][1] if higher else value < points[best[-1]][1]):
            best.append(name)
    return best


def _name_points(axes: Axes, systems: Mapping[str, tuple[float, Quality]], scale: float, bold: set[str]) -> None:
    """A name near each point, where it covers least; other names are the worst to cover. A line leads to far ones."""
    around = [("left", "center", 8, 0), ("right", "center", -8, 0), ("left", "bottom", 5, 5), ("left", "top", 5, -5),
              ("right", "bottom", -5, 5), ("right", "top", -5, -5)]  # fmt: skip
    further = [("left" if right > 0 else "right", "center", right, up)
               for right in (14, -14, 24, -24, 36, -36) for up in (16, -16, 28, -28, 42, -42, 58, -58)]  # fmt: skip
    from matplotlib.text import Text

    dots, whiskers = [], []
    for price, found in systems.values():
        dots.append(axes.transData.transform((price, scale * found.value)))
        between = (found.low + (found.high - found.low) * step / 8 for step in range(9))
        whiskers += [axes.transData.transform((price, scale * value)) for value in between]
    window = axes.get_window_extent()
    taken: list[Any] = []
    for name, (price, found) in sorted(systems.items(), key=lambda item: item[0] not in bold):
        candidates, here = [], axes.transData.transform((price, scale * found.value))
        for place, (horizontal, vertical, right, up) in enumerate([*around, *further]):
            leader = {"arrowprops": {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4}}
            text = axes.annotate(name, (price, scale * found.value), (right, up), textcoords="offset points",
                                 ha=horizontal, va=vertical, size=8.5, weight="bold" if name in bold else "normal",
                                 zorder=5, path_effects=_halo(),
                                 **(leader if place >= len(around) else {}))  # fmt: skip
            text.get_window_extent()  # puts it in its place; this box is with the line
            box = Text.get_window_extent(text).padded(2)
            covered = 100 * sum(box.overlaps(other) for other in taken)
            covered += 30 * sum(box.contains(*dot) for dot in dots) + 3 * sum(box.contains(*w) for w in whiskers)
            if place >= len(around):
                covered += 15 * sum(
                    _on_line(dot, here, (box.x0 + box.width / 2, box.y0 + box.height / 2)) for dot in dots
                )
            outside = not (window.contains(box.x0, box.y0) and window.contains(box.x1, box.y1))
            candidates.append((covered + 200 * outside + 0.5 * place, place, text, box))
        candidates.sort(key=lambda candidate: candidate[:2])
        taken.append(candidates[0][3])
        for _, _, text, _ in candidates[1:]:
            text.remove()


def _on_line(dot: Sequence[float], start: Sequence[float], end: Sequence[float], near: float = 6.0) -> bool:
    """Whether a dot, but not that at the start, lies within some pixels of the line from start to end."""
    along = (end[0] - start[0], end[1] - start[1])
    to = (dot[0] - start[0], dot[1] - start[1])
    length = math.hypot(*along)
    share = (to[0] * along[0] + to[1] * along[1]) / length**2
    beside = abs(to[0] * along[1] - to[1] * along[0]) / length
    return 0.0 < share < 1.0 and beside < near and math.hypot(*to) > near
