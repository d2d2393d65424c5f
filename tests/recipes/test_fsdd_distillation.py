"""recipes/FSDD/distillation on tones: a student comes near its teacher, on what a strategy chose for it."""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recipe_runner import QUIET, RECIPES, load, torchrun, train
from sounds import tones

from lobes.dataio import read_manifest
from lobes.dataio.corpora import prepare_fsdd_pool
from lobes.dataio.manifest import read_meta
from lobes.errors import ConfigError, DataError
from lobes.export import load_encoder

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import selection_sweep as sweep  # noqa: E402

pytestmark = pytest.mark.slow  # recipes/LibriSpeech/distillation, whose train.py is the same, is tested by default
RECIPE = "FSDD/distillation"
SPEAKERS = ("ann", "bob", "cleo")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """13 takes of three speakers, and a teacher that has seen a few steps of them."""
    root, noise = tmp_path_factory.mktemp("distillation"), np.random.default_rng(0)
    recordings = root / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for speaker, take, digit in itertools.product(SPEAKERS, range(13), range(10)):
        sound = tones(digit, 0.25 + 0.1 * noise.random(), noise)
        soundfile.write(recordings / f"{digit}_{speaker}_{take}.wav", sound, 8000)
    hparams = RECIPES / RECIPE / "hparams" / "teacher.yaml"
    few = (
        "--steps=40",
        "--train_loader.batch_seconds=8",
        "--encoder.dim=24",
        "--encoder.depth=2",
        "--objective.codebook_size=32",
    )
    where = (f"--output_folder={root / 'teacher'}", f"--data_folder={root / 'fsdd'}")
    load("LibriSpeech/SSL").main([str(hparams), *where, *few, *QUIET])
    return root / "fsdd", root / "teacher"


FEW = {
    "steps": "150",
    "opt_class.lr": "0.01",
    "encoder.dim": "16",
    "teacher_layers": "[1, 2]",
    "unit_layer": "1",
    "n_units": "12",
    "prepare.speaker": "ann",
    "prepare.n_target": "12",
}


def given(corpus, **options: str) -> list[str]:
    """Options of a run; `__` stands for a dot."""
    folder, teacher = corpus
    chosen = FEW | {"data_folder": str(folder), "teacher": str(teacher)}
    chosen |= {name.replace("__", "."): value for name, value in options.items()}
    return [f"--{name}={value}" for name, value in chosen.items()]


@pytest.fixture(scope="module")
def run(corpus):
    """A student's folder, beside which its teacher's targets lie, and its result."""
    folder = corpus[0].parent / "student"
    return folder, train(RECIPE, folder, *given(corpus, cache=str(folder.parent / "cache")))


def test_a_student_comes_near_its_teacher(run):
    folder, result = run
    metric, other = result["metric"], result["other_metrics"]
    assert metric["name"] == "r2" and metric["value"] > 0.3, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (50, 5)
    assert other["probe"] > 0.15 and other["probe_teacher"] > 0.3, "chance is 0.1"
    assert result["cost"]["macs_per_second"] < 0.7 * other["teacher_macs_per_second"]
    assert load_encoder(folder).dim == 16


def test_the_cache_changes_nothing(corpus, tmp_path):
    cache = str(tmp_path / "cache")
    few = [
        train(RECIPE, tmp_path / name, *given(corpus, steps="10", cache=where, cache_inputs=str(name == "inputs")))
        for name, where in (("inputs", cache), ("targets", cache), ("online", "null"))
    ]
    values = [each["metric"]["value"] for each in few]
    assert values[:2] == pytest.approx([values[2]] * 2, abs=0.01)
    assert len(list((tmp_path / "cache" / "inputs").iterdir())) == 1


