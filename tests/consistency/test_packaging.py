"""What is installed is what is declared: one list of ranges in two files, one package, and its data."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def pyproject_list(name: str) -> list[str]:
    """The strings of one list of pyproject.toml (Python 3.10 has no TOML reader)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    assert found, f"pyproject.toml has no list {name}"
    return re.findall(r'"([^"]+)"', found.group(1))


def requirement_lines() -> list[str]:
    """The lines of requirements.txt that install something."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_two_lists_agree():
    extras = [
        line
        for extra in ("minifrench", "adapters", "selection", "translation", "export")
        for line in pyproject_list(extra)
    ]
    declared = pyproject_list("dependencies") + extras
    assert sorted(requirement_lines()[:-1]) == sorted(declared)
    assert requirement_lines()[-1] == "-e ."


@pytest.mark.parametrize(
    "line",
    pyproject_list("dependencies")
    + pyproject_list("adapters")
    + pyproject_list("selection")
    + pyproject_list("translation")
    + pyproject_list("export"),
)
def test_what_runs_here_is_in_range(line):
    requirement = Requirement(line)
    installed = metadata.version(requirement.name)
    assert requirement.specifier.contains(installed), f"{line}, but {installed} is installed"
