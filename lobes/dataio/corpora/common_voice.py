"""Common Voice, French: sentences read by volunteers, as Mozilla packs them, at 32 or 48 kHz in MP3."""

from __future__ import annotations

import csv
import os
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.corpora.french import spoken_french
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip
from lobes.errors import ConfigError, DataError

CORPUS = Corpus("common_voice_fr", "Mozilla Common Voice, French (Ardila et al. 2020)", "CC0-1.0")
#: Our splits, and Mozilla's tables; `validated.tsv`, `other.tsv` and the like are not read.
TABLES = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
_COLUMNS = ("client_id", "path", "sentence")


def prepare_common_voice(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    min_words: int = 0,
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv` of the official splits, grouped by `client_id`.

    Labels: `text`, the sentence as it is read aloud (`spoken_french`), `raw_text`, `age` and `gender` (may be empty).
    Every sentence of the test table is kept, however short and whatever it is written with; only a clip that is
    missing or damaged is left out, and named.

    Parameters
    ----------
    data_folder : path, optional
        The unpacked archive: `{train,dev,test}.tsv` and `clips/*.mp3`, in it or in `cv-corpus-*/fr` or `fr` below;
        None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    min_words : int
        Leave shorter sentences out of the training split, and of it alone.
    decode : bool
        Decode every file; False reads headers only, and leaves damaged ones to be found in use.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    ConfigError
        `min_words` is negative.
    DataError
        The folder is missing or another, a table lacks a column, a speaker is in two splits, or no file is good.
    """
    if min_words < 0:
        raise ConfigError(f"min_words is {min_words}: expected 0, which keeps all sentences, or more")
    root = _find(data_root(CORPUS.name, data_folder))
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    split_of: dict[str, str] = {}
    for split, table in TABLES.items():
        for number, row in enumerate(_read(root / table), start=2):
            clip = _clip(row)
            if isinstance(clip, str):
                skipped.append((f"{table}, line {number}", clip))
            elif clip.id in split_of:
                skipped.append(
                    (f"{table}, line {number}", f"names {clip.path}, which is in {split_of[clip.id]} already")
                )
            elif split == "train" and len(clip.labels["text"].split()) < min_words:
                skipped.append((clip.path, f"has fewer than {min_words} words (min_words)"))
            else:
                split_of[clip.id] = split
                clips.append(clip)

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {split: [row for row in rows if split_of[row["id"]] == split] for split in TABLES}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=list(TABLES),
        assign=assign,
        options={"min_words": min_words},
        other_files=list(TABLES.values()),
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def _find(folder: Path) -> Path:
    """The folder with the tables, at or below the one given."""
    for found in (folder, folder / "fr", *sorted(folder.glob("cv-corpus-*/fr"), reverse=True)):
        if all((found / table).is_file() for table in TABLES.values()):
            return found
    raise wrong_layout(
        CORPUS.name, folder, "train.tsv, dev.tsv and test.tsv (Mozilla's archive has them beside clips/)"
    )


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # Sentences hold quotation marks that stand for themselves.
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}: expected a TSV with {', '.join(_COLUMNS)}")
            return list(reader)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: unpack the archive again") from error


def _clip(row: dict[str, str]) -> Clip | str:
    """The clip of a line, or what is wrong with the line."""
    name, speaker, sentence = (row.get(column) for column in ("path", "client_id", "sentence"))
    if not name or not speaker or sentence is None:
        return "has no path, client_id or sentence"
    labels = {
        "text": spoken_french(sentence),
        "raw_text": sentence,
        "age": row.get("age") or "",
        "gender": row.get("gender") or "",
    }
    return Clip(f"clips/{name}", PurePosixPath(name).stem, speaker, labels)
