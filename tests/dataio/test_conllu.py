"""CoNLL-U is written as it was read, and what is wrong in it is named by file and line."""

from __future__ import annotations

import pytest

from lobes.dataio.conllu import Tree, parse_sentence, read_conllu, write_conllu
from lobes.errors import DataError

TEXT = """# sent_id = un
# text = au revoir parce qu'il dort
1-2\tau\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tà\tà\tADP\tPRE\t_\t3\tcase\t_\t_
2\tle\tle\tDET\tDET\tGender=Masc|Number=Sing\t3\tdet\t3:det\t_
3\trevoir\trevoir\tNOUN\tNOM\t_\t0\troot\t_\t_
3.1\tétant\têtre\tVERB\t_\t_\t_\t_\t0:root\tCopyOf=3
4\tparce qu'\tparce que\tSCONJ\tCSU\t_\t6\tmark\t_\t_
5\til\til\tPRON\tCLS\t_\t6\tnsubj:expl\t_\t_
6\tdort\tdormir\tVERB\tVRB\t_\t3\tadvcl\t_\t_

# newpar
1\toui\toui\tINTJ\tINT\t_\t0\troot\t_\t_

"""


@pytest.fixture
def conllu(tmp_path):
    """Writes a file and returns its path."""

    def write(text):
        path = tmp_path / "some.conllu"
        path.write_bytes(text.encode())
        return path

    return write


def test_what_is_read_is_written_again(conllu, tmp_path):
    sentences = read_conllu(conllu(TEXT))
    assert write_conllu(tmp_path / "again.conllu", sentences).read_bytes() == TEXT.encode()
    assert [len(sentence.words) for sentence in sentences] == [6, 1]
    assert sentences[0].meta("sent_id") == "un" and sentences[1].meta("sent_id") is None
    assert sentences[0].tokens[0].span == (1, 2) and sentences[1].where.endswith(":12")
    first = sentences[0].tree()
    assert first.words[3] == "parce qu'" and first.heads == (3, 3, 0, 6, 6, 3), "a form may hold a space"
    assert Tree.from_json(first.to_json()) == first


def test_line_ends_and_blank_lines_of_other_systems_are_read(conllu):
    sentences = read_conllu(conllu("\ufeff" + TEXT.replace("\n", "\r\n").rstrip() + "\n"))
    assert sentences == read_conllu(conllu(TEXT.replace("\n\n", "\n\n\n"))) and len(sentences) == 2


def test_a_tree_is_written_as_a_sentence_and_read_back(conllu, tmp_path):
    tree = Tree(("le", "chat"), ("DET", "NOM"), (2, 0), ("spe", "root"))
    again = read_conllu(write_conllu(tmp_path / "one.conllu", [tree.sentence("x-1")]))
    assert again[0].tree() == tree and again[0].meta("sent_id") == "x-1" and again[0].meta("text") == "le chat"


def test_an_utterance_without_words_keeps_its_place(tmp_path):
    none, tree = Tree((), (), (), ()), Tree(("oui",), ("INT",), (0,), ("root",))
    path = write_conllu(tmp_path / "some.conllu", [none.sentence("x-1"), tree.sentence("x-2")])
    again = read_conllu(path)
    assert [(sentence.meta("sent_id"), sentence.tree()) for sentence in again] == [("x-1", none), ("x-2", tree)]
    # What the evaluator of CoNLL 2018 asks of a sentence: one root, ten columns, no form that is empty.
    (line,) = again[0].lines()[2:]
    assert line.split("\t") == ["1", "_", "_", "_", "_", "_", "0", "_", "_", "_"]
    underscore = Tree(("_",), ("PCT",), (0,), ("root",))
    assert underscore.sentence("x").tree() == underscore, "a word that is written so is one where it has a tag"


def test_heads_that_make_no_tree_are_read_where_that_is_asked():
    cycle = Tree(("a", "b"), ("X", "X"), (2, 1), ("dep", "dep"))
    assert cycle.sentence("x").tree(checked=False) == cycle
    with pytest.raises(DataError, match="a cycle"):
        cycle.sentence("x").tree()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("\t_\t_\n6\t", "\t_\n6\t", 9, "9 columns between tabs, expected 10"),
        ("5\til", "7\til", 9, "ID is '7': expected 5"),
        ("1-2", "2-3", 3, "ID is '2-3': expected a range from 1"),
        ("3.1", "3.2", 7, "ID is '3.2': expected 3.1"),
        ("5\til\til", "5\til\t", 9, "column 3 is empty"),
        ("5\til", "cinq\til", 9, "ID is 'cinq'"),
        ("6\tdort", "# late\n6\tdort", 10, "a comment inside a sentence"),
        ("1-2", "1-9", 1, "a multiword token ends at word 9 of 6"),
    ],
)
def test_errors_name_file_and_line(conllu, old, new, line, says):
    path = conllu(TEXT.replace(old, new))
    with pytest.raises(DataError) as caught:
        read_conllu(path)
    assert str(caught.value).startswith(f"{path}:{line}: ") and says in str(caught.value)


def test_missing_file_and_other_encodings(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_conllu(tmp_path / "none.conllu")
    (tmp_path / "latin.conllu").write_bytes(TEXT.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_conllu(tmp_path / "latin.conllu")


@pytest.mark.parametrize(
    ("heads", "says"),
    [("0", ""), ("00", ""), ("20", ""), ("21", "cycle"), ("2310", "cycle"), ("90", "head 9"), ("10", "1")],
)
def test_trees_are_checked(heads, says):
    lines = [f"{i}\tw\t_\tX\t_\t_\t{head}\tdep\t_\t_" for i, head in enumerate(heads, start=1)]
    sentence = parse_sentence(lines, "file", 5)
    if says:
        with pytest.raises(DataError, match=f"file:5: .*{says}"):
            sentence.tree()
    else:
        assert sentence.tree().heads == tuple(map(int, heads)), "spoken utterances may have several roots"


def test_a_head_must_be_a_number():
    with pytest.raises(DataError, match="file:1: word 1 has the head '_': expected a number"):
        parse_sentence(["1\tw\t_\tX\t_\t_\t_\tdep\t_\t_"], "file").tree()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"words": ["a"]}', '{"words": ["a"], "upos": [], "heads": [], "deprels": []}']
)
def test_what_is_no_tree_in_json(text):
    with pytest.raises(DataError, match="expected"):
        Tree.from_json(text)
