"""AlloSat: French telephone calls to service centres, rated continuously from frustrated to satisfied, at 8 kHz.

M. Macary, M. Tahon, Y. Estève and A. Rousseau, "AlloSat: A new call center French corpus for satisfaction and
frustration analysis", LREC 2020. On request from its authors. We have not seen a delivery: the layout is the one that
LeBenchmark's published scripts read, and what they leave open is assumed as `prepare_allosat` says.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path, PurePosixPath

import numpy as np

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.ratings import COLUMN, Ratings, rated_rows, write_ratings
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import DataError

CORPUS = Corpus(
    "allosat", "AlloSat, https://aclanthology.org/2020.lrec-1.197", "on request from the authors, for research"
)
LABELS = "annotations/labels"
TARGET = "satisfaction"
LISTS = {"train": "train.txt", "valid": "dev.txt", "test": "test.txt"}


def prepare_allosat(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    period: float = 0.25,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`: a row for each conversation, with the label `ratings`.

    Assumed: a list has one conversation per line, with or without `.wav`; a table of labels is called as its recording,
    has one line per period and a line of headings, and its first column is no rating. Of the others it is the one
    called `satisfaction`, or the only one.

    Parameters
    ----------
    data_folder : path, optional
        With `audio/`, `annotations/labels/*.csv` (semicolons), `train.txt`, `dev.txt` and `test.txt`; None means
        `LOBES_DATA`.
    save_folder : path
        Where the manifests go, and the ratings, in `ratings/`.
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
    DataError
        The folder is missing or another, or a conversation is in two lists.
    """
    root = data_root(CORPUS.name, data_folder)
    for needed in ("audio", LABELS, *LISTS.values()):
        if not (root / needed).exists():
            raise wrong_layout(CORPUS.name, root, needed)
    split_of = read_lists(root)
    folder = Path(save_folder).resolve() / "ratings"
    path_of = {PurePosixPath(path).stem: path for path in find_audio(root, "audio")}
    clips, tables, skipped = [], [], []
    for name, split in split_of.items():
        if name not in path_of:
            skipped.append((f"audio/{name}.wav", f"is listed in {LISTS[split]}, but not there"))
            continue
        table = f"{LABELS}/{name}.csv"
        try:
            written = write_ratings(folder / f"{name}.json", Ratings(period, {TARGET: read_table(root / table)}))
        except DataError as error:
            skipped.append((path_of[name], f"has no ratings: {error}"))
            continue
        tables.append(table)
        clips.append(Clip(path_of[name], name, name, {COLUMN: str(written), "split": split}))
    skipped += [(path, "is in no list") for name, path in sorted(path_of.items()) if name not in split_of]

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {split: [row for row in rated_rows(rows) if row["split"] == split] for split in LISTS}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=list(LISTS),
        assign=assign,
        options={"period": period, "ratings": str(folder)},
        other_files=[*LISTS.values(), *tables],
        skipped=skipped,
        n_jobs=n_jobs,
    )


def read_lists(root: Path) -> dict[str, str]:
    """Conversation -> split, in the order of the lists."""
    split_of: dict[str, str] = {}
    for split, file in LISTS.items():
        for line in (root / file).read_text(encoding="utf-8-sig").splitlines():
            name = line.strip().removesuffix(".wav")
            if name and split_of.setdefault(name, split) != split:
                raise DataError(
                    f"{root / file}: '{name}' is in {LISTS[split_of[name]]} too: expected one list for each"
                )
    return split_of


def read_table(path: Path) -> np.ndarray:
    """Ratings (n,) of a table, see `prepare_allosat`.

    Raises
    ------
    DataError
        It is not there, which column is meant is not clear, or a rating is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = [line for line in csv.reader(file, delimiter=";") if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path} is missing or no table with a line of headings") from error
    names = [name.strip().lower() for name in header]
    column = names.index(TARGET) if TARGET in names else len(names) - 1
    if not column or (TARGET not in names and len(names) > 2):
        raise DataError(f"{path} has the columns {', '.join(header)}: expected one called {TARGET}, or two in all")
    try:
        return np.array([float(line[column].replace(",", ".")) for line in lines])
    except (IndexError, ValueError) as error:
        raise DataError(f"{path} has a line without a number in column {column + 1}, {header[column]}") from error
