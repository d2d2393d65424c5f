"""What tools/retention.py shows of runs that were measured: one line for each system, whatever its seeds."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import pytest

from lobes.errors import DataError
from lobes.evaluation import accuracy, label_records, write_result

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import retention  # noqa: E402
import retention_table  # noqa: E402


def run_of(folder, system="LoRA", seed=1, wrong=4, lost=2, task="calls", curve=False):
    """A run with so many of 40 calls wrong, that has lost so many of 60 digits, as it is kept."""
    calls = label_records(["a"] * 40, ["b"] * wrong + ["a"] * (40 - wrong), groups=[f"r{i % 5}" for i in range(40)])
    about = {"task": task, "system": system, "seed": seed}
    result = write_result(folder / task / system / str(seed), metric=accuracy, records=calls, **about)
    digits, speakers = ["one"] * 60, [f"s{i % 6}" for i in range(60)]
    before, after = (label_records(digits, ["two"] * k + ["one"] * (60 - k), groups=speakers) for k in (6, 6 + lost))
    fold = {"fold": "S10", "share": 0.1, "method": "LoRA", "cka_speech": [1.0, 0.9], "cka_calls": [1.0, 0.8]}
    if curve:
        fold["curve"] = [
            {"share": x, "digits": 0.9 - 0.1 * x * seed, "calls": 0.5 + 0.1 * x * seed} for x in (0, 0.5, 1)
        ]
    measured = retention.compare(before, after, accuracy)
    return {**about, "metric": result["metric"], "digits": measured, "folds": [fold], "result": result}


def test_runs_of_one_name_are_one_line(tmp_path):
    rows = [run_of(tmp_path, seed=1, wrong=4, lost=2), run_of(tmp_path, seed=2, wrong=8, lost=4)]
    rows.append(run_of(tmp_path, "full", wrong=12, lost=20))
    text = retention_table.write_tables(rows, tmp_path / "out")
    lora, full = retention_table.summarise(rows)
    assert (lora["seeds"], full["seeds"]) == (2, 1) and text.count("\n") == 3
    assert "| LoRA | 2 | 10.00 % | 85.0 [" in text and "| full | 1 |" in text
    assert lora["digits_change"] == pytest.approx(-3 / 60) and full["digits_change"] == pytest.approx(-20 / 60)
    assert lora["digits_low"] < -3 / 60 < lora["digits_high"] and lora["low"] < 0.85 < lora["high"]
    one = retention_table.flat(rows[0])
    assert lora["low"] < one["low"], "seeds that differ make the interval wider"
    assert (full["low"], full["high"]) == (rows[2]["metric"]["low"], rows[2]["metric"]["high"])
    with (tmp_path / "out" / "retention.csv").open(encoding="utf-8") as stream:
        assert [(row["system"], row["seed"]) for row in csv.DictReader(stream)] == [
            ("LoRA", "1"),
            ("LoRA", "2"),
            ("full", "1"),
        ]
    assert not (tmp_path / "out" / "curve.svg").exists()
    svg = (tmp_path / "out" / "retention.svg").read_text()
    assert svg.count(">LoRA<") == 1 == svg.count(">full<")


def test_runs_of_two_recipes_are_two_lines(tmp_path):
    rows = [run_of(tmp_path, task=task) for task in ("calls", "individuals")]
    assert [row["system"] for row in retention_table.summarise(rows)] == ["LoRA (calls)", "LoRA (individuals)"]


def test_curves_and_layers_are_written(tmp_path):
    rows = [run_of(tmp_path, seed=seed, curve=True) for seed in (1, 2)]
    retention_table.write_tables(rows, tmp_path / "out")
    [points] = retention_table.mean_curves(rows).values()
    assert [point["calls"] for point in points] == pytest.approx([0.5, 0.575, 0.65])
    assert "share of the way" in (tmp_path / "out" / "curve.svg").read_text()
    with (tmp_path / "out" / "layers.csv").open(encoding="utf-8") as stream:
        found = [(row["seed"], row["layer"], row["cka_speech"], row["cka_calls"]) for row in csv.DictReader(stream)]
    assert found == [(seed, *layer) for seed in "12" for layer in (("0", "1", "1"), ("1", "0.9", "0.8"))]


def test_a_single_group_of_digits_has_the_interval_of_seeds(tmp_path):
    rows = [run_of(tmp_path, seed=seed, lost=2 * seed) for seed in (1, 2)]
    for row in rows:
        row["digits"]["groups"] = row["digits"]["groups"][:1]
    [summary] = retention_table.summarise(rows)
    assert summary["digits_change"] == pytest.approx(-3 / 60)
    assert summary["digits_low"] < summary["digits_change"] < summary["digits_high"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, False),
        ({"curve": ["LoRA"]}, True),
        ({"takes": 3}, True),
        ({"folds": 2}, True),
        ({"clips": 1}, True),
        ({"ssl": Path("elsewhere")}, True),
        ("trained again", True),
    ],
)
def test_what_is_kept_is_of_what_was_asked_for(tmp_path, monkeypatch, change, again):
    given = {"ssl": None, "takes": 10, "folds": None, "speakers": None, "clips": 20, "curve": []}
    digits = argparse.Namespace(all="digits.csv")
    monkeypatch.setattr(retention, "read_manifest", lambda path: argparse.Namespace(checksum="c0ffee"))

    def of(**options):
        options = argparse.Namespace(**{**given, **options})
        return retention.measured_of(tmp_path / "calls" / "LoRA" / "1", result, digits, options)

    result = run_of(tmp_path)["result"]
    kept, with_curve = of(), of(curve=["LoRA"])
    if change == "trained again":
        run_of(tmp_path, wrong=5)
        change = {}
    assert retention.covers(kept, of(**change)) is not again
    assert retention.covers(with_curve, kept) and not retention.covers({}, kept)


def test_two_runs_of_one_name_and_seed_are_refused(tmp_path, monkeypatch):
    for place in ("a", "b"):
        run_of(tmp_path / place)
    monkeypatch.setattr(retention, "Digits", lambda *given: None)
    monkeypatch.setattr(retention, "measured_of", lambda *given: {"curve": False})
    monkeypatch.setattr(retention, "measure", lambda *given: {})
    runs = [str(tmp_path / place / "calls" / "LoRA" / "1") for place in ("a", "b")]
    monkeypatch.setattr(sys, "argv", ["retention.py", *runs, "--out", str(tmp_path / "out")])
    with pytest.raises(DataError, match="second run of 'calls' that is called 'LoRA', with seed 1; give one of them"):
        retention.main()


def test_an_encoder_is_found_from_where_the_run_was_started(tmp_path, monkeypatch):
    recipe = tmp_path / "recipes" / "call_type"
    run, encoder = recipe / "results" / "LoRA" / "1", tmp_path / "recipes" / "SSL" / "calls"
    run.mkdir(parents=True), encoder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert Path(retention.find_source(run, "../SSL/calls")).resolve() == encoder, "the run lies in its recipe's folder"
    assert retention.find_source(run, "sm-tiny") == "sm-tiny"
    elsewhere = tmp_path / "out" / "1"
    elsewhere.mkdir(parents=True)
    assert retention.find_source(elsewhere, "../SSL/calls") == "../SSL/calls"
    (elsewhere / "env.log").write_text(f"command: train.py\nfolder: {recipe}\n")
    assert Path(retention.find_source(elsewhere, "../SSL/calls")).resolve() == encoder
