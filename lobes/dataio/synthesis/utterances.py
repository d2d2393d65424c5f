"""What an utterance of MiniFrench is, as a pure function of (seed, index), and how it is made into a recording."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lobes.dataio.synthesis.channel import to_recording, uniform
from lobes.dataio.synthesis.espeak import Espeak
from lobes.dataio.synthesis.french_grammar import draw_sentence
from lobes.dataio.synthesis.voices import Speaker

SAMPLE_RATE = 16000
# Share of all sentences that belongs to each split. Decided by the sentence alone, so that no seed and no size ever
# brings a test sentence into a train split.
TEXT_SHARES = (("train", 60), ("valid", 15), ("test", 25))
_TEXT, _CHANNEL = 0, 1  # streams of random numbers: how often a sentence is redrawn must not change the channel


@dataclass(frozen=True)
class Utterance:
    """One utterance to be spoken: who says what, and how.

    Attributes
    ----------
    index : int
        Place in the corpus, from 0.
    speaker : Speaker
        Who speaks; decides the split.
    kind : str
        `number`, `time`, `command` or `statement`.
    spoken, text : str
        With punctuation for the synthesiser; the transcript in `FRENCH_ALPHABET`.
    rate : int
        Words per minute.
    pitch, pitch_range : int
        eSpeak NG's scales of 0 to 100.
    noise_seed : int
        Of the voice's breath and roughness.
    """

    index: int
    speaker: Speaker
    kind: str
    spoken: str
    text: str
    rate: int
    pitch: int
    pitch_range: int
    noise_seed: int

    @property
    def id(self) -> str:
        """Unique name, which is also that of the file."""
        return f"{self.speaker.name}-{self.index:06d}"


def split_of_text(text: str) -> str:
    """The split that a transcript belongs to.

    Examples
    --------
    >>> split_of_text("quatre vingt onze") == split_of_text("quatre vingt onze")
    True
    """
    place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100
    for split, share in TEXT_SHARES:
        place -= share
        if place < 0:
            return split
    raise AssertionError("TEXT_SHARES must add up to 100")


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers for one purpose, independent of all others: Philox keyed by `seed` and `key`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def plan_utterance(index: int, seed: int, cast: Sequence[Speaker]) -> Utterance:
    """Utterance number `index` of the corpus that `seed` and `cast` define.

    The speakers take turns. A sentence is drawn until one belongs to the speaker's split. Each speaker has a pace and
    a pitch of his own, whatever the seed, around which the utterance varies.

    Parameters
    ----------
    index : int
        From 0; how many utterances the corpus has does not matter.
    seed : int
        Seed of the corpus, at least 0.
    cast : sequence of Speaker
        All its speakers.
    """
    speaker = cast[index % len(cast)]
    rng = generator(seed, index, _TEXT)
    sentence = draw_sentence(rng)
    while split_of_text(sentence.text) != speaker.split:
        sentence = draw_sentence(rng)
    habit = generator(0, speaker.index)
    return Utterance(
        index=index,
        speaker=speaker,
        kind=sentence.kind,
        spoken=sentence.spoken,
        text=sentence.text,
        rate=round(uniform(habit, 145, 185) + uniform(rng, -15, 15)),
        pitch=round(uniform(habit, 35, 60) + uniform(rng, -10, 10)),
        pitch_range=round(uniform(rng, 30, 80)),
        noise_seed=int(uniform(rng, 1, 2**31 - 1)),
    )


def record(utterance: Utterance, espeak: Espeak, seed: int, snr_db: tuple[float, float]) -> np.ndarray:
    """Speak an utterance and send it through its channel.

    Returns
    -------
    np.ndarray
        int16 samples (n,) at 16 kHz.
    """
    pcm = espeak.synthesise(
        utterance.spoken,
        voice=utterance.speaker.voice,
        rate=utterance.rate,
        pitch=utterance.pitch,
        pitch_range=utterance.pitch_range,
        seed=utterance.noise_seed,
    )
    rng = generator(seed, utterance.index, _CHANNEL)
    return to_recording(pcm, espeak.sample_rate, rng, SAMPLE_RATE, snr_db=snr_db)
