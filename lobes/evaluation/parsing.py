"""Scores of dependency parses: UPOS, UAS and LAS, also where the system's words are not the treebank's.

The rules are those of the CoNLL 2018 shared task (Zeman et al., "CoNLL 2018 Shared Task: Multilingual Parsing from Raw
Text to Universal Dependencies"): words are aligned first; a word counts for UPOS if its aligned word has the same tag,
for UAS if their heads are aligned to each other or both are the root, for LAS if also the relations agree, up to their
subtype after `:`. Precision is over the system's words, recall over the treebank's, and the score is F1.

What differs for speech is the alignment, as in wav2tree (Pupier et al., Interspeech 2022): recognised words need not
have the characters of the treebank's, so they are aligned by edit distance (`align_edits`), a misrecognised word being
aligned with the one in whose place it stands. `align_spans` is the shared task's own, for texts of the same characters.
With the treebank's words (`align_order`), F1 is accuracy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lobes.errors import DataError
from lobes.evaluation.metrics import Metric
from lobes.evaluation.records import Table

if TYPE_CHECKING:
    from lobes.dataio.conllu import Sentence, Tree

#: Aligned words, (gold, system), from 0, each at most once and in order.
Pairs = list[tuple[int, int]]


class _Word(NamedTuple):
    start: int  # in characters that are no spaces
    stop: int
    multiword: bool
    form: str


# --------------------------------------------------------------------------- alignments


def align_order(gold: Tree, system: Tree) -> Pairs:
    """The first with the first and so on: the system was given the treebank's words.

    Raises
    ------
    DataError
        Their numbers differ.
    """
    if len(gold.words) != len(system.words):
        raise DataError(
            f"a parse of {len(system.words)} words of '{' '.join(gold.words)[:60]}': expected {len(gold.words)};"
            " use align_edits for recognised words"
        )
    return [(number, number) for number in range(len(gold.words))]


def align_edits(gold: Tree, system: Tree) -> Pairs:
    """Words of a minimal edit distance (Levenshtein, 1966), matched or substituted.

    Of several minimal alignments it is one with the most words that are the same; of those, the one that aligns
    earliest from the end.

    Example
    -------
    >>> from lobes.dataio.conllu import Tree
    >>> tree = lambda text: Tree(tuple(text.split()), (), (), ())
    >>> align_edits(tree("le petit chat dort"), tree("le chien dort bien"))
    [(0, 0), (2, 1), (3, 2)]
    """
    first, second = gold.words, system.words
    edit = len(first) + len(second) + 1  # one edit outweighs all words that are the same
    cost = [[edit * column for column in range(len(second) + 1)]]
    for row, word in enumerate(first, start=1):
        line = [edit * row]
        for column, other in enumerate(second, start=1):
            through = cost[row - 1][column - 1] + (-1 if word == other else edit)
            line.append(min(through, cost[row - 1][column] + edit, line[-1] + edit))
        cost.append(line)
    pairs: Pairs = []
    row, column = len(first), len(second)
    while row and column:
        step = -1 if first[row - 1] == second[column - 1] else edit
        if cost[row][column] == cost[row - 1][column - 1] + step:
            row, column = row - 1, column - 1
            pairs.append((row, column))
        elif cost[row][column] == cost[row - 1][column] + edit:
            row -= 1
        else:
            column -= 1
    return pairs[::-1]


def align_spans(gold: Sentence | Tree, system: Sentence | Tree) -> Pairs:
    """The shared task's alignment: words that stand on the same characters, spaces apart.

    Words of multiword tokens, of which it is not known where they stand, are aligned within the characters of all
    multiword tokens that overlap, by their longest common subsequence, case apart.

    Raises
    ------
    DataError
        The characters differ.
    """
    (first, characters), (second, others) = _spans(gold), _spans(system)
    if characters != others:
        place = len(os.path.commonprefix([characters, others]))
        raise DataError(
            f"the system's characters differ from the treebank's at '{others[place : place + 20]}', expected"
            f" '{characters[place : place + 20]}'; use align_edits for recognised words"
        )
    pairs: Pairs = []
    row = column = 0
    while row < len(first) and column < len(second):
        one, other = first[row], second[column]
        if one.multiword or other.multiword:
            # A word beside that begins before the multiword token is passed over.
            if one.multiword:
                column += not other.multiword and other.start < one.start
            else:
                row += one.start < other.start
            stops = _region(first, second, row, column, (one if one.multiword else other).stop)
            pairs += _common(first, second, range(row, stops[0]), range(column, stops[1]))
            row, column = stops
        elif (one.start, one.stop) == (other.start, other.stop):
            pairs.append((row, column))
            row, column = row + 1, column + 1
        elif one.start <= other.start:
            row += 1
        else:
            column += 1
    return pairs


def _spans(parse: Sentence | Tree) -> tuple[list[_Word], str]:
    """Words with the characters that they stand on, and all characters."""
    if isinstance(parse, tuple):  # a Tree
        lines = [(str(number), word) for number, word in enumerate(parse.words, start=1)]
    else:
        lines = [(token.columns[0], token.columns[1]) for token in parse.tokens]
    words: list[_Word] = []
    text, open_until, span = "", 0, (0, 0)
    for number, form in lines:
        first, _, last = number.partition("-")
        if not first.isdecimal():
            continue  # an empty node
        if last or int(first) > open_until:
            characters = "".join(form.split())
            span = (len(text), len(text) + len(characters))
            text += characters
        if last:
            open_until = int(last)
        else:
            words.append(_Word(*span, int(first) <= open_until, form.lower()))
    return words, text


def _region(first: Sequence[_Word], second: Sequence[_Word], row: int, column: int, stop: int) -> tuple[int, int]:
    """Where the words end that lie in a multiword token, which ends at `stop`, or in others that overlap with it."""

    def inside(words: Sequence[_Word], number: int) -> bool:
        if number >= len(words):
            return False
        return words[number].start < stop if words[number].multiword else words[number].stop <= stop

    while inside(first, row) or inside(second, column):
        if column >= len(second) or (row < len(first) and first[row].start <= second[column].start):
            word, row = first[row], row + 1
        else:
            word, column = second[column], column + 1
        if word.multiword:
            stop = max(stop, word.stop)
    return row, column


def _common(first: Sequence[_Word], second: Sequence[_Word], rows: Sequence[int], columns: Sequence[int]) -> Pairs:
    """Longest common subsequence of the forms; where there is a choice, what matches first."""
    length = [[0] * (len(columns) + 1) for _ in range(len(rows) + 1)]
    for i in reversed(range(len(rows))):
        for j in reversed(range(len(columns))):
            same = first[rows[i]].form == second[columns[j]].form
            length[i][j] = max(length[i + 1][j], length[i][j + 1], length[i + 1][j + 1] + 1 if same else 0)
    pairs, i, j = [], 0, 0
    while i < len(rows) and j < len(columns):
        if first[rows[i]].form == second[columns[j]].form:
            pairs.append((rows[i], columns[j]))
            i, j = i + 1, j + 1
        elif length[i][j] == length[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


# --------------------------------------------------------------------------- records and metrics


def parse_counts(gold: Tree, system: Tree, pairs: Pairs) -> dict[str, int]:
    """Return how many words there are, are aligned, and have the right tag, head, and head with relation.

    Example
    -------
    >>> from lobes.dataio.conllu import Tree
    >>> gold = Tree(("le", "chat", "dort"), ("DET", "NOM", "VRB"), (2, 3, 0), ("spe", "subj", "root"))
    >>> heard = Tree(("chat", "mort"), ("NOM", "VRB"), (2, 0), ("dep", "root"))
    >>> parse_counts(gold, heard, [(1, 0), (2, 1)])
    {'gold_words': 3, 'system_words': 2, 'aligned': 2, 'upos_correct': 2, 'uas_correct': 2, 'las_correct': 1}
    """
    gold_number = {0: 0, **{system_word + 1: gold_word + 1 for gold_word, system_word in pairs}}
    upos = uas = las = 0
    for one, other in pairs:
        upos += gold.upos[one] == system.upos[other]
        if gold_number.get(system.heads[other]) == gold.heads[one]:
            uas += 1
            las += gold.deprels[one].split(":")[0] == system.deprels[other].split(":")[0]
    words = {"gold_words": len(gold.words), "system_words": len(system.words), "aligned": len(pairs)}
    return {**words, "upos_correct": upos, "uas_correct": uas, "las_correct": las}


def parse_records(
    gold: Sequence[Tree],
    system: Sequence[Tree],
    ids: Sequence[str],
    groups: Sequence[Any],
    align: Callable[[Tree, Tree], Pairs] = align_edits,
) -> list[dict[str, Any]]:
    """Return one record per utterance, for `upos`, `uas` and `las`.

    Parameters
    ----------
    gold, system : sequence of Tree
        The treebank's and the predicted, in the same order.
    ids, groups : sequence
        Name, and what intervals are clustered by, of each.
    align : callable
        `align_edits`, `align_order` or `align_spans`.

    Returns
    -------
    list of dict
        `id`, `group` and the counts of `parse_counts`.

    Raises
    ------
    DataError
        The numbers of items differ, or the alignment is not possible.
    """
    sizes = {len(gold), len(system), len(ids), len(groups)}
    if len(sizes) != 1:
        raise DataError(f"parses: {len(system)}, expected {len(gold)} as in the treebank, with an id and a group each")
    return [
        {"id": str(name), "group": group, **parse_counts(one, other, align(one, other))}
        for one, other, name, group in zip(gold, system, ids, groups, strict=True)
    ]


def _f1(name: str) -> Metric:
    field = f"{name}_correct"

    def score(table: Table, weights: NDArray[Any]) -> NDArray[Any]:
        words = weights @ (table["gold_words"] + table["system_words"]).astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(words > 0, 2 * (weights @ table[field].astype(float)) / words, np.nan)

    fields = [field, "gold_words", "system_words"]
    return Metric(name, fields, score, bounds=(0.0, 1.0), higher_is_better=True)


#: F1 of parts of speech, of heads and of heads with relations, over all words of the corpus; they read `parse_records`.
upos, uas, las = _f1("upos"), _f1("uas"), _f1("las")
