"""From arc scores to dependency trees, and from tags and relations to numbers and back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lobes.dataio.conllu import Tree
from lobes.errors import DataError

logger = logging.getLogger(__name__)

#: The number of a tag or relation that training has not seen: no loss, and never predicted.
IGNORE = -100


def greedy_heads(scores: NDArray[np.floating]) -> list[int]:
    """Return the best head of each word by itself, which need not make a tree: several roots, or cycles.

    Parameters
    ----------
    scores : array (n, n + 1)
        Of word i + 1 depending on word j; 0 is the root. A word's own column is not read.

    Example
    -------
    >>> greedy_heads(np.array([[0.0, 9.0, 2.0], [0.0, 1.0, 9.0]]))
    [2, 1]
    """
    own = np.eye(len(scores), scores.shape[1], k=1, dtype=bool)
    return [int(head) for head in np.where(own, -np.inf, scores).argmax(1)]


def maximum_spanning_tree(scores: NDArray[np.floating], single_root: bool = True) -> list[int]:
    """Return the heads of the tree with the largest sum of scores (Chu & Liu 1965; Edmonds 1967), O(n³).

    Parameters
    ----------
    scores : array (n, n + 1)
        As for `greedy_heads`; finite.
    single_root : bool
        Exactly one word depends on the root. Every arc from the root is then made dearer by more than scores can
        make up for, so that the best tree has as few of them as a tree can have, which is one.

    Returns
    -------
    list of int
        n heads, 0 for the root.

    Raises
    ------
    DataError
        A score that is read is not finite.

    Example
    -------
    >>> maximum_spanning_tree(np.array([[0.0, 9.0, 2.0], [0.5, 1.0, 9.0]]))  # greedy would be a cycle
    [2, 0]
    """
    n_words = len(scores)
    if not n_words:
        return []
    own = np.eye(n_words, n_words + 1, k=1, dtype=bool)
    if not np.isfinite(scores[~own]).all():
        raise DataError("arc scores are not finite: the parser has diverged; train with a lower learning rate")
    table = np.full((n_words + 1, n_words + 1), -np.inf)  # of node i below node j
    table[1:] = np.where(own, -np.inf, scores)
    if single_root:
        table[1:, 0] -= 1 + n_words * np.ptp(scores[~own])
    heads = _edmonds(table)
    return [int(head) for head in heads[1:]]


def _edmonds(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """Heads of the best tree below node 0; the first entry means nothing."""
    heads = table.argmax(1)
    heads[0] = 0
    cycle = _cycle(heads)
    if not cycle:
        return heads
    # The cycle becomes one node, the last: it gives up the inner arc whose replacement costs least.
    inside = np.array(cycle)
    outside = np.setdiff1d(np.arange(len(table)), inside)
    inner = table[inside, heads[inside]]
    small = np.full((len(outside) + 1, len(outside) + 1), -np.inf)
    small[:-1, :-1] = table[np.ix_(outside, outside)]
    into = table[np.ix_(inside, outside)] - inner[:, None]
    small[-1, :-1] = into.max(0)
    out_of = table[np.ix_(outside, inside)]
    small[:-1, -1] = out_of.max(1)
    found = _edmonds(small)
    result = heads.copy()
    for number, node in enumerate(outside[1:], start=1):
        head = found[number]
        result[node] = inside[out_of[number].argmax()] if head == len(outside) else outside[head]
    entry = found[-1]
    result[inside[into[:, entry].argmax()]] = outside[entry]
    return result


def _cycle(heads: NDArray[np.int64]) -> list[int]:
    """The nodes of one cycle, or none."""
    colour = [0] * len(heads)
    colour[0] = -1
    for start in range(1, len(heads)):
        node, trail = start, []
        while colour[node] == 0:
            colour[node] = start
            trail.append(node)
            node = int(heads[node])
        if colour[node] == start:
            return trail[trail.index(node) :]
    return []


class TreeLabels:
    """Tags and relations of the training trees, as numbers from 0.

    Parameters
    ----------
    tags, deprels : sequence of str
        Each once.

    Example
    -------
    >>> labels = TreeLabels.from_trees([Tree(("il", "dort"), ("CLS", "VRB"), (2, 0), ("subj", "root"))])
    >>> labels.tags, labels.decode(("il",), [0], [0], [0])
    (['CLS', 'VRB'], Tree(words=('il',), upos=('CLS',), heads=(0,), deprels=('root',)))
    """

    def __init__(self, tags: Sequence[str], deprels: Sequence[str]) -> None:
        self.tags, self.deprels = list(tags), list(deprels)
        self._tag = {tag: number for number, tag in enumerate(self.tags)}
        self._deprel = {deprel: number for number, deprel in enumerate(self.deprels)}
        self._reported: set[str] = set()

    @classmethod
    def from_trees(cls, trees: Iterable[Tree]) -> TreeLabels:
        """All of those trees, sorted.

        Raises
        ------
        DataError
            There are none.
        """
        trees = list(trees)
        tags = sorted({tag for tree in trees for tag in tree.upos})
        deprels = sorted({deprel for tree in trees for deprel in tree.deprels})
        if not tags:
            raise DataError("no training utterance has words, so there are no tags to learn; check the train split")
        return cls(tags, deprels)

    def encode_tags(self, tree: str) -> list[int]:
        """Numbers of the tags of a tree in JSON; `IGNORE`, with a warning, for those that training has not."""
        return [self._number(self._tag, tag, "part of speech") for tag in Tree.from_json(tree).upos]

    def encode_heads(self, tree: str) -> list[int]:
        """Heads of a tree in JSON."""
        return list(Tree.from_json(tree).heads)

    def encode_deprels(self, tree: str) -> list[int]:
        """Numbers of the relations of a tree in JSON, as for tags."""
        return [self._number(self._deprel, deprel, "relation") for deprel in Tree.from_json(tree).deprels]

    def decode(self, words: Sequence[str], tags: Sequence[int], heads: Sequence[int], deprels: Sequence[int]) -> Tree:
        """The tree of numbers; the relation of what depends on 0 is `root`, where the treebank has that relation."""
        names = [self.deprels[number] for number in deprels]
        if "root" in self._deprel:
            names = ["root" if head == 0 else name for head, name in zip(heads, names, strict=True)]
        return Tree(tuple(words), tuple(self.tags[number] for number in tags), tuple(heads), tuple(names))

    def _number(self, known: dict[str, int], label: str, kind: str) -> int:
        if label not in known and label not in self._reported:
            self._reported.add(label)
            logger.warning(
                f"{kind} '{label}' is in no training utterance: it cannot be predicted, and counts as an error"
            )
        return known.get(label, IGNORE)
