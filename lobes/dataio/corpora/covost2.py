"""CoVoST 2: Common Voice 4 with translations, in tables that stand beside the clips."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip
from lobes.errors import DataError

CORPUS = Corpus(
    "covost2",
    "CoVoST 2 (Wang et al., Interspeech 2021), https://github.com/facebookresearch/covost, on Common Voice 4",
    "translations CC BY-NC 4.0, clips CC0",
)
#: Official split -> ours.
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_COLUMNS = ("path", "sentence", "translation", "client_id")


def prepare_covost2(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    source: str = "fr",
    target: str = "en",
    allow_group_overlap: bool = False,
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, grouped by speaker, with labels `text` and `translation`.

    The official splits, of which nothing is filtered; a training clip without sentence or translation is left out.

    Parameters
    ----------
    data_folder : path, optional
        The language's folder of Common Voice 4, with `clips/*.mp3` and the tables that CoVoST's `get_covost_splits.py`
        writes, `covost_v2.fr_en.{train,dev,test}.tsv` (columns `path`, `sentence`, `translation`, `client_id`). None
        means `LOBES_DATA/covost2`.
    save_folder : path
        Where the manifests go.
    source, target : str
        Languages.
    allow_group_overlap : bool
        Accept a speaker in more than one split, which is refused otherwise.
    decode : bool
        Decode every file (hours, for 180 h of MP3); False reads headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    DataError
        The folder is missing or another, a table lacks a column, a speaker is in two splits, or no file is good.
    """
    root = data_root(CORPUS.name, data_folder)
    tables = {split: f"covost_v2.{source}_{target}.{split}.tsv" for split in SPLITS}
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    split_of: dict[str, str] = {}
    for split, table in tables.items():
        if not (root / table).is_file():
            raise wrong_layout(CORPUS.name, root, f"{table}, which CoVoST's get_covost_splits.py writes,")
        for row in _read_table(root / table):
            # Older releases of Common Voice name a clip without its suffix.
            name = row["path"] if row["path"].endswith(".mp3") else f"{row['path']}.mp3"
            clip_id, path = name.removesuffix(".mp3"), f"clips/{name}"
            if clip_id in split_of:
                skipped.append((path, f"is listed in {table} again"))
            elif split == "train" and not (row["sentence"] and row["translation"]):
                skipped.append((path, "has no translation" if row["sentence"] else "has no sentence"))
            else:
                labels = {"text": row["sentence"], "translation": row["translation"]}
                clips.append(Clip(path, clip_id, row["client_id"], labels))
                split_of[clip_id] = SPLITS[split]

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        parts: dict[str, list[Row]] = {split: [] for split in SPLITS.values()}
        for row in rows:
            parts[split_of[row["id"]]].append(row)
        return parts

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=list(SPLITS.values()),
        assign=assign,
        options={"source": source, "target": target},
        other_files=tables.values(),
        skipped=skipped,
        allow_group_overlap=allow_group_overlap,
        decode=decode,
        n_jobs=n_jobs,
    )


def _read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table without quotes, in which a backslash escapes."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}: expected {', '.join(_COLUMNS)}")
            rows = [{column: (row[column] or "").strip() for column in _COLUMNS} for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: make it again with get_covost_splits.py") from error
    for number, row in enumerate(rows, start=2):
        if not row["path"] or not row["client_id"]:
            raise DataError(f"{path}, line {number}, has no {'path' if not row['path'] else 'client_id'}")
    return rows
