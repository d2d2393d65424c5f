"""The spoken part of the Orféo treebank (Corpus d'étude pour le français contemporain, CEFC), with word times.

J. Benzitoun, J.-M. Debaisieux and H.-J. Deulofeu, "Le projet ORFÉO: un corpus d'étude pour le français contemporain",
Corpus 15, 2016. Its README describes, in `oral/<sub-corpus>/`, three files for each recording:

    <recording>.orfeo    13 columns between tabs: those of CoNLL-U, then begin, end and speaker of each word
    <recording>.wav
    <recording>.xml      metadata, not read

The README says that times are in milliseconds; those in the files that others quote are seconds (`663.469971`), hence
`times`. The same columns in `.conllu` files are read too. A form may be of several words (`parce que`): it is one word
of the tree, so its spaces become `_` in the transcript, whose words are then those of the tree.
"""

from __future__ import annotations

import math
import os
import unicodedata
from pathlib import Path, PurePosixPath

from lobes.dataio.conllu import FORM, Sentence, Tree, parse_sentence, sentence_lines
from lobes.dataio.corpora.common import Corpus, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.splits import split_by_group
from lobes.errors import DataError

CORPUS = Corpus(
    "orfeo",
    "Corpus d'étude pour le français contemporain (CEFC, Orféo), https://www.projet-orfeo.fr",
    "CC-BY; of each sub-corpus as its metadata says",
)
_SUFFIXES = (".orfeo", ".conllu")
_COLUMNS = 13
_BEGIN, _END, _SPEAKER = 10, 11, 12
_UNITS = {"seconds": 1.0, "milliseconds": 1e-3}
#: Splits, and the names under which a published division may have them.
_SPLITS = {"train": ("train",), "valid": ("valid", "dev"), "test": ("test",)}


