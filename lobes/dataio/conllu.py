r"""CoNLL-U: sentences as lines of columns, with their comments, multiword tokens and empty nodes; and bare trees.

The format is that of Universal Dependencies, https://universaldependencies.org/format.html: ten columns between tabs,
ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC, a blank line after each sentence. Files with more columns, such as
those of the Orféo treebank, are read with `columns=13`. Columns are kept as they are written, so that what was read is
written again byte for byte, as long as lines end in `\n` and one blank line follows each sentence.

A sentence has words. An utterance in which none was recognised is written as one word whose form, tag and relation are
`_`, so that files of parses have the same sentences in the same order; as a tree it has no words again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lobes.dataio.manifest import atomic_write
from lobes.errors import DataError

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
ID, FORM, _LEMMA, UPOS, _XPOS, _FEATS, HEAD, DEPREL, _DEPS, _MISC = range(10)
#: The one word, at the root, of a sentence in which there is none.
_NO_WORD = ("1", "_", "_", "_", "_", "_", "0", "_", "_", "_")
_ID = re.compile(r"([1-9]\d*)(?:-([1-9]\d*))?|(0|[1-9]\d*)\.([1-9]\d*)")


class Tree(NamedTuple):
    """A dependency tree over words: what a parser predicts.

    Attributes
    ----------
    words : tuple of str
        Forms, n of them.
    upos : tuple of str
        Parts of speech.
    heads : tuple of int
        The word that each depends on, from 1; 0 for a root.
    deprels : tuple of str
        Relations to the heads.
    """

    words: tuple[str, ...]
    upos: tuple[str, ...]
    heads: tuple[int, ...]
    deprels: tuple[str, ...]

    def to_json(self) -> str:
        """One line of JSON with lists `words`, `upos`, `heads` and `deprels`, as a manifest keeps a tree."""
        return json.dumps({name: list(getattr(self, name)) for name in self._fields}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Tree:
        """Read what `to_json` wrote.

        Raises
        ------
        DataError
            It is something else.
        """
        try:
            tree = cls(*(tuple(json.loads(text)[name]) for name in cls._fields))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"tree is {text[:60]!r}: expected JSON with {', '.join(cls._fields)}") from error
        if len({len(column) for column in tree}) != 1:
            raise DataError(f"tree is {text[:60]!r}: expected columns of one length, not {[len(c) for c in tree]}")
        return tree

    def fault(self) -> str:
        """Why this is not a tree, or an empty string; several roots are no fault, as spoken utterances have them."""
        n_words = len(self.words)
        for number, head in enumerate(self.heads, start=1):
            if not 0 <= head <= n_words or head == number:
                return f"word {number} has the head {head}: expected another word of 1 to {n_words}, or 0"
        for number in range(1, n_words + 1):
            above, steps = number, 0
            while above and steps <= n_words:
                above, steps = self.heads[above - 1], steps + 1
            if above:
                return f"word {number} is below itself: the heads have a cycle"
        return ""

    def sentence(self, sent_id: str) -> Sentence:
        """A sentence of ten columns, with `# sent_id` and `# text`, to be written; without words, of a word `_`."""
        rows = zip(self.words, self.upos, self.heads, self.deprels, strict=True)
        tokens = [
            Token([str(number), word, "_", upos, "_", "_", str(head), deprel, "_", "_"])
            for number, (word, upos, head, deprel) in enumerate(rows, start=1)
        ]
        tokens = tokens or [Token(list(_NO_WORD))]
        return Sentence([f"# sent_id = {sent_id}", f"# text = {' '.join(self.words)}"], tokens)


@dataclass
class Token:
    """One line: a word (`3`), a multiword token (`3-4`, whose words follow) or an empty node (`3.1`)."""

    columns: list[str]

    @property
    def is_word(self) -> bool:
        """Whether it is a word of the tree."""
        return self.columns[ID].isdecimal()

    @property
    def is_multiword(self) -> bool:
        """Whether it is a range of words that are written as one."""
        return "-" in self.columns[ID]

    @property
    def span(self) -> tuple[int, int]:
        """First and last word of a multiword token."""
        first, _, last = self.columns[ID].partition("-")
        return int(first), int(last)


@dataclass
class Sentence:
    """Comments, lines, and where they were read.

    Attributes
    ----------
    comments : list of str
        Lines that begin with `#`, as they are.
    tokens : list of Token
        All other lines.
    where : str
        `file:line` of the first line, for messages.
    """

    comments: list[str]
    tokens: list[Token]
    where: str = field(default="", compare=False)

    @property
    def words(self) -> list[Token]:
        """The words of the tree, without multiword tokens and empty nodes."""
        return [token for token in self.tokens if token.is_word]

    def meta(self, key: str) -> str | None:
        """The value of `# key = value`, or None."""
        for comment in self.comments:
            name, equals, value = comment[1:].partition("=")
            if equals and name.strip() == key:
                return value.strip()
        return None

    def tree(self, checked: bool = True) -> Tree:
        """The dependency tree of the words; none for a word `_` with the tag and the relation `_`.

        Parameters
        ----------
        checked : bool
            False lets heads be that make no tree, as those that a parser chooses word by word.

        Raises
        ------
        DataError
            A head is no number or, where it is checked, outside the sentence, or the heads have a cycle.
        """
        words = self.words
        if len(words) == 1 and tuple(words[0].columns[: len(_NO_WORD)]) == _NO_WORD:
            return Tree((), (), (), ())
        for word in words:
            if not word.columns[HEAD].isdecimal():
                raise DataError(
                    f"{self.where}: word {word.columns[ID]} has the head '{word.columns[HEAD]}': expected a number"
                )
        read = [tuple(word.columns[column] for word in words) for column in (FORM, UPOS, DEPREL)]
        tree = Tree(read[0], read[1], tuple(int(word.columns[HEAD]) for word in words), read[2])
        fault = tree.fault() if checked else ""
        if fault:
            raise DataError(f"{self.where}: {fault}")
        return tree

    def lines(self) -> list[str]:
        """The lines as they are written, without the blank one."""
        return [*self.comments, *("\t".join(token.columns) for token in self.tokens)]


def read_conllu(path: str | os.PathLike[str], columns: int = len(COLUMNS)) -> list[Sentence]:
    """Read a file.

    Parameters
    ----------
    path : path
        UTF-8.
    columns : int
        How many each line has: 10, or more where a treebank adds its own.

    Returns
    -------
    list of Sentence

    Raises
    ------
    DataError
        Naming file and line, where a line has other columns, an ID is out of order or a column is empty.
    """
    return [parse_sentence(lines, str(path), number, columns) for number, lines in sentence_lines(path)]


def sentence_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the lines of each sentence, unchecked, to leave out bad ones by name.

    Raises
    ------
    DataError
        There is no such file, or it is not UTF-8.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected CoNLL-U; correct the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; fetch it again") from error
    block: list[str] = []
    first = 1
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        line = line.removesuffix("\r")
        if line:
            first = first if block else number
            block.append(line)
        elif block:
            yield first, block
            block = []


def parse_sentence(lines: Sequence[str], path: str, first: int = 1, columns: int = len(COLUMNS)) -> Sentence:
    """Make a sentence of its lines.

    Parameters
    ----------
    lines : sequence of str
        Without line ends, the blank one left out.
    path, first
        File, and number of the first line, for messages.
    columns : int
        As for `read_conllu`.

    Raises
    ------
    DataError
        As for `read_conllu`.
    """
    comments = [line for line in lines if line.startswith("#")]
    tokens: list[Token] = []
    seen, inside, empty = 0, 0, 0  # words so far, last word of the open multiword token, empty nodes after the word
    for number, line in enumerate(lines, start=first):
        where = f"{path}:{number}"
        if line.startswith("#"):
            if tokens:
                raise DataError(f"{where}: a comment inside a sentence; expected a blank line before it")
            continue
        parts = line.split("\t")
        if len(parts) != columns:
            raise DataError(f"{where}: {len(parts)} columns between tabs, expected {columns}")
        blank = next((column for column, part in enumerate(parts) if not part.strip(" ")), None)
        if blank is not None:
            raise DataError(f"{where}: column {blank + 1} is empty, expected '_' where there is nothing")
        match = _ID.fullmatch(parts[ID])
        if match is None:
            raise DataError(f"{where}: ID is '{parts[ID]}': expected a word 3, a range 3-4 or an empty node 3.1")
        word, last, before, node = (int(group) if group else 0 for group in match.groups())
        if match[3] is not None:
            expected, good = f"{seen}.{empty + 1}", before == seen and node == empty + 1
            empty += 1
        elif last:
            expected = f"a range from {max(seen, inside) + 1}"
            good = word == seen + 1 and seen >= inside and last >= word
            inside = last
        else:
            expected, good = str(seen + 1), word == seen + 1
            seen, empty = word, 0
        if not good:
            raise DataError(f"{where}: ID is '{parts[ID]}': expected {expected}")
        tokens.append(Token(parts))
    if not seen:
        raise DataError(f"{path}:{first}: a sentence without words; delete it")
    if inside > seen:
        raise DataError(f"{path}:{first}: a multiword token ends at word {inside} of {seen}")
    return Sentence(comments, tokens, f"{path}:{first}")


def write_conllu(path: str | os.PathLike[str], sentences: Iterable[Sentence]) -> Path:
    """Write sentences, all at once or not at all; return the path."""
    atomic_write(path, "".join("\n".join([*sentence.lines(), "", ""]) for sentence in sentences))
    return Path(path)
