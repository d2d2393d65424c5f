"""Parsing scores by hand, by slow loops, and by the rules of the CoNLL 2018 shared task."""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
import random

import numpy as np
import pytest
import slow_conll18

from lobes.dataio.conllu import Sentence, Tree, parse_sentence
from lobes.errors import DataError
from lobes.evaluation.parsing import align_edits, align_order, align_spans, las, parse_counts, parse_records, uas, upos
from lobes.evaluation.records import edit_counts

GOLD = Tree(
    ("le", "petit", "chat", "dort", "bien"),
    ("DET", "ADJ", "NOM", "VRB", "ADV"),
    (3, 3, 4, 0, 4),
    ("spe", "dep", "subj", "root", "dep"),
)


def words(text: str) -> Tree:
    return Tree(tuple(text.split()), (), (), ())


def random_tree(draw: random.Random, size: int) -> Tree:
    heads = [0] * size
    order = draw.sample(range(size), size)
    for place, word in enumerate(order[1:], start=1):
        heads[word] = draw.choice(order[:place]) + 1
    pick = lambda of: tuple(draw.choice(of) for _ in range(size))  # noqa: E731
    return Tree(pick("abc"), pick("NV"), tuple(heads), pick(("x", "x:y", "z")))


def all_alignments(n: int, m: int):
    """Every set of pairs that do not cross."""
    for size in range(min(n, m) + 1):
        for rows in itertools.combinations(range(n), size):
            for columns in itertools.combinations(range(m), size):
                yield list(zip(rows, columns, strict=True))


def test_scores_worked_by_hand():
    """'petit' is not heard, 'chat' is heard as 'chien', 'euh' is put in; 'bien' hangs from the wrong word."""
    heard = Tree(
        ("le", "chien", "euh", "dort", "bien"),
        ("DET", "NOM", "INT", "VRB", "NOM"),
        (2, 4, 4, 0, 2),
        ("spe", "dep", "dm", "root", "dep"),
    )
    pairs = align_edits(GOLD, heard)
    assert pairs in ([(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)],), "two substitutions cost no more than del, sub and ins"
    by_hand = [(0, 0), (2, 1), (3, 3), (4, 4)]
    counts = parse_counts(GOLD, heard, by_hand)
    assert counts == {"gold_words": 5, "system_words": 5, "aligned": 4,
                      "upos_correct": 3, "uas_correct": 3, "las_correct": 2}  # fmt: skip
    assert las([counts]) == pytest.approx(2 / 5) and upos([counts]) == uas([counts]) == pytest.approx(3 / 5)


def test_words_that_are_left_out_or_put_in_cost_recall_or_precision():
    half = Tree(("dort",), ("VRB",), (0,), ("root",))
    record = parse_records([GOLD], [half], ["u"], ["s"])[0]
    assert (record["aligned"], record["las_correct"]) == (1, 1)
    assert las([record]) == pytest.approx(2 * 1 / (5 + 1)), "precision 1, recall 1/5"
    nothing = parse_records([GOLD], [Tree((), (), (), ())], ["u"], ["s"])
    assert las(nothing) == 0 and las(parse_records([GOLD], [GOLD], ["u"], ["s"])) == 1


def test_a_head_that_was_not_recognised_is_no_root():
    gold = Tree(("a", "b"), ("X", "X"), (2, 0), ("dep", "root"))
    alone = Tree(("a",), ("X",), (0,), ("dep",))
    assert parse_counts(gold, alone, [(0, 0)])["uas_correct"] == 0
    extra = Tree(("a", "c", "b"), ("X",) * 3, (2, 3, 0), ("dep", "dep", "root"))
    assert parse_counts(gold, extra, [(0, 0), (1, 2)])["uas_correct"] == 1, "'a' hangs from a word that is not there"


