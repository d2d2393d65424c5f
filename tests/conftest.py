"""What every test shares: few threads, the same seeds, real corpora where there are some, and skips with a reason."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import torch

# Not to be searched for doctests: two files of one name cannot both be, where folders are named on the command line.
collect_ignore_glob = ["*/conftest.py"]

# Two workers of pytest-xdist share a small machine: more threads than cores makes every test slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start every test from the same seeds, so that none depends on which ran before it."""
    random.seed(0)
    torch.manual_seed(0)


def _data_root() -> Path | None:
    root = os.environ.get("LOBES_DATA")
    return Path(root) if root and Path(root).is_dir() else None


@pytest.fixture(scope="session")
def lobes_data() -> Path:
    """The folder with one sub-folder per real corpus (`LOBES_DATA`); the test is skipped where there is none."""
    root = _data_root()
    if root is None:
        pytest.skip("LOBES_DATA does not name a folder of real corpora")
    return root


def _missing() -> dict[str, str]:
    """Map each marker that this machine cannot serve to the reason."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "no CUDA device"
    if torch.cuda.device_count() < 2:
        reasons["multi_gpu"] = "fewer than two CUDA devices"
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        reasons["browser"] = "no Chromium on PATH"
    if _data_root() is None:
        reasons["data"] = "LOBES_DATA does not name a folder of real corpora"
    return reasons


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, so that the default suite runs everything that it can."""
    reasons = _missing()
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
