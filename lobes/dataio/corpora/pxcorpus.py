"""PxCorpus: spoken drug prescriptions in French, 4 hours by 55 speakers, transcribed, with intents and slots.

A. C. Kocabiyikoglu et al., "A Spoken Drug Prescription Dataset in French for Spoken Language Understanding", LREC 2022.
The audio could not be had when this was written. The layout is what public readers of the archive rely on: line i of
`seq.in`, `seq.label` and `paths.txt` are the transcript, the intent and the recording (below `recordings`) of utterance
i, and block i of `PxSLU_conll.txt` its words with their tags (word, tab, `O`, `B-drug` or `I-drug`). That a folder
below `recordings` belongs to one speaker is assumed; where it is a session instead, a speaker may be in two splits.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.splits import split_by_group
from lobes.dataio.tagged import plain_text, write_tagged
from lobes.errors import DataError

logger = logging.getLogger(__name__)

CORPUS = Corpus("pxcorpus", "PxCorpus, https://zenodo.org/records/10080490", "CC BY 4.0")
AUDIO = "recordings"
TEXTS, INTENTS, PATHS = "seq.in", "seq.label", "paths.txt"


def prepare_pxcorpus(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, grouped by folder, with labels `tagged`, `text` and `intent`.

    There is no official split. Texts are lower case; `tagged` (see `lobes.dataio.tagged`) begins with the intent.

    Parameters
    ----------
    data_folder : path, optional
        Where the archive was unpacked; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    valid_share, test_share : float
        Shares of the seconds, whole folders each; 0 makes no such split.
    seed : int
        Decides which folders are held out.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    DataError
        The folder is missing or another, the files have different numbers of utterances, or no recording is good.
    """
    root = data_root(CORPUS.name, data_folder)
    found = sorted(path.relative_to(root).as_posix() for path in root.glob("*conll*.txt"))
    for name in (TEXTS, INTENTS, PATHS):
        if not (root / name).is_file():
            raise wrong_layout(CORPUS.name, root, name)
    if len(found) != 1:
        raise wrong_layout(CORPUS.name, root, f"PxSLU_conll.txt, or more than one such ({', '.join(found)})")
    labels, skipped = _read_utterances(root, found[0])
    audio = set(find_audio(root, AUDIO))
    clips = []
    for path, label in labels.items():
        if path not in audio:
            skipped.append((path, f"is in {PATHS}, but not among the audio"))
            continue
        place = PurePosixPath(path).relative_to(AUDIO)
        clips.append(Clip(path, place.with_suffix("").as_posix(), place.parent.as_posix(), label))
    skipped += [(path, f"is not in {PATHS}") for path in sorted(audio - set(labels))]
    if not clips:
        raise wrong_layout(CORPUS.name, root, f"audio that {PATHS} names, such as {min(labels)}")
    shares = {name: share for name, share in (("valid", valid_share), ("test", test_share)) if share}

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return split_by_group(rows, shares, seed=seed)

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=["train", *shares],
        assign=assign,
        options={"valid_share": valid_share, "test_share": test_share, "seed": seed},
        other_files=[TEXTS, INTENTS, PATHS, found[0]],
        skipped=skipped,
        n_jobs=n_jobs,
    )


def _read_utterances(root: Path, conll: str) -> tuple[dict[str, dict[str, str]], list[tuple[str, str]]]:
    """Recording, relative to `root` -> labels; lines that have none, with the reason."""
    texts, intents, paths = (_lines(root / name) for name in (TEXTS, INTENTS, PATHS))
    if not len(texts) == len(intents) == len(paths):
        counts = f"{TEXTS} {len(texts)}, {INTENTS} {len(intents)}, {PATHS} {len(paths)}"
        raise DataError(f"{root}: lines of {counts}, expected as many of each; fetch the corpus again")
    blocks = [block for block in re.split(r"\n\s*\n", _read(root / conll)) if block.strip()]
    spoken = [number for number, text in enumerate(texts) if text]
    if len(blocks) != len(spoken):
        raise DataError(
            f"{root}: {len(blocks)} blocks of {conll}, {len(spoken)} lines of {TEXTS} that are not empty, expected as "
            "many of each; fetch the corpus again"
        )
    block_of = dict(zip(spoken, blocks, strict=True))
    labels: dict[str, dict[str, str]] = {}
    skipped, different = [], 0
    for number, (text, intent, path) in enumerate(zip(texts, intents, paths, strict=True)):
        path = f"{AUDIO}/" + path.replace("\\", "/").removeprefix("./").removeprefix(f"{AUDIO}/")
        if path == f"{AUDIO}/" or path in labels:
            skipped.append((f"{PATHS}, line {number + 1}", "names a recording twice" if path in labels else "is empty"))
            continue
        tagged = write_tagged(read_iob(block_of.get(number, ""), conll), "_".join(intent.split()))
        words = plain_text(tagged)
        different += words.replace(" ", "") != plain_text(write_tagged([text.lower()])).replace(" ", "")
        labels[path] = {"tagged": tagged, "text": words, "intent": intent}
    if different:
        logger.warning(
            "%s: %d transcripts differ in %s and %s; the latter is used", CORPUS.name, different, TEXTS, conll
        )
    if not labels:
        raise DataError(f"{root / PATHS} names no recording: fetch the corpus again")
    return labels, skipped


def read_iob(block: str, where: str = "block") -> list[str | tuple[str, str]]:
    """Return words and concepts of lines `word<TAB>tag`, for `write_tagged`; the words in lower case.

    A tag `I-x` continues a concept x, and begins one where none is open.

    Raises
    ------
    DataError
        A line has no tag, or one of another kind.

    Examples
    --------
    >>> read_iob("deux\\tB-dos_val\\nComprimés\\tB-dos_uf\\nle\\tO\\nmatin\\tI-rhythm")
    [('dos_val', 'deux'), ('dos_uf', 'comprimés'), 'le', ('rhythm', 'matin')]
    """
    parts: list[tuple[str, list[str]]] = []
    for line in block.split("\n"):
        if not line.strip():
            continue
        word, _, tag = line.strip().rpartition("\t")
        word, kind, name = word.strip().lower(), tag[:2], tag[2:].strip()
        if not word or (tag != "O" and not (kind in ("B-", "I-") and name)):
            raise DataError(f"{where}: line '{line}', expected a word, a tab, and O, B-label or I-label")
        if kind == "I-" and parts and parts[-1][0] == name:
            parts[-1][1].append(word)
        else:
            parts.append((name if tag != "O" else "", [word]))
    return [(name, " ".join(words)) if name else " ".join(words) for name, words in parts]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _read(path).removesuffix("\n").split("\n")]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: fetch it again") from error