def prepare_orfeo(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    times: str = "seconds",
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    splits_folder: str | os.PathLike[str] | None = None,
    max_seconds: float = math.inf,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, a row for each utterance, with `text`, `tree` and `speaker`.

    `text` is the transcript in lower case, one space between words; `tree` is `lobes.dataio.conllu.Tree` in JSON; the
    group is the recording, whose speakers talk to each other.

    Parameters
    ----------
    data_folder : path, optional
        Holds the files at any depth; None means `LOBES_DATA/orfeo`.
    save_folder : path
        Where the manifests go.
    times : str
        `seconds` or `milliseconds`.
    valid_share, test_share : float
        Shares of the seconds, in whole recordings.
    seed : int
        Decides which recordings are held out.
    splits_folder : path, optional
        A published division in place of that: `train.conllu`, `valid.conllu` (or `dev`) and `test.conllu`, of which
        only `# sent_id` is read. Recordings may then be in several splits; utterances in none are left out.
    max_seconds : float
        Longer utterances are left out, of the test split too, and named in `skipped.csv`; by default none.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV. Utterances without a tree or without times, and files without audio, are named in `skipped.csv`.

    Raises
    ------
    DataError
        The folder is missing or another, or no utterance is good.
    ConfigError
        `times` is another unit.
    """
    scale = _UNITS[one_of("times", times, tuple(_UNITS))]
    root = data_root(CORPUS.name, data_folder)
    files = find_audio(root, suffixes=_SUFFIXES)
    if not files:
        raise wrong_layout(CORPUS.name, root, "*.orfeo with its *.wav")
    split_of, split_files = _division(splits_folder)
    clips: dict[str, Clip] = {}
    skipped: list[tuple[str, str]] = []
    for file in files:
        wav = str(PurePosixPath(file).with_suffix(".wav"))
        if not (root / wav).is_file():
            skipped.append((file, f"has no {PurePosixPath(wav).name} beside it"))
            continue
        for clip in _utterances(root, file, wav, scale, skipped):
            if clip.id in clips:
                skipped.append((f"{file}, {clip.id}", "has a sent_id that is taken"))
            elif split_of and clip.id not in split_of:
                skipped.append((f"{file}, {clip.id}", "is in no file of splits_folder"))
            else:
                clips[clip.id] = clip
    shares = {"valid": valid_share, "test": test_share}

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        if split_of:
            return {split: [row for row in rows if split_of[row["id"]] == split] for split in _SPLITS}
        return split_by_group(rows, shares, seed=seed)

    return prepare_clips(
        CORPUS,
        list(clips.values()),
        root,
        save_folder,
        splits=[split for split in _SPLITS if split_of or shares.get(split, 1)],
        assign=assign,
        options={"times": times, "seed": seed, **shares, "splits_folder": str(splits_folder or "")},
        other_files=[*files, *split_files],
        skipped=skipped,
        allow_group_overlap=bool(split_of),
        n_jobs=n_jobs,
        **({"max_seconds": max_seconds} if math.isfinite(max_seconds) else {}),
    )


def spoken_words(tree: Tree) -> Tree:
    """The tree with words as CTC writes them: lower case, composed Unicode, `_` for a space in a word.

    Example
    -------
    >>> spoken_words(Tree(("Parce que",), ("CSU",), (0,), ("root",))).words
    ('parce_que',)
    """
    words = ("_".join(unicodedata.normalize("NFC", word).lower().split()) for word in tree.words)
    return tree._replace(words=tuple(words))


def _utterances(root: Path, file: str, wav: str, scale: float, skipped: list[tuple[str, str]]) -> list[Clip]:
    """The clips of one file; what is wrong with others goes to `skipped`."""
    clips = []
    for number, lines in sentence_lines(root / file):
        where = f"{file}:{number}"
        try:
            sentence = parse_sentence(lines, file, number, _COLUMNS)
            where = f"{file}, {sentence.meta('sent_id') or number}"
            clips.append(_clip(sentence, PurePosixPath(file), wav, scale, number))
        except DataError as error:
            skipped.append((where, str(error)))
    return clips


def _clip(sentence: Sentence, file: PurePosixPath, wav: str, scale: float, number: int) -> Clip:
    times = []
    for word in sentence.words:
        try:
            times.append((float(word.columns[_BEGIN]) * scale, float(word.columns[_END]) * scale))
        except ValueError as error:
            given = f"{word.columns[_BEGIN]} to {word.columns[_END]}"
            raise DataError(
                f"{sentence.where}: times of '{word.columns[FORM]}' are {given}: expected numbers"
            ) from error
    start, stop = min(begin for begin, _ in times), max(end for _, end in times)
    if not 0 <= start < stop:
        raise DataError(f"{sentence.where}: lasts from {start:g} to {stop:g} s, an impossible range")
    recording = str(file.with_suffix(""))
    speakers = dict.fromkeys(word.columns[_SPEAKER] for word in sentence.words)
    tree = spoken_words(sentence.tree())
    if not tree.words:
        raise DataError(f"{sentence.where}: its only word is '_', without tag and relation: nothing to recognise")
    labels = {"text": " ".join(tree.words), "tree": tree.to_json(), "speaker": "+".join(speakers)}
    return Clip(wav, sentence.meta("sent_id") or f"{recording}-{number}", recording, labels, start, stop)


def _division(folder: str | os.PathLike[str] | None) -> tuple[dict[str, str], list[str]]:
    """Sentence -> split of a published division, and its files; nothing where there is none."""
    if not folder:
        return {}, []
    split_of: dict[str, str] = {}
    files = []
    for split, names in _SPLITS.items():
        path = next((path for name in names if (path := Path(folder) / f"{name}.conllu").is_file()), None)
        if path is None:
            raise DataError(f"splits_folder {folder}: no {' or '.join(names)}.conllu in it; correct the path")
        files.append(str(path.resolve()))
        for number, lines in sentence_lines(path):
            sent_id = Sentence([line for line in lines if line.startswith("#")], []).meta("sent_id")
            if sent_id is None:
                raise DataError(f"{path}:{number}: no '# sent_id = …', by which an utterance is found")
            if split_of.setdefault(sent_id, split) != split:
                raise DataError(f"{path}:{number}: {sent_id} is also in {split_of[sent_id]}; keep it in one split")
    return split_of, files
