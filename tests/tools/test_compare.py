"""tools/compare.py takes every metric that results can have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lobes.errors import DataError
from lobes.evaluation import (
    accuracy,
    cer,
    char_errors,
    event_f1,
    label_records,
    masked_accuracy,
    read_rows,
    wer,
    word_errors,
    write_result,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import compare  # noqa: E402


def found(folder, system, metric, records):
    write_result(folder, task="calls", system=system, metric=metric, records=records, seed=1, command="python x.py")
    return str(folder)


def detections(right):
    """Of eight recordings with two calls each, so many of which are found in each."""
    counts = {"true_positives": right, "false_positives": 1, "false_negatives": 2 - right, "label": "duet"}
    return [{"id": f"{i}", "recording": f"{i}", "group": f"site{i % 4}", **counts} for i in range(8)]


@pytest.mark.parametrize("kind", ["event_f1", "masked accuracy"])
def test_results_of_every_recipe_are_compared_and_kept(tmp_path, monkeypatch, capsys, kind):
    if kind == "event_f1":
        runs = {name: (event_f1, detections(right)) for name, right in (("good", 2), ("bad", 1))}
    else:
        rows = [{"id": str(i), "group": f"s{i % 4}", "predictions": 10 + i} for i in range(8)]
        runs = {
            n: (masked_accuracy, [row | {"correct": right} for row in rows]) for n, right in (("good", 9), ("bad", 3))
        }
    folders = [found(tmp_path / name, name, *run) for name, run in runs.items()]
    monkeypatch.setattr(sys, "argv", ["compare.py", *folders, "--append", str(tmp_path / "results.csv")])
    compare.main()
    assert "good minus bad: +0." in capsys.readouterr().out
    assert [(row["system"], row["metric"]) for row in read_rows(tmp_path / "results.csv")] == [
        ("good", kind),
        ("bad", kind),
    ]


def test_an_error_rate_is_of_what_its_records_count(tmp_path, monkeypatch, capsys):
    texts = ["ab cd", "ef gh ij"] * 4, ["ab ce", "ef gh ij"] * 4
    groups = [f"s{i % 4}" for i in range(8)]
    words = [row | {"group": group} for row, group in zip(word_errors(*texts), groups, strict=True)]
    letters = [row | {"group": group} for row, group in zip(char_errors(*texts), groups, strict=True)]
    folders = [found(tmp_path / "w", "words", wer, words), found(tmp_path / "c", "letters", cer, letters)]
    for chosen, metric in ((folders, "wer"), (folders, "cer"), (folders[:1], "cer"), (folders[:1], "per")):
        monkeypatch.setattr(sys, "argv", ["compare.py", *chosen, "--metric", metric])
        with pytest.raises(DataError, match=f"--metric {metric}: the records of .* count the errors of its"):
            compare.main()
    monkeypatch.setattr(sys, "argv", ["compare.py", folders[1], "--metric", "cer"])
    compare.main()
    assert "cer 0.0769" in capsys.readouterr().out
    monkeypatch.setattr(
        sys, "argv", ["compare.py", found(tmp_path / "e", "e", event_f1, detections(1)), "--metric", "cer"]
    )
    with pytest.raises(DataError, match="hold none; expected event_f1"):
        compare.main()


def test_results_of_two_metrics_are_refused(tmp_path, monkeypatch):
    labels = label_records([1] * 8, [1, 0] * 4, groups=[f"site{i % 4}" for i in range(8)])
    folders = [found(tmp_path / "a", "a", accuracy, labels), found(tmp_path / "b", "b", event_f1, detections(1))]
    monkeypatch.setattr(sys, "argv", ["compare.py", *folders])
    with pytest.raises(DataError, match="metrics are .'accuracy', 'event_f1'.: expected the same one"):
        compare.main()
