"""Scoring a pool from the shell: in parts, and chosen from when all is scored."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))

import score_pool  # noqa: E402
from test_selection import made  # noqa: E402

from lobes.errors import DataError  # noqa: E402
from lobes.selection import ContrastiveLM, select, write_pool  # noqa: E402


def test_parts_are_scored_and_the_best_are_chosen(tmp_path, capsys):
    pool, target = made(400, 5, 0, "pool"), made(25, 5, 1, "target", only=2)
    write_pool(pool, tmp_path / "pool", rows_per_shard=90)
    write_pool(target, tmp_path / "target.parquet")
    given = [str(tmp_path / "pool"), str(tmp_path / "target.parquet"), f"--out={tmp_path / 'scores'}"]
    chosen = [f"--chosen={tmp_path / 'chosen.csv'}", f"--hours={60 / 3600}"]
    with pytest.raises(DataError, match="2 files are not scored yet, 00001.parquet first"):
        score_pool.main([*given, "--part=0/2", *chosen])
    assert not (tmp_path / "chosen.csv").exists()
    score_pool.main([*given, "--part=1/2", *chosen])
    assert "of 400 utterances, 0.02 hours" in capsys.readouterr().out
    with (tmp_path / "chosen.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = select(pool, target, 60.0, ContrastiveLM(), seed=0).pool
    kinds = dict(zip(pool.ids.tolist(), pool.columns["kind"].tolist(), strict=True))
    assert sum(kinds[row["id"]] == 2 for row in rows) > 0.6 * len(rows), "chance is a fifth"
    assert abs(len(rows) - len(expected)) <= 3 and sum(float(row["seconds"]) for row in rows) <= 60.0
    told = json.loads((tmp_path / "chosen.json").read_text())
    assert told["pool_utterances"] == 400 and told["budget_seconds"] == pytest.approx(60.0)


def test_a_target_that_is_in_the_pool_is_refused(tmp_path):
    pool = made(100, 5, 0, "pool")
    write_pool(pool, tmp_path / "pool")
    write_pool(pool.take(range(10)), tmp_path / "target.parquet")
    given = [str(tmp_path / "pool"), str(tmp_path / "target.parquet"), f"--out={tmp_path / 'scores'}", "--hours=0.01"]
    with pytest.raises(DataError, match="10 of 10 utterances of the target are in the pool"):
        score_pool.main([*given, f"--chosen={tmp_path / 'chosen.csv'}"])
    assert not (tmp_path / "chosen.csv").exists()
