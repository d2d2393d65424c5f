"""Tiny corpora of primates in the layouts in which the real ones are downloaded, for tests of what reads and uses them.

Each is written by a function `write(path, seconds, rate)`: a sine, where only the layout counts, or what a test says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Write = Callable[[Path, float, int], Any]
#: Begin, end and type of the calls in each recording of Hainan, seconds; those beyond its end are of the first alone.
HAINAN_CALLS = ((5, 7, 1), (58, 62, 2), (184, 189, 4))


def write_hainan(
    folder: Path,
    write: Write,
    rate: int = 500,
    calls: Iterable[tuple] = HAINAN_CALLS,
    recorders: str = "ABCDABCDABC",
    seconds: tuple[float, float] = (247.5, 67.0),
) -> Path:
    """Train/{recording}.wav and Train_Labels/g_{recording}.data, n_ for what is no call; the first is longer."""
    lines = ["Start,End,Duration,Type,Notes"]
    lines += [f"{start},{end},{end - start},{kind},{'3 Calls' * (kind == 2)}" for start, end, kind in calls]
    labels = folder / "Train_Labels"
    labels.mkdir(parents=True)
    for n, recorder in enumerate(recorders):
        name = f"HGSM3{recorder}_0+1_201604{n + 10}_051600"
        write(folder / "Train" / f"{name}.wav", seconds[min(n, 1)], rate)
        (labels / f"g_{name}.data").write_text("\n".join(lines) + "\n")
        (labels / f"n_{name}.data").write_text("Start,End,Duration,Type\n20,30,10,3\n")
    return folder


def write_yellow_cheeked(
    root: Path, write: Write, names: Iterable[str], clips: str = "Jahoo_trainingdata_manual_annotations"
) -> Path:
    """data/AcousticData/{clips}/{class}/{name}.wav of half a second, from names such as `Noise/x`."""
    for name in names:
        write(root / "data" / "AcousticData" / clips / f"{name}.wav", 0.5, 32000)
    return root


def write_marmosets(root: Path, write: Write, lines: Iterable[str], recordings: Iterable[str], seconds: float) -> Path:
    """labels.csv of the given lines, and data/twin_{n}/{recording}.wav at 44.1 kHz."""
    for name in recordings:
        write(root / "data" / f"twin_{name[13]}" / f"{name}.wav", seconds, 44100)
    text = "\n".join(["filename,start,end,duration,calltype,caller", *lines])
    (root / "labels.csv").write_text(text + "\n")
    return root


def write_macaques(root: Path, write: Write, names: Iterable[str]) -> Path:
    """dataupload/{individual}/{individual}{n}.wav of half a second, from names such as `AL/AL1`."""
    for name in names:
        write(root / "dataupload" / f"{name}.wav", 0.5, 24414)
    return root
