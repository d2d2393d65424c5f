"""Characters, or units such as phones, as CTC tokens, and which of them a tokenizer has not seen."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lobes.dataio.manifest import atomic_write
from lobes.errors import DataError


class CharTokenizer:
    """Characters to numbers and back; 0 is the CTC blank, 1 `<unk>` where there is one, then the alphabet.

    Texts are brought to Unicode NFC, so that an accent composed or combined is one token; nothing else is changed.

    Parameters
    ----------
    alphabet : sequence of str
        The characters, in order.
    unknown : bool
        Encode an unseen character as `<unk>`; by default it is an error.

    Raises
    ------
    DataError
        If the alphabet is empty, or has an entry twice or one that is not a single character.

    Example
    -------
    >>> tokenizer = CharTokenizer.from_texts(["été", "thé"])
    >>> tokenizer.encode("thé"), tokenizer.decode([2, 1, 3]), len(tokenizer)
    ([2, 1, 3], 'thé', 4)
    """

    blank = 0
    kind = "characters"
    entries = "single characters"

    def __init__(self, alphabet: Sequence[str], unknown: bool = False) -> None:
        odd = [entry for entry in alphabet if not isinstance(entry, str) or self.symbols(entry) != [entry]]
        if odd or not alphabet or len(set(alphabet)) < len(alphabet):
            shown = repr(odd[0]) if odd else f"{len(alphabet)} entries, {len(set(alphabet))} of them distinct"
            raise DataError(f"alphabet: {shown}, expected distinct {self.entries}; build it with from_texts")
        self.alphabet = list(alphabet)
        self.unknown = unknown
        self._first = 2 if unknown else 1
        self._number = {character: index for index, character in enumerate(self.alphabet, start=self._first)}

    @classmethod
    def from_texts(cls, texts: Iterable[str], unknown: bool = False) -> CharTokenizer:
        """Return the tokenizer whose alphabet is all `symbols` of the texts, sorted.

        Raises
        ------
        DataError
            If the texts hold none.
        """
        return cls(sorted(set().union(*map(cls.symbols, texts))), unknown)

    @staticmethod
    def symbols(text: str) -> list[str]:
        """Return what of a text becomes a token each: its characters."""
        return list(unicodedata.normalize("NFC", text))

    @staticmethod
    def join(symbols: Sequence[str]) -> str:
        """Return the text of symbols."""
        return "".join(symbols)

    @staticmethod
    def named(symbol: str) -> str:
        """Return what a message calls a symbol."""
        return f"character {symbol!r} (U+{ord(symbol):04X})"

    def __len__(self) -> int:
        """Return the size V of the vocabulary, blank and `<unk>` included: the head's number of outputs."""
        return self._first + len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises
        ------
        DataError
            If a symbol is not in the alphabet, and there is no `<unk>`.
        """
        tokens = []
        for symbol in self.symbols(text):
            number = self._number.get(symbol, 1 if self.unknown else None)
            if number is None:
                raise DataError(
                    f"text {text!r}: {self.named(symbol)} is not among the {len(self.alphabet)} of the alphabet; clean"
                    " the transcript, or build with unknown=True"
                )
            tokens.append(number)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; blanks give nothing, `<unk>` gives U+FFFD.

        Raises
        ------
        DataError
            If a token is outside the vocabulary.
        """
        symbols = []
        for token in tokens:
            if not 0 <= token < len(self):
                raise DataError(f"token: {token}, expected 0 to {len(self) - 1}; use the tokenizer of the training")
            if token >= self._first:
                symbols.append(self.alphabet[token - self._first])
            elif token != self.blank:
                symbols.append("\ufffd")
        return self.join(symbols)

    def surfaces(self) -> list[str]:
        """Return what each token writes, (V,); the blank writes nothing."""
        return [self.decode([token]) for token in range(len(self))]

    def save(self, path: str | Path) -> Path:
        """Write the tokenizer as JSON, atomically; return the path."""
        content = {"type": self.kind, "unknown": self.unknown, "alphabet": self.alphabet}
        atomic_write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> CharTokenizer:
        """Read a tokenizer that `save` wrote.

        Raises
        ------
        DataError
            If the file is missing or is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            alphabet, unknown = content["alphabet"], content["unknown"]
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file, expected a tokenizer; train first, or correct the path") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a saved {cls.__name__} ({error!r}); save it again with save()") from error
        return cls(alphabet, bool(unknown))


class UnitTokenizer(CharTokenizer):
    """Units with white space between them, such as phones, to numbers and back; otherwise as `CharTokenizer`.

    Example
    -------
    >>> tokenizer = UnitTokenizer.from_texts(["HH AH0 L OW1", "AH0"])
    >>> tokenizer.encode("L OW1  HH"), tokenizer.decode([1, 4]), tokenizer.surfaces()
    ([3, 4, 2], 'AH0 OW1', ['', ' AH0', ' HH', ' L', ' OW1'])
    """

    kind = "units"
    entries = "units without white space"

    @staticmethod
    def symbols(text: str) -> list[str]:
        """Return the units of a text."""
        return unicodedata.normalize("NFC", text).split()

    @staticmethod
    def join(symbols: Sequence[str]) -> str:
        """Return the text of units."""
        return " ".join(symbols)

    @staticmethod
    def named(symbol: str) -> str:
        """Return what a message calls a unit."""
        return f"unit {symbol!r}"

    def surfaces(self) -> list[str]:
        """Return what each token writes, (V,): a unit, and a space before it."""
        return ["", *(f" {self.decode([token])}" for token in range(1, len(self)))]


def unseen_characters(tokenizer: Any, texts: Iterable[str]) -> dict[str, int]:
    """Count the symbols of texts that are not in a tokenizer's `alphabet`, white space aside, commonest first.

    They are characters, or the units of a `UnitTokenizer`.

    Example
    -------
    >>> unseen_characters(CharTokenizer.from_texts(["un"]), ["un", "nœuds", "œuf"])
    {'œ': 2, 'd': 1, 's': 1, 'f': 1}
    """
    known = set(tokenizer.alphabet)
    found = Counter(symbol for text in texts for symbol in tokenizer.symbols(text))
    return {symbol: count for symbol, count in found.most_common() if symbol not in known and not symbol.isspace()}
