"""Pieces of words as CTC tokens: SentencePiece's unigrams (Kudo 2018; Kudo & Richardson 2018)."""

from __future__ import annotations

import base64
import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from lobes.dataio.manifest import atomic_write
from lobes.errors import ConfigError, DataError


class SentencePieceTokenizer:
    """Pieces to numbers and back; 0 is the CTC blank, 1 `<unk>`, then SentencePiece's pieces.

    It has the interface of `CharTokenizer`. Texts are brought to Unicode NFC, and a run of white space is one space.

    Parameters
    ----------
    model : bytes
        A SentencePiece model whose unknown piece is its first.
    alphabet : sequence of str
        The characters of the texts it was trained on, without the space.
    unknown : bool
        Encode an unseen character as `<unk>`; otherwise it is an error.

    Raises
    ------
    DataError
        The model cannot be read, or its unknown piece is another.

    Example
    -------
    >>> tokenizer = SentencePieceTokenizer.from_texts(["le chat dort", "le chien dort"] * 9, size=20)
    >>> tokenizer.decode(tokenizer.encode("le chien")), len(tokenizer) <= 20
    ('le chien', True)
    """

    blank = 0

    def __init__(self, model: bytes, alphabet: Sequence[str], unknown: bool = True) -> None:
        from sentencepiece import SentencePieceProcessor

        self.model, self.alphabet, self.unknown = model, sorted(alphabet), unknown
        self._known = frozenset(alphabet)
        try:
            self._pieces = SentencePieceProcessor(model_proto=model)
            unk = self._pieces.unk_id()
        except RuntimeError as error:
            raise DataError(f"SentencePiece model: cannot be read ({error}); train it again") from error
        if unk != 0:
            raise DataError(f"SentencePiece model: its unknown piece is {unk}, expected 0; make it with from_texts")

    @classmethod
    def from_texts(cls, texts: Iterable[str], size: int = 500, unknown: bool = True) -> SentencePieceTokenizer:
        """Train on texts, those of the training split alone; the same texts and size give the same tokenizer.

        Parameters
        ----------
        texts : iterable of str
            Sentences.
        size : int
            Largest V, blank and `<unk>` included; few texts give fewer pieces.
        unknown : bool
            As for the class.

        Raises
        ------
        ConfigError
            `size` does not hold the characters of the texts.
        DataError
            The texts hold no character.
        """
        from sentencepiece import SentencePieceTrainer

        sentences = [_clean(text) for text in texts]
        alphabet = set("".join(sentences)) - {" "}
        if not alphabet:
            raise DataError(f"texts: no character in {len(sentences)} texts, expected some; check the transcripts")
        least = len(alphabet) + 3  # the blank, <unk> and the mark of a word's beginning
        if size < least:
            raise ConfigError(
                f"size is {size}: expected at least {least}, for {len(alphabet)} characters; use characters"
            )
        model = io.BytesIO()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=iter([sentence for sentence in sentences if sentence]),
                model_writer=model,
                model_type="unigram",
                vocab_size=size - 1,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name="identity",
                max_sentence_length=1 << 16,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                unk_surface="\ufffd",
                num_threads=1,  # so that every process and every run gets the same pieces
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"size is {size}: SentencePiece cannot train it ({reason}); choose another") from error
        return cls(model.getvalue(), sorted(alphabet), unknown)

    def __len__(self) -> int:
        """Return the size V of the vocabulary, blank and `<unk>` included: the head's number of outputs."""
        return self._pieces.get_piece_size() + 1

    @staticmethod
    def symbols(text: str) -> list[str]:
        """Return the characters of a text, which `alphabet` has or not."""
        return list(_clean(text))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises
        ------
        DataError
            A character is not in the alphabet, and `unknown` is False.
        """
        text = _clean(text)
        if not self.unknown:
            for character in text:
                if character != " " and character not in self._known:
                    raise DataError(
                        f"text {text!r}: character {character!r} (U+{ord(character):04X}) is not among the"
                        f" {len(self.alphabet)} of the alphabet; clean the transcript, or build with unknown=True"
                    )
        return [piece + 1 for piece in self._pieces.encode(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; blanks give nothing, `<unk>` gives U+FFFD.

        Raises
        ------
        DataError
            If a token is outside the vocabulary.
        """
        pieces = []
        for token in tokens:
            if not 0 <= token < len(self):
                raise DataError(f"token: {token}, expected 0 to {len(self) - 1}; use the tokenizer of the training")
            if token != self.blank:
                pieces.append(int(token) - 1)
        return self._pieces.decode(pieces)

    def surfaces(self) -> list[str]:
        """Return what each token writes, (V,): a piece that begins a word has a space first; the blank is empty."""
        pieces = [self._pieces.id_to_piece(piece).replace("\u2581", " ") for piece in range(1, len(self) - 1)]
        return ["", "\ufffd", *pieces]

    def save(self, path: str | Path) -> Path:
        """Write the tokenizer as JSON, atomically; return the path."""
        model = base64.b64encode(self.model).decode("ascii")
        content = {"type": "sentencepiece", "unknown": self.unknown, "alphabet": self.alphabet, "model": model}
        atomic_write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> SentencePieceTokenizer:
        """Read a tokenizer that `save` wrote.

        Raises
        ------
        DataError
            If the file is missing or is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            model = base64.b64decode(content["model"], validate=True)
            alphabet, unknown = content["alphabet"], bool(content["unknown"])
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file, expected a tokenizer; train first, or correct the path") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a saved SentencePieceTokenizer ({error!r}); save it again with save()"
            ) from error
        return cls(model, alphabet, unknown)


def _clean(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
