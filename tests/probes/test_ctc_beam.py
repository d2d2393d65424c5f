"""Prefix beam search against brute force over all alignments, with and without language models."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lobes.errors import ConfigError
from lobes.probes import CharTokenizer, CTCDecoder, TokenLM, ctc_beam, ctc_greedy


def labelling(path):
    return tuple(token for token, _ in itertools.groupby(path) if token != 0)


def brute_force(logits, model=None, weight=0.0, bonus=0.0):
    """The best labelling by the summed probability of every alignment, and the scores of all."""
    probabilities = logits.double().softmax(-1).tolist()
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        p = math.prod(probabilities[t][v] for t, v in enumerate(path))
        total[labelling(path)] = total.get(labelling(path), 0.0) + p

    def score(tokens):
        text = 0.0
        if model is not None:
            for place, token in enumerate(tokens):
                text += float(model.next(tokens[:place])[0][token])
            text += model.next(tokens)[1]
        return math.log(total[tokens]) + weight * text + bonus * len(tokens)

    scores = {tokens: score(tokens) for tokens in total}
    return list(max(scores, key=scores.__getitem__)), scores


def ones(*shape):
    return torch.ones(*shape, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("weight", "bonus"), [(0.0, 0.0), (0.7, 0.0), (0.5, 1.0)])
def test_a_beam_that_holds_every_prefix_is_brute_force(seed, weight, bonus):
    torch.manual_seed(seed)
    logits = 1.5 * torch.randn(5, 4)
    model = TokenLM([[1, 2, 3], [1, 1, 2], [3, 2, 1, 3]], 4, 3) if weight else None
    best, _ = brute_force(logits, model, weight, bonus)
    assert ctc_beam(logits[None], ones(1, 5), 4**5, model, weight, bonus) == [best]


def test_a_narrow_beam_finds_what_is_nearly_best():
    """Of random frames, the hardest there are, a beam of 8 of the 200 labellings loses little, and greedy more."""
    lost = {"beam": [], "greedy": []}
    for seed in range(20):
        torch.manual_seed(seed)
        logits = torch.randn(1, 5, 4)
        best, scores = brute_force(logits[0])
        for name, found in (("beam", ctc_beam(logits, ones(1, 5), 8)), ("greedy", ctc_greedy(logits, ones(1, 5)))):
            lost[name].append(scores[tuple(best)] - scores[tuple(found[0])])
    assert max(lost["beam"]) < 0.1 and np.mean(lost["greedy"]) > 0.05


def test_an_utterance_alone_is_the_same_as_padded_with_garbage():
    torch.manual_seed(0)
    logits, valid = torch.randn(3, 12, 6), torch.arange(12) < torch.tensor([12, 5, 0]).unsqueeze(1)
    padded = logits.masked_fill(~valid.unsqueeze(-1), math.nan)
    alone = [ctc_beam(logits[b : b + 1, valid[b]], ones(1, int(valid[b].sum())), 5)[0] for b in range(3)]
    assert ctc_beam(padded, valid, 5) == alone and alone[2] == []


def test_sharp_frames_give_the_best_path_whatever_the_beam():
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 3]])
    logits = 20 * torch.nn.functional.one_hot(path, 5).float()
    for beam in (1, 2, 16):
        assert CTCDecoder(CharTokenizer("abcd"), [], beam=beam)(logits, ones(1, 8)) == [[1, 1, 2, 3]]


def test_the_language_model_decides_between_what_sounds_alike():
    logits = torch.tensor([[[0.0, 5.0, -5.0, -5.0], [9.0, 0.0, 0.0, 0.0], [-9.0, -9.0, 1.0, 0.9]]])
    tokenizer, said = CharTokenizer("abc"), ["ac"] * 20 + ["bb"]
    assert CTCDecoder(tokenizer, said, beam=8)(logits, ones(1, 3)) == [[1, 2]]
    assert CTCDecoder(tokenizer, said, beam=8, lm_order=2)(logits, ones(1, 3)) == [[1, 3]]
    assert CTCDecoder(tokenizer, said, beam=8, lm_order=2, lm_weight=0.0)(logits, ones(1, 3)) == [[1, 2]]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_token_probabilities_are_those_of_whole_texts(order):
    """The sum over a text of what `next` says is what the model says of the text; it sums to one."""
    from lobes.selection import NGramModel, Units

    random = np.random.default_rng(0)
    texts = [random.integers(1, 6, random.integers(0, 9)).tolist() for _ in range(30)]
    model = TokenLM(texts, 6, order)
    whole = NGramModel(Units.of([[token - 1 for token in text] for text in texts]), 5, order)
    for text in ([], [1], [5, 5, 5, 1, 2, 3], texts[3]):
        summed = sum(model.next(text[:place])[0][token] for place, token in enumerate(text)) + model.next(text)[1]
        expected = whole.log_probability(Units.of([[token - 1 for token in text]]))[0] * (len(text) + 1)
        assert summed == pytest.approx(expected, abs=1e-9)
        following, end = model.next(text)
        assert np.exp(following).sum() + math.exp(end) == pytest.approx(1.0)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="needs a beam"):
        CTCDecoder(CharTokenizer("a"), ["a"], lm_order=2)
    with pytest.raises(ConfigError, match="beam is 1 and language_model 3: a language model needs a beam"):
        CTCDecoder(CharTokenizer("a"), ["a"], language_model=3)
    with pytest.raises(ConfigError, match="decoder.beam is 0"):
        CTCDecoder(CharTokenizer("a"), ["a"], beam=0)
