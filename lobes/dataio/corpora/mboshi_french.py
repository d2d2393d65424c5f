"""Mboshi-French: 5,000 sentences of Mboshi, a Bantu language (C25), read and elicited, with French translations.

The official train and dev parts have the same three speakers, one of whom says most of both, so that no speaker can be
held out and keep them. What must not be on both sides is the *sentence*: some were said twice, by two speakers or in
two sessions, and the same French was elicited twice. Utterances with the same Mboshi or the same French, directly or
through others, are therefore one group; no group is in two splits, and intervals are clustered by it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.splits import split_by_group
from lobes.errors import DataError

CORPUS = Corpus(
    "mboshi_french",
    "Mboshi-French parallel corpus (Godard et al., LREC 2018), https://github.com/besacier/mboshi-french-parallel-corpus",
    "none stated; its paper says free for research",
)
FOLDER = "full_corpus_newsplit"
_SPLITS = ("train", "valid", "test")


def prepare_mboshi_french(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    valid_share: float = 0.1,
    test_share: float = 0.25,
    drop_repeated: bool = True,
    seed: int = 0,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, grouped by sentence.

    Labels are `text` (Mboshi), `translation` (French), `speaker` and `session`.
    With both official parts, `dev` is the test split, whole, and `valid_share` of `train` is set aside to validate on.
    Where only one part is there, it is divided in three by whole groups.

    Parameters
    ----------
    data_folder : path, optional
        The repository, or `full_corpus_newsplit` itself: `{train,dev}/{speaker}_{date}_….{wav,flac}`, each with `.mb`
        (Mboshi) and `.fr` (French) of the same name. None means `LOBES_DATA/mboshi_french`.
    save_folder : path
        Where the manifests go.
    valid_share : float
        Share of the seconds of what is trained on, or of the only part.
    test_share : float
        Share of the seconds of the only part; not read where both are there.
    drop_repeated : bool
        Leave training sentences out, and count them, that the official `dev` has too; False keeps the official
        training part whole, as published figures do, with those sentences on both sides.
    seed : int
        Decides which groups are held out.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    DataError
        The folder is missing or another, or no file is good.
    """
    root = data_root(CORPUS.name, data_folder)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    present = [part for part in ("train", "dev") if (root / part).is_dir()]
    if not present:
        raise wrong_layout(CORPUS.name, root, f"{FOLDER}/train or {FOLDER}/dev")
    clips, sources, skipped = _find(root, present)
    tested = {clip.group for clip in clips if clip.path.startswith("dev/")} if len(present) == 2 else set()
    if tested and drop_repeated:
        repeated = [clip for clip in clips if clip.path.startswith("train/") and clip.group in tested]
        skipped += [(clip.path, "is a sentence of dev too (drop_repeated)") for clip in repeated]
        clips = [clip for clip in clips if clip not in repeated]

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        if len(present) == 1:
            return split_by_group(rows, {"valid": valid_share, "test": test_share}, seed=seed)
        parts = {part: [row for row in rows if row["wav"].startswith(f"$data_root/{part}/")] for part in present}
        return {**split_by_group(parts["train"], {"valid": valid_share}, seed=seed), "test": parts["dev"]}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=_SPLITS,
        assign=assign,
        options={"valid_share": valid_share, "test_share": test_share, "drop_repeated": drop_repeated, "seed": seed},
        other_files=sources,
        skipped=skipped,
        allow_group_overlap=bool(tested) and not drop_repeated,
        n_jobs=n_jobs,
    )


def same_sentences(texts: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Group utterances that have one of their texts in common, directly or through others.

    Texts are compared without case, punctuation and spacing; empty ones are not compared.

    Parameters
    ----------
    texts : mapping
        Utterance -> its texts, one for each language.

    Returns
    -------
    dict
        Utterance -> the first utterance of its group, in alphabetical order.

    Examples
    --------
    >>> same_sentences({"a": ("Wa áyéi", "Il vient."), "b": ("Áyéi", "il vient"), "c": ("Áyéi !", "Il arrive")})
    {'a': 'a', 'b': 'a', 'c': 'a'}
    """
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    first_with: dict[tuple[int, str], str] = {}
    for name in sorted(texts):
        parent[name] = name
        for language, text in enumerate(texts[name]):
            bare = re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", text).casefold())
            other = first_with.setdefault((language, bare), name) if bare else name
            first, second = sorted((find(name), find(other)))
            parent[second] = first
    return {name: find(name) for name in texts}


def _find(root: Path, present: list[str]) -> tuple[list[Clip], list[str], list[tuple[str, str]]]:
    """Clips, the texts' files, and what is left out."""
    found: dict[str, tuple[str, str]] = {}
    sources, skipped = [], []
    audio: dict[str, str] = {}
    for part in present:
        for path in find_audio(root, part, (".wav", ".flac")):
            name = PurePosixPath(path).stem
            files = [PurePosixPath(path).with_suffix(suffix).as_posix() for suffix in (".mb", ".fr")]
            absent = [file for file in files if not (root / file).is_file()]
            if name in audio:
                skipped.append((path, f"has the name of {audio[name]}, which is taken"))
            elif absent:
                skipped.append((path, f"has no {PurePosixPath(absent[0]).suffix}"))
            else:
                mboshi, french = (_read(root / file) for file in files)
                audio[name], found[name] = path, (mboshi, french)
                sources += files
    if not audio:
        raise wrong_layout(CORPUS.name, root, f"{present[0]}/*.wav with .mb and .fr")
    groups = same_sentences(found)
    clips = []
    for name, (mboshi, french) in found.items():
        speaker, _, rest = name.partition("_")
        session = f"{speaker}_{rest.rpartition('_')[0]}"
        labels = {"text": mboshi, "translation": french, "speaker": speaker, "session": session}
        clips.append(Clip(audio[name], name, groups[name], labels))
    return clips, sources, skipped


def _read(path: Path) -> str:
    """The one sentence of a file, composed (NFC), with single spaces."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: fetch it again") from error
    return " ".join(unicodedata.normalize("NFC", text).split())
