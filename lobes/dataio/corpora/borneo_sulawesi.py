"""Focal recordings of gibbons and argus pheasants, and soundscapes of Borneo and Sulawesi, in the public domain.

D. J. Clink, "Fundamentals of bioacoustics using R and smartphones",
https://github.com/DenaJGibbon/Fundamentals-biocoustics-using-R-and-smartphones-tutorial. `FocalRecordings` has
`{class}_{n}` (female gibbons, male gibbons' solos, great argus); `SoundscapeRecordings` has 20 s each,
`{site}_{time of day}_{nn}`. Calls mixed into soundscapes make detection data of which the truth is known exactly.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, clips_by_name, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip

CORPUS = Corpus(
    "borneo_sulawesi_cc0",
    "Fundamentals of bioacoustics tutorial, "
    "https://github.com/DenaJGibbon/Fundamentals-biocoustics-using-R-and-smartphones-tutorial",
    "CC0-1.0",
)
PARTS = ("all", "focal", "soundscape")
_NAME = re.compile(
    r"(?P<focal>FemaleGibbon|MaleSolo|GreatArgus)_\d+|(?P<site>Borneo|Sulawesi)_(?P<time>[A-Z][a-z]+)_\d+"
)


def prepare_borneo_sulawesi(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    part: str = "all",
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`, with labels `part` (focal, soundscape), `call_type`, `site`, `time_of_day` and `recording`.

    A focal recording is a group of its own. Soundscapes of one site and time of day are one group: they may be pieces
    of one recording, which the corpus does not say. Focal recordings have no site and no time of day ("").

    Parameters
    ----------
    data_folder : path, optional
        The clone, with `FocalRecordings/FemaleGibbon_1.wav` and `SoundscapeRecordings/Borneo_Morning_01.wav`; files are
        found by their names, `.wav` or `.flac`, at any depth. None means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    part : str
        `focal`, `soundscape` or `all`.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    ConfigError
        `part` is none of the three.
    DataError
        The folder is missing or another, or no recording is good.
    """
    one_of("part", part, PARTS)
    root = data_root(CORPUS.name, data_folder)

    def make(path: str, match: re.Match[str]) -> Clip:
        name, focal = Path(path).stem, match["focal"]
        labels = {"part": "focal" if focal else "soundscape", "call_type": focal or "Soundscape"}
        labels |= {"site": match["site"] or "", "time_of_day": match["time"] or "", "recording": name}
        return Clip(path, name, name if focal else f"{match['site']}_{match['time']}", labels)

    clips, skipped = clips_by_name(root, _NAME, make, "{class}_{n} or {site}_{time of day}_{nn}")
    clips = [clip for clip in clips if part in ("all", clip.labels["part"])]
    if not clips:
        raise wrong_layout(CORPUS.name, root, "FocalRecordings/FemaleGibbon_1.wav or SoundscapeRecordings/*.wav")
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={"part": part},
        skipped=skipped,
        n_jobs=n_jobs,
    )
