"""N-gram models of words against slow sums, and their share in CTC's beam search against all labellings there are."""

from __future__ import annotations

import gzip
import itertools
import math

import numpy as np
import pytest
import torch

from lobes.errors import ConfigError, DataError
from lobes.probes import (
    ArpaLM,
    CharTokenizer,
    CountedWordLM,
    CTCDecoder,
    SentencePieceTokenizer,
    TokenLM,
    WordFusion,
    Words,
    ctc_beam,
    word_lm,
)
from lobes.selection import NGramModel, Units

TEXTS = ["a b", "a ab b", "b a a", "", "ba b a ab"]
#: log10; what it has of "a b" after the beginning, after "a", and nowhere is written out below.
ARPA = """
made by hand
\\data\\
ngram 1=5
ngram 2 = 3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.5
-0.8\t</s>
-0.4\ta\t-0.3
-0.7\tb\t-0.2
-1.5\t<unk>

\\2-grams:
-0.2 <s> a\t-0.1
-0.6\ta b\t-0.25
-0.1 b </s>

\\3-grams:
-0.05\t<s> a b

\\end\\
"""


def arpa(folder, text=ARPA):
    (folder / "lm.arpa").write_text(text, encoding="utf-8")
    return folder / "lm.arpa"


def sentence(model, text):
    """Log probability of a whole text, word by word, and its end."""
    words = text.split()
    return sum(model.log_probability(words[:place], word) for place, word in enumerate([*words, None]))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_counted_words_are_those_of_the_model_of_units(order):
    model, names = CountedWordLM(TEXTS, order), ["a", "ab", "b", "ba"]
    units = NGramModel(Units.of([[names.index(w) for w in text.split()] for text in TEXTS]), 5, order)
    for text in ("", "a", "ba b a ab", "b zz ab", "zz zy"):
        numbers = [names.index(word) if word in names else 4 for word in text.split()]
        expected = units.log_probability(Units.of([numbers]))[0] * (len(numbers) + 1)
        assert sentence(model, text) == pytest.approx(expected, abs=1e-9)
    for history in ([], ["a"], ["zz", "b", "a"]):
        following = [math.exp(model.log_probability(history, word)) for word in [*names, "zz", None]]
        assert sum(following) == pytest.approx(1.0)


def test_an_arpa_file_backs_off(tmp_path):
    model = ArpaLM(arpa(tmp_path))
    assert model.order == 3
    expected = {
        ((), "a"): -0.2,
        ((), "b"): -0.5 - 0.7,
        (("a",), "b"): -0.05,  # <s> a b
        (("b", "a"), "b"): -0.6,  # no back-off of "b a", which it has not
        (("a",), "a"): -0.1 - 0.3 - 0.4,
        (("a", "b"), None): -0.25 - 0.1,
        (("a", "b"), "zz"): -0.25 - 0.2 - 1.5,
        (("b", "b", "zz"), "a"): -0.4,
    }
    for (history, word), log10 in expected.items():
        assert model.log_probability(history, word) == pytest.approx(log10 * math.log(10)), (history, word)
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(ARPA.encode()))
    assert sentence(word_lm(str(tmp_path / "lm.arpa.gz"), []), "a b b") == sentence(model, "a b b")
    closed = ArpaLM(arpa(tmp_path, ARPA.replace("-1.5\t<unk>\n", "").replace("1=5", "1=4")))
    assert closed.log_probability(["b"], "zz") == pytest.approx((-0.2 - 100) * math.log(10))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no n-gram; expected ARPA's format"),
        (ARPA.replace("2 = 3", "2 = 4"), "9 different n-grams, </s> among them; expected the 10"),
        (ARPA.replace("-0.8\t</s>\n", "").replace("1=5", "1=4"), "no </s> among them"),
        (ARPA.replace("-0.6\ta b\t-0.25", "-0.6\tb"), r"line 17 is '-0.6\\tb'; expected log10 p, 2 words"),
        (ARPA.replace("-0.4\ta", "much\ta"), "line 11 is"),
        (ARPA.replace("\\1-grams:", ""), "line 9 is"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path, text, complaint):
    with pytest.raises(DataError, match=complaint):
        ArpaLM(arpa(tmp_path, text))


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "lm.binary").write_bytes(b"mmap lm \xff\xfe\x00")
    with pytest.raises(DataError, match="is no text"):
        ArpaLM(tmp_path / "lm.binary")
    with pytest.raises(DataError, match="cannot be read"):
        ArpaLM(tmp_path / "nowhere.arpa")
    for odd in (True, 2.5, None):
        with pytest.raises(ConfigError, match="language_model is"):
            word_lm(odd, ["a"])


def brute_force(logits, surfaces, model, weight, bonus, tokens=None, token_weight=0.0, token_bonus=0.0):
    """The best labelling of all, by the summed probability of every alignment and its text's score."""
    probabilities = logits.double().softmax(-1).tolist()
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        found = tuple(token for token, _ in itertools.groupby(path) if token)
        total[found] = total.get(found, 0.0) + math.prod(probabilities[t][v] for t, v in enumerate(path))

    def score(found):
        text = "".join(surfaces[token] for token in found)
        gain = weight * sentence(model, text) + bonus * len(text.split()) + token_bonus * len(found)
        if tokens is not None:
            steps = sum(float(tokens.next(found[:place])[0][token]) for place, token in enumerate(found))
            gain += token_weight * (steps + tokens.next(found)[1])
        return math.log(total[found]) + gain

    return list(max(total, key=score))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("weight", "bonus"), [(0.8, 0.0), (0.5, 1.5), (2.0, -1.0), (0.0, 2.0)])
