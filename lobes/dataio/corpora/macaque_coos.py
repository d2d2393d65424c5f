"""Coo calls of eight rhesus macaques, without a word on when each was recorded.

M. Fukushima, A. M. Doyle, M. P. Mullarkey, M. Mishkin and B. B. Averbeck, "Distributed acoustic cues for caller
identity in macaque vocalization", Royal Society Open Science 2, 2015; data https://doi.org/10.5061/dryad.7f4p9.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip, find_audio

CORPUS = Corpus("macaque_coos", "Macaque coo calls, https://doi.org/10.5061/dryad.7f4p9", "CC0-1.0")
#: Code names of the individuals, which are names of folders.
INDIVIDUALS = ("AL", "BE", "IO", "MU", "QU", "SN", "TH", "TW")


def prepare_macaque_coos(
    data_folder: str | os.PathLike[str] | None, save_folder: str | os.PathLike[str], *, n_jobs: int | None = None
) -> dict[str, Path]:
    """Write `all.csv`: every coo, with the label `individual`, which is also the group.

    The corpus does not say which calls are of one session, and its clips are of two sample rates (24,414 and
    44,100 Hz): identity and recording cannot be told apart. So `lobes.dataio.make_folds` refuses folds for the label
    `individual` unless clips at random are asked for by name.

    Parameters
    ----------
    data_folder : path, optional
        The download, unpacked twice, with `dataupload/{individual}/*.wav`; the eight folders are found at any depth.
        None means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    DataError
        The folder is missing or another, or no clip is good.
    """
    root = data_root(CORPUS.name, data_folder)
    clips = []
    for path in find_audio(root):
        parts = PurePosixPath(path).parts
        if len(parts) > 1 and parts[-2] in INDIVIDUALS:
            clips.append(Clip(path, path, parts[-2], {"individual": parts[-2]}))
    if not clips:
        raise wrong_layout(CORPUS.name, root, "dataupload/AL/*.wav or other folders of the eight individuals")
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={},
        n_jobs=n_jobs,
    )
