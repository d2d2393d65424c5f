"""InfantMarmosetsVox: 72,921 calls of ten infant common marmosets, five pairs of twins.

E. Sarkar and M. Magimai-Doss, "Can self-supervised neural representations pre-trained on human speech distinguish
animal callers?", Interspeech 2023; data https://zenodo.org/records/10130104. A recording is named after the infant,
`data/twin_1/20160907_Twin1_marmoset1.wav`; `labels.csv` has a line per call.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from lobes.dataio.annotations import Annotation, read_annotations
from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip
from lobes.errors import DataError

CORPUS = Corpus("infant_marmosets_vox", "InfantMarmosetsVox, https://zenodo.org/records/10130104", "CC BY 4.0")
#: Number in `labels.csv` -> type of call; 11 is silence and 12 noise, and some lines have greater numbers.
CALL_TYPES = {
    "0": "peep_pre_phee",
    "1": "phee",
    "2": "twitter",
    "3": "trill",
    "4": "trillphee",
    "5": "tsik_tse",
    "6": "egg",
    "7": "pheecry",
    "8": "trilltwitter",
    "9": "pheetwitter",
    "10": "peep",
}
_NAME = re.compile(r"(\d{8})_Twin(\d)_marmoset(\d)")


def prepare_infant_marmosets(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    decode: bool = False,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every call, with labels `call_type`, `individual`, `twins`, `session` and `recording`.

    A row is a part of a recording. The group is the session, a pair of twins on one day, of which
    `lobes.dataio.make_folds` leaves some out.

    Parameters
    ----------
    data_folder : path, optional
        The unpacked archives, with `labels.csv` (columns `filename`, `start`, `end`, `calltype`, and others that are
        not needed) and `data/twin_{n}/{date}_Twin{n}_marmoset{m}.wav`; None means `LOBES_DATA`. Recordings that are not
        there, as of a pair that was not fetched, are left out.
    save_folder : path
        Where the manifest goes.
    decode : bool
        Decode all 21 GB to check them; False reads the headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    DataError
        The folder is missing or another, the table is damaged, or no recording is good.
    """
    root = data_root(CORPUS.name, data_folder)
    if not (root / "labels.csv").is_file() or not (root / "data").is_dir():
        raise wrong_layout(CORPUS.name, root, "labels.csv with data/twin_1/20160907_Twin1_marmoset1.wav")
    clips, unused = [], Counter[str]()
    for number, call in enumerate(read_annotations(root / "labels.csv", "csv", label_column="calltype")):
        clip = _clip(call, number)
        if isinstance(clip, str):
            unused[clip] += 1
        else:
            clips.append(clip)
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={},
        other_files=["labels.csv"],
        skipped=[("labels.csv", f"{reason}: {count} lines") for reason, count in unused.items()],
        decode=decode,
        n_jobs=n_jobs,
    )


def _clip(call: Annotation, number: int) -> Clip | str:
    """Return the clip of a line of the table, or why there is none."""
    name = Path(call.file or "").stem
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"labels.csv, call {number}: filename is '{call.file}': expected one such as 20160907_Twin1_marmoset1"
        )
    kind = CALL_TYPES.get(call.label.removesuffix(".0"))
    if kind is None:
        return f"call type '{call.label}' is none of 0 to 10"
    if not call.end > call.start:
        return "a call has no duration"
    date, twins, infant = match.groups()
    labels = {"call_type": kind, "individual": f"twin{twins}_marmoset{infant}", "twins": f"twin{twins}"}
    labels |= {"session": f"{date}_Twin{twins}", "recording": name}
    return Clip(f"data/twin_{twins}/{name}.wav", f"{name}_{number}", labels["session"], labels, call.start, call.end)
