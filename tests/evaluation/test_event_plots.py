"""Figures of detectors show what they are given."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from lobes.dataio.annotations import Annotation
from lobes.errors import ConfigError, DataError
from lobes.evaluation.activity import Heard, calls_per_hour
from lobes.evaluation.event_metrics import scored_records
from lobes.evaluation.event_plots import (
    activity_figure,
    confusion_figure,
    embedding_figure,
    embedding_map,
    precision_recall_figure,
    write_confusion,
    write_embeddings,
    write_precision_recall,
)
from lobes.evaluation.plots import inline_svg, save_figure


def texts(figure) -> list[str]:
    """All that is written on a figure."""
    import matplotlib.text

    found = [item.get_text() for item in figure.findobj(matplotlib.text.Text)]
    return [text for text in found if text]


def test_precision_and_recall_of_each_class(tmp_path):
    truth = {"f": [Annotation(0, 1, "a"), Annotation(5, 6, "a"), Annotation(0, 1, "b")]}
    found = {
        "f": [Annotation(0, 1, "a", score=0.9), Annotation(8, 9, "a", score=0.5), Annotation(0, 1, "c", score=1.0)]
    }
    records = scored_records(truth, found)
    figure = precision_recall_figure(records, {"a": (0.5, 0.5)})
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a, AP 0.50", "b, AP 0.00"], "c was nowhere annotated"
    line = figure.axes[0].get_lines()[0]
    assert list(zip(*line.get_data(), strict=True)) == [(0.0, 1.0), (0.5, 1.0), (0.5, 0.5)]
    paths = [save_figure(precision_recall_figure(records), tmp_path / name) for name in ("a.svg", "b.svg")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(DataError, match="no annotated event"):
        precision_recall_figure([record for record in records if record["label"] == "c"])


def test_confusions_are_counts():
    figure = confusion_figure([[7, 1, 2], [0, 5, 0], [3, 4, 0]], ["duet", "argus"])
    written = texts(figure)
    assert [text for text in written if text.isdigit()] == ["7", "1", "2", "0", "5", "0", "3", "4"]
    assert {"duet", "argus", "missed", "nothing"} <= set(written)
    with pytest.raises(DataError, match="counts"):
        confusion_figure([[1]], ["duet", "argus"])


def test_activity_tells_silence_from_no_recording():
    calls = [Annotation(10.0 * k, 10.0 * k + 1, "duet") for k in range(6)]
    heard = [Heard("A", datetime(2020, 1, 1, 5), 7200.0, calls), Heard("B", datetime(2020, 1, 1, 6), 1800.0, calls)]
    figure = activity_figure(calls_per_hour(heard, ["duet", "argus"]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "duet: up to 12 calls per hour",
        "argus: up to 0 calls per hour",
    ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["A", "B"]
    for axes in figure.axes:
        [cells] = axes.collections
        assert len(cells.get_paths()) == 3, "A at 5 and 6, B at 6"
    alphas = figure.axes[0].collections[0].get_facecolors()[:, 3]
    assert alphas.tolist() == [0.5, 0.0, 1.0]
    assert "<svg" in inline_svg(figure, "activity")


def test_activity_without_times_is_a_bar_for_each_recorder():
    heard = [Heard("A", None, 7200.0, [Annotation(0, 1, "duet")] * 3), Heard("B", None, 3600.0, [])]
    figure = activity_figure(calls_per_hour(heard, ["duet"]))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1.5, 0.0]
    with pytest.raises(DataError, match="rows"):
        activity_figure([])


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_keeps_apart_what_is_apart(method):
    noise = np.random.default_rng(0).standard_normal((60, 10))
    features = noise + 8 * np.repeat(np.eye(3, 10), 20, axis=0)
    points = embedding_map(features, method)
    assert points.shape == (60, 2) and np.array_equal(points, embedding_map(features, method))
    centres = points.reshape(3, 20, 2).mean(1)
    distance = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    assert (distance.argmin(1) == np.repeat(np.arange(3), 20)).mean() >= 0.95
    labels = np.repeat(["a", "b", "c"], 20).tolist()
    figure = embedding_figure(points, {"class": labels, "recorder": [f"S{i % 14}" for i in range(60)]})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["by class", "by recorder"]
    assert [len(axes.collections) for axes in figure.axes] == [3, 14]
    with pytest.raises(DataError, match="59 values of class"):
        embedding_figure(points, {"class": labels[1:]})


def test_a_map_of_almost_nothing():
    assert embedding_map([[0.0], [1.0], [2.0]]).shape == (3, 2)
    assert np.isfinite(embedding_map(np.eye(3, 4))).all()
    with pytest.raises(DataError, match="at least 3"):
        embedding_map(np.ones((2, 4)))
    with pytest.raises(ConfigError, match="umap"):
        embedding_map(np.ones((5, 4)), "umap")


def test_a_map_of_clips_is_a_table_of_all_and_a_picture_of_some(tmp_path, monkeypatch):
    features = np.random.default_rng(0).standard_normal((40, 6))
    ids = [f"clip{n}" for n in range(40)]
    sessions = [f"day{max(0, n - 12)}" for n in range(40)]  # 28, and the first has 13 clips
    write_embeddings(tmp_path / "run", features, ids, {"call": ["a", "b"] * 20, "group": sessions}, "net, layer 2")
    header, *rows = (line.split(",", 5) for line in (tmp_path / "run" / "embeddings.csv").read_text().splitlines())
    assert header == ["id", "call", "group", "x", "y", "features"] and [row[0] for row in rows] == ids
    assert [row[2] for row in rows] == sessions and {row[5] for row in rows} == {'"net, layer 2"'}
    assert np.allclose([[float(x) for x in row[3:5]] for row in rows], embedding_map(features), atol=1e-3)
    svg = (tmp_path / "run" / "embeddings.svg").read_text()
    assert all(f">{text}<" in svg for text in ("by call", "by group", "day0", "others", "net, layer 2"))
    assert len(set(sessions) - {name for name in sessions if f">{name}<" in svg}) == len(set(sessions)) - 24
    monkeypatch.setattr("lobes.evaluation.event_plots.MOST_POINTS", 10)
    write_embeddings(tmp_path / "few", features, ids, {"call": ["a"] * 40})
    few = (tmp_path / "few" / "embeddings.svg").read_text()
    assert len((tmp_path / "few" / "embeddings.csv").read_text().splitlines()) == 41 and len(few) < 0.6 * len(svg)
    with pytest.raises(DataError, match="call: 39 values, expected 40"):
        write_embeddings(tmp_path / "none", features, ids, {"call": ["a"] * 39})
    assert not (tmp_path / "none").exists()


def test_what_clips_were_taken_for_is_a_table_and_a_figure(tmp_path):
    targets, predictions = ["duet"] * 3 + ["argus"], ["duet", "duet", "argus", "argus"]
    write_confusion(tmp_path / "run", targets, predictions, ["duet", "argus", "noise"])
    table = (tmp_path / "run" / "confusion.csv").read_text().splitlines()
    assert table == ["annotated as,duet,argus,noise", "duet,2,1,0", "argus,0,1,0", "noise,0,0,0"]
    svg = (tmp_path / "run" / "confusion.svg").read_text()
    assert ">taken for<" in svg and ">missed<" not in svg


def test_the_threshold_is_a_dot_on_the_curve(tmp_path):
    scored = [("a", 0.9, 1, 1), ("a", 0.6, 1, 0), ("a", 0.4, 1, 1), ("a", 0.0, 0, 1), ("b", 0.8, 1, 0)]
    records = [
        {"id": str(n), "group": "g", "label": label, "score": score, "detected": detected, "annotated": annotated}
        for n, (label, score, detected, annotated) in enumerate(scored)
    ]
    write_precision_recall(tmp_path, records, {"a": 0.5, "b": 0.5})
    rows = (tmp_path / "precision_recall.csv").read_text().splitlines()
    assert rows == ["label,score,recall,precision", "a,0.9,0.3333,1", "a,0.6,0.3333,0.5", "a,0.4,0.6667,0.6667"]
    assert (tmp_path / "precision_recall.svg").stat().st_size > 2000
