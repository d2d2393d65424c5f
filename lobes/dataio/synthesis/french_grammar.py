"""A small generative grammar of French: numbers, times and dates, voice commands, and statements.

A template is text with slots in angle brackets. A slot names, in this order of look-up, a computed phrase
(`<clock>`), a range of numbers (`<2..60>`, `<2..60 f>`), templates (`<place_phrase>`), plain phrases (`<city>`), or a
noun with a determiner that elides and agrees (`<le animal>`, `<du room>`, `<un thing colour>`).
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from lobes.dataio.synthesis.french_lexicon import ADJECTIVES, NOUNS, PHRASES, Adjective, Noun
from lobes.dataio.synthesis.french_numbers import clock_words, date_words, number_words
from lobes.dataio.synthesis.french_text import normalise_text

VOWELS = "aàâeéèêëiîïoôuùûüœæh"
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

KINDS = {"number": 0.20, "time": 0.15, "command": 0.30, "statement": 0.35}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "number": (
        "<number>",
        "<0..99> <0..99>",
        "<0..9> <0..9> <0..9> <0..9>",
        "zéro <1..9>, <10..99>, <10..99>, <10..99>, <10..99>.",
        "le numéro <1..999>.",
        "<2..500> <unit>.",
        "<2..200 f> <unit_f>.",
        "<2..99> euros <1..99>.",
        "combien font <2..99> plus <2..99> ?",
        "<2..20> fois <2..20>.",
        "<2..60> <measure> de <goods>.",
        "la page <1..400>.",
        "<number> habitants.",
    ),
    "time": (
        "il est <clock>.",
        "le <date>.",
        "<le vehicle> de <clock> part pour <city>.",
        "rendez-vous le <date> à <clock>.",
        "<le worker> arrive à <clock>.",
        "à <clock> <when>.",
        "l'anniversaire de <person> est le <full_date>.",
        "dans <2..55 f> minutes.",
        "<le place> ouvre à <clock>.",
    ),
    "command": (
        "<switch> <le device> <du room>.",
        "<switch> <le device> à <clock>.",
        "<change> <le device> <du room> de <2..50> pour cent.",
        "mets <le device> <du room> sur <1..30>.",
        "appelle <person> <when>.",
        "appelle <mon relative>, <polite>.",
        "réveille-moi à <clock>.",
        "mets un minuteur de <2..60 f> minutes.",
        "ajoute <2..30> <measure> de <goods> à la liste.",
        "ajoute <du food> à la liste.",
        "joue <du song> dans <le room>.",
        "envoie un message à <person>, <polite>.",
        "cherche <un vehicle> pour <city> le <date>.",
        "quel temps fait-il à <city> <when> ?",
        "où est <mon thing> ?",
        "rappelle-moi d'acheter <du food> <when>.",
        "est-ce que <le device> <du room> est en marche ?",
        "<switch> <le device>, <polite>.",
        "compte jusqu'à <3..100>.",
    ),
    "statement": (
        "<subject> <handles> <un thing colour>.",
        "<subject> <handles> <le thing quality> <where_phrase>.",
        "<subject> <eats> <du food> <when>.",
        "<subject> <eats> <du food> avec <person>.",
        "<subject> <does> à <city> <when>.",
        "<subject> prend <le vehicle> pour <city>.",
        "<le animal> <moves> <where_phrase>.",
        "<un animal colour> <moves> <where_phrase>.",
        "<weather> à <city> <when>.",
        "<weather>, mais <le animal> <moves>.",
        "<mon relative mood> <moves> <when>.",
        "<ce thing> est à <person>.",
        "<le worker> étudie <le lesson> à <city>.",
        "<subject> a <2..99> ans.",
        "<subject> voit <2..40> oiseaux près <du place>.",
        "<when>, <subject> <handles> <ce thing>.",
        "<subject> <moves> <because> <weather>.",
        "<le animal> <du worker> est <2..12> fois dans <le place>.",
    ),
    "subject": ("<person>", "<mon relative>", "<le worker>", "<person> ou <person>", "<le worker mood>"),
    "where_phrase": ("<where> <le place>", "près <du place>", "loin <du place>", "<where> <mon room>"),
}

_SLOT = re.compile(r"<([^<>]+)>")
_BEFORE_VOWEL = re.compile(r"\b(d|qu)e (?=[aàâeéèêiîoôuûœ](?!nze\b))", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)\.\.(\d+)( f)?")


class Random(Protocol):
    """What a grammar needs of a generator: `random()`, uniform in [0, 1)."""

    def random(self) -> float:
        """The next number."""
        ...


class Sentence(NamedTuple):
    """One generated sentence: its kind, what is spoken (with punctuation), and the transcript."""

    kind: str
    spoken: str
    text: str


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _pick(rng: Random, items):
    return items[_between(rng, 0, len(items) - 1)]


def with_determiner(determiner: str, noun: Noun, adjective: Adjective | None = None) -> str:
    """A noun phrase whose determiner agrees and elides.

    Parameters
    ----------
    determiner : {'le', 'un', 'du', 'ce', 'mon'}
        The masculine form; `du` is *de* and the definite article.
    noun : Noun
        The singular noun.
    adjective : Adjective, optional
        Put after the noun, in its gender.

    Examples
    --------
    >>> with_determiner("le", Noun("école", True)), with_determiner("du", Noun("école", True))
    ("l'école", "de l'école")
    >>> with_determiner("ce", Noun("ours", False)), with_determiner("mon", Noun("amie", True))
    ('cet ours', 'mon amie')
    >>> with_determiner("un", Noun("clé", True), Adjective("vert", "verte"))
    'une clé verte'
    """
    vowel = noun.word[0] in VOWELS
    elided = {"le": "l'", "du": "de l'", "ce": "cette " if noun.feminine else "cet ", "mon": "mon "}
    feminine = {"le": "la ", "un": "une ", "du": "de la ", "ce": "cette ", "mon": "ma "}
    if vowel and determiner in elided:
        head = elided[determiner]
    else:
        head = feminine[determiner] if noun.feminine else f"{determiner} "
    tail = "" if adjective is None else " " + (adjective.feminine if noun.feminine else adjective.masculine)
    return head + noun.word + tail


def _number(rng: Random) -> str:
    """Zero to 999 999, every count of digits as likely as the next."""
    digits = _between(rng, 1, 6)
    return number_words(_between(rng, 0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1))


def _clock(rng: Random) -> str:
    minute = 5 * _between(rng, 0, 11) if rng.random() < 0.7 else _between(rng, 0, 59)
    return clock_words(_between(rng, 0, 23), minute, conversational=rng.random() < 0.5)


def _date(rng: Random, with_year: bool = False) -> str:
    month = _between(rng, 1, 12)
    day = _between(rng, 1, MONTH_LENGTHS[month - 1])
    year = _between(rng, 1900, 2049) if with_year else None
    weekday = _between(rng, 0, 6) if not with_year and rng.random() < 0.5 else None
    return date_words(day, month, year, weekday)


def _noun_phrase(rng: Random, determiner: str, category: str, adjectives: str = "") -> str:
    adjective = _pick(rng, ADJECTIVES[adjectives]) if adjectives else None
    return with_determiner(determiner, _pick(rng, NOUNS[category]), adjective)


def _fill(slot: str, rng: Random) -> str:
    if slot == "number":
        return _number(rng)
    if slot == "clock":
        return _clock(rng)
    if slot in ("date", "full_date"):
        return _date(rng, with_year=slot == "full_date")
    span = _RANGE.fullmatch(slot)
    if span:
        return number_words(_between(rng, int(span[1]), int(span[2])), feminine=bool(span[3]))
    if slot in TEMPLATES:
        return expand(_pick(rng, TEMPLATES[slot]), rng)
    if slot in PHRASES:
        return _pick(rng, PHRASES[slot])
    return _noun_phrase(rng, *slot.split())


def elide(text: str) -> str:
    """*de* and *que* before a vowel that a slot brought in; *onze* counts as a consonant.

    Examples
    --------
    >>> elide("deux paquets de œufs parce que il pleut"), elide("le train de onze heures")
    ("deux paquets d'œufs parce qu'il pleut", 'le train de onze heures')
    """
    return _BEFORE_VOWEL.sub(r"\1'", text)


def expand(template: str, rng: Random) -> str:
    """`template` with every slot filled, left to right, from `rng`.

    Raises
    ------
    KeyError
        If a slot names nothing in the grammar.
    """
    return _SLOT.sub(lambda slot: _fill(slot[1], rng), template)


def draw_sentence(rng: Random) -> Sentence:
    """Draw one sentence of the grammar.

    Parameters
    ----------
    rng : Random
        A generator such as `numpy.random.Generator`; only its `random()` is used, so that the sentence depends on the
        stream of uniform numbers alone.

    Examples
    --------
    >>> import random
    >>> sentence = draw_sentence(random.Random(3))
    >>> sentence.kind in KINDS, sentence.text == sentence.text.lower()
    (True, True)
    """
    kind = _weighted(rng, KINDS)
    spoken = elide(expand(_pick(rng, TEMPLATES[kind]), rng))
    return Sentence(kind, spoken, normalise_text(spoken))


def _weighted(rng: Random, weights: dict[str, float]) -> str:
    mark = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        mark -= weight
        if mark < 0:
            return name
    return name
