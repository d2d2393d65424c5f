"""The command that says in which band the calls of each class lie."""

from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lobes.dataio.annotations import Annotation, write_annotations
from lobes.errors import ConfigError, DataError

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def tool():
    """The script as a module."""
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module("band_report")
    sys.path.remove(str(TOOLS))


def test_it_prints_the_table_and_writes_the_figures(tool, tmp_path, capsys):
    t = np.arange(96000) / 96000
    for name, hertz in (("bat_1", 30000), ("bat_2", 31000), ("owl_1", 600)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.sin(2 * np.pi * hertz * t) * (t < 0.4), 96000)
    (tmp_path / "owl_2.wav").write_bytes(b"")
    csv_file = tmp_path / "bands.csv"
    tool.main([str(tmp_path), "--class", "([a-z]+)_", "--encoder", "sm-tiny", "--csv", str(csv_file)])
    printed = capsys.readouterr().out
    assert "| bat | 2 |" in printed and "| owl | 1 |" in printed
    # Its mel filters begin with the first bin of a Fourier transform of 512.
    assert "from 31.25 Hz to 95 % of 8000 Hz" in printed and "Left out: 1 of 4 sounds" in printed
    with csv_file.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["factor"]) for row in rows] == [("bat", "5"), ("owl", "1"), ("all", "5")]


def test_what_is_wrong_is_said_in_one_line(tool, tmp_path):
    with pytest.raises(DataError, match="no audio files; expected some, or a manifest"):
        tool.main([str(tmp_path)])
    with pytest.raises(DataError, match="no sound could be read of 1 .first: .*none.wav: cannot be opened"):
        tool.main([str(tmp_path / "none.wav")])
    with pytest.raises(ConfigError, match="--class is '.': .*expected a regular expression"):
        tool.main([str(tmp_path), "--class", "("])


def test_annotations_of_recordings_are_measured_where_they_are(tool, tmp_path, capsys):
    time = np.arange(32000) / 16000
    low, high = (np.sin(2 * np.pi * hertz * time) * np.hanning(32000) for hertz in (500, 3000))
    (tmp_path / "long").mkdir()
    soundfile.write(tmp_path / "long" / "night.wav", 0.3 * np.concatenate((low, high)), 16000)
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "night.Table.1.selections.txt"
    calls = [Annotation(0.2, 1.8, "owl"), Annotation(2.2, 3.8, "frog"), Annotation(50.0, 51.0, "past the end")]
    write_annotations(table, calls)
    figures = tmp_path / "bands.csv"
    tool.main(
        [str(tmp_path / "tables"), "--recordings", str(tmp_path / "long"), "--keep_background", "--csv", str(figures)]
    )
    with figures.open(newline="") as file:
        bands = {row["label"]: row for row in csv.DictReader(file)}
    assert set(bands) == {"owl", "frog", "all"}, "what lies past the end is left out"
    assert abs(float(bands["owl"]["middle"]) - 500) < 60 and abs(float(bands["frog"]["middle"]) - 3000) < 60
