"""Boom calls of two siamangs, Fajar and Baju, over eleven sessions of a summer.

From https://github.com/WimPouw/siamang_physical_constraints_code_repo. Each call is there twice:
`opp_{session}_{n}_{n+1}` is as long as its annotation, and `_opp_{session}_{n}_{n+1}` begins with it and ends half a
second later. The call's individual is in row n, from 0, of the session's table of annotations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lobes.dataio.annotations import read_annotations
from lobes.dataio.audio import AudioError, audio_info
from lobes.dataio.corpora.common import Corpus, clips_by_name, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import DataError

CORPUS = Corpus(
    "siamang",
    "Siamang boom calls, https://github.com/WimPouw/siamang_physical_constraints_code_repo",
    "not stated with the files",
)
CROPS = ("call", "longer", "both", "after")
_TABLE = "_siamang_locomotionvocal_KePoV1"
_NAME = re.compile(r"(_?)opp_(\d+_[A-Z][a-z]+_session\d+)_(\d+)_(\d+)")
#: Seconds that a crop may differ from its annotation by.
_SLACK_SECONDS = 0.02


def prepare_siamang(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    crops: str = "call",
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `all.csv`: every call, with labels `individual`, `session`, `call` and `crop`, grouped by session.

    `lobes.dataio.make_folds` leaves one session out; with `together="call"` the two crops of a call stay together even
    where clips are drawn at random.

    Parameters
    ----------
    data_folder : path, optional
        The clone, with `original_data/audio/opp_11_June_session1_0_1.wav` (or `.flac`) and
        `R_scripts/processing_and_analyses/annotations/opp_11_June_session1_siamang_locomotionvocal_KePoV1.csv`. None
        means `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    crops : str
        `call`, the crop that is as long as the annotation; `longer`, the other one; `both`; or `after`, only the half
        second after the call, which is the background that goes with it.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`.

    Raises
    ------
    ConfigError
        `crops` is none of the four.
    DataError
        The folder is missing or another, a table is damaged, or no recording is good.
    """
    one_of("crops", crops, CROPS)
    root = data_root(CORPUS.name, data_folder)
    tables = [name for name in find_audio(root, suffixes=(".csv",)) if _TABLE in name]
    calls = _calls(root, tables)
    wanted = {"call": ("",), "longer": ("_",), "after": ("_",), "both": ("", "_")}[crops]

    def make(path: str, match: re.Match[str]) -> Clip | str:
        long, session, number, _ = match.groups()
        if long not in wanted:
            return f"is not wanted with crops={crops}"
        if (session, int(number)) not in calls:
            return f"has no row {number} in the annotations of {session}"
        individual, seconds = calls[session, int(number)]
        try:
            excess = audio_info(root / path).duration - seconds
        except AudioError as error:
            return error.reason
        if excess < -_SLACK_SECONDS or (not long and excess > _SLACK_SECONDS):
            return f"is {excess:+.3f} s longer than its annotation: it is another call's"
        labels = {"individual": individual, "session": session, "call": f"{session}_{number}"}
        labels["crop"] = "after" if crops == "after" else "longer" if long else "call"
        return Clip(path, Path(path).stem, session, labels, start=seconds if crops == "after" else 0.0)

    clips, skipped = clips_by_name(root, _NAME, make, "opp_{session}_{n}_{n+1} or _opp_{session}_{n}_{n+1}")
    if not calls or not clips:
        raise wrong_layout(CORPUS.name, root, f"opp_11_June_session1_0_1.wav with opp_11_June_session1{_TABLE}.csv")
    unwanted = f"is not wanted with crops={crops}"
    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={"crops": crops},
        other_files=tables,
        skipped=[(path, reason) for path, reason in skipped if reason != unwanted],
        n_jobs=n_jobs,
    )


def _calls(root: Path, tables: list[str]) -> Mapping[tuple[str, int], tuple[str, float]]:
    """(session, number of the call from 0) -> individual and seconds."""
    calls = {}
    for table in tables:
        session = Path(table).stem.removesuffix(_TABLE).removeprefix("opp_")
        for number, annotation in enumerate(read_annotations(root / table, "csv", label_column="Sequence_individual")):
            if not annotation.label:
                raise DataError(f"{root / table}: call {number} has no Sequence_individual: correct the table")
            calls[session, number] = (annotation.label, annotation.duration)
    return calls
