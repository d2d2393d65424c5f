"""How a meaning becomes a target, and a head's output a meaning: tagged characters by CTC or attention, or classes.

All are built of the tagged texts of the training split (see `lobes.dataio.tagged`) and have the same six members, by
which a recipe needs not know which it uses: `len` (outputs of the head), `encode` (tagged text to numbers), `model`
(puts the head on the encoder), `loss` and `decode` (to tagged texts, which `lobes.dataio.tagged.read_tagged` reads),
both of what the model gives, and `unseen`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lobes.dataio.tagged import CLOSE, is_concept, is_intent, read_tagged, unseen_labels, write_tagged
from lobes.errors import ConfigError, DataError
from lobes.probes.ctc import ctc_greedy, ctc_loss
from lobes.probes.downstream import Downstream
from lobes.probes.seq2seq import AttentionHead, Seq2Seq, Seq2SeqOutput, attends, seq2seq_loss
from lobes.probes.tokenizer import CharTokenizer

#: Marks stand for themselves as characters of Unicode's private use area, from here to the last.
_FIRST_MARK, _UNKNOWN_MARK = 0xE000, 0xF8FF
_IGNORED = -100
#: Puts a head, a constructor of (dim, n_outputs), on the encoder.
Build = Callable[[Callable[..., Any]], Downstream]


class _OnFrames:
    """A coding whose head gives logits."""

    def model(self, build: Build, head: Callable[..., Any]) -> Downstream:
        """Return the head on the encoder.

        Raises
        ------
        ConfigError
            The head writes by itself.
        """
        if attends(head):
            raise ConfigError(
                f"coding is {type(self).__name__}, and the head attends: expected lobes.probes.TagSeq2Seq with it"
            )
        return build(head)


class TaggedTokenizer:
    """Tagged texts to numbers and back: characters as `CharTokenizer` has them, and one token for each mark.

    No space is written beside a mark, so that a concept costs two tokens more than its words.

    Parameters
    ----------
    texts : sequence of str
        Tagged texts, whose marks and characters make the vocabulary.

    Raises
    ------
    DataError
        The texts hold more marks than there is room for (6,399).

    Example
    -------
    >>> tokenizer = TaggedTokenizer(["#a <b cd >", "<b c > d"])
    >>> tokenizer.decode(tokenizer.encode("#a <b cc > d d <b d >"))
    '#a <b cc > d d <b d >'
    >>> len(tokenizer.encode("#a <b cd > c")), len(tokenizer)
    (6, 8)
    """

    blank = CharTokenizer.blank

    def __init__(self, texts: Iterable[str]) -> None:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
        marks = sorted({word for text in texts for word in text.split() if _is_mark(word)})
        if _FIRST_MARK + len(marks) > _UNKNOWN_MARK:
            raise DataError(f"texts: {len(marks)} marks, expected at most {_UNKNOWN_MARK - _FIRST_MARK}")
        self._packed = {mark: chr(_FIRST_MARK + number) for number, mark in enumerate(marks)}
        self._mark = {character: mark for mark, character in self._packed.items()}
        self.characters = CharTokenizer.from_texts([" ", *map(self._pack, texts)], unknown=True)

    def __len__(self) -> int:
        """Return the size V of the vocabulary, blank and `<unk>` included."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a tagged text; a character or mark that is not in the vocabulary is `<unk>`."""
        return self.characters.encode(self._pack(text))

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the tagged text of tokens, well formed or not; `<unk>` gives U+FFFD."""
        text = self.characters.decode(tokens)
        return " ".join("".join(f" {self._mark[c]} " if c in self._mark else c for c in text).split())

    def _pack(self, text: str) -> str:
        """The text with a character for each mark."""
        packed, after_word = [], False
        for word in unicodedata.normalize("NFC", text).split():
            if _is_mark(word):
                packed.append(self._packed.get(word, chr(_UNKNOWN_MARK)))
            else:
                packed.append(f" {word}" if after_word else word)
            after_word = not _is_mark(word)
        return "".join(packed)


class TagCTC(_OnFrames):
    """CTC over a `TaggedTokenizer`, decoded greedily: for transcripts in which concepts are marked where they are said.

    The head gives (B, T, `len`), such as `BiLSTMHead`.

    Parameters
    ----------
    texts : sequence of str
        Tagged texts of the training split.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.tokenizer = TaggedTokenizer(texts)
        self.encode = self.tokenizer.encode

    def __len__(self) -> int:
        """Return the number of outputs."""
        return len(self.tokenizer)

    def loss(self, logits: Tensor, valid: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, nats per utterance, and the number of utterances in it; see `ctc_loss`."""
        return ctc_loss(logits, valid, tokens, lengths)[:2]

    def decode(self, logits: Tensor, valid: Tensor) -> list[str]:
        """Return the tagged text of each utterance."""
        return [self.tokenizer.decode(path) for path in ctc_greedy(logits, valid)]

    def unseen(self, texts: Iterable[str]) -> Counter[str]:
        """Count the intents and concepts that cannot be written, since training has none of them."""
        return unseen_labels(self.texts, texts)


class TagSeq2Seq:
    """Tagged texts of a `TaggedTokenizer` written by an `AttentionHead`, found by beam search; in training, with CTC.

    For transcripts in which concepts are marked, and, since attention needs no order of speech, for those without.

    Parameters
    ----------
    texts : sequence of str
        Tagged texts of the training split.
    label_smoothing, ctc_weight : float
        Of the loss in training (`seq2seq_loss`); the share of CTC on the frames, over the same tokens, is from 0 to 1.
    beam, length_power, max_tokens, tokens_per_frame
        As for `AttentionHead.search`, on the validation split too.

    Raises
    ------
    ConfigError
        `ctc_weight` is out of range.
    """

    def __init__(
        self,
        texts: Sequence[str],
        label_smoothing: float = 0.1,
        ctc_weight: float = 0.3,
        beam: int = 5,
        length_power: float = 1.0,
        max_tokens: int = 400,
        tokens_per_frame: float | None = 1.0,
    ) -> None:
        if not 0 <= ctc_weight <= 1:
            raise ConfigError(f"coding.ctc_weight is {ctc_weight}: expected a share from 0 to 1")
        self.texts = list(texts)
        self.tokenizer = TaggedTokenizer(texts)
        self.encode = self.tokenizer.encode
        self.label_smoothing, self.ctc_weight = label_smoothing, ctc_weight
        self.options: dict[str, Any] = {"beam": beam, "length_power": length_power, "max_tokens": max_tokens}
        self.options["tokens_per_frame"] = tokens_per_frame
        self._head: AttentionHead | None = None

    def __len__(self) -> int:
        """Return the number of outputs."""
        return len(self.tokenizer)

    @property
    def head(self) -> AttentionHead:
        """What writes, once there is a `model`."""
        assert self._head is not None, "model comes first"
        return self._head

    def model(self, build: Build, head: Callable[..., Any]) -> Seq2Seq:
        """Return the head on the encoder; it reads the tokens of a batch, and is kept for the search.

        Raises
        ------
        ConfigError
            The head does not write.
        """
        if not attends(head):
            raise ConfigError(f"coding is TagSeq2Seq, head {head}: expected lobes.probes.AttentionHead, which writes")
        model = Seq2Seq(build(partial(head, n_source=len(self) if self.ctc_weight else 0)))
        self._head = model.head
        return model

    def loss(
        self, memory: Tensor, valid: Tensor, logits: Tensor, ctc_logits: Tensor | None, tokens: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, nats per token, and the number of tokens in it; out of training attention's alone."""
        output, batch = Seq2SeqOutput(memory, valid, logits, ctc_logits), (tokens, lengths)
        training = self.head.training
        smoothing, share = (self.label_smoothing, self.ctc_weight) if training else (0.0, 0.0)
        return seq2seq_loss(output, SimpleNamespace(tokens=batch, source_tokens=batch), self.head.end, smoothing, share)

    def decode(self, memory: Tensor, valid: Tensor, logits: Tensor, ctc_logits: Tensor | None) -> list[str]:
        """Return the tagged text that the search finds for each utterance; the reference's tokens have no say."""
        return [self.tokenizer.decode(found.tokens) for found in self.head.search(memory, valid, **self.options)]

    def unseen(self, texts: Iterable[str]) -> Counter[str]:
        """Count the intents and concepts that cannot be written, since training has none of them."""
        return unseen_labels(self.texts, texts)


class SlotClasses(_OnFrames):
    """A choice for each slot, among the values that training has and none, and one for the intent.

    For meanings without a transcript, whose order is not that of speech, and whose values are few. The head gives
    (B, `len`), such as `AttentiveHead` or `PeakHead`: first the intents, then slot by slot.

    Parameters
    ----------
    texts : sequence of str
        Tagged texts of the training split.

    Raises
    ------
    DataError
        There is neither slot nor intent, or a text fills a slot twice.

    Example
    -------
    >>> slots = SlotClasses(["#order <size small >", "#order <size large > <milk soy >"])
    >>> len(slots), slots.encode("#order <size small >"), slots.encode("<size huge >")
    (7, [1, 0, 2], [0, 0, -100])
    >>> slots.decode(torch.tensor([[0.0, 1, 2, 0, 0, 1, 0]]), torch.ones(1, 9, dtype=torch.bool))
    ['#order <size large >']
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        values: dict[str, set[str]] = {}
        for text in self.texts:
            intent, concepts = read_tagged(text)
            if len(dict(concepts)) < len(concepts):
                raise DataError(f"'{text}' fills a slot twice: SlotClasses has one value for each; use TagCTC")
            for slot, value in (("", intent), *concepts) if intent else concepts:
                values.setdefault(slot, set()).add(value)
        if not values:
            raise DataError("texts: no slot and no intent, expected some to choose among; check the training split")
        #: Slot (empty for the intent) to its values; a class of none comes before them.
        self.values = {slot: sorted(values[slot]) for slot in sorted(values)}

    def __len__(self) -> int:
        """Return the number of outputs: over all slots, the values and one for none."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [len(values) + 1 for values in self.values.values()]

    def encode(self, text: str) -> list[int]:
        """Return the class of each slot; 0 for none, -100, which no loss counts, for a value that training has not."""
        intent, concepts = read_tagged(text)
        found = {"": intent, **dict(reversed(concepts))} if intent else dict(reversed(concepts))
        return [
            0 if slot not in found else values.index(found[slot]) + 1 if found[slot] in values else _IGNORED
            for slot, values in self.values.items()
        ]

    def loss(self, logits: Tensor, valid: Tensor, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropies summed over slots, nats per utterance, and the number of utterances in it.

        Parameters
        ----------
        logits : tensor (B, outputs)
            Of the head.
        valid : bool tensor (B, T)
            Utterances without a frame are left out.
        tokens : integer tensor (B, slots)
            From `encode`.
        lengths : tensor (B,)
            Not needed: all have as many slots.
        """
        heard = valid.any(1)
        tokens = tokens.masked_fill(~heard.unsqueeze(1), _IGNORED)
        parts = logits.float().split(self._sizes, dim=1)
        losses = [F.cross_entropy(p, t, ignore_index=_IGNORED, reduction="sum") for p, t in zip(parts, tokens.T)]  # noqa: B905
        return torch.stack(losses).sum() / heard.sum().clamp(min=1), heard.sum().float()

    def decode(self, logits: Tensor, valid: Tensor) -> list[str]:
        """Return the most probable meaning of each utterance as a tagged text, slots in alphabetical order."""
        choices = [part.argmax(1).tolist() for part in logits.split(self._sizes, dim=1)]
        texts = []
        for row in zip(*choices, strict=True):
            chosen = {slot: values[c - 1] for c, (slot, values) in zip(row, self.values.items(), strict=True) if c}
            intent = chosen.pop("", "")
            texts.append(write_tagged(list(chosen.items()), intent))
        return texts

    def unseen(self, texts: Iterable[str]) -> Counter[str]:
        """Count the intents, slots and values that cannot be chosen, since training has none of them."""
        return unseen_labels(self.texts, texts, values=True)


def _is_mark(word: str) -> bool:
    return word == CLOSE or is_concept(word) or is_intent(word)
