"""The results tables of committed README files are those that their results.csv gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from lobes.evaluation.tables import find_readmes, update_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("readme", find_readmes(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_tables_agree_with_results_csv(readme: Path) -> None:
    assert not update_file(readme, write=False), f"{readme} drifted: run python tools/tables.py --write"
