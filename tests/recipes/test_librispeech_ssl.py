"""recipes/LibriSpeech/SSL on files in the layout of OpenSLR, some of which are broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from recipe_runner import QUIET, RECIPES, SMALL, load, skipped, steps, train

from lobes.dataio import read_manifest
from lobes.evaluation import read_result
from lobes.export import load_encoder

RECIPE = "LibriSpeech/SSL"


def test_broken_files_are_left_out_and_counted(librispeech_folder, tmp_path):
    chapter = librispeech_folder / "train-clean-100" / "19" / "198"
    truncated, empty = chapter / "19-198-0001.flac", chapter / "19-198-0002.flac"
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    empty.write_bytes(b"")
    few = ("--steps=8", "--train_loader.batch_seconds=16", "--objective.codebook_size=64", "--objective.n_codebooks=1")
    result = train(RECIPE, tmp_path / "run", f"--data_folder={librispeech_folder}", *few, *SMALL)
    manifests = tmp_path / "run" / "manifests"
    left_out = skipped(manifests)
    assert set(left_out) == {str(path.relative_to(librispeech_folder)) for path in (truncated, empty)}
    assert "empty" in left_out[str(empty.relative_to(librispeech_folder))]
    meta = json.loads((manifests / "train.meta.json").read_text())
    assert [entry["file"] for entry in meta["skipped"]] == list(left_out)
    assert len(read_manifest(manifests / "train.csv")) == 4 * 6 - 2
    assert len(steps(tmp_path / "run")) == 8
    assert result["metric"]["n_items"] == 12 and result["metric"]["n_groups"] == 2
    assert load_encoder(tmp_path / "run").dim == 48


@pytest.mark.slow
def test_a_second_iteration_learns_the_clusters_of_the_first(librispeech_folder, tmp_path):
    """The objective of clips_hubert.yaml, on this corpus."""
    few = ("--train_loader.batch_seconds=30", f"--data_folder={librispeech_folder}", *SMALL)
    codes = ("--objective.codebook_size=64", "--objective.n_codebooks=1")
    train(RECIPE, tmp_path / "first", "--steps=4", *few, *codes)
    folder = RECIPES / RECIPE / "hparams"
    lines = (folder / "clips_hubert.yaml").read_text(encoding="utf-8").splitlines()
    ours = [line for line in lines if not line.startswith(("base:", "name:", "teacher:"))]
    hparams = tmp_path / "second.yaml"
    hparams.write_text("\n".join([f"base: {folder / 'tiny.yaml'}", "name: second", "teacher: first", *ours]))
    given = (f"--teacher={tmp_path / 'first'}", "--objective.layer=1", "--objective.n_clusters=16", "--steps=30")
    load(RECIPE).main([str(hparams), f"--output_folder={tmp_path / 'second'}", *QUIET, *given, *few])
    rows = steps(tmp_path / "second")
    first, last = (sum(float(row["loss"]) for row in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last < first - 0.1, f"{first:.2f} to {last:.2f} nats"
    cost = read_result(tmp_path / "second")["cost"]
    assert cost["parameters_total"] > 1.5 * cost["parameters_trained"], "the teacher is not trained"
    assert load_encoder(tmp_path / "second").dim == 48


@pytest.mark.slow
def test_first_step_comes_within_fifteen_seconds(librispeech_folder, tmp_path):
    command = [sys.executable, str(RECIPES / RECIPE / "train.py"), "hparams/tiny.yaml", f"--output_folder={tmp_path}"]
    options = (f"--data_folder={librispeech_folder}", "--optimizer_step_limit=1", *QUIET)
    subprocess.run([*command, *options], check=True, capture_output=True)
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert float(re.search(r"first training step after ([\d.]+) s", log)[1]) < 15
