"""Great calls of twelve female Bornean gibbons (gibbonID): every female in one recording, so that it leaks.

From https://github.com/DenaJGibbon/gibbonID; a file is named `{individual}_{recording}.{call}`. Since no female was
recorded twice, the background of her recording names her as well as her voice does (3-8 kHz alone: 97 %),
and no split of this corpus can tell the two apart. It is here to show that, with `lobes.dataio.background`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, clips_by_name, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip

CORPUS = Corpus("gibbon_females", "gibbonID, https://github.com/DenaJGibbon/gibbonID", "not stated with the files")
_NAME = re.compile(r"([A-Z]{2}\d{2})_(\d{3})\.(\d{2})")


def prepare_gibbon_females(
    data_folder: str | os.PathLike[str] | None, save_folder: str | os.PathLike[str], *, n_jobs: int | None = None
) -> dict[str, Path]:
    """Write `all.csv`: every great call, with labels `individual`, `recording` and `call`, grouped by recording.

    `lobes.dataio.make_folds` refuses to make folds for the label `individual`, since none are honest, unless clips at
    random are asked for by name.

    Parameters
    ----------
    data_folder : path, optional
        The clone, with `data/FemaleGibbons/DK02_021.01.wav`; files are found by their names, `.wav` or `.flac`, at any
        depth. None means `LOBES_DATA`.
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
        The folder is missing or another, or no recording is good.
    """
    root = data_root(CORPUS.name, data_folder)

    def make(path: str, match: re.Match[str]) -> Clip:
        individual, recording, call = match.groups()
        labels = {"individual": individual, "recording": f"{individual}_{recording}", "call": call}
        return Clip(path, Path(path).stem, labels["recording"], labels)

    clips, skipped = clips_by_name(root, _NAME, make, "{individual}_{recording}.{call}, such as DK02_021.01")
    if not clips:
        raise wrong_layout(CORPUS.name, root, "data/FemaleGibbons/DK02_021.01.wav or other audio named by such a code")
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
