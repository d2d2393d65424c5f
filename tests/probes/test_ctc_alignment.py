"""Forced alignment is the best of all paths; segments are the words that a path writes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lobes.probes import CharTokenizer, ctc_align, ctc_greedy, word_segments

N_LABELS, SPACE = 4, 1


def collapse(path):
    """What a path writes."""
    return [label for label, _ in itertools.groupby(path) if label]


def best_of_all(log_probs, transcript):
    """The most probable of all paths that write the transcript."""
    paths = [p for p in itertools.product(range(N_LABELS), repeat=len(log_probs)) if collapse(p) == transcript]
    return max(((sum(float(log_probs[t, label]) for t, label in enumerate(p)), p) for p in paths), default=None)


@pytest.mark.parametrize("transcript", [[2], [2, 3], [2, 2], [2, 1, 2], [3, 3, 3], []])
def test_alignment_is_the_best_of_all_paths(transcript):
    torch.manual_seed(len(transcript))
    n_frames = [5, 4, 2, 1]
    valid = torch.arange(6) < torch.tensor(n_frames).unsqueeze(1)
    logits = 2 * torch.randn(4, 6, N_LABELS, dtype=torch.float64)
    tokens = torch.tensor([[*transcript, 3]] * 4)
    spoilt = logits.masked_fill(~valid.unsqueeze(-1), math.nan)
    found = ctc_align(spoilt, valid, tokens, torch.tensor([len(transcript)] * 4))
    for row, count in enumerate(n_frames):
        expected = best_of_all(logits[row, :count].log_softmax(-1), transcript)
        assert bool(found.aligned[row]) == (expected is not None)
        labels, positions = found.labels[row, :count].tolist(), found.positions[row, :count].tolist()
        if expected is None:
            assert labels == [0] * count and found.log_prob[row] == -math.inf
            continue
        assert float(found.log_prob[row]) == pytest.approx(expected[0]) and tuple(labels) == expected[1]
        assert [transcript[p] for p, _ in itertools.groupby(positions) if p >= 0] == transcript
        assert (found.labels[row, count:] == 0).all() and (found.positions[row, count:] == -1).all()


def test_relative_lengths_are_as_speechbrain_has_them():
    torch.manual_seed(0)
    logits, valid = torch.randn(2, 7, N_LABELS), torch.ones(2, 7, dtype=torch.bool)
    tokens = torch.tensor([[2, 1, 3, 2], [3, 2, 0, 0]])
    both = [ctc_align(logits, valid, tokens, lengths) for lengths in (torch.tensor([4, 2]), torch.tensor([1.0, 0.5]))]
    assert torch.equal(both[0].positions, both[1].positions)


def test_segments_are_the_words_of_the_text():
    """Random paths: as many segments as words, each with just the letters of its word."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer([" ", "a", "b"])
    labels = torch.randint(0, N_LABELS, (60, 12))
    valid = torch.arange(12) < torch.randint(0, 13, (60, 1))
    spoilt = labels.masked_fill(~valid, SPACE)
    segments, counts = word_segments(spoilt, valid, SPACE)
    texts = [tokenizer.decode(path) for path in ctc_greedy(torch.nn.functional.one_hot(labels, N_LABELS), valid)]
    assert [len(text.split()) for text in texts] == counts.tolist() and {0, 1, 3} <= set(counts.tolist())
    for row, text in enumerate(texts):
        path = labels[row]
        for number, word in enumerate(text.split()):
            inside = segments[row] == number
            assert tokenizer.decode(collapse(path[inside].tolist())) == word
            first, last = inside.nonzero().squeeze(1)[[0, -1]].tolist()
            assert inside[first : last + 1].all(), "all frames between two boundaries, blanks too"
        assert (segments[row] < len(text.split())).all() and (segments[row][~valid[row]] == -1).all()
