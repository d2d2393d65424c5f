"""N-gram models of words, counted on texts or read from an ARPA file, and their share in a search over tokens."""

from __future__ import annotations

import gzip
import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lobes.errors import ConfigError, DataError
from lobes.selection import NGramModel, Units

#: Probabilities of words after histories that are kept.
_KEPT = 1 << 18
#: log10 p of a word that an ARPA file does not have, where it has no `<unk>` either.
_NEVER = -100.0
#: No text has this word.
_UNSEEN = " "
_BEGIN, _END, _UNKNOWN = "<s>", "</s>", "<unk>"


class WordLM(ABC):
    """Log probabilities of words after words; a word that the model does not know is an unknown one.

    Attributes
    ----------
    order : int
        N: a history has N - 1 words.
    vocabulary : list of str
        The words that it knows, sorted.
    """

    order: int
    vocabulary: list[str]

    @abstractmethod
    def log_probability(self, history: Sequence[str], word: str | None) -> float:
        """Log probability of a word, or of the end (None), after the words of a text so far, nats.

        Arguments
        ---------
        history : sequence of str
            From the text's beginning, or at least its last N - 1 words.
        word : str or None
            What follows.
        """

    def goes_on(self, begun: str) -> bool:
        """Whether a word of the model begins so, or none has begun."""
        place = bisect_left(self.vocabulary, begun)
        return not begun or (place < len(self.vocabulary) and self.vocabulary[place].startswith(begun))


class CountedWordLM(WordLM):
    """Counted on texts, interpolated as Witten and Bell have it (`lobes.selection.NGramModel`).

    One word more than the texts have stands for all that they do not have.

    Parameters
    ----------
    texts : iterable of str
        Words with white space between them.
    order : int
        N of the n-grams.

    Raises
    ------
    ConfigError, DataError
        As `NGramModel`.

    Example
    -------
    >>> model = CountedWordLM(["le chat dort", "le chien dort"], order=2)
    >>> model.log_probability(["le"], "chat") > model.log_probability(["le"], "dort") > model.log_probability([], "et")
    True
    """

    def __init__(self, texts: Iterable[str], order: int) -> None:
        words = [text.split() for text in texts]
        self.order = order
        self.vocabulary = sorted({word for text in words for word in text})
        self._number = {word: number for number, word in enumerate(self.vocabulary)}
        units = Units.of([[self._number[word] for word in text] for text in words])
        self._model = NGramModel(units, len(self._number) + 1, order)
        self._after = lru_cache(_KEPT)(self._model.log_probability_after)

    def log_probability(self, history: Sequence[str], word: str | None) -> float:
        """See `WordLM`."""
        unknown = len(self._number)
        context = tuple(self._number.get(before, unknown) for before in _last(history, self.order))
        return self._after(context, unknown + 1 if word is None else self._number.get(word, unknown))


class ArpaLM(WordLM):
    """Read from a file in ARPA's format, as SRILM and KenLM's `lmplz` write it: `p(w | h)`, or `b(h) p(w | h')`.

    `h'` is the history `h` without its first word, for n-grams that the file has not; the back-off weight `b` is 1
    where it has none. What is not among its words is its `<unk>`; without one, log10 p is -100, as in KenLM. All
    n-grams are held in memory, some 200 bytes each: prune large models.

    Parameters
    ----------
    path : str or Path
        `.arpa`, or `.arpa.gz`.

    Raises
    ------
    DataError
        The file is missing, is not in that format, or ends before all that its head announces.
    """

    def __init__(self, path: str | Path) -> None:
        self._grams = _read_arpa(Path(path))
        self.order = max(1 + gram.count(" ") for gram in self._grams)
        self.vocabulary = sorted(gram for gram in self._grams if " " not in gram)
        self._unknown = next((name for name in (_UNKNOWN, "<UNK>") if name in self._grams), None)

    def log_probability(self, history: Sequence[str], word: str | None) -> float:
        """See `WordLM`."""
        words = [self._known(before) for before in _last(history, self.order)]
        if len(words) < self.order - 1:
            words = [_BEGIN, *words]
        following = _END if word is None else self._known(word)
        total = 0.0
        while True:
            found = self._grams.get(" ".join([*words, following]))
            if found is not None:
                return (total + found.log10) * math.log(10)
            if not words:
                return (total + _NEVER) * math.log(10)
            history_found = self._grams.get(" ".join(words))
            total += history_found.back_off if history_found is not None else 0.0
            words = words[1:]

    def _known(self, word: str) -> str:
        return word if word in self._grams or self._unknown is None else self._unknown


class Gram(NamedTuple):
    """An n-gram of an ARPA file: log10 of its probability and of its back-off weight."""

    log10: float
    back_off: float


def word_lm(given: int | str | Path, texts: Iterable[str]) -> WordLM:
    """The model that an option names: an order counts one on texts, a path is an ARPA file.

    Raises
    ------
    ConfigError
        It is neither.
    DataError
        As the models.

    Example
    -------
    >>> word_lm(3, ["le chat dort"]).order
    3
    """
    if isinstance(given, (str, Path)):
        return ArpaLM(given)
    if isinstance(given, bool) or not isinstance(given, int):
        raise ConfigError(f"language_model is {given!r}: expected the N of an n-gram model, or an ARPA file")
    return CountedWordLM(texts, given)


class Words(NamedTuple):
    """What of a text so far is still to be known: its last whole words, and the word that has begun.

    `open` is False where no word of the model begins like that one: it is unknown, and has been counted.
    """

    history: tuple[str, ...] = ()
    begun: str = ""
    open: bool = True


