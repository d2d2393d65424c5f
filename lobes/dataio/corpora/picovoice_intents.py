"""Picovoice's speech-to-intent benchmark: English coffee orders, an intent and up to six slots each, at 16 kHz.

What is said is not transcribed: `label.json` maps a file to its intent and a dictionary of slots, whose order is not
that of speech. Who speaks is not told either, and files are named by random identifiers; so a split by speaker cannot
be had. What can be kept apart is what is ordered: recordings with the same intent, slots and values are one group. A
voice may be on both sides of a split, and intervals do not hold the chance of which voices were recorded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.tagged import write_tagged
from lobes.errors import DataError

CORPUS = Corpus(
    "picovoice_intents",
    "Picovoice speech-to-intent benchmark, https://github.com/Picovoice/speech-to-intent-benchmark",
    "Apache-2.0",
)
LABELS = "data/label/label.json"
AUDIO = "data/speech"


def prepare_picovoice_intents(
    data_folder: str | os.PathLike[str] | None, save_folder: str | os.PathLike[str], *, n_jobs: int | None = None
) -> dict[str, Path]:
    """Write `all.csv`, grouped by what is ordered, with labels `tagged`, `intent` and `condition`.

    `tagged` (see `lobes.dataio.tagged`) holds intent and slots, in the order of their names and without the words
    around them. `condition` is the folder of the recording: `clean`, and others where noise has been mixed in; a
    recording and its noisy variants are one group, as its label is one.

    Parameters
    ----------
    data_folder : path, optional
        The repository: `data/label/label.json` and `data/speech/<condition>/<id>.wav` (or .flac); None means
        `LOBES_DATA`.
    save_folder : path
        Where the manifest goes.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        `{"all": path}`, for `lobes.dataio.make_folds`: there is no official split.

    Raises
    ------
    DataError
        The folder is missing or another, `label.json` is not what is expected, or no recording is good.
    """
    root = data_root(CORPUS.name, data_folder)
    labels = _read_labels(root)
    first: dict[str, str] = {}
    for name in sorted(labels):
        first.setdefault(labels[name]["tagged"], name)
    clips: dict[str, Clip] = {}
    skipped = []
    for path in find_audio(root, AUDIO):
        place = PurePosixPath(path)
        label = labels.get(place.stem)
        condition = place.parent.relative_to(AUDIO).as_posix()
        name = f"{condition}/{place.stem}"
        if label is None:
            skipped.append((path, "is not in label.json"))
        elif name in clips:
            skipped.append((path, f"has the name of {clips[name].path}, which is taken"))
        else:
            clips[name] = Clip(path, name, first[label["tagged"]], {**label, "condition": condition})
    if not clips:
        raise wrong_layout(CORPUS.name, root, f"audio that {LABELS} names, such as {AUDIO}/clean/{min(labels)}.wav")
    missing = sorted(set(labels) - {PurePosixPath(clip.path).stem for clip in clips.values()})
    skipped += [(f"{AUDIO}/*/{name}.wav", "is in label.json, but not among the audio") for name in missing]
    return prepare_clips(
        CORPUS,
        list(clips.values()),
        root,
        save_folder,
        splits=["all"],
        assign=lambda rows: {"all": rows},
        options={},
        other_files=[LABELS],
        skipped=skipped,
        n_jobs=n_jobs,
    )


def _read_labels(root: Path) -> dict[str, dict[str, str]]:
    """File name without suffix -> labels."""
    path = root / LABELS
    if not path.is_file():
        raise wrong_layout(CORPUS.name, root, LABELS)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        labels = {}
        for name, label in content.items():
            slots = [(slot, str(value).strip().lower()) for slot, value in sorted(label["slots"].items())]
            tagged = write_tagged(slots, label["intent"])
            labels[PurePosixPath(name).stem] = {"tagged": tagged, "intent": label["intent"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = '{"<id>.wav": {"intent": "orderDrink", "slots": {"size": "small"}}}'
        raise DataError(f"{path} cannot be read ({error!r}): expected {expected}; fetch it again") from error
    if not labels:
        raise DataError(f"{path} has no label: fetch it again")
    return labels
