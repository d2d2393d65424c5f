"""SentencePiece tokens with the interface of characters."""

from __future__ import annotations

import json

import pytest
import sentencepiece

from lobes.errors import ConfigError, DataError
from lobes.probes import CharTokenizer, SentencePieceTokenizer, unseen_characters

TEXTS = ["le chat dort", "le chien dort", "l'été où le chien court", "où est le chat", "le chat court"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return SentencePieceTokenizer.from_texts(TEXTS, size=40)


def test_texts_come_back(tokenizer):
    assert len(tokenizer) <= 40
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text and min(tokens) > 1, "neither the blank nor <unk>"
        assert len(tokens) < len(text) and max(tokens) < len(tokenizer)
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""
    assert tokenizer.decode([0, *tokenizer.encode("le chat"), 0]) == "le chat"


def test_tokens_are_the_pieces_of_the_library(tokenizer):
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    assert [token - 1 for token in tokenizer.encode("où est le chien")] == library.encode("où est le chien")


def test_accents_and_spaces_are_brought_to_one_form(tokenizer):
    assert tokenizer.encode("  l'e\u0301te\u0301   ou\u0300 ") == tokenizer.encode("l'été où")


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    assert SentencePieceTokenizer.from_texts(TEXTS, size=40).model == tokenizer.model


def test_unseen_characters_are_unknown_or_an_error(tokenizer):
    assert 1 in tokenizer.encode("le zoo") and "\ufffd" in tokenizer.decode(tokenizer.encode("le zoo"))
    strict = SentencePieceTokenizer(tokenizer.model, tokenizer.alphabet, unknown=False)
    with pytest.raises(DataError, match=r"'z' \(U\+007A\) is not among"):
        strict.encode("le zoo")
    for kind in (tokenizer, CharTokenizer.from_texts(TEXTS)):
        assert unseen_characters(kind, ["le zoo", "un zèbre", *TEXTS]) == {"z": 2, "è": 1, "b": 1}


def test_it_is_saved_and_loaded(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path / "run" / "tokenizer.json")
    again = SentencePieceTokenizer.load(path)
    assert (again.model, again.alphabet, again.unknown) == (tokenizer.model, tokenizer.alphabet, True)
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.json"]


def test_what_cannot_be_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"size is 10: expected at least 1\d"):
        SentencePieceTokenizer.from_texts(TEXTS, size=10)
    with pytest.raises(DataError, match="no character in 2 texts"):
        SentencePieceTokenizer.from_texts(["", " "])
    with pytest.raises(DataError, match="no such file"):
        SentencePieceTokenizer.load(tmp_path / "none.json")
    CharTokenizer.from_texts(TEXTS).save(tmp_path / "characters.json")
    with pytest.raises(DataError, match="not a saved SentencePieceTokenizer"):
        SentencePieceTokenizer.load(tmp_path / "characters.json")
    (tmp_path / "broken.json").write_text(json.dumps({"model": "AAAA", "alphabet": ["a"], "unknown": True}))
    with pytest.raises(DataError, match="cannot be read"):
        SentencePieceTokenizer.load(tmp_path / "broken.json")


def test_a_vocabulary_larger_than_the_texts_allow_is_as_large_as_they_do():
    assert 10 < len(SentencePieceTokenizer.from_texts(TEXTS, size=5000)) < 200
