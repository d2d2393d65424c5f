"""tools/new_recipe.py on the recipes as they are: a copy passes its smoke test at once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_runner import ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What of the repository a recipe and its smoke test need."""
    for name in ("recipes", "hparams", "tools", "tests/recipes"):
        left_out = shutil.ignore_patterns("results", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def new_recipe(repository: Path, *arguments: str) -> int:
    """Run the repository's own copy of the tool in this process."""
    spec = importlib.util.spec_from_file_location("new_recipe", repository / "tools" / "new_recipe.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    sys.modules["new_recipe"] = tool  # dataclasses look their module up
    spec.loader.exec_module(tool)
    return tool.main(list(arguments), repository)


def pytest_in(repository: Path, *arguments: str) -> str:
    """Run pytest there, on the library that is tested here; return its last line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={repository}", *arguments]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target"),
    [("FSDD/digits", "MyCorpus/words"), ("LibriSpeech/SSL", "Bird-Song/SSL"), ("MiniFrench/ASR", "Contes/ASR")],
)
def test_a_copy_passes_its_smoke_test_at_once(source, target, repository):
    assert new_recipe(repository, f"recipes/{source}", target) == 0
    corpus, task = target.lower().replace("-", "_").split("/")
    test = repository / "tests" / "recipes" / f"test_{corpus}_{task}.py"
    assert f'RECIPE = "{target}"' in test.read_text(encoding="utf-8"), "the original's own test, on the copy"
    assert " passed" in pytest_in(repository, str(test), "tests/recipes/test_recipe_hparams.py")
