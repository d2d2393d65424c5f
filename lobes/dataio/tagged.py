"""Texts in which concepts are marked, and what they mean: `#order <drink iced mocha > with <milk soy milk >`.

`<drink` opens a concept, `>` closes it, `#order` is the intent of the whole utterance; each is a word of its own. What
stands between the marks is said; the words in a concept are its value. As targets of CTC such texts go back to Ghannay
et al. 2018, "End-to-end named entity and semantic concept extraction from speech".
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from lobes.errors import DataError

CLOSE = ">"
_OPEN, _INTENT = "<", "#"


class Meaning(NamedTuple):
    """The `intent` (empty for none) and the `concepts` of an utterance, (concept, value) in the order of the text."""

    intent: str
    concepts: tuple[tuple[str, str], ...]


def is_concept(word: str) -> bool:
    """Whether a word opens a concept."""
    return word.startswith(_OPEN) and len(word) > 1


def is_intent(word: str) -> bool:
    """Whether a word is the mark of an intent."""
    return word.startswith(_INTENT) and len(word) > 1


def read_tagged(text: str) -> Meaning:
    """Return what a tagged text means; any text means something, so that any hypothesis can be scored.

    A concept that is not closed ends where the next one opens, or at the end; a `>` that closes nothing, and every
    intent but the first, are ignored.

    Examples
    --------
    >>> read_tagged("#order an <drink iced mocha > with <milk <shots two")
    Meaning(intent='order', concepts=(('drink', 'iced mocha'), ('milk', ''), ('shots', 'two')))
    """
    intent, inside = "", False
    concepts: list[tuple[str, list[str]]] = []
    for word in text.split():
        if is_intent(word):
            intent = intent or word[1:]
        elif is_concept(word):
            concepts.append((word[1:], []))
            inside = True
        elif word == CLOSE:
            inside = False
        elif inside:
            concepts[-1][1].append(word)
    return Meaning(intent, tuple((name, " ".join(words)) for name, words in concepts))


def write_tagged(parts: Iterable[str | tuple[str, str]], intent: str = "") -> str:
    """Return the tagged text of its parts.

    Parameters
    ----------
    parts : iterable
        Words outside any concept (str), and concepts (name, words).
    intent : str
        Of the utterance; empty for none.

    Raises
    ------
    DataError
        A name holds white space or is empty.

    Examples
    --------
    >>> write_tagged(["un", ("nombre", "deux"), "et demi"], "dire")
    '#dire un <nombre deux > et demi'
    """
    words = [f"{_INTENT}{_name(intent)}"] if intent else []
    for part in parts:
        if isinstance(part, str):
            words += unmarked(part).split()
        else:
            words += [f"{_OPEN}{_name(part[0])}", *unmarked(part[1]).split(), CLOSE]
    return " ".join(words)


def plain_text(text: str) -> str:
    """Return the words of a tagged text without its marks.

    Examples
    --------
    >>> plain_text("#dire un <nombre deux > et demi")
    'un deux et demi'
    """
    return " ".join(word for word in text.split() if not (is_intent(word) or is_concept(word) or word == CLOSE))


def unmarked(text: str) -> str:
    """Return a transcript in Unicode NFC without the characters that marks are made of, which become spaces."""
    return unicodedata.normalize("NFC", text).translate(dict.fromkeys(map(ord, f"{_OPEN}{CLOSE}{_INTENT}"), " "))


def unseen_labels(known: Iterable[str], texts: Iterable[str], values: bool = False) -> Counter[str]:
    """Count the intents and concepts in tagged texts that occur in none of the known ones.

    Parameters
    ----------
    known, texts : iterable of str
        Tagged texts, such as those of training and those to be tested.
    values : bool
        A concept with a value that is new for it counts too.

    Examples
    --------
    >>> unseen_labels(["#order <size small >"], ["#cancel", "<size large > <size small >"])
    Counter({'#cancel': 1})
    >>> unseen_labels(["#order <size small >"], ["<size large > <size small >"], values=True)
    Counter({'<size large >': 1})
    """
    seen = {label for text in known for label in _labels(text, values)}
    return Counter(label for text in texts for label in _labels(text, values) if label not in seen)


def _labels(text: str, values: bool) -> list[str]:
    intent, concepts = read_tagged(text)
    names = [write_tagged([concept]) if values else f"{_OPEN}{concept[0]}" for concept in concepts]
    return [f"{_INTENT}{intent}", *names] if intent else names


def _name(name: str) -> str:
    if not name or len(name.split()) != 1 or CLOSE in name:
        raise DataError(f"label '{name}': expected a name without white space and '>'; give it another")
    return name
