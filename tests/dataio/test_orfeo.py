"""prepare_orfeo on a tiny treebank in the layout that CEFC's README describes."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from lobes.dataio import read_manifest
from lobes.dataio.conllu import Tree
from lobes.dataio.corpora import prepare_orfeo
from lobes.errors import ConfigError, DataError


def block(name, words, times, heads=None, unit=1.0, columns=13):
    """Lines of one utterance; each word depends on the one before."""
    lines = [f"# sent_id = {name}", f"# text = {' '.join(words)}"]
    for number, (word, (begin, end)) in enumerate(zip(words, times, strict=True), start=1):
        head = number - 1 if heads is None else heads[number - 1]
        deprel = "dep" if head else "root"
        row = [
            number,
            word,
            word,
            "NOM",
            "NOM",
            "_",
            head,
            deprel,
            "_",
            "_",
            f"{begin * unit:f}",
            f"{end * unit:f}",
            "L1",
        ]
        lines.append("\t".join(map(str, row[:columns])))
    return "\n".join([*lines, "", ""])


@pytest.fixture
def orfeo(tmp_path):
    """Writes four recordings of 4 s, three utterances each, in `oral/<sub-corpus>/`."""

    def write(unit=1.0, suffix=".orfeo", extra=""):
        root = tmp_path / "orfeo"
        noise = np.random.default_rng(0)
        for corpus, recording in (
            ("cfpp", "Anne_F_25"),
            ("cfpp", "Luc_H_30"),
            ("tcof", "Guadeloupe"),
            ("tufs", "Kathy"),
        ):
            folder = root / "oral" / corpus
            folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / f"{recording}.wav", 0.1 * noise.standard_normal(8000 * 4), 8000)
            (folder / f"{recording}.xml").write_text("<TEI/>", encoding="utf-8")
            spoken = [("Parce que", "c'", "est"), ("l'", "E\u0301TE\u0301"), ("Kathy",)]
            blocks = []
            for i, words in enumerate(spoken):
                times = [(i + 0.25 * k, i + 0.25 * k + 0.2) for k in range(len(words))]
                blocks.append(block(f"cefc-{corpus}-{recording}-{i}", words, times, None, unit))
            text = "".join(blocks) + (extra if recording == "Kathy" else "")
            (folder / f"{recording}{suffix}").write_text(text, encoding="utf-8")
        return root

    return write


def rows_of(manifests):
    return {row["id"]: row for path in manifests.values() for row in read_manifest(path).rows}


def skipped(folder):
    return (folder / "skipped.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(("unit", "times", "suffix"), [(1, "seconds", ".orfeo"), (1000, "milliseconds", ".conllu")])
def test_each_utterance_is_a_row(orfeo, tmp_path, unit, times, suffix):
    given = {"times": times, "valid_share": 0.25, "test_share": 0.25}
    manifests = prepare_orfeo(orfeo(unit, suffix), tmp_path / "m", **given)
    rows = rows_of(manifests)
    assert list(manifests) == ["train", "valid", "test"] and len(rows) == 12
    assert {split: len(read_manifest(path).groups) for split, path in manifests.items()} == {
        "train": 2,
        "valid": 1,
        "test": 1,
    }
    row = rows["cefc-cfpp-Anne_F_25-0"]
    assert row["text"] == "parce_que c' est" and row["speaker"] == "L1" and row["group"] == "oral/cfpp/Anne_F_25"
    assert (row["start"], row["stop"]) == pytest.approx((0.0, 0.7))
    assert Tree.from_json(row["tree"]) == Tree(
        ("parce_que", "c'", "est"), ("NOM",) * 3, (0, 1, 2), ("root", "dep", "dep")
    )
    assert rows["cefc-tufs-Kathy-1"]["text"] == "l' été", "lower case, composed"
    written = (tmp_path / "m" / "train.csv").stat().st_mtime_ns
    prepare_orfeo(tmp_path / "orfeo", tmp_path / "m", **given)
    assert (tmp_path / "m" / "train.csv").stat().st_mtime_ns == written, "nothing is done again"


def test_what_is_left_out_is_named(orfeo, tmp_path):
    extra = (
        block("loop", ("a", "b"), [(0, 1), (1, 2)], heads=[2, 1])
        + block("late", ("a",), [(3.5, 9.0)])
        + block("back", ("a",), [(2.0, 1.0)])
        + block("short", ("a",), [(0, 1)], columns=10)
        + block("cefc-tufs-Kathy-0", ("a",), [(0, 1)])
        + block("untimed", ("a",), [(0, 1)]).replace("1.000000", "?")
    )
    root = orfeo(extra=extra)
    (root / "oral" / "tufs" / "alone.orfeo").write_text(block("alone", ("a",), [(0, 1)]), encoding="utf-8")
    rows = rows_of(prepare_orfeo(root, tmp_path / "m", valid_share=0.25, test_share=0.25))
    assert len(rows) == 12
    text = skipped(tmp_path / "m")
    for name, reason in {
        "loop": "the heads have a cycle",
        "Kathy.wav, 3.5-9 s": "ends after the file",
        "back": "an impossible range",
        "Kathy.orfeo:": "10 columns between tabs, expected 13",
        "cefc-tufs-Kathy-0": "has a sent_id that is taken",
        "untimed": "expected numbers",
        "alone.orfeo": "has no alone.wav beside it",
    }.items():
        assert any(name in line and reason in line for line in text.splitlines()), name


def test_a_published_division(orfeo, tmp_path):
    root = orfeo()
    names = sorted(rows_of(prepare_orfeo(root, tmp_path / "all", valid_share=0.25, test_share=0.25)))
    parts = {"train": names[0::3], "dev": names[1::3], "test": names[2:9:3]}
    (tmp_path / "splits").mkdir()
    for part, ids in parts.items():
        text = "".join(f"# sent_id = {name}\n1\tx\n\n" for name in ids)
        (tmp_path / "splits" / f"{part}.conllu").write_text(text, encoding="utf-8")
    manifests = prepare_orfeo(root, tmp_path / "m", splits_folder=tmp_path / "splits")
    found = {split: sorted(row["id"] for row in read_manifest(path).rows) for split, path in manifests.items()}
    assert found == {"train": parts["train"], "valid": parts["dev"], "test": parts["test"]}
    assert "is in no file of splits_folder" in skipped(tmp_path / "m")
    with open(tmp_path / "splits" / "test.conllu", "a", encoding="utf-8") as file:
        file.write(f"# sent_id = {parts['train'][0]}\n1\tx\n\n")
    with pytest.raises(DataError, match="test.conllu:10: .* is also in train"):
        prepare_orfeo(root, tmp_path / "m", splits_folder=tmp_path / "splits")
    (tmp_path / "splits" / "dev.conllu").unlink()
    with pytest.raises(DataError, match="no valid or dev.conllu in it"):
        prepare_orfeo(root, tmp_path / "m", splits_folder=tmp_path / "splits")


def test_other_folders_and_units(orfeo, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="does not look like orfeo: no \\*.orfeo"):
        prepare_orfeo(tmp_path / "empty", tmp_path / "m")
    with pytest.raises(ConfigError, match="times is 'ms': expected one of seconds, milliseconds"):
        prepare_orfeo(tmp_path / "empty", tmp_path / "m", times="ms")
    with pytest.raises(DataError, match="none of 12 files"):
        prepare_orfeo(orfeo(1000), tmp_path / "m", times="seconds")
