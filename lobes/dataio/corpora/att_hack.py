"""Att-HACK: twenty French actors say a hundred sentences in four social attitudes, three to five times each.

C. Le Moine and N. Obin, "Att-HACK: An expressive speech database with social attitudes", Speech Prosody 2020; OpenSLR
88. The attitudes are friendly, seductive, dominant and distant; which of them is which number is not said with the
audio, so they are called `a1` to `a4` here, as in the files' names: `F01_a1_s001_v01.wav` is speaker F01 (a woman),
attitude 1, sentence 1, version 1.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, clips_by_name, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip

CORPUS = Corpus("att_hack", "Att-HACK, https://www.openslr.org/88", "CC BY-NC-ND 4.0")
_NAME = re.compile(r"([FM]\d\d)_(a[1-4])_s(\d{3})_v(\d{2})")


def prepare_att_hack(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every recording, with labels `speaker`, `attitude`, `sentence`, `take` and `gender`.

    There is no official split, so results are made by leaving one speaker out.

    Parameters
    ----------
    data_folder : path, optional
        With `wav/F01_a1_s001_v01.wav` and the like, anywhere below it; None means `LOBES_DATA`.
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

    def make(path: str, match: re.Match[str]) -> Clip:
        speaker, attitude, sentence, take = match.groups()
        labels = {"speaker": speaker, "attitude": attitude, "sentence": sentence, "take": take, "gender": speaker[0]}
        return Clip(path, match[0], speaker, labels)

    named = "by speaker, attitude, sentence and version, such as F01_a1_s001_v01"
    clips, skipped = clips_by_name(root, _NAME, make, named)
    if not clips:
        raise wrong_layout(CORPUS.name, root, "wav/F01_a1_s001_v01.wav or other audio named so")
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
