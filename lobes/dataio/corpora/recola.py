"""RECOLA as in the AVEC 2016 challenge: French speakers who solve a task together remotely, rated every 40 ms.

F. Ringeval, A. Sonderegger, J. Sauer and D. Lalanne, "Introducing the RECOLA multimodal corpus of remote collaborative
and affective interactions", FG 2013; M. Valstar et al., "AVEC 2016", AVEC workshop 2016. By licence agreement. Five
minutes of each speaker; the challenge gave no gold standard for its test split.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import numpy as np

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.ratings import COLUMN, Ratings, rated_rows, write_ratings
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import ConfigError, DataError

CORPUS = Corpus("recola", "RECOLA (AVEC 2016), https://diuf.unifr.ch/main/diva/recola", "end-user licence agreement")
AUDIO, GOLD = "recordings_audio", "ratings_gold_standard"
TARGETS = ("arousal", "valence")
_NAME = re.compile(r"(train|dev|test)_(\d+)")


def prepare_recola(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    valid_recordings: int = 2,
    period: float = 0.04,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`: a row for each recording, with the label `ratings`.

    Parameters
    ----------
    data_folder : path, optional
        With `recordings_audio/train_1.wav` and `ratings_gold_standard/{arousal,valence}/train_1.arff`, and so on with
        `dev` and `test`; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go, and the ratings, in `ratings/`.
    valid_recordings : int
        The challenge's test recordings have no public ratings, so published figures are those of `dev`. With 1 or more
        that is our test split, and so many of the last training recordings choose the checkpoint. With 0, for who has
        ratings of all, `dev` chooses and `test` is tested.
    period : float
        Seconds between ratings.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    ConfigError
        `valid_recordings` leaves nothing to train on.
    DataError
        The folder is missing or another, or a split is empty.
    """
    root = data_root(CORPUS.name, data_folder)
    for needed in (AUDIO, *(f"{GOLD}/{target}" for target in TARGETS)):
        if not (root / needed).is_dir():
            raise wrong_layout(CORPUS.name, root, needed)
    folder = Path(save_folder).resolve() / "ratings"
    clips, files, skipped = [], [], []
    for path in find_audio(root, AUDIO):
        name = PurePosixPath(path).stem
        match = _NAME.fullmatch(name)
        if match is None:
            skipped.append((path, "is not named by split and number, such as train_1"))
            continue
        arffs = [f"{GOLD}/{target}/{name}.arff" for target in TARGETS]
        try:
            values = {target: read_arff(root / arff) for target, arff in zip(TARGETS, arffs, strict=True)}
            written = write_ratings(folder / f"{name}.json", Ratings(period, values))
        except DataError as error:
            skipped.append((path, f"has no ratings: {error}"))
            continue
        files += arffs
        clips.append(Clip(path, name, name, {COLUMN: str(written), "official_split": match[1]}))

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return _splits(rated_rows(rows), valid_recordings)

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["train", "valid", "test"],
        assign=assign,
        options={"period": period, "valid_recordings": valid_recordings, "ratings": str(folder)},
        other_files=files,
        skipped=skipped,
        n_jobs=n_jobs,
    )


def _splits(rows: list[Row], valid_recordings: int) -> dict[str, list[Row]]:
    rows = sorted(rows, key=lambda row: int(row["id"].rpartition("_")[2]))
    train, dev, test = ([row for row in rows if row["official_split"] == split] for split in ("train", "dev", "test"))
    if valid_recordings == 0:
        if not test:
            raise DataError("recola: no test recording has ratings; with valid_recordings=2 'dev' is tested instead")
        return {"train": train, "valid": dev, "test": test}
    if not 0 < valid_recordings < len(train):
        raise ConfigError(f"valid_recordings is {valid_recordings}: expected 0 to {len(train) - 1}, to train on others")
    return {"train": train[:-valid_recordings], "valid": train[-valid_recordings:], "test": dev}


def read_arff(path: Path) -> np.ndarray:
    """Gold standard (n,): the attribute called so, or the last.

    Raises
    ------
    DataError
        The file is missing, or a line of its data is another.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is missing or no text") from error
    names, values, in_data = [], [], False
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("%"):
            continue
        if not in_data:
            words = line.split()
            if words[0].lower() == "@attribute" and len(words) > 1:
                names.append(words[1].strip("'\"").lower())
            in_data = words[0].lower() == "@data"
            continue
        cells = line.split(",")
        column = names.index("goldstandard") if "goldstandard" in names else len(names) - 1
        try:
            if len(cells) != len(names):
                raise ValueError
            values.append(float(cells[column]))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: is not a number for each of {', '.join(names)}") from error
    return np.array(values)
