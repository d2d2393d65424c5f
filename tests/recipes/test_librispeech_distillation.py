"""recipes/LibriSpeech/distillation: speech is found among whistles, and a student learns from it."""

from __future__ import annotations

import json

import pytest
from recipe_runner import QUIET, script, train
from sounds import write_librispeech

from lobes.dataio import read_manifest
from lobes.dataio.manifest import read_meta
from lobes.errors import ConfigError, DataError
from lobes.evaluation import read_result
from lobes.export import load_encoder
from lobes.selection import read_pool

RECIPE = "LibriSpeech/distillation"


@pytest.fixture
def given(danum, tmp_path):
    """Options of a run: "speech" of the layout of LibriSpeech, and a forest of whistles."""
    write_librispeech(tmp_path / "speech")
    return [
        f"--data_folder={tmp_path / 'speech'}",
        "--prepare.speech.test=[dev-clean]",
        f"--prepare.others.danum.data_folder={danum()}",
        "--prepare.others.soundscapes=null",
        "--prepare.target_share=0.5",
        "--prepare.n_target=5",
        "--n_units=12",
    ]


def test_what_resembles_the_target_is_trained_on(given, tmp_path):
    options = [
        "--strategy=!new:lobes.selection.TargetKNN",
        "--share=0.2",
        "--steps=60",
        "--encoder.dim=24",
        "--opt_class.lr=0.01",
    ]
    options += ["--filters=[!new:lobes.selection.InRange {column: active, low: 0.2}]"]
    result = train(RECIPE, tmp_path / "run", *given, *options)
    pool, chosen = (read_manifest(tmp_path / "run" / name) for name in ("manifests/train.csv", "selected.csv"))
    assert {row["corpus"] for row in pool.rows} == {"speech", "danum"}
    assert {row["corpus"] for row in chosen.rows} == {"speech"} and chosen.hours <= 0.2 * pool.hours
    selection = read_meta(tmp_path / "run" / "selected.csv")["options"]["selection"]
    assert selection["shift"]["auc"] > 0.9 and selection["seconds"] == pytest.approx(3600 * chosen.hours, rel=1e-3)
    heard = read_pool(tmp_path / "run" / "selected.parquet")
    assert len(heard) == len(pool) and {"snr_db", "active"} <= heard.columns.keys()
    target, test = (read_manifest(tmp_path / "run" / "manifests" / f"{name}.csv") for name in ("valid", "test"))
    assert not {*target.groups} & {*test.groups} and not {*test.groups} & {*pool.groups}
    assert result["metric"]["name"] == "r2" and result["metric"]["value"] > 0.2, result["metric"]
    assert result["cost"]["macs_per_second"] < 0.25 * result["other_metrics"]["teacher_macs_per_second"]
    assert "probe" not in result["other_metrics"] and load_encoder(tmp_path / "run").dim == 24


@pytest.mark.slow
def test_a_hubert_is_pruned_to_the_size_asked_for(given, tmp_path):
    few = ["--steps=60", "--train_loader.batch_seconds=8", "--opt_class.lr=0.005", "--prepare.situation=speech"]
    train(RECIPE, tmp_path / "hubert", *given, *few, hparams="hubert.yaml")
    options = [*given, *few, f"--teacher={tmp_path / 'hubert'}", "--sparsity=0.4", "--gate_lr=0.2"]
    options.append(f"--output_folder={tmp_path / 'pruned'}")
    ended = script(f"{RECIPE}/prune.py", "hparams/prune.yaml", *options, *QUIET)
    assert ended.returncode == 0, ended.stderr[-2000:]
    result, whole = (read_result(tmp_path / name) for name in ("pruned", "hubert"))
    other, cost = result["other_metrics"], result["cost"]
    assert other["sparsity"] == pytest.approx(0.4, abs=0.01) and other["largest_difference"] < 1e-5
    assert other["faster"] > 1 and cost["macs_per_second"] < whole["cost"]["macs_per_second"]
    small, large = (sum(p.numel() for p in load_encoder(tmp_path / n).parameters()) for n in ("pruned", "hubert"))
    assert small == pytest.approx(0.6 * large, rel=0.02)
    weights = [next((tmp_path / n / "encoder").glob("*.safetensors")).stat().st_size for n in ("pruned", "hubert")]
    assert weights[0] < 0.7 * weights[1] and result["metric"]["value"] > 0


def test_choosing_alone_says_what_was_chosen(given, tmp_path):
    options = ["--strategy=!new:lobes.selection.Random", "--share=0.3", f"--output_folder={tmp_path / 'run'}"]
    shared = (f"--prepare.save_folder={tmp_path / 'manifests'}", f"--cache={tmp_path / 'cache'}")
    ended = script(f"{RECIPE}/select_data.py", "hparams/tiny.yaml", *given, *options, *shared)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "selected.csv: " in ended.stdout and "danum " in ended.stdout and "speech " in ended.stdout
    assert (tmp_path / "run" / "selected.parquet").is_file() and not (tmp_path / "run" / "result.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "heard").iterdir()}
    assert sorted(path.name.split("-")[0] for path in kept if path.suffix == ".parquet") == ["target", "train"]
    [cost] = (json.loads(path.read_text()) for path in kept if path.suffix == ".json")
    assert cost["cpu_seconds"] > 0
    again = script(
        f"{RECIPE}/select_data.py",
        "hparams/tiny.yaml",
        *given,
        *options[:-1],
        f"--output_folder={tmp_path / 'b'}",
        *shared,
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "not heard again"
    chosen = [(tmp_path / name / "selected.csv").read_text() for name in ("run", "b")]
    assert [line.split(",")[0] for line in chosen[0].splitlines()] == [
        line.split(",")[0] for line in chosen[1].splitlines()
    ]


def test_what_does_not_fit_is_said(given, tmp_path):
    with pytest.raises(ConfigError, match="situation is 'forest'"):
        train(RECIPE, tmp_path / "run", *given, "--prepare.situation=forest")
    with pytest.raises(DataError, match="speech has no split test"):
        untested = [option for option in given if "speech.test" not in option]
        train(RECIPE, tmp_path / "run", *untested, "--prepare.speech.test=null")
    with pytest.raises(DataError, match="the budget is"):
        train(RECIPE, tmp_path / "run", *given, "--share=1.2", "--strategy=!new:lobes.selection.Random")
