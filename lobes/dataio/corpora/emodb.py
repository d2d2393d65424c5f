"""Berlin Database of Emotional Speech: ten actors say ten German sentences in seven emotions, at 16 kHz.

F. Burkhardt, A. Paeschke, M. Rolfes, W. F. Sendlmeier and B. Weiss, "A database of German emotional speech",
Interspeech 2005. A file's name is its label: `03a01Fa.wav` is speaker 03, text a01, emotion F (Freude), version a.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import ConfigError, DataError

CORPUS = Corpus(
    "emodb",
    "Berlin Database of Emotional Speech (EmoDB), http://emodb.bilderbar.info",
    "not stated with the download; CC0-1.0 in audEERING's release, https://github.com/audeering/emodb",
)
#: Sixth letter of the code, the first of the German word, to the emotion.
EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
GROUPS = ("speaker", "text", "emotion")
_NAME = re.compile(r"(\d\d)([a-z]\d\d)([WLEAFTN])[a-z]")


def prepare_emodb(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    group: str = "speaker",
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every recording, with labels `speaker`, `text` and `emotion`.

    There is no official split, so results are made by `lobes.dataio.leave_one_group_out` on this manifest.

    Parameters
    ----------
    data_folder : path, optional
        The unpacked archive, with `wav/03a01Fa.wav`. Files are found by their names, `.wav` or `.flac`, anywhere
        below it; None means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    group : str
        What must not be on both sides of a split, and what intervals are clustered by: `speaker` for a task that is to
        work for unheard voices, `text` for one that is to work in unheard sentences, or `emotion`.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    ConfigError
        `group` is none of the three.
    DataError
        The folder is missing or another, two files have the same code, or no recording is good.
    """
    if group not in GROUPS:
        raise ConfigError(f"group is '{group}': expected one of {', '.join(GROUPS)}")
    root = data_root(CORPUS.name, data_folder)
    clips, skipped = [], []
    path_of: dict[str, str] = {}
    for path in find_audio(root, suffixes=(".wav", ".flac")):
        code = Path(path).stem
        match = _NAME.fullmatch(code)
        if match is None:
            skipped.append((path, "is not named by speaker, text, emotion and version, such as 03a01Fa"))
            continue
        first = path_of.setdefault(code, path)
        if first != path:  # laryngograms, or another format, beside the clips: which is meant cannot be guessed
            raise DataError(f"{root} holds {code} twice, {first} and {path}: pass the folder of one as --data_folder")
        labels = {"speaker": match[1], "text": match[2], "emotion": EMOTIONS[match[3]]}
        clips.append(Clip(path, code, labels[group], labels))
    if not clips:
        raise wrong_layout(CORPUS.name, root, "wav/03a01Fa.wav or other audio named by such a code")
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={"group": group},
        skipped=skipped,
        n_jobs=n_jobs,
    )
