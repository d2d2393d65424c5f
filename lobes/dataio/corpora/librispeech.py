"""LibriSpeech: English audiobooks at 16 kHz, as OpenSLR packs it, or the clips that come with Resemblyzer."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lobes.dataio.corpora.common import Corpus, one_of, prepare_clips
from lobes.dataio.folders import data_root, download_archive, wrong_layout
from lobes.dataio.lexicon import phones_of, read_lexicon
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.splits import split_by_group
from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)
CORPUS = Corpus("librispeech", "LibriSpeech (Panayotov et al. 2015), https://www.openslr.org/12", "CC BY 4.0")
URL = "https://www.openslr.org/resources/12/{subset}.tar.gz"
#: Prefix of the subsets' folders in Resemblyzer's `audio_data`, which has no transcripts.
_CLIPS_PREFIX = "librispeech_"


def prepare_librispeech(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    train: Sequence[str] = ("train-clean-100",),
    valid: Sequence[str] | None = ("dev-clean",),
    test: Sequence[str] | None = ("test-clean",),
    valid_share: float = 0.1,
    seed: int = 0,
    corpus_folder: str = "librispeech",
    lexicon: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    missing: str = "refuse",
    download: bool = False,
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, grouped by speaker.

    Two layouts are understood: OpenSLR's `LibriSpeech/<subset>/<speaker>/<chapter>/<id>.flac` with
    `*.trans.txt` (label `text`, upper case as it comes, and `subset`), and the clips
    `librispeech_<subset>/[<speaker>/]<id>.flac` without transcripts (label `subset`).

    Parameters
    ----------
    data_folder : path, optional
        `LibriSpeech` itself or the folder that holds it, or the folder of the clips; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    train : sequence of str
        Subsets to train on.
    valid, test : sequence of str, optional
        Subsets of the other splits. `valid` of None takes whole speakers out of `train`, by `valid_share` of
        the seconds and `seed`; `test` of None makes no test split.
    valid_share : float
        Where `valid` is None; 0 then makes no valid split.
    seed : int
        Decides which speakers `valid_share` takes.
    corpus_folder : str
        Sub-folder of `LOBES_DATA`.
    lexicon : path or sequence of paths, optional
        Pronunciations (`lobes.dataio.lexicon.read_lexicon`), for a label `phones`: the first of each word, with spaces
        between phones. An utterance to train on with a word that it has not is left out and named in `skipped.csv`.
    missing : str
        What becomes of such an utterance of another split: `refuse` is an error that names the words, `leave_out`
        leaves it out too, with a warning that counts them.
    download : bool
        Fetch the subsets that `data_folder` does not have (CC BY 4.0; 0.3 to 30 GB each).
    decode : bool
        Decode every file (about an hour of one core per 1,000 h); False reads headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    ConfigError
        A subset is in two splits, or `missing` is another word.
    DataError
        The folder is missing or another, a subset is not there, a speaker is in two splits, no file is good, or the
        lexicon has not all words of a test.
    """
    one_of("missing", missing, ("refuse", "leave_out"))
    chosen = {"train": list(train), "valid": list(valid or ()), "test": list(test or ())}
    listed = [subset for subsets in chosen.values() for subset in subsets]
    repeated = sorted({subset for subset in listed if listed.count(subset) > 1})
    if repeated or not chosen["train"]:
        raise ConfigError(f"subsets are {chosen}: expected at least one to train on, and each in one split")
    if download and data_folder:
        _download(Path(data_folder), listed)
    root = data_root(corpus_folder, data_folder)
    if (root / "LibriSpeech").is_dir():
        root = root / "LibriSpeech"
    folders = _subset_folders(root, listed)
    transcripts, sources = _read_transcripts(root, folders)
    split_of = {subset: name for name, subsets in chosen.items() for subset in subsets}
    clips, skipped = _clips(root, folders, transcripts)
    phones: dict[str, object] = {}
    if lexicon is not None:
        files = [lexicon] if isinstance(lexicon, (str, os.PathLike)) else list(lexicon)
        phones = {"lexicon": [str(path) for path in files], "missing": missing}
        sources += [str(Path(path).resolve()) for path in files]
        clips, without = _with_phones(clips, read_lexicon(files), chosen["train"], missing)
        skipped += without
    from_train = valid is None and valid_share > 0
    splits = ["train", *(["valid"] if valid or from_train else []), *(["test"] if test else [])]

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        parts: dict[str, list[Row]] = {name: [] for name in chosen}
        for row in rows:
            parts[split_of[row["subset"]]].append(row)
        if from_train:
            parts.update(split_by_group(parts["train"], {"valid": valid_share}, seed=seed))
        return parts

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=splits,
        assign=assign,
        options={**chosen, **({"valid_share": valid_share, "seed": seed} if from_train else {}), **phones},
        other_files=sources,
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def _subset_folders(root: Path, subsets: Sequence[str]) -> dict[str, str]:
    """Map each subset to its folder below `root`, in whichever of the two layouts."""
    present = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    known = {name.removeprefix(_CLIPS_PREFIX): name for name in present if _is_subset(name)}
    if not known:
        raise wrong_layout(CORPUS.name, root, f"LibriSpeech/{subsets[0]} or {_CLIPS_PREFIX}{subsets[0]}")
    missing = [subset for subset in subsets if subset not in known]
    if missing:
        raise DataError(f"{root} has no subset {', '.join(missing)}: it has {', '.join(known)}; choose among them")
    return {subset: known[subset] for subset in subsets}


