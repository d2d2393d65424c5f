"""MEDIA: callers book hotel rooms of a played machine, French, 8 kHz telephone, ELRA S0272 (speech) and E0024 (labels).

H. Bonneau-Maynard et al., "Semantic annotation of the French MEDIA dialog corpus", Interspeech 2005. The corpus could
not be had when this was written; the layout is what public readers of it rely on, SpeechBrain's and ESPnet's:

    S0272/**/<dialogue>.wav             two channels: caller and machine
    E0024/**/DATA/media_lot1.xml        lot1 to lot4 train, testHC_a_blanc valid, testHC test
    <dialogue id nameSpk>
      <turn id speaker="spk" startTime endTime audioFilename="…/<dialogue>.<l or r>.wav">
        <semAnnotation withContext="false">
          <sem concept specif mode value><transcription>deux <Sync time="…"/> chambres</transcription></sem>

Assumed besides: turns of other speakers are the machine's and are not read; of several annotations of a turn the one
`withContext="false"` counts; its `sem` elements hold all words of the turn, those of concept `null` without meaning;
`l` is the first channel. A turn is one utterance. Audio is read at 8 kHz as it is, and resampled when it is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from lobes.dataio.audio import AudioError, audio_info
from lobes.dataio.corpora.common import Corpus, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.dataio.tagged import plain_text, write_tagged
from lobes.errors import DataError

CORPUS = Corpus(
    "media", "MEDIA, ELRA-S0272 and ELRA-E0024, https://catalogue.elra.info", "ELRA end-user licence, not free"
)
SPLITS = {
    "train": ("media_lot1.xml", "media_lot2.xml", "media_lot3.xml", "media_lot4.xml"),
    "valid": ("media_testHC_a_blanc.xml",),
    "test": ("media_testHC.xml",),
}
DETAILS = ("relax", "full")
GROUPS = ("dialogue", "speaker")
_CHANNELS = {"l": 0, "r": 1}


def prepare_media(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    detail: str = "relax",
    modes: bool = False,
    drop_empty: bool = False,
    group: str = "dialogue",
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, `valid.csv` and `test.csv`, a caller's turn each.

    Labels are `tagged` (see `lobes.dataio.tagged`: concepts around the words that they are said with), `text`,
    `frame` (JSON, a list of concept, specifier, mode and normalised value as annotated), `dialogue` and `speaker`.
    Texts are lower case without punctuation; brackets around uncertain words and asterisks are taken off.

    Parameters
    ----------
    data_folder : path, optional
        The folder with S0272 and E0024; None means `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    detail : str
        `relax`, concepts alone, or `full`, concepts with their specifiers (`localisation-ville-hotel`).
    modes : bool
        Whether a mode other than the affirmative `+` is part of the concept (`paiement/-`).
    drop_empty : bool
        Leave turns without words out of all splits, as SpeechBrain's recipe does, each with that reason; by default
        they are kept.
    group : str
        What intervals are clustered by, `dialogue` or `speaker`; the latter is refused where a caller is in two splits.
    decode : bool
        As for `scan_clips`.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    ConfigError
        `detail` or `group` is another word.
    DataError
        The folder is missing or another, a file is not XML, or no turn is good.
    """
    one_of("detail", detail, DETAILS)
    one_of("group", group, GROUPS)
    root = data_root(CORPUS.name, data_folder)
    wavs = {PurePosixPath(path).stem: path for path in find_audio(root)}
    sources = {path.name.lower(): path for path in sorted(root.rglob("media_*.xml"))}
    split_of: dict[str, str] = {}
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    for split, names in SPLITS.items():
        for name in names:
            if name.lower() not in sources:
                raise wrong_layout(CORPUS.name, root, f"E0024/**/{name}")
            for turn in _turns(sources[name.lower()], detail, modes):
                clip = _clip(turn, wavs, drop_empty, group, split_of)
                if isinstance(clip, str):
                    skipped.append((turn["id"], clip))
                else:
                    clips.append(clip)
                    split_of[clip.id] = split
    if not clips:
        raise wrong_layout(CORPUS.name, root, "S0272/**/<dialogue>.wav that its XML files name")
    channels = _channels(root, {clip.path for clip in clips})
    clips = [replace(c, channel=None) if channels.get(c.path) == 1 else c for c in clips]

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {split: [row for row in rows if split_of[row["id"]] == split] for split in SPLITS}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=list(SPLITS),
        assign=assign,
        options={"detail": detail, "modes": modes, "drop_empty": drop_empty, "group": group},
        other_files=[path.relative_to(root).as_posix() for path in sources.values()],
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def _turns(path: Path, detail: str, modes: bool) -> Iterator[dict[str, str]]:
    """What is known of each of the caller's turns."""
    for dialogue in _parse(path).iter("dialogue"):
        name = dialogue.get("id", "")
        for number, turn in enumerate(dialogue.iter("turn")):
            if turn.get("speaker") == "spk":
                parts, frame = _meaning(turn, detail, modes)
                tagged = write_tagged(parts)
                yield {
                    **{key: turn.get(key, "") for key in ("startTime", "endTime", "audioFilename")},
                    "id": turn.get("id") or f"{name}_{number}",
                    "dialogue": name,
                    "speaker": dialogue.get("nameSpk") or name,
                    "tagged": tagged,
                    "text": plain_text(tagged),
                    "frame": json.dumps(frame, ensure_ascii=False),
                }


