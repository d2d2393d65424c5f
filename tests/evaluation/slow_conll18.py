"""The scores of the CoNLL 2018 shared task, from its rules, slowly: every pair of words is looked at.

It says the rules (Zeman et al. 2018) of sets of characters, and shares nothing with `lobes.evaluation.parsing`. A word
outside multiword tokens stands on its characters, and is aligned with the word on the same ones. Characters of
multiword tokens of either side that overlap make a region; the words that lie in it are aligned by the longest common
subsequence of their forms, case apart. F1 is over the words of both sides.
"""

from __future__ import annotations

from typing import NamedTuple

from lobes.dataio.conllu import DEPREL, FORM, HEAD, UPOS, Sentence


class Word(NamedTuple):
    """A word on characters of the text."""

    place: frozenset[int]
    multiword: bool
    form: str
    upos: str
    head: int
    deprel: str


def words_of(sentence: Sentence) -> tuple[list[Word], str]:
    """The words, and the text without spaces."""
    text, words, surface = "", [], {}
    for token in sentence.tokens:
        if token.is_multiword:
            first, last = token.span
            surface |= dict.fromkeys(range(first, last + 1), range(len(text), len(text) + len(token.columns[FORM])))
            text += token.columns[FORM]
        elif token.is_word:
            number, form = int(token.columns[0]), token.columns[FORM]
            inside = number in surface
            if not inside:
                surface[number] = range(len(text), len(text) + len(form))
                text += form
            rest = (token.columns[UPOS], int(token.columns[HEAD]), token.columns[DEPREL].split(":")[0])
            words.append(Word(frozenset(surface[number]), inside, form.lower(), *rest))
    return words, text


def regions(words: list[Word]) -> list[frozenset[int]]:
    """Characters of multiword tokens, those that overlap taken together."""
    found: list[frozenset[int]] = []
    for word in (word for word in words if word.multiword):
        touched = [region for region in found if region & word.place]
        found = [region for region in found if not region & word.place]
        found.append(word.place.union(*touched))
    return found


def common(first: list[str], second: list[str]) -> list[tuple[int, int]]:
    """Longest common subsequence; forms that are the same are taken at once, else the first side's is left out."""
    if not first or not second:
        return []
    if first[0] == second[0]:
        return [(0, 0), *((i + 1, j + 1) for i, j in common(first[1:], second[1:]))]
    without_first = [(i + 1, j) for i, j in common(first[1:], second)]
    without_second = [(i, j + 1) for i, j in common(first, second[1:])]
    return without_first if len(without_first) >= len(without_second) else without_second


def aligned(gold: list[Word], system: list[Word]) -> dict[int, int]:
    """System word -> gold word, both from 1."""
    inside = regions([*gold, *system])
    free = [[not any(word.place & region for region in inside) for word in words] for words in (gold, system)]
    pairs = {
        j + 1: i + 1
        for i, one in enumerate(gold)
        for j, other in enumerate(system)
        if free[0][i] and free[1][j] and one.place == other.place
    }
    for region in inside:
        rows, columns = ([n for n, word in enumerate(words) if word.place <= region] for words in (gold, system))
        for i, j in common([gold[n].form for n in rows], [system[n].form for n in columns]):
            pairs[columns[j] + 1] = rows[i] + 1
    return pairs


def scores(gold_sentence: Sentence, system_sentence: Sentence) -> dict[str, float]:
    """F1 of words, tags, heads, and heads with relations."""
    (gold, text), (system, other) = words_of(gold_sentence), words_of(system_sentence)
    assert text == other
    pairs = {0: 0, **aligned(gold, system)}
    right = {"words": 0, "upos": 0, "uas": 0, "las": 0}
    for number, one in pairs.items():
        if number:
            said, meant = system[number - 1], gold[one - 1]
            head = pairs.get(said.head) == meant.head
            right["words"] += 1
            right["upos"] += said.upos == meant.upos
            right["uas"] += head
            right["las"] += head and said.deprel == meant.deprel
    return {name: 2 * count / (len(gold) + len(system)) for name, count in right.items()}


def in_step(gold_sentence: Sentence, system_sentence: Sentence) -> bool:
    """Whether the rules leave no doubt: no word lies across the border of a region, or stands before it beside several.

    The task's evaluator goes through both sides at once. Where a word of one side covers where several of the other
    begin, it is some words behind on that side when it comes to the region, passes over one of them and counts the rest
    to the region, as it does with some words that lie across its border.
    """
    (gold, _), (system, _) = words_of(gold_sentence), words_of(system_sentence)
    inside = regions([*gold, *system])
    if any(word.place & region and not word.place <= region for region in inside for word in (*gold, *system)):
        return False
    for words, others in ((gold, system), (system, gold)):
        begins = {min(other.place) for other in others}
        for word, after in zip(words, words[1:], strict=False):
            if after.multiword and not word.multiword and len(word.place & begins) > 1:
                return False
    return True
