"""Figures of detectors: precision and recall, confusions, activity by hour, and maps of embeddings."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.errors import ConfigError, DataError
from lobes.evaluation.event_metrics import average_precision, precision_recall
from lobes.evaluation.plots import COLOURS, RULE, WIDTH, new_figure, save_figure, styled
from lobes.evaluation.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What tells classes apart once the colours are used up.
MARKERS = "os^Dv*"
#: Recorders of an activity figure, at most: further ones are named in the table only.
MOST_ROWS = 40
#: Names in a legend of a map, and points on it, at most: the table has all.
MOST_NAMES, MOST_POINTS = 24, 5000


@styled
def precision_recall_figure(
    records: Sequence[Record], points: Mapping[str, tuple[float, float]] | None = None
) -> Figure:
    """Draw a precision-recall curve per class, with its average precision.

    Parameters
    ----------
    records : sequence of dict
        From `scored_records`.
    points : mapping of str to (precision, recall), optional
        Where the chosen threshold of a class lies, drawn as a dot.

    Raises
    ------
    DataError
        No class is annotated.
    """
    labels = sorted({record["label"] for record in records if record["annotated"]})
    if not labels:
        raise DataError("records: no annotated event, expected at least one; score recordings with calls")
    figure, (axes,) = new_figure(WIDTH, 3.9)
    for number, label in enumerate(labels):
        of_class = [record for record in records if record["label"] == label]
        colour, dash = COLOURS[number % len(COLOURS)], ("-", "--", ":")[number // len(COLOURS) % 3]
        precision, recall, _ = precision_recall(of_class)
        # Each accepted detection is a point; between them the curve is a staircase.
        steps = ([0.0, *recall], [precision[0] if len(precision) else 0.0, *precision])
        name = f"{label}, AP {average_precision(of_class):.2f}"
        axes.step(*steps, where="pre", color=colour, linestyle=dash, linewidth=1.6, label=name)
        if points and label in points:
            axes.plot(points[label][1], points[label][0], "o", color=colour, markersize=7)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), xlabel="recall", ylabel="precision")
    axes.grid()
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.4)
    return figure


def write_precision_recall(
    folder: str | os.PathLike[str], records: Sequence[Record], thresholds: Mapping[str, float]
) -> None:
    """Write `precision_recall.csv`, a row per class and score, and `precision_recall.svg`.

    Parameters
    ----------
    folder : path
        Where they go.
    records : sequence of dict
        From `scored_records`.
    thresholds : mapping of str to float
        The score from which on a class is accepted: a dot on its curve.

    Raises
    ------
    DataError
        No class is annotated.
    """
    rows, points = [], {}
    for label in sorted({record["label"] for record in records if record["annotated"]}):
        curve = precision_recall([record for record in records if record["label"] == label])
        rows += [(label, *(f"{value:.4g}" for value in row)) for row in zip(*curve[::-1], strict=True)]
        accepted = int((curve[2] >= thresholds[label]).sum())
        if accepted:
            points[label] = (float(curve[0][accepted - 1]), float(curve[1][accepted - 1]))
    path = Path(folder) / "precision_recall.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(precision_recall_figure(records, points), path.with_suffix(".svg"))
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("label", "score", "recall", "precision"), *rows])


@styled
def confusion_figure(counts: ArrayLike, labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix, of events or of clips, shaded by the share of each row.

    Parameters
    ----------
    counts : array (C + 1, C + 1) or (C, C)
        From `confusion`: annotated by detected, the last row and column for nothing; or of clips, of which each is
        something and taken for something: label by decision.
    labels : sequence of str
        Of the first C.

    Raises
    ------
    DataError
        The sizes do not fit.
    """
    matrix = np.asarray(counts, dtype=float)
    size, events = len(labels) + 1, matrix.shape != (len(labels),) * 2
    if events and matrix.shape != (size, size):
        raise DataError(f"counts: of shape {matrix.shape}, expected {(size, size)} for {len(labels)} labels")
    size = len(matrix)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if events:
        share[-1] = 0.0  # detections of nothing are no share of anything that was there
    figure, (axes,) = new_figure(WIDTH, 1.2 + 0.5 * size)
    _cells(axes, share)
    for row, column in np.ndindex(size, size):
        if not events or (row, column) != (size - 1, size - 1):
            colour = {"color": "#ffffff"} if share[row, column] > 0.6 else {}
            axes.text(column + 0.5, row + 0.5, f"{matrix[row, column]:.0f}", ha="center", va="center", **colour)
    places = np.arange(size) + 0.5
    columns, rows = ([*labels, "missed"], [*labels, "nothing"]) if events else (labels, labels)
    axes.set_xticks(places, columns, rotation=30 if size > 4 else 0, ha="right" if size > 4 else "center")
    axes.set_yticks(places, rows)
    axes.set(xlabel="detected as" if events else "taken for", ylabel="annotated as")
    return figure


