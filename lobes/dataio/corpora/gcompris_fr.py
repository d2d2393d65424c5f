"""The French voice of GCompris: words, numbers and instructions, almost all by one speaker, at 44.1 kHz.

One speaker means that a held-out *speaker* cannot be had; what is held out is the *text*. Transcripts that
share most of their content words ("un chapeau" / "le chapeau"; "multiplie les deux nombres …" / "additionne
les deux nombres …") form a cluster, the cluster is the group, and no cluster is in two splits. So a model is
never tested on words of a sentence that it was trained on, and intervals are clustered by what was said.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.splits import split_by_group
from lobes.errors import DataError

CORPUS = Corpus(
    "gcompris_fr",
    "GCompris voices, French, https://github.com/gcompris/GCompris-voices",
    "GPL-3.0-or-later, some files GFDL",
)
TRANSCRIPTS = "transcripts.tsv"
_COLUMNS = ("path", "text_fr")
#: The numbers that the app's texts write in digits; others are left out rather than guessed.
_NUMBERS = "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
_DIGITS = dict(enumerate(_NUMBERS.split()))
_STOP_WORDS = frozenset(
    "un une des le la les l du de d au aux à en et ou est être a se s te t ta ton tes sa son ses ce cette "
    "ces que qu qui pour sur dans avec par ne pas n plus il elle tu on y puis".split()
)
#: Two transcripts belong together that have in common half of all their content words (Jaccard index), or half
#: of the shorter one's, if that is this many words: a long instruction may contain a short one.
_SAME_SHARE = 0.5
_SAME_WORDS = 4


def prepare_gcompris_fr(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    seed: int = 0,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, with labels `text`, `raw_text` and `part`.

    Parameters
    ----------
    data_folder : path, optional
        The folder with `transcripts.tsv` (columns `path`, `text_fr`) and the tree `fr/**/*.ogg` of the
        repository; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    valid_share, test_share : float
        Shares of the seconds; 0 makes no such split.
    seed : int
        Decides which texts are held out.
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
    raw_texts = _read_transcripts(root)
    texts, skipped = {}, []
    for path, raw in raw_texts.items():
        try:
            texts[path] = normalise_french(raw)
        except ValueError as error:
            skipped.append((path, str(error)))
    untold = sorted(set(find_audio(root, "fr", (".ogg",))) - set(raw_texts))
    skipped += [(path, "has no transcript") for path in untold]
    cluster = text_clusters(set(texts.values()))
    first_of: dict[str, str] = {}  # a cluster is called after the first clip in it
    for path, text in sorted(texts.items()):
        first_of.setdefault(cluster[text], _clip_id(path))
    clips = [
        Clip(
            path,
            _clip_id(path),
            first_of[cluster[text]],
            {"text": text, "raw_text": raw_texts[path], "part": path.split("/")[-2] if "/" in path else ""},
        )
        for path, text in sorted(texts.items())
    ]
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
        other_files=[TRANSCRIPTS],
        skipped=skipped,
        n_jobs=n_jobs,
    )


def _clip_id(path: str) -> str:
    return path.removeprefix("fr/").rpartition(".")[0]


def normalise_french(text: str) -> str:
    """Reduce a French text to what is heard: lower-case letters with accents, apostrophes, single spaces.

    Composed Unicode (NFC); typographic apostrophes become plain ones; whole numbers up to 16 are spelt out;
    hyphens and all other punctuation become spaces.

    Raises
    ------
    ValueError
        Another number in digits, which has more than one reading, or nothing is left.

    Examples
    --------
    >>> normalise_french("Arrête-toi à l’étape 4 !")
    "arrête toi à l'étape quatre"
    """
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    text = re.sub(r"\d+", lambda match: _DIGITS.get(int(match[0]), match[0]), text)
    if re.search(r"\d", text):
        raise ValueError("has a number in digits that cannot be spelt out with certainty")
    text = "".join(char if char.isalpha() or char == "'" else " " for char in text)
    text = " ".join(word for word in text.split() if word.strip("'"))
    if not text:
        raise ValueError("has an empty transcript")
    return text


def text_clusters(texts: set[str]) -> dict[str, str]:
    """Group normalised texts that share half of their content words, directly or through others.

    Returns
    -------
    dict
        Text -> the alphabetically first text of its cluster.

    Examples
    --------
    >>> text_clusters({"un chapeau", "le chapeau", "une lune"})["un chapeau"]
    'le chapeau'
    """
    ordered = sorted(texts)
    words = {text: _content_words(text) for text in ordered}
    having: dict[str, list[str]] = defaultdict(list)
    parent = {text: text for text in ordered}

    def find(text: str) -> str:
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for text in ordered:
        for other in {other for word in words[text] for other in having[word]}:
            if _same_text(words[text], words[other]):
                first, second = sorted((find(text), find(other)))
                parent[second] = first
        for word in words[text]:
            having[word].append(text)
    return {text: find(text) for text in ordered}


def _same_text(first: frozenset[str], second: frozenset[str]) -> bool:
    shared = len(first & second)
    if shared >= _SAME_SHARE * len(first | second):
        return True
    return shared >= max(_SAME_WORDS, _SAME_SHARE * min(len(first), len(second)))


def _content_words(text: str) -> frozenset[str]:
    words = frozenset(text.replace("'", " ").split())
    return words - _STOP_WORDS or words


def _read_transcripts(root: Path) -> dict[str, str]:
    path = root / TRANSCRIPTS
    if not path.is_file():
        raise wrong_layout(CORPUS.name, root, TRANSCRIPTS)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}: expected a TSV with {', '.join(_COLUMNS)}")
            return {row["path"]: row["text_fr"] or "" for row in reader if row["path"]}
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: fetch it again") from error