def test_subtypes_of_relations_do_not_count():
    other = GOLD._replace(deprels=("spe:x", "dep", "subj:y", "root", "para"))
    assert parse_counts(GOLD, other, align_order(GOLD, other))["las_correct"] == 4


def test_with_the_treebanks_words_the_scores_are_accuracies():
    draw = random.Random(0)
    for _ in range(50):
        gold = random_tree(draw, draw.randint(1, 8))
        other = random_tree(draw, len(gold.words))._replace(words=gold.words)
        record = parse_records([gold], [other], ["u"], ["s"], align_order)
        same = [
            (t == p, h == g, h == g and d.split(":")[0] == e.split(":")[0])
            for t, p, h, g, d, e in zip(gold.upos, other.upos, gold.heads, other.heads, gold.deprels, other.deprels)  # noqa: B905
        ]
        assert [upos(record), uas(record), las(record)] == pytest.approx(list(np.mean(same, 0)))


def test_edit_alignment_is_the_best_of_all():
    draw = random.Random(1)
    for _ in range(150):
        gold, system = (words(" ".join(draw.choices("abc", k=draw.randint(0, 5)))) for _ in range(2))
        pairs = align_edits(gold, system)

        def cost(chosen, gold=gold, system=system):
            same = sum(gold.words[i] == system.words[j] for i, j in chosen)
            return len(gold.words) + len(system.words) - len(chosen) - same, -same

        assert cost(pairs) == min(map(cost, all_alignments(len(gold.words), len(system.words))))
        assert cost(pairs)[0] == sum(edit_counts(gold.words, system.words))
        assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))


def test_scores_over_a_corpus_are_not_means_of_utterances():
    small = Tree(("oui",), ("INT",), (0,), ("root",))
    wrong = GOLD._replace(heads=(0, 1, 1, 1, 1))
    records = parse_records([GOLD, small], [wrong, small], ["u", "v"], ["s", "t"])
    assert las(records) == pytest.approx(1 / 6)
    assert las(records, [[1, 0], [0, 3]]).tolist() == pytest.approx([0.0, 1.0]), "weights, for a bootstrap"


def test_align_order_refuses_other_numbers_of_words():
    with pytest.raises(DataError, match="a parse of 1 words .* expected 5"):
        align_order(GOLD, words("dort"))
    with pytest.raises(DataError, match="parses: 1, expected 2"):
        parse_records([GOLD, GOLD], [GOLD], ["u", "v"], ["s", "t"])


# --------------------------------------------------------------------------- the shared task's alignment


def sentence(*tokens: str):
    """Words, and multiword tokens as `du=de+le`."""
    lines, number = [], 1
    for token in tokens:
        form, _, inner = token.partition("=")
        parts = inner.split("+") if inner else [form]
        if inner:
            lines.append(f"{number}-{number + len(parts) - 1}\t{form}" + "\t_" * 8)
        for part in parts:
            lines.append(f"{number}\t{part}\t_\tX\t_\t_\t0\troot\t_\t_")
            number += 1
    return parse_sentence(lines, "file")


def test_words_on_the_same_characters_are_aligned():
    assert align_spans(words("aujourd' hui il dort"), words("aujourd'hui il do rt")) == [(2, 1)]
    assert align_spans(GOLD, GOLD) == [(i, i) for i in range(5)]
    with pytest.raises(DataError, match="differ from the treebank's at 'ien', expected 'at'"):
        align_spans(words("le chat"), words("le chien"))


def test_words_of_multiword_tokens_are_aligned_by_common_subsequence():
    gold = sentence("il", "vient", "du=de+le", "nord")
    assert align_spans(gold, sentence("il", "vient", "du=De+l+e", "nord")) == [(0, 0), (1, 1), (2, 2), (4, 5)]
    assert align_spans(gold, sentence("il", "vient", "d", "u", "nord")) == [(0, 0), (1, 1), (4, 4)]
    assert align_spans(gold, sentence("il", "vient", "du", "nord")) == [(0, 0), (1, 1), (4, 3)]
    wide = sentence("il", "vientdu=vient+de+le", "nord")
    assert align_spans(gold, wide) == [(i, i) for i in range(5)], "tokens that overlap are taken together"


