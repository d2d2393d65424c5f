"""The transcript alphabet of French and the way to it from ordinary spelling."""

from __future__ import annotations

import unicodedata

from lobes.errors import DataError

#: Every character that a transcript may hold: space, apostrophe, the 26 letters and the 16 French accented ones.
FRENCH_ALPHABET = " 'abcdefghijklmnopqrstuvwxyzàâæçèéêëîïôœùûüÿ"

_TO_SPACE = '-‐‑–—.,;:!?…«»"()/\t\n\xa0\u202f'
_TABLE = str.maketrans({**dict.fromkeys(_TO_SPACE, " "), "’": "'", "ʼ": "'"})


def normalise_text(text: str) -> str:
    """Lower-case `text`; hyphens and punctuation become spaces, runs of spaces one.

    Raises
    ------
    DataError
        If a character is then left that `FRENCH_ALPHABET` does not have (a digit, a foreign letter).

    Examples
    --------
    >>> normalise_text("Est-ce que l’Œuf est cuit ?")
    "est ce que l'œuf est cuit"
    """
    plain = " ".join(unicodedata.normalize("NFC", text).lower().translate(_TABLE).split())
    foreign = sorted(set(plain) - set(FRENCH_ALPHABET))
    if foreign:
        raise DataError(
            f"text={text!r}: characters {''.join(foreign)!r} are not in the French alphabet; spell them out in letters"
        )
    return plain
