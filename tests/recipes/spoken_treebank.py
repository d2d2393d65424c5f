"""A treebank in Orféo's layout whose words are tones and whose grammar is fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from sounds import tones

#: Word -> (part of speech, tone).
LEXICON = {"a": ("DET", 0), "b": ("DET", 1), "c": ("NOM", 2), "d": ("NOM", 3), "e": ("NOM", 4),
           "f": ("VRB", 5), "g": ("VRB", 6), "h": ("ADV", 7)}  # fmt: skip
RATE = 16000


def utterance(draw: np.random.Generator) -> tuple[list[str], list[int], list[str]]:
    """DET NOM VRB, then DET NOM, ADV or nothing: words, heads and relations."""
    pick = lambda tag: str(draw.choice([word for word, (other, _) in LEXICON.items() if other == tag]))  # noqa: E731
    words = [pick("DET"), pick("NOM"), pick("VRB")]
    heads, deprels = [2, 3, 0], ["spe", "subj", "root"]
    ending = draw.integers(3)
    if ending == 0:
        words += [pick("DET"), pick("NOM")]
        heads, deprels = [*heads, 5, 3], [*deprels, "spe", "dep"]
    elif ending == 1:
        words, heads, deprels = [*words, pick("ADV")], [*heads, 3], [*deprels, "periph"]
    return words, heads, deprels


def write_orfeo(root: Path, recordings: int = 10, utterances: int = 8, seconds: float = 0.16) -> Path:
    """Write oral/tones/<recording>.{orfeo,wav,xml}, with silence between words and between utterances."""
    draw = np.random.default_rng(0)
    folder = root / "oral" / "tones"
    folder.mkdir(parents=True)
    silence = lambda length: 0.003 * draw.standard_normal(round(length * RATE))  # noqa: E731
    for recording in range(recordings):
        sound, blocks = [silence(0.2)], []
        for number in range(utterances):
            words, heads, deprels = utterance(draw)
            lines = [f"# sent_id = cefc-tones-{recording}-{number}", f"# text = {' '.join(words)}"]
            for index, (word, head, deprel) in enumerate(zip(words, heads, deprels, strict=True), start=1):
                begin = sum(map(len, sound)) / RATE
                sound += [tones(LEXICON[word][1], seconds, draw, RATE), silence(0.12)]
                tag, times = LEXICON[word][0], f"{begin:.6f}\t{begin + seconds + 0.1:.6f}"
                columns = f"{index}\t{word}\t{word}\t{tag}\t{tag}\t_\t{head}\t{deprel}\t_\t_\t{times}"
                lines.append(f"{columns}\tspeaker{number % 2}")
            blocks.append("\n".join([*lines, "", ""]))
            sound.append(silence(0.2))
        soundfile.write(folder / f"{recording}.wav", np.concatenate(sound), RATE)
        (folder / f"{recording}.orfeo").write_text("".join(blocks), encoding="utf-8")
        (folder / f"{recording}.xml").write_text("<TEI/>", encoding="utf-8")
    return root
