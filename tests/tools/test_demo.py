"""What `make demo` shows: on generated speech a minute of pretraining beats random weights and log-mel features."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lobes.evaluation import cer, paired_bootstrap, read_result

DEMO = Path(__file__).parents[2] / "tools" / "demo.py"


def demo(folder: Path) -> str:
    """Run it, with speech generated into the same folder; return what it prints."""
    environment = {**os.environ, "LOBES_CACHE": str(folder / "cache")}
    command = [sys.executable, str(DEMO), "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed")
def test_pretraining_beats_both_controls(tmp_path):
    printed = demo(tmp_path)
    found = {folder.name: read_result(folder) for folder in (tmp_path / "asr").iterdir()}
    for mixer in ("SummaryMixing", "SDPA"):
        for control in (f"untrained-{mixer}", "log-mel"):
            pair = (found[name]["records"] for name in (f"pretrained-{mixer}", control))
            difference = paired_bootstrap(*pair, cer)
            assert difference.high < 0, f"{mixer} minus {control}: {difference}"
    assert (tmp_path / "report.html").stat().st_size > 10_000 and "untrained SDPA" in printed
    assert demo(tmp_path).count("done before") == 7
