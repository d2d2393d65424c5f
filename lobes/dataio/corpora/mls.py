"""Multilingual LibriSpeech, French: audiobooks at 16 kHz, as OpenSLR packs them, with its lists for few labels."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import ConfigError, DataError

CORPUS = Corpus("mls_french", "Multilingual LibriSpeech (Pratap et al. 2020), https://www.openslr.org/94", "CC BY 4.0")
#: Our splits, and the corpus' folders.
FOLDERS = {"train": "train", "valid": "dev", "test": "test"}
#: Hours of training -> the lists of handles that make them, below `train/limited_supervision`.
LIMITED = {1: ("1hr/*/handles.txt",), 9: ("9hr/handles.txt",), 10: ("9hr/handles.txt", "1hr/*/handles.txt")}
TRANSCRIPTS = "transcripts.txt"


def prepare_mls(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    hours: int | None = None,
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv` of the official splits, grouped by speaker.

    Labels: `text`, as it comes (lower case, with apostrophes and hyphens), so that error rates compare with published
    ones, and `book`.

    Parameters
    ----------
    data_folder : path, optional
        `mls_french` (or `mls_french_opus`) itself or the folder that holds it, with
        `{train,dev,test}/audio/<speaker>/<book>/<speaker>_<book>_<segment>.flac` and
        `{train,dev,test}/transcripts.txt`; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    hours : int, optional
        Train on the corpus' own subsets: 10 (the lists `9hr` and `1hr` together), 9 or 1 (the six lists of ten minutes
        in `1hr`); None for everything.
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
        `hours` is another number.
    DataError
        The folder is missing or another, lists for so many hours are not there, a speaker is in two splits, or no file
        is good.
    """
    if hours is not None and hours not in LIMITED:
        raise ConfigError(f"hours is {hours}: expected {', '.join(map(str, LIMITED))}, or null for all of them")
    root = _find(data_root(CORPUS.name, data_folder))
    chosen, lists = _handles(root, hours)
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    split_of: dict[str, str] = {}
    for split, folder in FOLDERS.items():
        texts = _read(root / folder / TRANSCRIPTS)
        only = chosen if split == "train" else None
        audio = {PurePosixPath(path).stem: path for path in find_audio(root, f"{folder}/audio", (".flac", ".opus"))}
        skipped += [(path, "has no transcript") for name, path in sorted(audio.items()) if name not in texts]
        wanted = sorted(texts) if only is None else sorted(only & texts.keys())
        skipped += [
            (name, "is in a list of handles, and has no transcript") for name in sorted((only or set()) - texts.keys())
        ]
        for name in wanted:
            clip = _clip(
                name, audio.get(name, f"{folder}/audio/{'/'.join(name.split('_')[:2])}/{name}.flac"), texts[name]
            )
            if clip is None:
                skipped.append((f"{folder}/{TRANSCRIPTS}: {name}", "is not named {speaker}_{book}_{segment}"))
            else:
                split_of[clip.id] = split
                clips.append(clip)

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {split: [row for row in rows if split_of[row["id"]] == split] for split in FOLDERS}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=list(FOLDERS),
        assign=assign,
        options={"hours": hours},
        other_files=[*(f"{folder}/{TRANSCRIPTS}" for folder in FOLDERS.values()), *lists],
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def _find(folder: Path) -> Path:
    """The folder with the three splits, at or below the one given."""
    for found in (folder, folder / "mls_french", folder / "mls_french_opus"):
        if all((found / name / TRANSCRIPTS).is_file() for name in FOLDERS.values()):
            return found
    raise wrong_layout(CORPUS.name, folder, "train/transcripts.txt, dev/transcripts.txt and test/transcripts.txt")


def _handles(root: Path, hours: int | None) -> tuple[set[str] | None, list[str]]:
    """Handles to train on, None for all, and the files that list them."""
    if hours is None:
        return None, []
    base = root / "train" / "limited_supervision"
    files = []
    for pattern in LIMITED[hours]:
        found = sorted(base.glob(pattern))
        if not found:
            raise DataError(f"{base} has no {pattern}, which hours of {hours} needs; unpack the archive again")
        files += found
    handles = {line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines()}
    return handles - {""}, [path.relative_to(root).as_posix() for path in files]


def _read(path: Path) -> dict[str, str]:
    """Handle -> text, from lines of both with a tab between."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: unpack the archive again") from error
    texts = {}
    for line in lines:
        handle, tab, text = line.partition("\t")
        if tab:
            texts[handle.strip()] = " ".join(text.split())
    return texts


def _clip(name: str, path: str, text: str) -> Clip | None:
    parts = name.split("_")
    if len(parts) != 3 or not all(parts):
        return None
    return Clip(path, name, parts[0], {"text": text, "book": parts[1]})
