"""Trees are the best of all trees; the parser never reads padding, and takes the words where they are."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lobes.dataio.conllu import Tree
from lobes.errors import ConfigError, DataError
from lobes.probes import (
    CharTokenizer,
    Downstream,
    Probe,
    RecogniserHead,
    SpeechParser,
    TreeLabels,
    WordParser,
    ctc_align,
    decode_trees,
    greedy_heads,
    maximum_spanning_tree,
    parse_loss,
    recognised_words,
    word_segments,
)
from lobes.probes.parser import ParseScores, WordPool
from lobes.probes.trees import IGNORE

DIM, TAGS, DEPRELS = 6, 3, 4


def is_tree(heads):
    return not Tree(("w",) * len(heads), ("X",) * len(heads), tuple(heads), ("d",) * len(heads)).fault()


def best_tree(scores, single_root):
    """The best of all head assignments that are trees."""
    n = len(scores)
    trees = [
        h for h in itertools.product(range(n + 1), repeat=n) if is_tree(h) and (not single_root or h.count(0) == 1)
    ]
    return max(trees, key=lambda heads: sum(scores[word, head] for word, head in enumerate(heads)))


@pytest.mark.parametrize("single_root", [True, False])
@pytest.mark.parametrize("n_words", [1, 2, 3, 4, 5])
def test_spanning_tree_is_the_best_of_all_trees(n_words, single_root):
    draw = np.random.default_rng(n_words)
    for number in range(8 if n_words == 5 else 25):
        scores = draw.standard_normal((n_words, n_words + 1)) * 10.0 ** draw.integers(-1, 3)
        scores[:, 0] += number % 3 * 5  # roots that are worth it
        assert tuple(maximum_spanning_tree(scores, single_root)) == best_tree(scores, single_root)


def test_long_cycles_are_taken_apart():
    """Every word prefers the next: one of them has to give way, where that costs least."""
    scores = np.zeros((40, 41))
    scores[np.arange(40), np.roll(np.arange(40), -1) + 1] = 5.0
    scores[17, 0] = 1.0
    heads = maximum_spanning_tree(scores)
    assert is_tree(heads) and heads[17] == 0 and heads.count(0) == 1
    assert sum(head == (word + 1) % 40 + 1 for word, head in enumerate(heads)) == 39
    assert not is_tree(greedy_heads(scores))


def test_no_words_and_scores_of_a_parser_that_diverged():
    assert maximum_spanning_tree(np.zeros((0, 1))) == greedy_heads(np.zeros((0, 1))) == []
    with pytest.raises(DataError, match="not finite"):
        maximum_spanning_tree(np.full((2, 3), np.nan))


# --------------------------------------------------------------------------- the module


class Frames(torch.nn.Module):
    """An encoder whose layers are in the batch."""


@pytest.fixture(params=["mean", "lstm"])
def model(request):
    torch.manual_seed(0)
    tokenizer = CharTokenizer([" ", "a", "b"])
    head = RecogniserHead(DIM, len(tokenizer), hidden=5, layers=1)
    words = WordParser(10, TAGS, DEPRELS, pool=request.param, hidden=4, layers=1, arc_dim=5, deprel_dim=3, dropout=0.1)
    for scorer in (words.arcs, words.deprels):
        torch.nn.init.normal_(scorer.weight)
    return SpeechParser(Downstream(Frames(), Probe([DIM], head), None), words, tokenizer).eval()


def batch_of(frames, counts, tokens, lengths):
    return SimpleNamespace(layers=(frames.unsqueeze(2), counts / frames.shape[1]), tokens=(tokens, lengths))


def test_padding_is_never_read(model):
    counts = torch.tensor([14, 9, 3, 2])
    frames = 3 * torch.randn(4, 14, DIM)
    tokens = torch.tensor([[2, 1, 3, 1, 2, 3], [3, 2, 1, 2, 0, 0], [2, 0, 0, 0, 0, 0], [2, 1, 3, 0, 0, 0]])
    lengths = torch.tensor([6, 4, 1, 3])
    valid = torch.arange(14) < counts.unsqueeze(1)
    spoilt = frames.masked_fill(~valid.unsqueeze(-1), math.nan)
    with torch.no_grad():
        together = model(batch_of(spoilt, counts, tokens, lengths))
        assert together.aligned.tolist() == [True, True, True, False]
        assert together.given.words.sum(1).tolist() == [3, 2, 1, 0]
        for row, count in enumerate(counts.tolist()):
            part = slice(row, row + 1)
            alone = model(batch_of(frames[part, :count], counts[part], tokens[part, : lengths[row]], lengths[part]))
            for one, many in ((alone.given, together.given), (alone.recognised, together.recognised)):
                n = int(one.words.sum())
                assert n == int(many.words[row].sum())
                for name, single, several in zip(one._fields, one, many, strict=True):
                    single, several = single[0, :n], several[row, :n]
                    if name in ("arcs", "deprels"):
                        single, several = single[:, : n + 1], several[:, : n + 1]
                    assert torch.allclose(single.float(), several.float(), atol=1e-5), (row, name)


def test_words_get_the_frames_of_their_segment(model):
    frames = torch.randn(2, 7, 10)
    segments = torch.tensor([[0, 0, -1, 1, 1, 1, -1], [-1, 0, -1, -1, -1, -1, -1]])
    pool = model.parser.pool
    with torch.no_grad():
        found = pool(frames, segments, 3)
        changed = frames.clone()
        changed[0, 2], changed[0, 6], changed[0, 0] = 9.0, math.nan, 5.0
        again = pool(changed, segments, 3)
        if pool.lstm is None:
            assert torch.allclose(found[0, 1], frames[0, 3:6].mean(0)) and torch.equal(found[1, 0], frames[1, 1])
        else:
            assert torch.allclose(found[0, 1], pool.lstm(frames[:1, 3:6])[1][0].flatten(), atol=1e-6)
    assert torch.allclose(again[0, 1], found[0, 1]) and not torch.allclose(again[0, 0], found[0, 0])
    assert (found[0, 2] == 0).all() and (found[1, 1:] == 0).all(), "no such words"


def test_recognised_words_are_as_many_as_their_scores(model):
    torch.manual_seed(1)
    model.downstream.probe.head.output.weight.data *= 20  # many letters and spaces
    counts = torch.tensor([20, 11, 1])
    with torch.no_grad():
        heard = model(batch_of(4 * torch.randn(3, 20, DIM), counts, torch.tensor([[2]] * 3), torch.tensor([1, 1, 1])))
    found = recognised_words(heard, CharTokenizer([" ", "a", "b"]))
    assert [len(text) for text in found] == heard.recognised.words.sum(1).tolist()
    labels = TreeLabels(["A", "B", "C"], ["d", "e", "f", "root"])
    for decoder in ("mst", "greedy"):
        trees = decode_trees(heard.recognised, found, labels, decoder)
        assert [tree.words for tree in trees] == [tuple(text) for text in found]
        assert all((head == 0) == (name == "root") or head for t in trees for head, name in zip(t.heads, t.deprels))  # noqa: B905
    with pytest.raises(ConfigError, match="decoder is 'best': expected one of mst, greedy"):
        decode_trees(heard.recognised, found, labels, "best")


def test_words_that_could_not_be_aligned_are_still_counted():
    scores = ParseScores(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, 2), torch.tensor([[False]]))
    (tree,) = decode_trees(scores, [("a", "b")], TreeLabels(["X", "Y"], ["dep", "root"]))
    assert tree == Tree(("a", "b"), ("X", "X"), (0, 1), ("root", "dep"))


def test_loss_is_a_slow_sum_over_words(model):
    torch.manual_seed(2)
    frames, segments = (
        torch.randn(3, 8, 10),
        torch.tensor([[0, 0, 1, 1, 2, 2, 2, -1], [0] * 4 + [1] * 4, [0] + [-1] * 7]),
    )
    scores = model.parser(frames, segments, torch.tensor([3, 2, 1]))
    tags = torch.tensor([[0, 1, 2], [2, IGNORE, 0], [1, 1, 1]])
    heads, deprels = torch.tensor([[2, 0, 1], [0, 1, 0], [0, 0, 0]]), torch.tensor([[0, 1, 2], [3, 0, 0], [1, 1, 1]])
    usable = torch.tensor([True, True, False])
    known = ParseScores(*(part.detach() for part in scores))
    expected = 0.0
    for row, count in ((0, 3), (1, 2)):
        for word in range(count):
            head = int(heads[row, word])
            if tags[row, word] != IGNORE:
                expected -= float(known.tags[row, word].log_softmax(-1)[tags[row, word]])
            possible = [h for h in range(count + 1) if h != word + 1]
            arcs = known.arcs[row, word, possible].log_softmax(-1)
            expected -= float(arcs[possible.index(head)])
            expected -= float(known.deprels[row, word, head].log_softmax(-1)[deprels[row, word]])
    loss = parse_loss(scores, tags, heads, deprels, usable)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parser.parameters())
    assert float(parse_loss(known, tags, heads, deprels, torch.zeros(3, dtype=torch.bool))) == 0


def test_labels_that_training_has_not_seen(caplog):
    tree = Tree(("a", "b"), ("X", "Y"), (2, 0), ("dep", "root"))
    labels = TreeLabels.from_trees([tree])
    other = tree._replace(upos=("X", "Z")).to_json()
    assert labels.encode_tags(tree.to_json()) == [0, 1] and labels.encode_heads(other) == [2, 0]
    assert labels.encode_tags(other) == labels.encode_tags(other) == [0, IGNORE]
    assert caplog.text.count("part of speech 'Z' is in no training utterance") == 1
    with pytest.raises(DataError, match="no training utterance has words"):
        TreeLabels.from_trees([])


def test_pool_of_another_kind():
    with pytest.raises(ConfigError, match="pool is 'max': expected one of mean, lstm"):
        WordPool(4, "max")


def test_alignment_finds_the_words_of_the_transcript():
    """Sure logits: the segments of the transcript and of the best path are the same."""
    path = torch.tensor([[0, 2, 2, 0, 1, 1, 3, 0, 2, 0]])
    logits, valid = 9 * torch.nn.functional.one_hot(path, 4).float(), torch.ones(1, 10, dtype=torch.bool)
    forced = ctc_align(logits, valid, torch.tensor([[2, 1, 3, 2]]), torch.tensor([4]))
    for labels in (path, forced.labels):
        segments, counts = word_segments(labels, valid, space=1)
        assert segments.tolist() == [[0, 0, 0, 0, -1, -1, 1, 1, 1, 1]] and counts.tolist() == [2]