@pytest.mark.parametrize("strategy", ["ContrastiveLM", "TargetKNN", "Random"])
def test_a_strategy_chooses_what_is_trained_on(corpus, tmp_path, strategy):
    options = {"strategy": f"!new:lobes.selection.{strategy}", "share": "0.2", "steps": "5"}
    result = train(RECIPE, tmp_path / "run", *given(corpus, **options))
    pool, chosen = (read_manifest(tmp_path / "run" / name) for name in ("manifests/train.csv", "selected.csv"))
    assert 0.15 * pool.hours < chosen.hours <= 0.2 * pool.hours
    assert {row["id"] for row in chosen.rows} < {row["id"] for row in pool.rows}
    selection = read_meta(tmp_path / "run" / "selected.csv")["options"]["selection"]
    assert (
        selection["strategy"].startswith(strategy) and selection["budget_seconds"] > 0 and "auc" in selection["shift"]
    )
    assert result["other_metrics"]["pool_hours"] == pytest.approx(chosen.hours)


def test_a_corrupted_pool_keeps_a_clean_target(corpus, tmp_path):
    prepare_fsdd_pool(corpus[0], tmp_path, situation="B", speaker="ann", n_target=12)
    rows = read_manifest(tmp_path / "train.csv").rows
    kinds = [row["corruption"] for row in rows]
    assert (
        set(kinds) == {"none", "white", "brown", "reversed", "noise"} and 0.1 < kinds.count("none") / len(kinds) < 0.4
    )
    test = read_manifest(tmp_path / "test.csv").rows
    assert {row["corruption"] for row in test} == {"none"} and {row["speaker"] for row in test} == {"ann"}


def test_what_does_not_fit_is_said_before_training(corpus, run, tmp_path):
    with pytest.raises(ConfigError, match="speaker is null: situation A needs one"):
        train(RECIPE, tmp_path / "a", *given(corpus, prepare__speaker="null"))
    with pytest.raises(ConfigError, match="the student hears 16000 Hz, the teacher 8000 Hz"):
        train(RECIPE, tmp_path / "b", *given(corpus, encoder__features__sample_rate="16000", cache="null"))
    cache = str(run[0].parent / "cache")
    with pytest.raises(DataError, match="holds targets of another teacher, layers; nothing was overwritten"):
        train(RECIPE, tmp_path / "c", *given(corpus, cache=cache, teacher_layers="[2]"))


def test_a_sweep_goes_on_where_it_was_stopped(corpus, tmp_path, monkeypatch, capsys):
    folder, teacher = corpus
    few = [f"data_folder={folder}", *(f"{k}={v}" for k, v in FEW.items() if k not in ("steps", "prepare.speaker"))]
    few.append("steps=4")
    arguments = ["--situations", "A", "--speakers", *SPEAKERS[:2], "--seeds", "1", "--teacher", str(teacher)]
    arguments += [
        "--strategies",
        "loss-low",
        "random",
        "target-kNN",
        "--out",
        str(tmp_path / "sweep"),
        "--shares",
        "0.2",
    ]
    for part in ("0/2", "1/2"):
        monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments, "--part", part, "--set", *few])
        sweep.main()
    with (tmp_path / "sweep" / "sweep.csv").open(encoding="utf-8") as stream:
        rows = {row["strategy"]: row for row in csv.DictReader(stream)}
    assert rows.keys() == {"random", "target-kNN", "loss-low", "full"} and {row["runs"] for row in rows.values()} == {
        "2"
    }
    assert rows["target-kNN"]["wins"].endswith("/2") and rows["target-kNN"]["low"] and not rows["random"]["low"]
    assert float(rows["target-kNN"]["selection_cpu_seconds"]) > 0
    assert (
        tmp_path / "sweep" / "sweep.svg"
    ).stat().st_size > 5000 and "| A | 20 % | random |" in capsys.readouterr().out
    monkeypatch.setattr(sweep, "load", lambda folder: None)  # nothing is left to be run
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
    sweep.main()
    assert torch.is_grad_enabled()


def test_two_processes_distil_as_one_does(corpus, tmp_path):
    options = given(corpus, steps="20", strategy="!new:lobes.selection.TargetKNN", share="0.3")
    results = [torchrun(RECIPE, tmp_path / str(count), *options, processes=count) for count in (1, 2)]
    assert results[0]["metric"]["value"] == pytest.approx(results[1]["metric"]["value"], abs=1e-4)
