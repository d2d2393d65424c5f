"""Danum Valley clips: Bornean gibbon duets, argus pheasants, hornbills and noise, cut from two-hour recordings.

D. J. Clink, I. Kier, A. H. Ahmad and H. Klinck, "A workflow for the automated detection and classification of female
gibbon calls from long-term acoustic recordings", Frontiers in Ecology and Evolution 11, 2023. A clip's name says all:
`{class}_{recorder}_{date}_{time}_{start}_{end}_`, start and end in seconds of the recording.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, clips_by_name, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip
from lobes.errors import ConfigError

CORPUS = Corpus(
    "danum_clips",
    "Danum Valley clips (Clink et al. 2023), https://doi.org/10.5281/zenodo.7562095, files as in "
    "https://github.com/DenaJGibbon/Workflow-for-automated-detection-and-classification-gibbon-calls",
    "not stated with the files",
)
#: The two classes of detection by clip.
DUET_OR_NOISE = ("duet", "noise")
#: Those of classification: all but the solo, of which there is one clip.
SIX_CLASSES = ("duet", "noise", "short.argus", "long.argus", "hornbill.helmeted", "hornbill.rhino")
GROUPS = ("recorder", "recording")
_NAME = re.compile(r"([A-Za-z.]+)_([A-Z]+\d+)_(\d{8})_(\d{6})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)_?")


def prepare_danum_clips(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    group: str = "recorder",
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every clip, with labels `call_type`, `recorder`, `recording`, `date`, `time`, `begin` and `end`.

    There is no official split; `lobes.dataio.make_folds` leaves one recorder out. The selection tables beside the clips
    (`selection_tables/`) are of recordings that are not part of the corpus; `lobes.dataio.annotations` reads them.

    Parameters
    ----------
    data_folder : path, optional
        A folder with the clips at any depth, `.wav` or `.flac`; None means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    classes : sequence of str, optional
        Only these, such as `DUET_OR_NOISE` or `SIX_CLASSES`; all by default.
    group : str
        `recorder`, for a result that is to hold where no microphone was yet, or `recording`.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    ConfigError
        `group` is none of the two, or no clip is of one of the `classes`.
    DataError
        The folder is missing or another, or no clip is good.
    """
    one_of("group", group, GROUPS)
    root = data_root(CORPUS.name, data_folder)

    def make(path: str, match: re.Match[str]) -> Clip:
        kind, recorder, date, time, begin, end = match.groups()
        labels = {"call_type": kind, "recorder": recorder, "recording": f"{recorder}_{date}_{time}"}
        labels |= {"date": date, "time": time, "begin": begin, "end": end}
        return Clip(path, Path(path).stem, labels[group], labels)

    clips, skipped = clips_by_name(root, _NAME, make, "{class}_{recorder}_{date}_{time}_{start}_{end}_")
    if not clips:
        raise wrong_layout(CORPUS.name, root, "duet_S10_20180620_080003_286.78_295.33_.wav or other audio named so")
    there = {clip.labels["call_type"] for clip in clips}
    missing = sorted(set(classes or ()) - there)
    if missing:
        raise ConfigError(
            f"classes names '{missing[0]}', of which {root} has no clip: it has {', '.join(sorted(there))}"
        )
    return prepare_clips(
        CORPUS,
        [clip for clip in clips if classes is None or clip.labels["call_type"] in classes],
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={"classes": None if classes is None else list(classes), "group": group},
        skipped=skipped,
        n_jobs=n_jobs,
    )