def test_span_alignment_equals_a_slow_search():
    """Without multiword tokens: every pair is looked at."""
    draw = random.Random(2)
    for _ in range(100):
        text = "".join(draw.choices("abc", k=draw.randint(1, 9)))
        cut = lambda text=text: Tree(tuple(("".join(c + " " * draw.randint(0, 1) for c in text)).split()), (), (), ())  # noqa: E731
        gold, system = cut(), cut()
        spans = [list(itertools.pairwise([0, *itertools.accumulate(map(len, tree.words))])) for tree in (gold, system)]
        slow = [(i, j) for i, a in enumerate(spans[0]) for j, b in enumerate(spans[1]) if a == b]
        assert align_spans(gold, system) == slow


def random_sentence(draw: random.Random, text: str) -> Sentence:
    """The text in random words and multiword tokens, with a random tree."""
    tokens, at = [], 0
    while at < len(text):
        form = text[at : at + draw.randint(1, 4)]
        at += len(form)
        tokens.append((form, draw.randint(2, 3) if draw.random() < 0.3 else 1))
    tree, number, lines = random_tree(draw, sum(parts for _, parts in tokens)), 0, []
    for form, parts in tokens:
        if parts > 1:
            lines.append(f"{number + 1}-{number + parts}\t{form}" + "\t_" * 8)
        for _ in range(parts):
            inner = form if parts == 1 else "".join(draw.choices("abAB", k=draw.randint(1, 2)))
            tag, head, deprel = tree.upos[number], tree.heads[number], tree.deprels[number]
            number += 1
            lines.append(f"{number}\t{inner}\t_\t{tag}\t_\t_\t{head}\t{deprel}\t_\t_")
    return parse_sentence(lines, "file")


def random_pairs(seed: int, count: int):
    """Two cuts and two trees of each of some texts."""
    draw = random.Random(seed)
    for _ in range(count):
        text = "".join(draw.choices("ab", k=draw.randint(1, 12)))
        yield random_sentence(draw, text), random_sentence(draw, text)


def f1_of(gold: Sentence, system: Sentence) -> list[float]:
    counts = parse_counts(gold.tree(), system.tree(), align_spans(gold, system))
    names = ("aligned", "upos_correct", "uas_correct", "las_correct")
    return [2 * counts[name] / (counts["gold_words"] + counts["system_words"]) for name in names]


def test_scores_are_those_of_the_shared_tasks_rules():
    compared = 0
    for gold, system in random_pairs(3, 1500):
        if slow_conll18.in_step(gold, system):
            compared += 1
            assert f1_of(gold, system) == pytest.approx(list(slow_conll18.scores(gold, system).values()))
    assert compared > 400


def test_scores_are_those_of_the_shared_tasks_evaluator():
    """`conll18_ud_eval.py` (MPL 2.0) of https://github.com/ufal/conll2018, where an environment variable names it."""
    path = os.environ.get("CONLL18_UD_EVAL")
    if not path:
        pytest.skip("CONLL18_UD_EVAL does not name conll18_ud_eval.py")
    spec = importlib.util.spec_from_file_location("conll18_ud_eval", path)
    evaluator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluator)
    for pair in random_pairs(4, 1500):
        read = [evaluator.load_conllu(io.StringIO("\n".join([*one.lines(), "", ""]))) for one in pair]
        theirs = evaluator.evaluate(*read)
        assert f1_of(*pair) == pytest.approx([theirs[name].f1 for name in ("Words", "UPOS", "UAS", "LAS")])
    empty = Tree((), (), (), ()).sentence("x-1")
    assert len(evaluator.load_conllu(io.StringIO("\n".join([*empty.lines(), "", ""]))).sentences) == 1