class WordFusion:
    """What a model of words gives to a search over tokens: of each word as soon as it is certain.

    A text gains `weight · log p(words, end) + bonus · |words|` (Hannun et al. 2014, Deep Speech, section 2.2: α, β),
    whatever the tokens; words are what white space divides. The bonus is counted where a word begins, its probability
    where it ends, and that of an unknown one where no word goes on like it, so that a beam does not fill with what
    never ends.

    Parameters
    ----------
    model : WordLM
        Of words.
    surfaces : sequence of str
        What each token writes, white space included, (V,); see `CharTokenizer.surfaces`.
    weight : float
        α, of the model's log probability.
    bonus : float
        β, for each word, nats.

    Example
    -------
    >>> fusion = WordFusion(CountedWordLM(["a b"], 2), ["", " ", "a", "b"], weight=1.0, bonus=0.0)
    >>> begun = fusion.grow(Words(), 2)
    >>> fusion.gains(begun).round(2).tolist(), fusion.grow(begun, 1)
    ([0.0, -0.44, -2.77, -2.77], Words(history=('a',), begun='', open=True))
    """

    def __init__(self, model: WordLM, surfaces: Sequence[str], weight: float, bonus: float) -> None:
        self.model, self.weight, self.bonus = model, weight, bonus
        self._parts = [re.split(r"\s+", surface) for surface in surfaces]
        self._closing: dict[tuple[str, ...], list[int]] = {}
        for token, parts in enumerate(self._parts):
            if len(parts) > 1:  # which nearly always are two, the first of them empty
                self._closing.setdefault(tuple(parts[:-1]), []).append(token)
        self._begins = np.array([parts[-1] != "" for parts in self._parts])
        self._leaves = lru_cache(_KEPT // len(surfaces))(self._leaving)

    def gains(self, state: Words) -> NDArray[np.float64]:
        """What each token would add to the score, (V,)."""
        gains = np.zeros(len(self._parts))
        if state.open:
            gains += self._leaves(state.begun) * self._unknown(state.history)
            gains += self._begins * (self.bonus if not state.begun else 0.0)
        for parts, tokens in self._closing.items():
            history, gain = self._close(state, parts)
            gains[tokens] = gain + self._begins[tokens] * self.bonus
            gains[tokens] += self._leaves("")[tokens] * self._unknown(history)
        return gains

    def grow(self, state: Words, token: int) -> Words:
        """The state with one token more."""
        *closing, begun = self._parts[token]
        if closing:
            return Words(self._close(state, closing)[0], begun, not self._leaves("")[token])
        return Words(state.history, state.begun + begun, state.open and not self._leaves(state.begun)[token])

    def end(self, state: Words) -> float:
        """What is added where the text ends."""
        history, gain = self._close(state, [""])
        return gain + self.weight * self.model.log_probability(history, None)

    def _close(self, state: Words, parts: Sequence[str]) -> tuple[tuple[str, ...], float]:
        """The history after the words that end, and what they add: those within a token, their bonus too."""
        history, gain = state.history, 0.0
        for place, part in enumerate(parts):
            word, counted = (part, False) if place else (state.begun + part, not state.open)
            if word:
                gain += 0.0 if counted else self.weight * self.model.log_probability(history, word)
                gain += 0.0 if not place and state.begun else self.bonus
                history = _last((*history, word), self.model.order)
        return history, gain

    def _unknown(self, history: tuple[str, ...]) -> float:
        return self.weight * self.model.log_probability(history, _UNSEEN)

    def _leaving(self, begun: str) -> NDArray[np.bool_]:
        """Which tokens make a word, begun here or within them, that no word of the model begins with, (V,)."""
        words = [parts[-1] if len(parts) > 1 else begun + parts[-1] for parts in self._parts]
        return np.array([not self.model.goes_on(word) for word in words])


def _last(words: Sequence[str], order: int) -> tuple[str, ...]:
    return tuple(words[max(0, len(words) - order + 1) :])


def _read_arpa(path: Path) -> dict[str, Gram]:
    """All n-grams by their words, one space between."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            grams, announced = _parse_arpa(path, enumerate(file, start=1))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected an ARPA file") from error
    except (UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: is no text ({error}); give the ARPA file that a model was made from") from error
    if len(grams) != announced or _END not in grams:
        raise DataError(
            f"{path}: {len(grams)} different n-grams, {'' if _END in grams else 'no '}{_END} among them; expected the"
            f" {announced} of its head, {_END} among them: the file is not whole"
        )
    return grams


def _parse_arpa(path: Path, lines: Iterator[tuple[int, str]]) -> tuple[dict[str, Gram], int]:
    grams: dict[str, Gram] = {}
    announced, order = 0, 0  # in its head, before the first section
    for number, line in lines:
        line = line.strip(" \t\r\n")
        if announced == 0 and not line.startswith("ngram "):
            continue  # what stands before the head, and the head's own line
        if line == "\\end\\":
            break
        if section := re.fullmatch(r"\\(\d+)-grams:", line):
            order = int(section[1])
        elif not order and (count := re.fullmatch(r"ngram \d+ *= *(\d+)", line)):
            announced += int(count[1])
        elif line:
            fields = re.split("[ \t]+", line)
            try:
                values = float(fields[0]), float(fields[order + 1]) if len(fields) > order + 1 else 0.0
            except ValueError:
                values = None
            if not order or values is None or not order + 1 <= len(fields) <= order + 2:
                raise DataError(f"{path}: line {number} is {line!r}; expected log10 p, {order} words and a back-off")
            grams[" ".join(fields[1 : order + 1])] = Gram(*values)
    if not grams:
        raise DataError(f"{path}: no n-gram; expected ARPA's format: \\data\\, ngram 1=..., \\1-grams: and \\end\\")
    return grams, announced
