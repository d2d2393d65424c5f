"""MiniFrench's French: numbers, times, agreement, and sentences that stay in the alphabet and in their split."""

from __future__ import annotations

import random
import re

import pytest

from lobes.dataio.synthesis.french_grammar import KINDS, TEMPLATES, draw_sentence, elide, expand, with_determiner
from lobes.dataio.synthesis.french_lexicon import ADJECTIVES, NOUNS, PHRASES, Noun
from lobes.dataio.synthesis.french_numbers import clock_words, date_words, number_words
from lobes.dataio.synthesis.french_text import FRENCH_ALPHABET, normalise_text
from lobes.dataio.synthesis.utterances import TEXT_SHARES, plan_utterance, split_of_text
from lobes.dataio.synthesis.voices import FEMALE, VARIANTS, speakers
from lobes.errors import DataError

NUMBERS = {
    0: "zéro",
    1: "un",
    16: "seize",
    17: "dix-sept",
    20: "vingt",
    21: "vingt et un",
    22: "vingt-deux",
    31: "trente et un",
    61: "soixante et un",
    69: "soixante-neuf",
    70: "soixante-dix",
    71: "soixante et onze",
    72: "soixante-douze",
    77: "soixante-dix-sept",
    79: "soixante-dix-neuf",
    80: "quatre-vingts",
    81: "quatre-vingt-un",
    90: "quatre-vingt-dix",
    91: "quatre-vingt-onze",
    99: "quatre-vingt-dix-neuf",
    100: "cent",
    101: "cent un",
    171: "cent soixante et onze",
    180: "cent quatre-vingts",
    200: "deux cents",
    201: "deux cent un",
    280: "deux cent quatre-vingts",
    1000: "mille",
    1001: "mille un",
    1900: "mille neuf cents",
    2000: "deux mille",
    21_000: "vingt et un mille",
    71_080: "soixante et onze mille quatre-vingts",
    80_000: "quatre-vingt mille",
    100_000: "cent mille",
    200_000: "deux cent mille",
    280_280: "deux cent quatre-vingt mille deux cent quatre-vingts",
    999_999: "neuf cent quatre-vingt-dix-neuf mille neuf cent quatre-vingt-dix-neuf",
    1_000_000: "un million",
    200_000_000: "deux cents millions",
    80_001_000: "quatre-vingts millions mille",
}


@pytest.mark.parametrize(("n", "words"), NUMBERS.items())
def test_number_words(n, words):
    assert number_words(n) == words


def test_number_words_are_all_different():
    numbers = [*range(10_000), *range(10_000, 1_000_000, 997)]
    assert len({number_words(n) for n in numbers}) == len(numbers)


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "une"),
        (21, "vingt et une"),
        (81, "quatre-vingt-une"),
        (101, "cent une"),
        (11, "onze"),
        (21_000, "vingt et un mille"),
    ],
)
def test_feminine_numbers(n, words):
    assert number_words(n, feminine=True) == words


@pytest.mark.parametrize("n", [-1, 10**9])
def test_number_out_of_range(n):
    with pytest.raises(ValueError, match="expected a number from 0"):
        number_words(n)


@pytest.mark.parametrize(
    ("time", "conversational", "words"),
    [
        ((0, 0), False, "minuit"),
        ((12, 0), True, "midi"),
        ((1, 0), False, "une heure"),
        ((21, 21), False, "vingt et une heures vingt et une"),
        ((12, 30), True, "midi et demi"),
        ((0, 30), True, "minuit et demi"),
        ((8, 30), True, "huit heures et demie"),
        ((8, 30), False, "huit heures trente"),
        ((9, 15), True, "neuf heures et quart"),
        ((23, 45), True, "minuit moins le quart"),
        ((11, 50), True, "midi moins dix"),
        ((11, 51), True, "onze heures cinquante et une"),
    ],
)
def test_clock_words(time, conversational, words):
    assert clock_words(*time, conversational) == words


def test_date_words():
    assert date_words(1, 1) == "premier janvier"
    assert date_words(11, 8, year=1980) == "onze août mille neuf cent quatre-vingts"
    assert date_words(2, 2, weekday=6) == "dimanche deux février"
    with pytest.raises(ValueError, match="day from 1 to 31"):
        date_words(32, 1)


