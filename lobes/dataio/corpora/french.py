"""French text as it is read aloud, for corpora of which no utterance may be left out for how it is written."""

from __future__ import annotations

import re
import unicodedata

from lobes.dataio.corpora.gcompris_fr import normalise_french

#: Signs for the apostrophe besides the plain one.
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ′´`", "'"))
#: Signs that are read as words; other punctuation and signs are not heard.
_SIGNS = {"%": "pour cent", "&": "et", "€": "euros", "$": "dollars", "£": "livres", "°": "degrés", "+": "plus"}
_SIGNS |= {"=": "égale", "@": "arobase", "²": "carré", "³": "cube", "½": "un demi"}
#: Digits with a space or a point between thousands: 10 000, 1.000.000.
_THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:[ .\u00a0\u202f]\d{3})+(?!\d)")
_FIRST = re.compile(r"\b1(er|e|re|ère)(s?)\b")
_ORDINAL = re.compile(r"\b(\d+)(?:e|è|ème|ième)(s?)\b")
_DECIMAL = re.compile(r"(?<=\d),(?=\d)")


def spoken_french(text: str) -> str:
    """Reduce any text to what a French reader most likely says: `normalise_french`, but of every text.

    Numbers are spelt out as cardinals (`1er` and `2e` as ordinals, a decimal comma as *virgule*), a few signs as
    words; letters of any script stay. A number has other readings (*dix-neuf cent*, a telephone number in pairs): what
    was really said is not known, and counts as an error if it differs.

    Returns
    -------
    str
        Lower-case letters, apostrophes and single spaces; empty where nothing of the text is read aloud.

    Examples
    --------
    >>> spoken_french("Le 1er tome coûte 12,50 € ; 85 % des 10 000 l‘ont lu.")
    "le premier tome coûte douze virgule cinquante euros quatre vingt cinq pour cent des dix mille l'ont lu"
    >>> spoken_french("« … »")
    ''
    """
    text = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    text = "".join(f" {_SIGNS[char]} " if char in _SIGNS else char for char in text)
    text = _FIRST.sub(lambda match: ("premier" if match[1] in ("er", "e") else "première") + match[2], text)
    text = _ORDINAL.sub(lambda match: f"{_ordinal(_cardinal(match[1]))}{match[2]}", text)
    text = _THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    text = _DECIMAL.sub(" virgule ", text)
    text = re.sub(r"\d+", lambda match: f" {_cardinal(match[0])} ", text)
    try:
        return normalise_french(text)
    except ValueError:  # nothing is left
        return ""


def _cardinal(digits: str) -> str:
    """Words of a whole number; figure by figure what is too long for a number, or begins with 0."""
    from lobes.dataio.synthesis.french_numbers import LARGEST, number_words

    number = int(digits)
    if number > LARGEST or (digits[0] == "0" and len(digits) > 1):
        return " ".join(number_words(int(digit)) for digit in digits)
    return number_words(number)


def _ordinal(cardinal: str) -> str:
    """The ordinal of a cardinal above one: deuxième, cinquième, neuvième, quatrième, quatre-vingtième."""
    if cardinal.endswith(("vingts", "cents", "millions")):
        cardinal = cardinal[:-1]
    if cardinal.endswith("cinq"):
        return f"{cardinal}uième"
    if cardinal.endswith("neuf"):
        return f"{cardinal[:-1]}vième"
    return f"{cardinal.removesuffix('e')}ième"