def write_confusion(
    folder: str | os.PathLike[str], targets: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> None:
    """Write `confusion.csv` and `confusion.svg`: what clips were taken for, a row for each label.

    Parameters
    ----------
    folder : path
        Where they go.
    targets, predictions : sequence of str
        Of N clips.
    labels : sequence of str
        Rows and columns.
    """
    counts = np.zeros((len(labels),) * 2, dtype=np.int64)
    np.add.at(counts, ([labels.index(t) for t in targets], [labels.index(p) for p in predictions]), 1)
    lines = [("annotated as", *labels), *((label, *row) for label, row in zip(labels, counts.tolist(), strict=True))]
    path = Path(folder) / "confusion.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(lines)
    save_figure(confusion_figure(counts, labels), path.with_suffix(".svg"))


@styled
def activity_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw calls per recorded hour: a panel per class, a row per recorder, a column per hour of the day.

    The darker, the more; an empty frame is an hour in which nothing was heard, and where there is no frame nothing was
    recorded. Where no time of day is known at all, bars show the mean of each recorder.

    Parameters
    ----------
    rows : sequence of dict
        From `calls_per_hour`.

    Raises
    ------
    DataError
        There are no rows.
    """
    if not rows:
        raise DataError("rows: no recorded hour, expected at least one; detect calls in some recordings first")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    recorders = sorted({row["recorder"] for row in rows})[:MOST_ROWS]
    timed = [row for row in rows if row["hour"] != ""]
    height = 0.22 * len(recorders) + 0.55
    figure, panels = new_figure(WIDTH, height * len(labels) + 0.6, ratios=[1.0] * len(labels))
    for axes, label in zip(panels, labels, strict=True):
        if timed:
            _by_hour(axes, label, _rates([row for row in timed if row["label"] == label], recorders))
        else:
            _by_recorder(axes, label, [row for row in rows if row["label"] == label], recorders)
        axes.set_yticks(np.arange(len(recorders)) + 0.5, recorders)
        axes.tick_params(length=0)
    panels[-1].set_xlabel("hour of the day" if timed else "calls per hour")
    return figure


def _rates(rows: Sequence[Mapping[str, Any]], recorders: Sequence[str]) -> NDArray[Any]:
    """Calls per recorded hour, (recorders, 24), over all days; NaN where nothing was recorded."""
    calls, seconds = np.zeros((len(recorders), 24)), np.zeros((len(recorders), 24))
    for row in rows:
        if row["recorder"] in recorders:
            place = recorders.index(row["recorder"]), int(row["hour"])
            calls[place] += row["calls"]
            seconds[place] += row["recorded_seconds"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(seconds > 0, 3600 * calls / seconds, np.nan)


def _by_hour(axes: Axes, label: str, rates: NDArray[Any]) -> None:
    highest = np.nanmax(rates, initial=0.0)
    _cells(axes, rates / max(highest, 1e-9))
    axes.set_xticks(np.arange(0, 25, 3))
    axes.set_title(f"{label}: up to {highest:.3g} calls per hour")


def _by_recorder(axes: Axes, label: str, rows: Sequence[Mapping[str, Any]], recorders: Sequence[str]) -> None:
    calls, hours = ({name: 0.0 for name in recorders} for _ in range(2))
    for row in rows:
        if row["recorder"] in calls:
            calls[row["recorder"]] += row["calls"]
            hours[row["recorder"]] += row["recorded_seconds"] / 3600
    rates = [calls[name] / hours[name] if hours[name] else 0.0 for name in recorders]
    axes.barh(np.arange(len(recorders)) + 0.5, rates, height=0.7, color=COLOURS[0])
    axes.set_ylim(len(recorders), 0)
    axes.set_title(label)


def _cells(axes: Axes, shades: NDArray[Any]) -> None:
    """Draw a table of shades from 0 to 1, first row on top, with a frame around each that is no NaN."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    places = np.argwhere(np.isfinite(shades))
    boxes = [Rectangle((column + 0.04, row + 0.06), 0.92, 0.88) for row, column in places]
    colours = [to_rgba(COLOURS[0], float(shades[row, column])) for row, column in places]
    axes.add_collection(PatchCollection(boxes, facecolors=colours, edgecolors=RULE, linewidths=0.8))
    axes.set(xlim=(0, shades.shape[1]), ylim=(shades.shape[0], 0))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def embedding_map(features: ArrayLike, method: str = "pca", seed: int = 0) -> NDArray[Any]:
    """Lay features out on a plane: similar ones side by side.

    Parameters
    ----------
    features : array (N, F)
        Standardised here.
    method : str
        `pca`, which keeps large distances, or `tsne` (van der Maaten & Hinton 2008), which keeps small ones: there, how
        far groups are from each other and how large they are means nothing.
    seed : int
        Of t-SNE.

    Returns
    -------
    array (N, 2)

    Raises
    ------
    ConfigError
        There is no such method.
    DataError
        There are fewer than three points.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    if method not in ("pca", "tsne"):
        raise ConfigError(f"method: {method!r}, expected pca or tsne")
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise DataError(f"features: of shape {values.shape}, expected (N, F) with at least 3 points")
    values = StandardScaler().fit_transform(values)
    values = PCA(min(2 if method == "pca" else 50, *values.shape), random_state=seed).fit_transform(values)
    if method == "pca":
        return np.pad(values, ((0, 0), (0, 2 - values.shape[1])))
    perplexity = min(30.0, (len(values) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(values)


@styled
def embedding_figure(points: ArrayLike, groups: Mapping[str, Sequence[str]]) -> Figure:
    """Draw a map of embeddings once for each way to colour it.

    Parameters
    ----------
    points : array (N, 2)
        From `embedding_map`.
    groups : mapping of str to sequence of str
        What the N points are by: `{"class": [...], "recorder": [...]}`. Where the colours of recorders part as clearly
        as those of classes, so does the background.

    Raises
    ------
    DataError
        Numbers of points differ.
    """
    places = np.asarray(points, dtype=float)
    for name, values in groups.items():
        if len(values) != len(places):
            raise DataError(f"groups: {len(values)} values of {name}, expected {len(places)}, one per point")
    figure, panels = new_figure(WIDTH, 3.6 * len(groups), ratios=[1.0] * len(groups))
    for axes, (title, values) in zip(panels, groups.items(), strict=True):
        names = sorted(set(values))
        for number, name in enumerate(names):
            chosen = places[[value == name for value in values]]
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]
            axes.scatter(*chosen.T, s=16, color=colour, marker=marker, alpha=0.75, linewidths=0, label=name)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"by {title}")
        for spine in axes.spines.values():
            spine.set(visible=True, edgecolor=RULE)
        columns = 1 + (len(names) > 12)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), fontsize=8, handletextpad=0.2, ncols=columns)
    return figure


def write_embeddings(
    folder: str | os.PathLike[str],
    features: ArrayLike,
    ids: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    features_of: str = "",
) -> None:
    """Write `embeddings.csv` and `embeddings.svg`: where clips are on a map of their features, and what they are by.

    Parameters
    ----------
    folder : path
        Where they go.
    features : array (N, F)
        Of N clips; they are laid out by their two principal components, of all N.
    ids : sequence of str
        N names.
    groups : mapping of str to sequence of str
        As for `embedding_figure`: columns of the table, each of which colours one panel. Of more than 24 names the
        picture tells the most frequent, and of more than 5,000 clips it shows an even choice.
    features_of : str
        What the features are, above the picture and in the table.

    Raises
    ------
    DataError
        There are fewer than three clips, or numbers differ.
    """
    points = embedding_map(features)
    for name, values in {"ids": ids, **groups}.items():
        if len(values) != len(points):
            raise DataError(f"{name}: {len(values)} values, expected {len(points)}, one per clip")
    path = Path(folder) / "embeddings.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", *groups, "x", "y", "features"])
        for name, *values, (x, y) in zip(ids, *groups.values(), points.tolist(), strict=True):
            writer.writerow([name, *values, f"{x:.5g}", f"{y:.5g}", features_of])
    shown = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int))
    told = {}
    for title, values in groups.items():
        frequent = {name for name, _ in Counter(values).most_common(MOST_NAMES)}
        told[title] = [values[place] if values[place] in frequent else "others" for place in shown]
    figure = embedding_figure(points[shown], told)
    if features_of:
        figure.suptitle(features_of, fontsize=9, x=0.01, ha="left")
    save_figure(figure, path.with_suffix(".svg"))