def _is_subset(name: str) -> bool:
    return name.removeprefix(_CLIPS_PREFIX).split("-")[0] in ("train", "dev", "test")


def _read_transcripts(root: Path, folders: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return id -> text, and the files it came from; both empty where there are no transcripts at all."""
    texts: dict[str, str] = {}
    files = []
    for folder in folders.values():
        for path in sorted((root / folder).glob("*/*/*.trans.txt")):
            files.append(path.relative_to(root).as_posix())
            for line in path.read_text(encoding="utf-8").splitlines():
                utterance, _, text = line.partition(" ")
                texts[utterance] = text.strip()
    return texts, files


def _clips(
    root: Path, folders: dict[str, str], transcripts: dict[str, str]
) -> tuple[list[Clip], list[tuple[str, str]]]:
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    for subset, folder in folders.items():
        found = 0
        for path in find_audio(root, folder, (".flac", ".wav")):
            found += 1
            utterance = Path(path).stem
            speaker = utterance.split("-")[0]
            if not (speaker.isdigit() and utterance.count("-") == 2):
                skipped.append((path, "is not named {speaker}-{chapter}-{utterance}.flac"))
            elif transcripts and not transcripts.get(utterance):
                skipped.append((path, "has no transcript"))
            else:
                labels = {"subset": subset, **({"text": transcripts[utterance]} if transcripts else {})}
                clips.append(Clip(path, utterance, speaker, labels))
        if not found:
            raise wrong_layout(CORPUS.name, root, f"{folder}/**/{{speaker}}-{{chapter}}-{{utterance}}.flac")
    return clips, skipped


def _with_phones(
    clips: Sequence[Clip], lexicon: Mapping[str, str], train: Sequence[str], missing: str
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """The clips with their phones, and those left out for words that the lexicon has not."""
    found: list[Clip] = []
    skipped = []
    unknown: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for clip in clips:
        if "text" not in clip.labels:
            raise DataError(f"{clip.path} has no transcript, which phones are made of; expected OpenSLR's LibriSpeech")
        phones = phones_of(clip.labels["text"], lexicon)
        if phones.missing:
            unknown[clip.labels["subset"] in train].update(phones.missing)
            skipped.append((clip.path, f"has words that the lexicon has not: {', '.join(phones.missing)}"))
        else:
            found.append(replace(clip, labels={**clip.labels, "phones": phones.text}))
    for training, words in unknown.items():
        if not words:
            continue
        kind = "to train on" if training else "to validate and test on"
        some = ", ".join([f"{word} ({count})" for word, count in words.most_common(10)] + ["..."] * (len(words) > 10))
        said = f"the lexicon has not {len(words)} words of utterances {kind}: {some}"
        if not training and missing == "refuse":
            raise DataError(
                f"{said}; add their pronunciations in a file of their own (lexicon takes several), or give missing:"
                " leave_out, which leaves the utterances out, named in skipped.csv"
            )
        logger.warning("%s; these utterances are left out: see skipped.csv", said)
    return found, skipped


def _download(folder: Path, subsets: Sequence[str]) -> None:
    parent = folder.parent if folder.name == "LibriSpeech" else folder
    for subset in subsets:
        if not (parent / "LibriSpeech" / subset).is_dir():
            download_archive(
                URL.format(subset=subset),
                parent,
                lambda name: name if name.startswith("LibriSpeech/") else None,
            )
