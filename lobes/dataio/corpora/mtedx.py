"""Multilingual TEDx: talks cut into sentences, with transcripts and translations, as OpenSLR 100 packs them."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip
from lobes.errors import DataError

CORPUS = Corpus(
    "mtedx", "Multilingual TEDx (Salesky et al., Interspeech 2021), https://www.openslr.org/100", "CC BY-NC-ND 4.0"
)
SPLITS = ("train", "valid", "test")
_FIELDS = ("offset", "duration", "wav")


def prepare_mtedx(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    source: str = "fr",
    target: str = "en",
    max_train_seconds: float | None = None,
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, grouped by talk, with labels `text`, `translation`, `speaker`.

    The official splits, of which nothing is filtered; a training segment without transcript or translation is left
    out. A talk, one file, is in one split only and has one speaker, whose name the corpus gives.

    Parameters
    ----------
    data_folder : path, optional
        The folder with `fr-en/`, or `fr-en` itself: `data/{train,valid,test}/wav/*.flac`, `txt/{split}.yaml` (for each
        segment `offset` and `duration` in seconds, `speaker_id`, and `wav`, which names `talk.wav` where the archive
        has `talk.flac`; either is taken) and `txt/{split}.{fr,en}`, a line for each segment. None means
        `LOBES_DATA/mtedx`.
    save_folder : path
        Where the manifests go.
    source, target : str
        Languages; equal ones are the transcripts without translations (`fr-fr`), and `translation` is then the text.
    max_train_seconds : float, optional
        Leave longer training segments out, and count them; 30 is usual.
    decode : bool
        Decode every file; False reads headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    DataError
        The folder is missing or another, a text has more or fewer lines than there are segments, or no file is good.
    """
    root = data_root(CORPUS.name, data_folder)
    pair = f"{source}-{target}"
    root = root / pair if (root / pair).is_dir() else root
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    sources = []
    split_of = {}
    for split in SPLITS:
        folder = f"data/{split}"
        names = [f"{folder}/txt/{split}.{suffix}" for suffix in dict.fromkeys(("yaml", source, target))]
        missing = [name for name in names if not (root / name).is_file()]
        if missing:
            raise wrong_layout(f"{CORPUS.name} {pair}", root, missing[0])
        sources += names
        segments = _read_segments(root / names[0])
        held = {path.name for path in (root / folder / "wav").glob("*")}
        texts, translations = (_read_lines(root / name, len(segments)) for name in (names[1], names[-1]))
        for number, segment in enumerate(segments):
            path = f"{folder}/wav/{_held_name(str(segment['wav']), held)}"
            clip = _clip(path, split, number, segment, texts[number], translations[number])
            if split == "train" and (reason := _unfit(clip, max_train_seconds)):
                skipped.append((f"{clip.path}, segment {number + 1} of {split}", reason))
            else:
                clips.append(clip)
                split_of[clip.id] = split

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {split: [row for row in rows if split_of[row["id"]] == split] for split in SPLITS}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=SPLITS,
        assign=assign,
        options={"source": source, "target": target, "max_train_seconds": max_train_seconds},
        other_files=sources,
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def _held_name(wav: str, held: set[str]) -> str:
    """The file that a segment names, or the one that the archive has in its place: `talk.flac` for `talk.wav`."""
    others = [f"{PurePosixPath(wav).stem}{suffix}" for suffix in (".flac", ".wav")]
    return next((name for name in (wav, *others) if name in held), wav)


def _clip(path: str, split: str, number: int, segment: dict[str, Any], text: str, translation: str) -> Clip:
    talk = PurePosixPath(path).stem
    start = float(segment["offset"])
    labels = {"text": text, "translation": translation, "speaker": str(segment.get("speaker_id") or talk)}
    name = f"{split}-{number:06d}-{talk}"
    return Clip(path, name, talk, labels, start, start + float(segment["duration"]))


def _unfit(clip: Clip, max_seconds: float | None) -> str:
    """Why a segment is not trained on; empty where it is."""
    if not clip.labels["text"] or not clip.labels["translation"]:
        return "has no transcript" if not clip.labels["text"] else "has no translation"
    assert clip.stop is not None
    if max_seconds is not None and clip.stop - clip.start > max_seconds:
        return f"is longer than max_train_seconds = {max_seconds:g}"
    return ""


def _read_segments(path: Path) -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, without which 100,000 segments take minutes
    try:
        segments = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}): unpack the archive again") from error
    if not isinstance(segments, list):
        raise DataError(f"{path} holds no list: expected one entry for each segment, with {', '.join(_FIELDS)}")
    for number, segment in enumerate(segments, start=1):
        absent = [key for key in _FIELDS if not isinstance(segment, dict) or key not in segment]
        if absent:
            raise DataError(f"{path}, segment {number}, has no {absent[0]}: expected {', '.join(_FIELDS)}")
    return segments


def _read_lines(path: Path, count: int) -> list[str]:
    # Not splitlines, which also breaks at characters that may be in a text.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if count else []
    if len(lines) != count:
        raise DataError(f"{path} has {len(lines)} lines for {count} segments of the yaml: unpack the archive again")
    return [line.strip() for line in lines]
