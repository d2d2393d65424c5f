"""The sweep over strategies: what is run where, and that READMEs hold what was found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import selection_sweep as sweep  # noqa: E402


def test_what_goes_by_a_proxy_runs_after_it_in_the_same_process():
    cells = sweep.planned({"A": ["ann", "bob"], "C": ["all"]}, [1, 2], [0.05, 0.2], ["loss-low", "longest"])
    assert {cell.strategy for cell in cells} == {"loss-low", "longest", "random", sweep.FULL}
    parts = [sweep.part_of(cells, index, 3) for index in range(3)]
    assert sorted(sum(parts, [])) == sorted(cells), "each once"
    for part in parts:
        for place, cell in enumerate(part):
            if cell.strategy == "loss-low":
                assert cell._replace(strategy="random") in part[:place]


@pytest.mark.parametrize("recipe", sorted(sweep.SITUATIONS))
def test_the_table_of_the_readme_is_that_of_the_figures(recipe):
    folder = ROOT / "recipes" / recipe
    if not (folder / "sweep.csv").is_file():
        pytest.skip("not run yet")
    assert not sweep.publish(folder, change=False)
