"""result.json and results.csv: what is written can be read, checked, compared and traced."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import numpy as np
import pytest

from lobes.errors import DataError
from lobes.evaluation import (
    accuracy,
    append_row,
    label_records,
    paired_bootstrap,
    read_result,
    read_rows,
    result_row,
    write_result,
)
from lobes.evaluation.provenance import git_state, hardware, peak_memory, portable_command
from lobes.evaluation.results import COLUMNS


def make_records() -> list[dict]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, size=60)
    predictions = np.where(rng.random(60) < 0.8, targets, 0)
    return label_records(targets, predictions, groups=[f"s{i % 6}" for i in range(60)])


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("ID,wav\na,{data_root}/a.wav\n")
    path.with_suffix(".meta.json").write_text(json.dumps({"generated": True, "hours": 0.5, "source": "synth"}))
    return path


def write(folder, **changes):
    options = {
        "task": "digits",
        "system": "pretrained",
        "metric": accuracy,
        "records": make_records(),
        "seed": 3,
        "other_metrics": {"uar": np.float32(0.5), "undefined": float("nan")},
        "parameters_trained": 1000,
        "parameters_total": 1_200_000,
        "audio_hours": 1.5,
        "wall_seconds": 12.25,
        "macs_per_second": 3.1e8,
        "command": "python train.py hparams/tiny.yaml",
    }
    return write_result(folder, **(options | changes))


def test_a_result_is_read_as_written(tmp_path, manifest) -> None:
    result = write(tmp_path / "run", data={"test": manifest}, data_name="Digits test")
    assert read_result(tmp_path / "run") == read_result(tmp_path / "run" / "result.json") == result
    assert os.listdir(tmp_path / "run") == ["result.json"]
    metric = result["metric"]
    assert metric["name"] == "accuracy" and metric["low"] < metric["value"] < metric["high"]
    assert (metric["n_items"], metric["n_groups"], metric["level"], metric["method"]) == (60, 6, 0.95, "t")
    assert result["other_metrics"] == {"uar": 0.5, "undefined": None}
    assert result["data"]["test"]["sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert result["generated_speech"] is True
    assert result["cost"]["peak_memory_mib"]["process"] > 10
    assert {"python", "torch", "numpy"} <= set(result["packages"]) and result["hardware"]["cores"] >= 1


def test_written_records_can_be_compared_later(tmp_path) -> None:
    ours = write(tmp_path / "a")
    worse = [record | {"prediction": 0} for record in make_records()]
    write(tmp_path / "b", system="constant", records=worse)
    stored = [read_result(tmp_path / name)["records"] for name in "ab"]
    comparison = paired_bootstrap(*stored, accuracy)
    assert comparison.value_a == ours["metric"]["value"] and comparison.low > 0


def test_generated_speech_can_be_said_without_a_sidecar(tmp_path) -> None:
    assert write(tmp_path)["generated_speech"] is False
    assert write(tmp_path, generated_speech=True)["generated_speech"] is True


def test_a_name_that_is_a_number_is_a_name(tmp_path) -> None:
    write_result(
        tmp_path,
        task="toy",
        system=7,
        metric=accuracy,
        records=label_records([1, 0], [1, 1], groups=["a", "b"]),
        seed=1,
    )
    assert read_result(tmp_path)["system"] == "7"


def test_a_failing_write_keeps_the_former_result(tmp_path) -> None:
    before = write(tmp_path)
    with pytest.raises(DataError, match="records"):
        write(tmp_path, records=[])
    with pytest.raises(DataError, match="set"):
        write(tmp_path, other_metrics={"odd": {1, 2}})
    assert read_result(tmp_path) == before and os.listdir(tmp_path) == ["result.json"]


def spoil(field: str, value: object):
    def change(result: dict) -> None:
        *parents, last = field.split(".")
        for key in parents:
            result = result[key]
        if value is None:
            del result[last]
        else:
            result[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("metric.low", None), "field 'metric.low' missing"),
        (spoil("cost", None), "field 'cost' missing"),
        (spoil("metric.value", "high"), "field 'metric.value' is 'high', expected int or float"),
        (spoil("seed", 1.5), "field 'seed' is 1.5, expected int"),
        (spoil("seed", True), "field 'seed' is True"),
        (spoil("generated_speech", 1), "field 'generated_speech' is 1, expected bool"),
        (spoil("cost.audio_hours", "many"), "expected int or float or null"),
        (spoil("metric.low", 0.99), "outside its interval"),
        (spoil("format", 2), "'format' is 2, expected 1"),
    ],
)
def test_a_spoilt_result_is_refused_in_one_line(tmp_path, change, message: str) -> None:
    result = write(tmp_path)
    change(result)
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(DataError, match=message) as caught:
        read_result(tmp_path)
    assert "\n" not in str(caught.value) and "result.json" in str(caught.value)


def test_missing_and_foreign_files_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_result(tmp_path)
    for content, message in (("{", "not JSON"), ("[]", "JSON list")):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(DataError, match=message):
            read_result(tmp_path)
    with pytest.raises(DataError, match=r"data\['test'\].*not a file"):
        write(tmp_path, data={"test": tmp_path / "none.csv"})


# --------------------------------------------------------------------------- results.csv


def test_rows_are_appended_under_one_header(tmp_path, manifest) -> None:
    path = tmp_path / "deep" / "results.csv"
    first = append_row(path, write(tmp_path, data={"test": manifest}, data_name="Digits"))
    path.write_text(path.read_text().rstrip("\n"))  # as some editors leave it
    second = append_row(path, write(tmp_path, system='odd, "name"', audio_hours=None))
    assert read_rows(path) == [first, second]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert first["data"] == "Digits (generated speech)" and second["data"] == "unnamed"
    assert (first["parameters"], first["macs_per_second"], second["audio_hours"]) == ("1200000", "310000000.0", "")


def test_rows_of_another_shape_are_refused(tmp_path) -> None:
    path, result = tmp_path / "results.csv", write(tmp_path)
    path.write_text("task,value\n")
    with pytest.raises(DataError, match="columns differ in audio_hours"):
        append_row(path, result)
    assert path.read_text() == "task,value\n"
    header = ",".join(COLUMNS)
    for line, message in (("a,b", "line 2 has another number"), (",".join(["x"] * len(COLUMNS)), "value is 'x'")):
        path.write_text(f"{header}\n{line}\n")
        with pytest.raises(DataError, match=message):
            read_rows(path)
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(DataError, match="0.95"):
        result_row(write(tmp_path, level=0.9))


# --------------------------------------------------------------------------- provenance


def test_git_state_knows_commit_and_changes(tmp_path) -> None:
    assert git_state(tmp_path) == {"commit": None, "dirty": None}
    environment = os.environ | {
        f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, env=environment)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path) == state | {"dirty": True}


def test_the_command_holds_no_path_of_this_machine(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LOBES_DATA", str(tmp_path / "corpora"))
    monkeypatch.setenv("HOME", str(tmp_path))
    argv = [
        str(tmp_path / "train.py"),
        "--data_folder",
        f"{tmp_path}/corpora/fsdd",
        f"--save={tmp_path}/out",
        "--x",
        "a b",
    ]
    assert portable_command(argv) == "python train.py --data_folder $LOBES_DATA/fsdd --save=$HOME/out --x 'a b'"


def test_the_machine_is_described_without_asking_for_cuda() -> None:
    machine = hardware()
    assert machine["processor"] and machine["memory_gib"] > 0 and isinstance(machine["gpus"], list)
    assert peak_memory()["process"] > 0
