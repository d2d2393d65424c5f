"""CaFE: twelve actors say six Canadian French sentences in six emotions, mild and strong, and neutrally.

P. Gournay, O. Lahaie and R. Lefebvre, "A Canadian French emotional speech dataset", ACM MMSys 2018. 936 recordings at
48 or 192 kHz. A file's name is its label, whatever became of the accents in the folders' names: `01-C-2-5.wav` is actor
01, C (colère), intensity 2 (fort), sentence 5; a neutral one has no intensity, `01-N-5.wav`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, clips_by_name, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip

CORPUS = Corpus("cafe", "CaFE, https://doi.org/10.5281/zenodo.1478765", "CC BY-NC-SA 4.0")
#: First letter of the French word, to the emotion.
EMOTIONS = {
    "C": "anger",
    "D": "disgust",
    "J": "happiness",
    "N": "neutral",
    "P": "fear",
    "S": "surprise",
    "T": "sadness",
}
INTENSITIES = {None: "none", "1": "mild", "2": "strong"}
_NAME = re.compile(r"(\d\d)-([CDJNPST])(?:-([12]))?-(\d)")


def prepare_cafe(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every recording, with labels `speaker`, `emotion`, `intensity` and `sentence`.

    There is no official split, so results are made by leaving one speaker out.

    Parameters
    ----------
    data_folder : path, optional
        Unpacked archives, with `CaFE_48k/Colère/Fort/01-C-2-5.wav` and the like, `.aiff` in those at 192 kHz, of which
        there are two; None means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`; the group is the speaker.

    Raises
    ------
    DataError
        The folder is missing or another, or no recording is good.
    """
    root = data_root(CORPUS.name, data_folder)

    def make(path: str, match: re.Match[str]) -> Clip | str:
        speaker, letter, intensity, sentence = match.groups()
        if (letter == "N") != (intensity is None):
            return "has an intensity if and only if it is neutral, which is the wrong way round"
        labels = {"speaker": speaker, "emotion": EMOTIONS[letter], "intensity": INTENSITIES[intensity]}
        return Clip(path, match[0], speaker, {**labels, "sentence": sentence})

    named = "by speaker, emotion, intensity and sentence, such as 01-C-2-5"
    clips, skipped = clips_by_name(root, _NAME, make, named)
    if not clips:
        raise wrong_layout(CORPUS.name, root, "Colère/Fort/01-C-2-5.wav or other audio named by such a code")
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={},
        skipped=skipped,
        n_jobs=n_jobs,
    )
