"""Free Spoken Digit Dataset: six speakers say ten digits fifty times, in English, at 8 kHz."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, download_archive, wrong_layout
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import ConfigError

CORPUS = Corpus(
    "fsdd",
    "Free Spoken Digit Dataset, https://github.com/Jakobovski/free-spoken-digit-dataset",
    "CC BY-SA 4.0",
)
URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
_NAME = re.compile(r"(\d)_([A-Za-z]+)_(\d+)\.(?:wav|flac)$")


def prepare_fsdd(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    max_takes: int | None = None,
    download: bool = False,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every recording, with labels `digit`, `speaker` and `take`, grouped by speaker.

    The corpus has six speakers and no official split between them, so results are made by
    `lobes.dataio.leave_one_group_out` on this manifest.

    Parameters
    ----------
    data_folder : path, optional
        The clone or unpacked archive, with `recordings/{digit}_{speaker}_{take}.wav`; None means
        `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    max_takes : int, optional
        Only takes below this number, for quick runs.
    download : bool
        Fetch the archive (CC BY-SA 4.0, 16 MB) into `data_folder` where it holds no recordings.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    DataError
        The folder is missing or another, or no recording is good.
    """
    if max_takes is not None and max_takes < 1:
        raise ConfigError(f"max_takes is {max_takes}: expected 1 or more, or null")
    if download and data_folder and not (Path(data_folder) / "recordings").is_dir():
        download_archive(URL, data_folder, _wanted)
    root = data_root(CORPUS.name, data_folder)
    files = find_audio(root, "recordings", (".wav", ".flac"))
    clips, skipped = [], []
    for path in files:
        match = _NAME.fullmatch(path.removeprefix("recordings/"))
        if match is None:
            skipped.append((path, "is not named {digit}_{speaker}_{take}.wav"))
        elif max_takes is None or int(match[3]) < max_takes:
            labels = {"digit": match[1], "speaker": match[2], "take": match[3]}
            clips.append(Clip(path, Path(path).stem, match[2], labels))
    if not clips:
        raise wrong_layout(CORPUS.name, root, "recordings/{digit}_{speaker}_{take}.wav")
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={"max_takes": max_takes},
        skipped=skipped,
        n_jobs=n_jobs,
    )


def _wanted(name: str) -> str | None:
    file = name.rpartition("/")[2]
    return f"recordings/{file}" if "/recordings/" in name and _NAME.fullmatch(file) else None
