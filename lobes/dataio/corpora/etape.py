"""ETAPE: French radio and television of 2010 and 2011, ELRA-E0046.

G. Gravier et al., "The ETAPE corpus for the evaluation of speech-based TV content processing in the French language",
LREC 2012. We have not seen how it is delivered. Known: 22, 7 and 7 hours to train, validate and test on. Transcriber's
`.trs` is a public format (`lobes.dataio.transcriber`). Assumed:

    **/train/**/<show>.trs    and dev, test; other names of these folders can be given
    **/<show>.wav             anywhere below the same folder, or .sph, .flac

- what stands between two marks of time is an utterance; sections that are not transcribed hold none, nor do segments in
  which nobody has the turn and nothing is said;
- transcripts are `.trs` in the conventions of the ESTER campaigns: `^^` before a name of unknown spelling, `*` before
  a word said wrongly are no words, brackets hold noises, parentheses stand around parts of words, and there may be a
  space after an apostrophe;
- of two `.trs` of one name, such as one with named entities, one is enough.

Of validation and test nothing is left out that is transcribed: several voices at once are one utterance, whose text is
theirs one after the other, and an utterance of noises has an empty text. Journalists are in several splits, so that the
group is the show.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.corpora.french import spoken_french
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import AUDIO_SUFFIXES, Clip, find_audio
from lobes.dataio.transcriber import Segment, read_trs
from lobes.errors import ConfigError, DataError

CORPUS = Corpus("etape", "ETAPE, ELRA-E0046, https://catalogue.elra.info", "ELRA end-user licence, not free")
FOLDERS = {"train": "train", "valid": "dev", "test": "test"}
_NOISES, _SIGNS, _APART = re.compile(r"\[[^\]]*\]"), re.compile(r"\^\^|[*()]"), re.compile(r"(?<=['’])\s+")


def prepare_etape(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    folders: Mapping[str, str] | None = None,
    train_overlap: bool = False,
    max_train_seconds: float | None = None,
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, grouped by show.

    Labels: `text` (see `spoken_french`), `speaker` (names with ` + ` between) and `voices`, how many speak at once.

    Parameters
    ----------
    data_folder : path, optional
        The corpus; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    folders : mapping, optional
        Names of the folders in which the `.trs` of `train`, `valid` and `test` are, at any depth; `train`, `dev` and
        `test` by default, in capitals or not.
    train_overlap : bool
        Train on utterances of several voices at once too.
    max_train_seconds : float, optional
        Leave longer ones out of training, and of training alone.
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
    ConfigError
        `folders` has other names than the three splits.
    DataError
        The folder is missing or another, a `.trs` cannot be read or is in two splits, or no file is good.
    """
    chosen = FOLDERS if folders is None else dict(folders)
    if set(chosen) != set(FOLDERS):
        raise ConfigError(f"folders has {', '.join(chosen) or 'no name'}: expected {', '.join(FOLDERS)}, a folder each")
    root = data_root(CORPUS.name, data_folder)
    transcripts, skipped = _transcripts(root, chosen)
    audio = {PurePosixPath(path).stem: path for path in reversed(find_audio(root, suffixes=(*AUDIO_SUFFIXES, ".sph")))}
    clips: list[Clip] = []
    split_of: dict[str, str] = {}
    for show, (split, path) in transcripts.items():
        if show not in audio:
            skipped.append((path, f"has no audio: {show}.wav is not there"))
            continue
        for number, segment in enumerate(read_trs(root / path)):
            if not segment.transcribed or not (segment.speakers or segment.texts):
                continue
            clip = _clip(audio[show], f"{show}-{number:05d}", segment)
            if split == "train" and (reason := _unfit(clip, train_overlap, max_train_seconds)):
                skipped.append((f"{path}, segment {number}", reason))
            else:
                clips.append(clip)
                split_of[clip.id] = split

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {split: [row for row in rows if split_of[row["id"]] == split] for split in FOLDERS}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=list(FOLDERS),
        assign=assign,
        options={"folders": chosen, "train_overlap": train_overlap, "max_train_seconds": max_train_seconds},
        other_files=[path for _, path in transcripts.values()],
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def _transcripts(root: Path, folders: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str]]]:
    """Show -> (split, path below the root), and what was left out."""
    found: dict[str, tuple[str, str]] = {}
    skipped = []
    for path in sorted(path.relative_to(root).as_posix() for path in root.rglob("*.trs")):
        above = {part.lower() for part in PurePosixPath(path).parts[:-1]}
        splits = [split for split, folder in folders.items() if folder.lower() in above]
        show = PurePosixPath(path).stem
        if len(splits) > 1:
            raise DataError(
                f"{root / path} is below the folders of {' and '.join(splits)}; give other names in folders"
            )
        if not splits:
            skipped.append((path, f"is below none of the folders {', '.join(folders.values())}"))
        elif show in found:
            if found[show][0] != splits[0]:
                raise DataError(f"{root / path}: its show is in {found[show][1]} too, of another split; expected one")
            skipped.append((path, f"has the name of {found[show][1]}, which is taken"))
        else:
            found[show] = splits[0], path
    for split, folder in folders.items():
        if split not in {of for of, _ in found.values()}:
            raise wrong_layout(CORPUS.name, root, f"**/{folder}/**/<show>.trs")
    return found, skipped


def _clip(path: str, name: str, segment: Segment) -> Clip:
    words = (spoken_french(_APART.sub("", _SIGNS.sub("", _NOISES.sub(" ", text)))) for text in segment.texts)
    labels = {
        "text": " ".join(text for text in words if text),
        "speaker": " + ".join(segment.speakers),
        "voices": str(max(len(segment.texts), 1)),
    }
    return Clip(path, name, PurePosixPath(path).stem, labels, segment.start, segment.stop)


def _unfit(clip: Clip, overlap: bool, max_seconds: float | None) -> str:
    """Why a segment is not trained on; empty where it is."""
    if not clip.labels["text"]:
        return "has no words"
    if clip.labels["voices"] != "1" and not overlap:
        return "has several voices at once, which train_overlap would keep"
    assert clip.stop is not None
    if max_seconds is not None and clip.stop - clip.start > max_seconds:
        return f"is longer than max_train_seconds = {max_seconds:g}"
    return ""
