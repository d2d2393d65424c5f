"""A review page of known content: two recordings with tones, five detections and a near miss."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lobes.dataio.annotations import Annotation
from lobes.evaluation.review import ReviewItem, write_review

RATE = 16000
#: File, start, end, label, score, near miss.
ROWS: list[tuple[str, float, float, str, float, bool]] = [
    ("north/S10_20180311_050000.wav", 5.0, 6.5, "duet", 0.95, False),
    ("north/S10_20180311_050000.wav", 7.0, 7.6, 'great, "argus" <b>', 0.55, False),
    ("north/S10_20180311_050000.wav", 20.0, 50.0, "duet", 0.7, False),
    ("south.wav", 0.2, 1.0, "duet", 0.52, False),
    ("south.wav", 9.5, 10.0, "duet", 0.99, False),
    ("south.wav", 3.0, 4.0, "duet", 0.35, True),
]


def write_recordings(folder: Path) -> None:
    """A tone of 1 kHz in each detection, in noise."""
    for name, seconds in (("north/S10_20180311_050000.wav", 60.0), ("south.wav", 10.0)):
        samples = 0.01 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
        for file, start, end, *_ in ROWS:
            if file == name:
                first, last = round(start * RATE), round(end * RATE)
                samples[first:last] += 0.1 * np.sin(2 * np.pi * 1000 * np.arange(last - first) / RATE)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE)


def make_items(folder: Path) -> list[ReviewItem]:
    return [
        ReviewItem(
            Annotation(start, end, label, 800.0, 1200.0, score, file=file),
            folder / file,
            threshold=0.5,
            near_miss=near,
            recorded_at=datetime(2018, 3, 11, 5) if file.startswith("north") else None,
            begin=start + (60.0 if file == "south.wav" else 0.0),
        )
        for file, start, end, label, score, near in ROWS
    ]


def make_page(folder: Path, name: str = "index.html", change: Callable[[list], list] = list, **options: Any) -> Path:
    """Write recordings and a page of them."""
    write_recordings(folder)
    given = {"title": "Calls & more", "summary": "Six of them.", "progress": False, **options}
    return write_review(folder / name, change(make_items(folder)), **given)