@pytest.mark.parametrize("surfaces", [["", " ", "a", "b"], ["", " a", "b", " ba"], ["", "a b ", "b", " "]])
def test_a_beam_that_holds_every_prefix_finds_the_best_text_of_all(tmp_path, seed, weight, bonus, surfaces):
    torch.manual_seed(seed)
    logits = 1.5 * torch.randn(5, 4)
    for model in (CountedWordLM(TEXTS, 2 + seed % 2), ArpaLM(arpa(tmp_path))):
        words = WordFusion(model, surfaces, weight, bonus)
        found = ctc_beam(logits[None], torch.ones(1, 5, dtype=torch.bool), 4**5, words=words)
        assert found == [brute_force(logits, surfaces, model, weight, bonus)]


def test_tokens_add_up_to_their_text(tmp_path):
    """Whatever is written, and whenever it is counted."""
    random = np.random.default_rng(0)
    surfaces = ["", " ", "a", "b", "ab", " b", " z", "b a ", "a zz a", " a b"]
    for model in (CountedWordLM(TEXTS, 2), CountedWordLM(["", ""], 1), ArpaLM(arpa(tmp_path))):
        fusion = WordFusion(model, surfaces, 0.7, 0.3)
        for _ in range(60):
            tokens, state, gain = random.integers(1, len(surfaces), random.integers(0, 9)), Words(), 0.0
            for token in tokens:
                gain += fusion.gains(state)[token]
                state = fusion.grow(state, token)
            text = "".join(surfaces[token] for token in tokens)
            expected = 0.7 * sentence(model, text) + 0.3 * len(text.split())
            assert gain + fusion.end(state) == pytest.approx(expected, abs=1e-9), text


def test_an_unknown_word_is_counted_where_it_leaves_the_known():
    model = CountedWordLM(["abc"], 1)
    fusion, state = WordFusion(model, ["", " ", "a", "b", "z"], 1.0, 0.0), Words()
    unknown = model.log_probability([], "z")
    for token, gain in ((2, 0.0), (3, 0.0), (4, unknown), (2, 0.0), (1, 0.0)):
        assert fusion.gains(state)[token] == pytest.approx(gain)
        state = fusion.grow(state, token)
    assert fusion.gains(state)[4] == pytest.approx(unknown)


@pytest.mark.parametrize("seed", range(4))
def test_words_and_tokens_add_up(seed):
    torch.manual_seed(seed)
    logits, surfaces = 1.5 * torch.randn(5, 4), ["", " ", "a", "b"]
    model, tokens = CountedWordLM(TEXTS, 2), TokenLM([[2, 1, 3], [3, 3, 2]], 4, 2)
    words = WordFusion(model, surfaces, 0.6, 0.4)
    found = ctc_beam(logits[None], torch.ones(1, 5, dtype=torch.bool), 4**5, tokens, 0.7, 0.3, words=words)
    assert found == [brute_force(logits, surfaces, model, 0.6, 0.4, tokens, 0.7, 0.3)]


def test_the_decoder_prefers_words_that_the_texts_have():
    """Of what sounds alike, "ab ab" is said; without the model, and without its weight, it is "ab bb"."""
    tokenizer = CharTokenizer.from_texts(["ab "])
    said, heard = ["ab ab", "ab"] * 3, [2, 3, 1, 3, 0, 3]
    logits = 8.0 * torch.nn.functional.one_hot(torch.tensor([heard]), 4).float()
    logits[0, 3, 2] += 7.5  # nearly an "a"
    frames = torch.ones(1, 6, dtype=torch.bool)
    for options, text in (
        ({}, "ab bb"),
        ({"language_model": 2}, "ab ab"),
        ({"language_model": 2, "word_weight": 0.0}, "ab bb"),
    ):
        assert tokenizer.decode(CTCDecoder(tokenizer, said, beam=32, **options)(logits, frames)[0]) == text
    many = CTCDecoder(tokenizer, said, beam=32, language_model=2, word_weight=0.0, word_bonus=20.0)
    assert len(tokenizer.decode(many(logits, frames)[0]).split()) == 3, "of six frames at most, a space between two"


def test_what_tokens_write_makes_the_text():
    texts = ["le chat dort", "le chien dort  bien", "il était là"] * 4
    for tokenizer in (
        CharTokenizer.from_texts(texts, unknown=True),
        CharTokenizer.from_texts(texts),
        SentencePieceTokenizer.from_texts(texts, size=30),
    ):
        surfaces = tokenizer.surfaces()
        assert len(surfaces) == len(tokenizer) and surfaces[0] == ""
        random = np.random.default_rng(0)
        drawn = [random.integers(0, len(tokenizer), 8).tolist() for _ in range(20)]
        for tokens in [*map(tokenizer.encode, texts), *drawn]:
            written = "".join(surfaces[token] for token in tokens)
            assert written.split() == tokenizer.decode(tokens).split()
