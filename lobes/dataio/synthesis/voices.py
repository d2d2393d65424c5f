"""The voices of eSpeak NG that serve MiniFrench as speakers, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass

# Voice variants chosen by measurement from the 108 of eSpeak NG 1.52: of sane pace and level, no two with nearly the
# same long-term spectrum, and each giving equal samples for equal requests (Reed does not). Nine in a row hold three
# female ones, one of them among the test speakers. The accents fr-BE and fr-CH are of no use here: they differ from fr
# in how digits are read (septante), and sound the same on numbers in words.
VARIANTS = (
    "m1 f1 travis m3 f2 antonio m5 Hugo Annie "
    "m2 f3 michel f5 Lee boris edward Andy belinda "
    "m4 linda paul john f4 iven4 miguel max Andrea "
    "m6 Alicia gustave grandma quincy m7 sandro klatt5 aunty "
    "m8 shelby Diogo Nguyen steph ed victor Michael anika"
).split()
FEMALE = frozenset("f1 f2 f3 f4 f5 Annie belinda linda Andrea Alicia grandma aunty shelby steph anika".split())
# With its folder, the voice is found without eSpeak NG listing all its voices first, which takes 9 ms per sentence.
LANGUAGE = "roa/fr"
# The split of a voice depends on its place alone: adding speakers or changing the seed never moves one from train to
# test, so a model trained on one MiniFrench has not heard the test speakers of any other.
SPLIT_OF_PLACE = ("train", "test", "train", "valid", "train", "train", "test", "train", "train")


@dataclass(frozen=True)
class Speaker:
    """One synthetic speaker: its place in the cast, a name for files and groups, the eSpeak NG voice, `f` or `m`."""

    index: int
    name: str
    voice: str
    split: str
    gender: str


def speakers(count: int) -> list[Speaker]:
    """The first `count` (at most 45) synthetic speakers: of each nine, six for train, one for valid, two for test.

    Examples
    --------
    >>> [speaker.split for speaker in speakers(4)], speakers(2)[1].voice
    (['train', 'test', 'train', 'valid'], 'roa/fr+f1')
    """
    return [
        Speaker(
            index=index,
            name=f"spk{index:02d}-{variant.lower()}",
            voice=f"{LANGUAGE}+{variant}",
            split=SPLIT_OF_PLACE[index % len(SPLIT_OF_PLACE)],
            gender="f" if variant in FEMALE else "m",
        )
        for index, variant in enumerate(VARIANTS[:count])
    ]
