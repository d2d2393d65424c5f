"""What the tests of recipes share: corpora made in the layout in which the real ones are downloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RECORDERS, clip, tones, write_librispeech

SPEAKERS = ("ann", "bob", "cleo", "dan", "eve", "finn")


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Close the log file of a run and put the root logger back: an experiment sets up logging for its process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def minifrench_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where generated speech goes, once for all tests; skips where there is no synthesiser."""
    if find_spec("espeakng_loader") is None:
        pytest.skip("espeakng-loader is not installed, so MiniFrench cannot be generated")
    return tmp_path_factory.mktemp("minifrench")


@pytest.fixture
def fsdd_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write recordings/{digit}_{speaker}_{take}.wav at 8 kHz; `shuffled` draws the digits in the names by lot."""

    def write(takes: int = 2, shuffled: bool = False, speakers: tuple[str, ...] = SPEAKERS) -> Path:
        noise = np.random.default_rng(0)
        folder = tmp_path / "fsdd"
        (folder / "recordings").mkdir(parents=True)
        for speaker in speakers:
            for take in range(takes):
                for digit, heard in enumerate(noise.permutation(10) if shuffled else range(10)):
                    sound = tones(heard, 0.25 + 0.1 * noise.random(), noise)
                    soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", sound, 8000)
        return folder

    return write


@pytest.fixture
def librispeech_folder(tmp_path: Path) -> Path:
    """<subset>/<speaker>/<chapter>/<id>.flac at 16 kHz with transcripts, as OpenSLR packs it."""
    return write_librispeech(tmp_path / "openslr")


@pytest.fixture
def danum(tmp_path: Path) -> Callable[..., Path]:
    """Write {class}_{recorder}_{date}_{time}_{start}_{end}_.wav; with `leaks`, the hum names the class."""

    def write(kinds: tuple[str, ...] = ("duet", "long.argus", "noise"), clips: int = 6, leaks: bool = False) -> Path:
        noise = np.random.default_rng(0)
        folder = tmp_path / "danum_clips"
        folder.mkdir()
        for place, recorder in enumerate(RECORDERS):
            for number, kind in enumerate(kinds):
                for k in range(clips):
                    hum = 4000 + 300 * (number if leaks else place)
                    sound = clip(noise, "noise" if leaks else kind, hum)
                    soundfile.write(folder / f"{kind}_{recorder}_20180620_080003_{k}.5_{k + 1}.5_.wav", sound, 16000)
        return folder

    return write
