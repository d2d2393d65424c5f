"""The study of what gibbons' encoders were pretrained on: its table says what its runs say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lobes.evaluation import label_records, paired_bootstrap, uar, write_result

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gibbon_study as study  # noqa: E402


def records(right: float) -> list[dict]:
    """Clips of eight recorders; those that are hard for one encoder are hard for all."""
    hard = np.random.default_rng(0).random(160)
    said = ["duet" if h < right else "noise" for h in hard]
    return label_records(["duet", "noise"] * 80, [s if i % 2 == 0 else "noise" for i, s in enumerate(said)],
                         [str(i) for i in range(160)], [f"S{i % 8}" for i in range(160)])  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    for pool, right in {"log-mel": 0.5, "untrained": 0.6, "calls": 0.8}.items():
        write_result(
            tmp_path / "call_type" / pool / "1", task="kinds", system=pool, metric=uar, records=records(right), seed=1,
            data_name="d", wall_seconds=1.0, parameters_trained=1, parameters_total=1, audio_hours=0.5,
            macs_per_second=1.0, other_metrics={"background_value": 0.25},
        )  # fmt: skip
    return tmp_path


def test_each_pool_is_compared_with_each_control(runs):
    rows = {(row["pool"], row.get("control")): row for row in study.table(runs)}
    assert {key for key in rows if key[0] == "calls"} == {("calls", "log-mel"), ("calls", "untrained")}
    assert ("log-mel", "log-mel") not in rows and ("log-mel", "untrained") in rows
    found = rows["calls", "untrained"]
    expected = paired_bootstrap(records(0.8), records(0.6), uar)
    assert float(found["difference"]) == pytest.approx(expected.difference, abs=1e-4)
    assert float(found["difference_low"]) == pytest.approx(expected.low, abs=1e-4)
    assert float(found["p"]) == pytest.approx(min(1, 2 * expected.p_value), abs=2e-4), "the least of two"
    assert (float(found["background"]), found["seeds"]) == (0.25, "1")
    text = study.markdown([*rows.values()])
    assert "| kinds, UAR | calls | 1 |" in text and "less untrained" in text


def test_the_table_of_the_readme_is_that_of_the_figures():
    if not (study.RECIPE / "study.csv").is_file():
        pytest.skip("not run yet")
    assert not study.publish(change=False)
