"""Pronunciation lexicons: which phones a word is said with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lobes.errors import DataError

#: Of a further pronunciation, in CMUdict and what comes of it: `READ(2)`.
_VARIANT = re.compile(r"(.+)\(\d+\)")


class Phones(NamedTuple):
    """What `phones_of` gives: phones with spaces between, and the words that the lexicon has not."""

    text: str
    missing: tuple[str, ...]


def read_lexicon(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Return word -> phones, spaces between; of several pronunciations the first, as SUPERB's phone recognition does.

    Parameters
    ----------
    paths : path or sequence of paths
        Text files in UTF-8, a line for each pronunciation: the word, white space, its phones with white space between,
        as `librispeech-lexicon.txt` (https://www.openslr.org/11) has them. Words are compared in upper case; `READ(2)`
        is another pronunciation of `READ`. Later files add what the earlier have not.

    Raises
    ------
    DataError
        A file cannot be read, holds no word, or a line holds no phone.
    """
    lexicon: dict[str, str] = {}
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        before = len(lexicon)
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"lexicon {path}: cannot be read ({error}); expected lines of a word and phones") from error
        for number, line in enumerate(lines, start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise DataError(f"lexicon {path}: line {number} is {line!r}; expected a word and its phones")
            if word:
                variant = _VARIANT.fullmatch(word)
                lexicon.setdefault((variant[1] if variant else word).upper(), " ".join(phones))
        if len(lexicon) == before:
            raise DataError(f"lexicon {path}: has no word that is new; expected lines of a word and its phones")
    return lexicon


def phones_of(text: str, lexicon: Mapping[str, str]) -> Phones:
    """Return the phones of a text, and its words that the lexicon has not.

    Example
    -------
    >>> phones_of("Hello my friend", {"HELLO": "HH AH0 L OW1", "MY": "M AY1"})
    Phones(text='HH AH0 L OW1 M AY1', missing=('FRIEND',))
    """
    words = text.upper().split()
    missing = tuple(word for word in words if word not in lexicon)
    return Phones(" ".join(lexicon[word] for word in words if word in lexicon), missing)
