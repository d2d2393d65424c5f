"""Prefix beam search for CTC, with an n-gram model of tokens, of words, or of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lobes.errors import ConfigError
from lobes.probes.ctc import ctc_greedy
from lobes.probes.word_lm import WordFusion, Words, word_lm
from lobes.selection import NGramModel, Units

_NONE = -np.inf


class TokenLM:
    """An n-gram model of tokens, interpolated as Witten and Bell have it (`lobes.selection.NGramModel`).

    Parameters
    ----------
    sequences : sequence of lists of int
        Tokens of the training texts, from 1 on: 0 is the blank, which no text holds.
    n_tokens : int
        V, blank included.
    order : int
        N of the n-grams.

    Raises
    ------
    ConfigError, DataError
        As `NGramModel`.

    Example
    -------
    >>> model = TokenLM([[1, 2, 1, 2]], n_tokens=3, order=2)
    >>> following, end = model.next([1])
    >>> following.shape, bool(following[2] > following[1])
    ((3,), True)
    """

    def __init__(self, sequences: Sequence[Sequence[int]], n_tokens: int, order: int) -> None:
        units = Units.of([[token - 1 for token in sequence] for sequence in sequences])
        self._model = NGramModel(units, n_tokens - 1, order)
        self._context = order - 1
        self._known: dict[tuple[int, ...], tuple[NDArray[np.float64], float]] = {}

    def next(self, tokens: Sequence[int]) -> tuple[NDArray[np.float64], float]:
        """Log probability of every token after those so far, (V,), and of the end, nats; the blank's is -inf."""
        context = tuple(tokens[max(0, len(tokens) - self._context) :])
        if context not in self._known:
            after = self._model.next_log_probability([token - 1 for token in context])
            self._known[context] = np.concatenate([[_NONE], after[:-1]]), float(after[-1])
        return self._known[context]


class CTCDecoder:
    """From logits to tokens: the best path, or the best labelling that a beam finds.

    Parameters
    ----------
    tokenizer : CharTokenizer, SentencePieceTokenizer or the like
        Has V tokens, blank included, and says what each writes.
    texts : sequence of str
        Of the training split, for the language models.
    beam : int
        Prefixes that are kept; 1 takes the best path (`ctc_greedy`).
    lm_order : int, optional
        N of an n-gram model of tokens; None for no model.
    lm_weight : float
        By which its log probabilities are multiplied; choose it on the validation split.
    token_bonus : float
        Added for each token, nats, against the model's liking for short texts.
    language_model : int, str or Path, optional
        Of words: N of an n-gram model of the texts, or an ARPA file (`lobes.probes.word_lm`); None for no model.
    word_weight, word_bonus : float
        The same of it, for each word.

    Raises
    ------
    ConfigError
        `beam` is not positive, or too small for a language model.

    Example
    -------
    >>> from lobes.probes import CharTokenizer
    >>> decoder = CTCDecoder(CharTokenizer("ab"), ["ab"], beam=4, lm_order=2)
    >>> decoder(torch.tensor([[[0.0, 9.0, 0.0], [9.0, 0.0, 0.0]]]), torch.ones(1, 2, dtype=torch.bool))
    [[1]]
    """

    def __init__(
        self,
        tokenizer: Any,
        texts: Sequence[str],
        beam: int = 1,
        lm_order: int | None = None,
        lm_weight: float = 0.5,
        token_bonus: float = 0.0,
        language_model: int | str | Path | None = None,
        word_weight: float = 0.5,
        word_bonus: float = 0.0,
    ) -> None:
        if beam < 1:
            raise ConfigError(f"decoder.beam is {beam}: expected 1, which takes the best path, or more")
        for name, given in (("lm_order", lm_order), ("language_model", language_model)):
            if beam == 1 and given is not None:
                raise ConfigError(f"decoder.beam is 1 and {name} {given}: a language model needs a beam, such as 16")
        self.beam, self.lm_weight, self.token_bonus = beam, lm_weight, token_bonus
        self.tokens = self.words = None
        if lm_order is not None:
            self.tokens = TokenLM([tokenizer.encode(text) for text in texts], len(tokenizer), lm_order)
        if language_model is not None:
            self.words = WordFusion(word_lm(language_model, texts), tokenizer.surfaces(), word_weight, word_bonus)

    def __call__(self, logits: Tensor, valid: Tensor) -> list[list[int]]:
        """Return the tokens of each utterance; logits (B, T, V) are not read where `valid` (B, T) is False."""
        if self.beam == 1:
            return ctc_greedy(logits, valid)
        return ctc_beam(logits, valid, self.beam, self.tokens, self.lm_weight, self.token_bonus, words=self.words)


