"""Duets of Danum Valley in the noise of its recorders, to train a detector on, and gibbons of another set, to test it.

Both are scenes with exact truth (`lobes.dataio.scenes`): clips of `danum_clips`, and, tested once at each level, focal
recordings mixed into soundscapes of `borneo_sulawesi_cc0`. No clip is in both, and the recordings are of another
collection; but Danum Valley is in Borneo, and where in Borneo and Sulawesi the others are from is not said, so that it
cannot be ruled out that a site, or an animal, is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lobes.dataio.corpora.borneo_sulawesi import prepare_borneo_sulawesi
from lobes.dataio.corpora.danum_clips import SIX_CLASSES, prepare_danum_clips
from lobes.dataio.manifest import Manifest, Row, read_manifest
from lobes.dataio.scenes import write_scenes
from lobes.dataio.splits import split_by_group, write_part
from lobes.errors import DataError

#: Where gibbons call, Hz: duets of Danum Valley, and all else that is mixed in.
BAND = (400.0, 2200.0)
#: As the focal recordings are named -> as the clips are; of both, only gibbons are events.
NAMES = {"FemaleGibbon": "duet", "GreatArgus": "long.argus"}


def prepare_gibbon_scenes(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    valid_share: float = 0.25,
    n_scenes: int = 120,
    n_test_scenes: int = 32,
    seconds: float = 60.0,
    snr_db: Sequence[float] = (-5.0, 0.0, 5.0, 10.0),
    band: Sequence[float] = BAND,
    max_call_seconds: float = 20.0,
    seed: int = 0,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`: a row for each call, labels `call_type`, `snr_db`, `recording`.

    In training, calls of argus pheasants, hornbills and clips of noise are mixed in like duets, so that being pasted
    tells nothing. In the test, calls of great argus are; `snr_db` is that of the whole scene.

    Parameters
    ----------
    data_folder : path, optional
        With `danum_clips` and `borneo_sulawesi_cc0`; None means `LOBES_DATA`.
    save_folder : path
        Where manifests and scenes go.
    valid_share : float
        Share of the seconds of the clips, in whole recorders, for thresholds.
    n_scenes, n_test_scenes : int
        Scenes to train on, of which a share of `valid_share` is added to validate on; scenes of the test, each written
        once for each level.
    seconds : float
        Length of a scene.
    snr_db : sequence of float
        Levels in dB, in `band`.
    band : sequence of float
        Low and high, Hz.
    max_call_seconds : float
        Focal recordings are cut after these: those of argus pheasants go on for minutes.
    seed : int
        Decides what is drawn.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    DataError
        A corpus is missing, or has too few recorders.
    """
    save_folder = Path(save_folder)
    root = None if data_folder is None else Path(data_folder)
    clips = prepare_danum_clips(root and root / "danum_clips", save_folder / "danum_clips", classes=SIX_CLASSES)
    whole = read_manifest(clips["all"])
    parts = split_by_group(whole.rows, {"valid": valid_share}, seed=seed)
    scenes = partial(write_scenes, seconds=seconds, snr_db=snr_db, band=(band[0], band[1]), seed=seed)
    found: dict[str, Path] = {}
    for name, count in (("train", n_scenes), ("valid", max(1, round(n_scenes * valid_share)))):
        calls, noise = save_folder / "parts" / f"{name}_calls.csv", save_folder / "parts" / f"{name}_noise.csv"
        write_part(calls, parts[name], whole)
        write_part(noise, _of(parts[name], "call_type", "noise", name), whole)
        found[name] = scenes(calls, noise, save_folder / f"{name}.csv", n_scenes=count)
    cc0 = prepare_borneo_sulawesi(root and root / "borneo_sulawesi_cc0", save_folder / "borneo_sulawesi_cc0")
    calls, soundscapes = _of_the_test(read_manifest(cc0["all"]), save_folder / "parts", max_call_seconds)
    test = save_folder / "test.csv"
    found["test"] = scenes(calls, soundscapes, test, n_scenes=n_test_scenes, every_level=True, calls=(1, 3))
    return found


def _of(rows: Sequence[Row], column: str, value: str, split: str) -> list[Row]:
    found = [row for row in rows if row[column] == value]
    if not found:
        raise DataError(f"{split} has no clips of {column} '{value}': choose another seed or valid_share")
    return found


def _of_the_test(whole: Manifest, folder: Path, longest: float) -> tuple[Path, Path]:
    """Calls by the names of the clips, cut, and soundscapes."""
    calls = []
    for row in whole.rows:
        if row["call_type"] in NAMES:
            seconds = min(row["duration"], longest)
            cut = {"stop": row["start"] + seconds, "duration": seconds, "call_type": NAMES[row["call_type"]]}
            calls.append({**row, **cut})
    soundscapes = _of(whole.rows, "part", "soundscape", "test")
    return write_part(folder / "test_calls.csv", calls, whole), write_part(
        folder / "test_soundscapes.csv", soundscapes, whole
    )