@pytest.mark.parametrize(
    ("determiner", "noun", "phrase"),
    [
        ("le", Noun("hôpital", False), "l'hôpital"),
        ("le", Noun("œil", False), "l'œil"),
        ("le", Noun("yaourt", False), "le yaourt"),
        ("du", Noun("salon", False), "du salon"),
        ("du", Noun("eau", True), "de l'eau"),
        ("du", Noun("cave", True), "de la cave"),
        ("un", Noun("abeille", True), "une abeille"),
        ("ce", Noun("école", True), "cette école"),
        ("ce", Noun("avion", False), "cet avion"),
        ("mon", Noun("clé", True), "ma clé"),
        ("mon", Noun("échelle", True), "mon échelle"),
    ],
)
def test_determiners_agree_and_elide(determiner, noun, phrase):
    assert with_determiner(determiner, noun) == phrase


def test_adjectives_agree():
    rng = random.Random(0)
    for _ in range(300):
        article, *_, colour = expand("<un thing colour>", rng).split()
        forms = {a.feminine if article == "une" else a.masculine for a in ADJECTIVES["colour"]}
        assert colour in forms


def test_elision_of_de_and_que():
    assert elide("deux sacs de oranges et de pommes") == "deux sacs d'oranges et de pommes"
    assert (
        elide("pendant que il neige, alors que le soleil brille") == "pendant qu'il neige, alors que le soleil brille"
    )
    assert elide("le train de onze heures, le bus de une heure") == "le train de onze heures, le bus d'une heure"


@pytest.fixture(scope="module")
def sentences():
    rng = random.Random(0)
    return [draw_sentence(rng) for _ in range(6000)]


def test_every_template_expands():
    rng = random.Random(1)
    slots = set()
    for template in (t for group in TEMPLATES.values() for t in group):
        slots |= set(re.findall(r"<([^<>]+)>", template))
        assert not set("<>") & set(expand(template, rng))
    used = {word for slot in slots for word in slot.split()}
    unused = (set(NOUNS) | set(ADJECTIVES) | set(PHRASES) | set(TEMPLATES)) - used - set(KINDS)
    assert not unused, "words that no sentence can hold"


def test_sentences_are_rich_and_in_the_alphabet(sentences):
    words = {word for sentence in sentences for word in sentence.text.split()}
    assert len(words) > 500
    assert len({s.text for s in sentences}) > 0.8 * len(sentences)
    assert set("".join(s.text for s in sentences)) <= set(FRENCH_ALPHABET)
    assert all(1 <= len(s.text.split()) <= 20 for s in sentences)
    counts = {kind: sum(s.kind == kind for s in sentences) / len(sentences) for kind in KINDS}
    assert counts == pytest.approx(KINDS, abs=0.03)


def test_sentences_hold_no_missed_elision(sentences):
    # Words that must be elided before a vowel; "onze" and "oui" are not.
    missed = re.compile(r"\b(?:le|la|de|que|ma) (?=[aàâeéèêiîoôuûœ])(?!onze\b|un )")
    found = [s.text for s in sentences if missed.search(s.text)]
    assert not found


def test_normalise_text():
    assert normalise_text("Quatre-vingt-onze, C’EST TOUT !") == "quatre vingt onze c'est tout"
    assert normalise_text("re\u0301veil") == "réveil", "combining accents are composed"
    with pytest.raises(DataError, match="'7'.*spell them out"):
        normalise_text("il a 7 ans")


def test_split_of_text_keeps_its_shares():
    places = [split_of_text(number_words(n)) for n in range(4000)]
    for split, share in TEXT_SHARES:
        assert places.count(split) / 40 == pytest.approx(share, abs=2.5)


def test_speakers_are_stable_and_distinct():
    cast = speakers(36)
    splits = [speaker.split for speaker in cast]
    assert (splits.count("train"), splits.count("valid"), splits.count("test")) == (24, 4, 8)
    assert speakers(9) == cast[:9], "more speakers must not move one to another split"
    assert len({speaker.voice for speaker in speakers(len(VARIANTS))}) == len(VARIANTS) == 45
    assert set(VARIANTS) >= FEMALE
    assert {s.gender for s in cast if s.split == "test"} == {"f", "m"}


def test_an_utterance_depends_on_seed_and_index_alone():
    cast = speakers(36)
    first = [plan_utterance(index, 0, cast) for index in range(200)]
    assert [plan_utterance(index, 0, cast) for index in reversed(range(200))] == first[::-1]
    other = [plan_utterance(index, 1, cast) for index in range(200)]
    assert sum(a.text == b.text for a, b in zip(first, other, strict=True)) < 20
    assert all(split_of_text(u.text) == u.speaker.split for u in first + other), "no seed moves a test text to train"
