"""Students of HuBERT-base are as large as their papers say, and cheaper than it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import students  # noqa: E402


@pytest.mark.slow
def test_sizes_and_costs_are_those_of_the_papers():
    teacher, *rest = students.rows(seconds=2.0, rounds=2)
    assert teacher["parameters"] == 94_371_712 and teacher["faster"] == 1.0
    for row in rest:
        published = row["published"]
        if published.parameters:
            assert row["parameters"] == pytest.approx(published.parameters * 1e6, rel=0.05), row["student"]
        assert row["macs_share"] < 0.5 and row["faster"] > 1.2 and 0 < row["front_end_share"] < 1, row
        assert students.line(row).count("|") == 10
    exact = next(row for row in rest if row["student"].startswith("Distil"))
    assert exact["parameters"] == pytest.approx(23.5e6, rel=0.01) and exact["front_end_share"] > 0.6
