"""Tables in README files come from results.csv, and a drift is found."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from lobes.errors import DataError
from lobes.evaluation import markdown_table, update_file, update_text
from lobes.evaluation.results import COLUMNS
from lobes.evaluation.tables import find_readmes, put_between

BASE = {
    "date": "2025-01-02", "task": "digits", "system": "pretrained", "metric": "accuracy", "value": "0.912345",
    "low": "0.88", "high": "0.94", "n_items": "600", "n_groups": "6", "seed": "1", "parameters": "1234567",
    "audio_hours": "0.5", "wall_seconds": "300", "macs_per_second": "310000000", "data": "FSDD", "commit": "abc",
    "command": "python train.py",
}  # fmt: skip


def make_csv(folder: Path, *changes: dict[str, str]) -> Path:
    path = folder / "results.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows([BASE | change for change in changes])
    return path


def make_readme(folder: Path, options: str = "results.csv columns=system,result,parameters") -> Path:
    path = folder / "README.md"
    path.write_text(f"# Title\n\n<!-- results: {options} -->\nold\n<!-- /results -->\n\nafter\n")
    return path


def body(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("|")]


def test_a_table_is_made_and_stays(tmp_path: Path) -> None:
    make_csv(tmp_path, {}, {"system": "log-mel | mean", "value": "0.5", "low": "0.4", "high": "0.6", "parameters": ""})
    readme = make_readme(tmp_path)
    assert update_file(readme)
    assert readme.read_text() == (
        "# Title\n\n<!-- results: results.csv columns=system,result,parameters -->\n\n"
        "| system | accuracy (%) [95 % interval] | parameters |\n| --- | ---: | ---: |\n"
        "| pretrained | 91.2 [88.0, 94.0] | 1.23 M |\n| log-mel \\| mean | 50.0 [40.0, 60.0] | – |\n\n"
        "<!-- /results -->\n\nafter\n"
    )
    assert not update_file(readme)


def test_a_drift_is_found_and_not_mended_by_the_check(tmp_path: Path) -> None:
    make_csv(tmp_path, {})
    readme = make_readme(tmp_path)
    update_file(readme)
    good = readme.read_text()
    readme.write_text(good.replace("91.2", "93.2"))
    assert update_file(readme, write=False) and "93.2" in readme.read_text()
    readme.write_text(good)
    make_csv(tmp_path, {"value": "0.9"})
    assert update_file(readme, write=False)


def test_generated_speech_is_always_marked(tmp_path: Path) -> None:
    make_csv(tmp_path, {}, {"system": "other", "data": "MiniFrench (generated speech)"})
    update_file(make_readme(tmp_path))
    assert "Generated speech" in (tmp_path / "README.md").read_text()
    make_csv(tmp_path, {})
    update_file(tmp_path / "README.md")
    assert "Generated speech" not in (tmp_path / "README.md").read_text()


def test_rows_are_chosen_sorted_and_superseded(tmp_path: Path) -> None:
    make_csv(
        tmp_path,
        {"system": "old figure", "task": "other"},
        {"system": "b", "value": "0.89"},
        {"system": "c", "value": "0.9"},
        {"system": "b", "value": "0.885"},
        {"system": "c", "value": "0.92", "seed": "2"},
    )
    options = 'results.csv columns=system,seed,value task="digits" sort=-value'
    update_file(make_readme(tmp_path, options))
    rows = body((tmp_path / "README.md").read_text())[2:]
    assert rows == ["| c | 2 | 92.0 |", "| c | 1 | 90.0 |", "| b | 1 | 88.5 |"]


def test_metrics_of_several_kinds_are_named_in_their_cells() -> None:
    loss = BASE | {"metric": "loss", "value": "2.3456", "low": "2.1", "high": "2.5"}
    rows = body(markdown_table([BASE, loss], ["result", "wall_seconds", "audio_hours", "macs_per_second"]))
    assert rows[0] == "| result [95 % interval] | time | audio seen | MACs per second of audio |"
    assert rows[2:] == [
        "| accuracy (%) 91.2 [88.0, 94.0] | 5 min | 30 min | 310 M |",
        "| loss 2.35 [2.1, 2.5] | 5 min | 30 min | 310 M |",
    ]


def test_code_fences_and_plain_text_are_left_alone(tmp_path: Path) -> None:
    text = "```\n<!-- results: none.csv -->\n```\ntext with <!-- results: none.csv --> inside\n"
    assert update_text(text, tmp_path) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results: results.csv -->\n", "line 1: .* not closed"),
        ("<!-- results: results.csv -->\n<!-- results: results.csv -->\n<!-- /results -->", "line 1: .* not closed"),
        ("<!-- results: none.csv -->\n<!-- /results -->", "none.csv: no such file"),
        ("<!-- results: results.csv columns=system,speed -->\n<!-- /results -->", "'speed' is unknown"),
        ("<!-- results: results.csv speed=1 -->\n<!-- /results -->", "option 'speed'"),
        ("<!-- results: results.csv columns -->\n<!-- /results -->", "correct the marker"),
        ("<!-- results: -->\n<!-- /results -->", "correct the marker"),
        ("<!-- results: results.csv task=none -->\n<!-- /results -->", "no row is left"),
    ],
)
def test_wrong_markers_are_named(tmp_path: Path, text: str, message: str) -> None:
    make_csv(tmp_path, {})
    with pytest.raises(DataError, match=message) as caught:
        update_text(text, tmp_path)
    assert "\n" not in str(caught.value)


def test_readmes_are_found_outside_environments_and_runs(tmp_path: Path) -> None:
    for folder in ("recipes/a/b", ".venv/lib", "recipes/a/b/results/1", "node_modules/x"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "README.md").touch()
    (tmp_path / "README.md").touch()
    assert [str(path.relative_to(tmp_path)) for path in find_readmes(tmp_path)] == [
        "README.md",
        "recipes/a/b/README.md",
    ]


def test_the_tool_checks_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    location = Path(__file__).resolve().parents[2] / "tools" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables_tool", location)
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    make_csv(tmp_path, {})
    readme = str(make_readme(tmp_path))
    assert tool.main(["--check", readme]) == 1 and "tables.py --write" in capsys.readouterr().out
    assert tool.main(["--write", readme]) == 0
    assert tool.main(["--check", readme]) == 0
    (tmp_path / "results.csv").unlink()
    assert tool.main(["--check", readme]) == 2
    error = capsys.readouterr().err
    assert readme in error and error.count("\n") == 1


def test_a_text_is_put_between_its_lines(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("above\n<!-- study -->\n<!-- /study -->\nbelow\n")
    assert put_between(path, "study", "| a |", write=False) and "| a |" not in path.read_text()
    assert put_between(path, "study", "| a |")
    assert path.read_text() == "above\n<!-- study -->\n| a |\n<!-- /study -->\nbelow\n"
    assert not put_between(path, "study", "| a |")
    with pytest.raises(DataError, match="no line '<!-- sweep -->' with"):
        put_between(path, "sweep", "| a |")
