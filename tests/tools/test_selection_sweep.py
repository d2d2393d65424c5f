"""The sweep over strategies: what is run where, and that READMEs hold what was found."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import pytest

from lobes.errors import ConfigError
from lobes.evaluation import r2, write_result

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


R2 = {"random": 0.5, "longest": 0.47, "contrastive": 0.6, sweep.FULL: 0.55}


@pytest.fixture
def runs(tmp_path):
    """Three speakers with two seeds each, as their runs would be; all strategies have the same ups and downs."""
    for strategy, speaker, seed in itertools.product(R2, ("ann", "bob", "cat"), (1, 2)):
        share = 1.0 if strategy == sweep.FULL else 0.05
        folder = sweep.Cell("A", speaker, seed, share, strategy).folder(tmp_path)
        ups = {"ann": -0.05, "bob": 0.0, "cat": 0.05}[speaker] + 0.01 * seed
        spread = 0.02 * ("ann", "bob", "cat").index(speaker) if strategy in ("contrastive", "longest") else 0.0
        records = [{"id": "x", "group": "x", "residual": 1 - R2[strategy] - ups - spread, "total": 1.0}]
        records += [{**records[0], "id": "y", "group": "y"}]
        write_result(
            folder, task="t", system=strategy, metric=r2, records=records, seed=seed, data_name="d", wall_seconds=1.0,
            parameters_trained=1, parameters_total=1, audio_hours=0.5, macs_per_second=1.0,
            other_metrics={"probe": 0.9, "probe_teacher": 1.0},
        )  # fmt: skip
    return tmp_path


def test_differences_are_paired_by_speaker_and_seed(runs):
    cells = sweep.finished(runs)
    assert len(cells) == 24 and cells[0] == sweep.Cell("A", "ann", 1, 0.05, "random")
    rows = {row["strategy"]: row for row in sweep.table(cells, runs)}
    ahead = rows["contrastive"]
    assert (ahead["runs"], ahead["wins"], ahead["of_teacher"], ahead["hours"]) == (6, "6/6", 0.9, 0.5)
    assert ahead["difference"] == pytest.approx(0.12) and ahead["full_difference"] == pytest.approx(0.07)
    # Three speakers, 0.10, 0.12 and 0.14: t(2) = 4.303 standard errors of 0.02 / sqrt(3).
    half = 4.303 * 0.02 / 3**0.5
    assert (ahead["low"], ahead["high"]) == pytest.approx((0.12 - half, 0.12 + half), abs=1e-3)
    assert rows["longest"]["wins"] == "2/6" and rows["longest"]["difference"] == pytest.approx(-0.01)
    assert "difference" not in rows["random"] and rows["random"]["full_difference"] == pytest.approx(-0.05)
    assert rows[sweep.FULL]["difference"] == pytest.approx(0.05) and "full_difference" not in rows[sweep.FULL]
    alone = sweep.table([cell for cell in cells if cell.strategy in ("random", "contrastive")], runs)
    assert ahead["p"] == pytest.approx(2 * alone[0]["p"]), "Holm: the least of two"
    text = sweep.markdown(list(rows.values()))
    assert "| A | 5 % | contrastive | 6 |" in text and "+0.120 [+0.070, +0.170]" in text
    sweep.figure(list(rows.values()))


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """A recipe that has published what `runs` are, and a README for the table."""
    folder = tmp_path / "root" / "recipes" / "FSDD" / "distillation"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("before\n<!-- sweep -->\n<!-- /sweep -->\nafter\n")
    monkeypatch.setattr(sweep, "ROOT", tmp_path / "root")
    return folder


def ask(monkeypatch, out, *more) -> None:
    monkeypatch.setattr(sys, "argv", ["selection_sweep.py", "--table", "--publish", f"--out={out}", *more])
    sweep.main()


def test_published_rows_do_not_go_by_themselves(runs, recipe, monkeypatch):
    ask(monkeypatch, runs)
    published, text = (recipe / "sweep.csv").read_text(), (recipe / "README.md").read_text()
    assert published.count("\n") == 5 and "| A | 5 % | longest | 6 |" in text
    for speaker, seed in itertools.product(("ann", "bob", "cat"), (1, 2)):
        shutil.rmtree(sweep.Cell("A", speaker, seed, 0.05, "longest").folder(runs))
    shutil.rmtree(sweep.Cell("A", "cat", 2, 0.05, "contrastive").folder(runs))
    lost = r"A 5 % contrastive \(5 of 6 runs\), A 5 % longest \(0 of 6 runs\)"
    with pytest.raises(ConfigError, match=f"has 2 rows .*: {lost}; nothing was published: .*--drop"):
        ask(monkeypatch, runs)
    assert (recipe / "sweep.csv").read_text() == published and (recipe / "README.md").read_text() == text
    ask(monkeypatch, runs, "--drop")
    assert "longest" not in (recipe / "sweep.csv").read_text() + (recipe / "README.md").read_text()
    assert "| A | 5 % | contrastive | 5 |" in (recipe / "README.md").read_text()
    ask(monkeypatch, runs)  # what is published is all there


def test_a_folder_of_other_settings_is_refused(tmp_path):
    sweep.claim(tmp_path, ["teacher=a", "steps=10"])
    sweep.claim(tmp_path, ["steps=10", "teacher=a"])
    with pytest.raises(ConfigError, match="holds runs with steps=10 teacher=a, not teacher=a; give another --out"):
        sweep.claim(tmp_path, ["teacher=a"])


@pytest.mark.parametrize("recipe", sorted(sweep.SITUATIONS))
def test_the_table_of_the_readme_is_that_of_the_figures(recipe):
    folder = ROOT / "recipes" / recipe
    if not (folder / "sweep.csv").is_file():
        pytest.skip("not run yet")
    assert not sweep.publish(folder, change=False)