def _clip(
    turn: dict[str, str], wavs: dict[str, str], drop_empty: bool, group: str, taken: dict[str, str]
) -> Clip | str:
    """The clip of a turn, or why there is none."""
    parts = re.split(r"[/\\]", turn["audioFilename"])[-1].split(".")
    path = wavs.get(parts[0]) or wavs.get(turn["dialogue"])
    if path is None:
        return f"has no audio: {parts[0] or turn['dialogue']}.wav is not there"
    if turn["id"] in taken:
        return "has the id of another turn, which is taken"
    if drop_empty and not turn["text"]:
        return "has no words, which drop_empty leaves out"
    try:
        start, stop = float(turn["startTime"]), float(turn["endTime"])
    except ValueError:
        return f"has times '{turn['startTime']}' and '{turn['endTime']}', expected seconds"
    labels = {key: turn[key] for key in ("tagged", "text", "frame", "dialogue", "speaker")}
    channel = _CHANNELS.get(parts[1].lower()) if len(parts) > 1 else None
    return Clip(path, turn["id"], turn[group], labels, start, stop, channel)


def _channels(root: Path, paths: set[str]) -> dict[str, int]:
    """Number of channels of each file that can be read; a copy with the caller's alone has but one."""
    found = {}
    for path in sorted(paths):
        try:
            found[path] = audio_info(root / path).channels
        except AudioError:  # reported when the file is checked
            continue
    return found


def _meaning(turn: ElementTree.Element, detail: str, modes: bool) -> tuple[list[str | tuple[str, str]], list]:
    """Words and concepts, and the concepts as they are annotated."""
    annotations = list(turn.iter("semAnnotation"))
    without_context = [found for found in annotations if found.get("withContext") == "false"]
    parts: list[str | tuple[str, str]] = []
    frame = []
    for annotation in (without_context or annotations)[:1]:
        for sem in annotation.iter("sem"):
            words = clean_words(_said(sem))
            concept, specifier, mode = (_attribute(sem, key) for key in ("concept", "specif", "mode"))
            if not concept:
                parts.append(words)
                continue
            frame.append([concept, specifier, mode, _attribute(sem, "value")])
            name = concept
            if detail == "full" and specifier:
                name = f"{name}-{specifier.lstrip('-').lower()}"
            if modes and mode not in ("", "+"):
                name = f"{name}/{mode}"
            parts.append(("_".join(name.split()), words))
    if not parts:  # not annotated: what was said, without meaning
        parts = [clean_words(_said(turn))]
    return parts, frame


def _said(element: ElementTree.Element) -> str:
    return " ".join(text for said in element.iter("transcription") for text in said.itertext())


def _attribute(element: ElementTree.Element, name: str) -> str:
    value = (element.get(name) or "").strip()
    return "" if value == "null" else value


def clean_words(text: str) -> str:
    """Lower case; apostrophes and hyphens within words stay, all other punctuation becomes spaces.

    Examples
    --------
    >>> clean_words("Euh, (je) voudrais l ' hôtel* Saint-Jacques…")
    "euh je voudrais l'hôtel saint-jacques"
    """
    text = re.sub(r"\s*['’]\s*", "'", text.lower())
    text = re.sub(r"[^\w'-]|_", " ", text)
    return " ".join(stripped for word in text.split() if (stripped := word.strip("-")).strip("'"))


def _parse(path: Path) -> ElementTree.Element:
    """The root of a file, in the encoding that it declares or, without a good declaration, in Latin 1."""
    content = path.read_bytes()
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError:
        pass
    try:
        text = re.sub(r"^\s*<\?xml.*?\?>", "", content.decode("latin-1"), flags=re.DOTALL)
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML ({error}): fetch it again") from error