@torch.no_grad()
def ctc_beam(
    logits: Tensor,
    valid: Tensor,
    beam: int = 16,
    language_model: TokenLM | None = None,
    lm_weight: float = 0.5,
    token_bonus: float = 0.0,
    blank: int = 0,
    words: WordFusion | None = None,
) -> list[list[int]]:
    """Return the labelling of each utterance that prefix beam search finds (Graves et al. 2006; Hannun et al. 2014).

    A labelling y is scored by `log p(y | frames) + lm_weight · log p_LM(y, end) + token_bonus · |y|`, where the first
    sums over all alignments of y whose prefixes the beam has kept: over all of them where the beam holds every prefix.
    With `words` it gains what `WordFusion` gives its words too, each where it ends.

    Parameters
    ----------
    logits : tensor (B, T, V)
        Before the softmax; padded frames are not read.
    valid : bool tensor (B, T)
        True for real frames.
    beam : int
        Prefixes kept after each frame.
    language_model : TokenLM, optional
        Whose probabilities are counted as soon as a token is added.
    lm_weight, token_bonus : float
        As for `CTCDecoder`.
    blank : int
        Index of the blank; 0 where there is a language model.
    words : WordFusion, optional
        A language model of words, its weight and bonus.

    Example
    -------
    >>> frames = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()  # blank twice is likeliest, but 1 is in three paths
    >>> real = torch.ones(1, 2, dtype=torch.bool)
    >>> ctc_greedy(frames, real), ctc_beam(frames, real)
    ([[]], [[1]])
    """
    found = []
    for row, real in zip(logits, valid, strict=True):
        log_probs = row[real].double().log_softmax(-1).cpu().numpy()
        tree = _Prefixes(language_model, lm_weight, token_bonus, row.shape[-1], words)
        found.append(_search(log_probs, tree, beam, blank))
    return found


class _Prefixes:
    """A tree of prefixes, each with its last token, its parent and what it has gained from models and bonuses."""

    def __init__(
        self, model: TokenLM | None, weight: float, bonus: float, n_tokens: int, words: WordFusion | None
    ) -> None:
        self.model, self.weight, self.bonus, self.words = model, weight, bonus, words
        self.parent, self.last, self.gain, self.state = [-1], [-1], [0.0], [Words()]
        self.child: dict[tuple[int, int], int] = {}
        self._flat = np.full(n_tokens, bonus)
        self._gains: dict[int, NDArray[np.float64]] = {}

    def gains(self, node: int) -> NDArray[np.float64]:
        """What each token would add to a prefix, (V,)."""
        if self.model is None and self.words is None:
            return self._flat
        if node not in self._gains:
            gains = self._flat
            if self.model is not None:
                following = self.model.next(self.tokens(node))[0].copy()
                following[0] = 0.0  # the blank never grows a prefix; -inf times a weight of 0 would be no number
                gains = gains + self.weight * following
            if self.words is not None:
                gains = gains + self.words.gains(self.state[node])
            self._gains[node] = gains
        return self._gains[node]

    def grow(self, node: int, token: int) -> int:
        """The prefix with one token more."""
        if (node, token) not in self.child:
            self.child[node, token] = len(self.last)
            self.gain.append(self.gain[node] + float(self.gains(node)[token]))
            self.parent.append(node)
            self.last.append(token)
            self.state.append(self.words.grow(self.state[node], token) if self.words else Words())
        return self.child[node, token]

    def tokens(self, node: int) -> list[int]:
        """The prefix itself."""
        found: list[int] = []
        while node:
            found.append(self.last[node])
            node = self.parent[node]
        return found[::-1]

    def total(self, node: int) -> float:
        """What the prefix has gained if the text ends here."""
        end = self.weight * self.model.next(self.tokens(node))[1] if self.model else 0.0
        return self.gain[node] + end + (self.words.end(self.state[node]) if self.words else 0.0)


def _search(log_probs: NDArray[np.float64], tree: _Prefixes, width: int, blank: int) -> list[int]:
    """Best prefix of frames (T, V)."""
    beam = [0]
    ends_blank, ends_label = np.zeros(1), np.full(1, _NONE)  # of each prefix, by the kind of its last frame
    for frame in log_probs:
        n, tokens = len(beam), len(frame)
        last = np.array([tree.last[node] for node in beam])
        has_last = last >= 0
        total = np.logaddexp(ends_blank, ends_label)
        grown = total[:, None] + frame
        # The same token again is a second one only after a blank; without, it is the first that lasts.
        rows = np.flatnonzero(has_last)
        grown[rows, last[rows]] = ends_blank[rows] + frame[last[rows]]
        grown[:, blank] = _NONE
        stay_blank = total + frame[blank]
        stay_label = np.where(has_last, ends_label + frame[last], _NONE)
        place = {node: row for row, node in enumerate(beam)}
        for row, node in enumerate(beam):
            parent = place.get(tree.parent[node])
            if parent is not None:  # the parent grows into a prefix that is there already
                stay_label[row] = np.logaddexp(stay_label[row], grown[parent, last[row]])
                grown[parent, last[row]] = _NONE
        gain = np.array([tree.gain[node] for node in beam])
        gains = np.stack([tree.gains(node) for node in beam])
        scores = np.concatenate([np.logaddexp(stay_blank, stay_label) + gain, (grown + gains + gain[:, None]).ravel()])
        kept = _largest(scores, width)
        beam = [beam[i] if i < n else tree.grow(beam[(i - n) // tokens], (i - n) % tokens) for i in kept.tolist()]
        stays = kept < n
        ends_blank = np.where(stays, stay_blank[np.where(stays, kept, 0)], _NONE)
        ends_label = np.where(stays, stay_label[np.where(stays, kept, 0)], grown.ravel()[np.where(stays, 0, kept - n)])
    final = np.logaddexp(ends_blank, ends_label) + [tree.total(node) for node in beam]
    return tree.tokens(beam[int(np.argmax(final))])


def _largest(scores: NDArray[np.float64], width: int) -> NDArray[np.int64]:
    """Places of the largest scores, those that are possible at all, in their order."""
    possible = np.flatnonzero(scores > _NONE)
    if len(possible) > width:
        possible = possible[np.argpartition(-scores[possible], width - 1)[:width]]
    return np.sort(possible)
