"""Yellow-cheeked crested gibbons of Jahoo, Cambodia: clips for detection, from many recorders, at 32 kHz.

D. J. Clink et al., "Benchmarking automated detection and classification approaches for long-term acoustic monitoring of
endangered species: a case study on gibbons from Cambodia", 2024; data https://doi.org/10.5281/zenodo.12706803.

What is assumed of the layout, from the authors' scripts (https://github.com/DenaJGibbon/benchmark-gibbon-calls): below
`data/AcousticData/`, folders of clips with a folder per class,
`Jahoo_trainingdata_manual_annotations/{Gibbons,Noise}` and
`Jahoo_trainingdata_manual_annotations_addDanum/{CrestedGibbons,GreyGibbons,Noise}`, whose files' names hold
`{recorder}_{date}_{time}`, as in `Gibbons_H_R1023_20220426_060002_2749.wav`; and recordings of an hour with Raven's
selection tables, `Jahoo_testdata_1hr_files` and `Jahoo_testdata_1hr_annotations`, which
`lobes.dataio.annotations.load_annotations` reads.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip, find_audio

CORPUS = Corpus(
    "yellow_cheeked_gibbon",
    "Gibbons from Cambodia (Clink et al. 2024), https://doi.org/10.5281/zenodo.12706803",
    "CC BY 4.0",
)
#: Folder of a class -> class.
CLASSES = {
    "Gibbons": "crested_gibbon",
    "CrestedGibbons": "crested_gibbon",
    "GreyGibbons": "grey_gibbon",
    "Noise": "noise",
}
GROUPS = ("recorder", "recording")
_RECORDING = re.compile(r"(?:^|_)([A-Z]{1,3}\d+)_(\d{8})_(\d{6})(?=[_.]|$)")


def prepare_yellow_cheeked_gibbon(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    clips_folder: str = "Jahoo_trainingdata_manual_annotations",
    group: str = "recorder",
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every clip, with labels `call_type`, `recorder`, `recording` and `date`.

    There is no official split by recorder; `lobes.dataio.make_folds` leaves some out.

    Parameters
    ----------
    data_folder : path, optional
        The unpacked download, with a folder named `clips_folder` at any depth; None means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    clips_folder : str
        Which clips: with the ending `_addDanum` there are grey gibbons from Borneo too, of other recorders.
    group : str
        `recorder` or `recording`.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    ConfigError
        `group` is none of the two.
    DataError
        The folder is missing or another, or no clip is good.
    """
    one_of("group", group, GROUPS)
    root = data_root(CORPUS.name, data_folder)
    clips, skipped = [], []
    for path in find_audio(root):
        parts = PurePosixPath(path).parts
        if clips_folder not in parts[:-1]:
            continue
        match = _RECORDING.search(PurePosixPath(path).stem)
        if parts[-2] not in CLASSES:
            skipped.append((path, f"is in no folder of a class: expected {', '.join(CLASSES)}"))
        elif match is None:
            skipped.append((path, "has no {recorder}_{date}_{time} in its name, so its group is unknown"))
        else:
            labels = {"call_type": CLASSES[parts[-2]], "recorder": match[1], "recording": "_".join(match.groups())}
            labels["date"] = match[2]
            clips.append(Clip(path, "/".join(parts[-2:]), labels[group], labels))
    if not clips:
        raise wrong_layout(CORPUS.name, root, f"{clips_folder}/Gibbons/*_R1023_20220426_060002_*.wav")
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={"clips_folder": clips_folder, "group": group},
        skipped=skipped,
        n_jobs=n_jobs,
    )
