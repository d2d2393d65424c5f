"""ETAPE and Transcriber's files: a tiny corpus with what such files hold besides words."""

from __future__ import annotations

import json

import pytest

from lobes.dataio import read_manifest, validate_splits
from lobes.dataio.corpora import prepare_etape
from lobes.dataio.transcriber import read_trs
from lobes.errors import ConfigError, DataError

HEAD = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE Trans SYSTEM "trans-14.dtd">
<Trans scribe="x" audio_filename="{show}" version="1">
<Speakers>
<Speaker id="spk1" name="Anne Élan" check="no" type="female" scope="global"/>
<Speaker id="spk2" name="Luc" type="male"/>
</Speakers>
<Episode>
"""
BODY = """<Section type="nontrans" startTime="0" endTime="0.5"><Turn startTime="0" endTime="0.5"><Sync time="0"/>
jamais lu</Turn></Section>
<Section type="report" startTime="0.5" endTime="3">
<Turn speaker="spk1" startTime="0.5" endTime="1.5" mode="planned">
<Sync time="0.5"/>
Bonjour <Event desc="i" type="noise" extent="instantaneous"/> à
<Event desc="pers" type="entities" extent="begin"/>^^Zoé<Event desc="pers" type="entities" extent="end"/>, euh...
<Sync time="1"/><Background time="1" type="music" level="high"/>
l' été 2010 (par)ti [rire] *vraiment<Comment desc="?"/>
</Turn>
<Turn speaker="spk1 spk2" startTime="1.5" endTime="2">
<Sync time="1.5"/>
<Who nb="1"/>
oui
<Who nb="2"/>
non non
</Turn>
<Turn speaker="spk2" startTime="2" endTime="2.4"><Sync time="2"/>
<Event desc="rire" type="noise" extent="instantaneous"/>
</Turn>
<Turn startTime="2.4" endTime="3"><Sync time="2.4"/>
</Turn>
</Section>
</Episode>
</Trans>
"""
SAID = ["bonjour à zoé euh", "l'été deux mille dix parti vraiment", "oui non non", ""]


def left_out(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


def write_trs(path, encoding="ISO-8859-1", body=BODY):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD.format(encoding=encoding, show=path.stem) + body, encoding=encoding)
    return path


@pytest.fixture
def etape(tmp_path, tone):
    """<split>/trs/<show>.trs and <split>/wav/<show>.wav; a show without audio, and one with named entities too."""
    root = tmp_path / "ETAPE"
    shows = {"TRAIN": ("BFMTV_A_2010", "LCP_B_2010"), "dev": ("TV8_C_2010",), "test": ("FI_D_2011", "LCP_E_2011")}
    for split, names in shows.items():
        for number, name in enumerate(names):
            write_trs(root / split / "trs" / f"{name}.trs", "UTF-8" if number else "ISO-8859-1")
            tone(root / split / "wav" / f"{name}.wav", 3.0)
    write_trs(root / "test" / "trs" / "SILENT_2011.trs")
    write_trs(root / "dev" / "trs-ne" / "TV8_C_2010.trs")
    write_trs(root / "doc" / "example.trs")
    return root


def test_transcriber_says_who_says_what_and_when(tmp_path):
    for encoding in ("ISO-8859-1", "UTF-8"):
        segments = read_trs(write_trs(tmp_path / "a.trs", encoding))
        assert [(s.start, s.stop) for s in segments] == [(0, 0.5), (0.5, 1), (1, 1.5), (1.5, 2), (2, 2.4), (2.4, 3)]
        assert [s.transcribed for s in segments] == [False] + [True] * 5
        assert segments[1].speakers == ("Anne Élan",) and segments[1].texts == ("Bonjour à ^^Zoé , euh...",)
        assert segments[3].speakers == ("Anne Élan", "Luc") and segments[3].texts == ("oui", "non non")
        assert segments[4].texts == () and segments[5].speakers == ()


def test_of_a_test_nothing_is_left_out_that_is_transcribed(etape, tmp_path):
    paths = prepare_etape(etape, tmp_path / "save")
    manifests = validate_splits(paths)
    assert {name: len(manifest) for name, manifest in manifests.items()} == {"train": 4, "valid": 4, "test": 8}
    assert manifests["test"].groups == ["FI_D_2011", "LCP_E_2011"]
    rows = manifests["test"].rows[:4]
    assert [row["text"] for row in rows] == SAID
    assert [row["voices"] for row in rows] == ["1", "1", "2", "1"]
    assert rows[2]["speaker"] == "Anne Élan + Luc" and (rows[2]["start"], rows[2]["stop"]) == (1.5, 2.0)
    reasons = left_out(paths["train"])
    assert reasons["TRAIN/trs/BFMTV_A_2010.trs, segment 3"].startswith("has several voices at once")
    assert reasons["TRAIN/trs/BFMTV_A_2010.trs, segment 4"] == "has no words"
    assert reasons["test/trs/SILENT_2011.trs"] == "has no audio: SILENT_2011.wav is not there"
    assert reasons["dev/trs/TV8_C_2010.trs"] == "has the name of dev/trs-ne/TV8_C_2010.trs, which is taken"
    assert reasons["doc/example.trs"].startswith("is below none of the folders train, dev, test")


def test_options_are_for_training_alone(etape, tmp_path):
    for split, show in (("TRAIN", "BFMTV_A_2010"), ("test", "FI_D_2011")):
        write_trs(etape / split / "trs" / f"{show}.trs", body=BODY.replace('time="1"', 'time="0.8"'))
    paths = prepare_etape(etape, tmp_path / "save", train_overlap=True, max_train_seconds=0.5)
    train, test = read_manifest(paths["train"]).rows, read_manifest(paths["test"]).rows
    assert [row["voices"] for row in train] == ["1", "2", "1", "1", "2"] and len(test) == 8
    assert left_out(paths["train"])["TRAIN/trs/BFMTV_A_2010.trs, segment 2"] == "is longer than max_train_seconds = 0.5"


def test_what_is_another_layout_is_refused(etape, tmp_path):
    with pytest.raises(ConfigError, match="folders has train: expected train, valid, test"):
        prepare_etape(etape, tmp_path / "save", folders={"train": "train"})
    with pytest.raises(DataError, match=r"does not look like etape: no \*\*/eval/\*\*/<show>.trs"):
        prepare_etape(etape, tmp_path / "save", folders={"train": "train", "valid": "dev", "test": "eval"})
    write_trs(etape / "train" / "dev" / "X.trs")
    with pytest.raises(DataError, match="X.trs is below the folders of train and valid"):
        prepare_etape(etape, tmp_path / "save")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<Trans>", "cannot be read"),
        ("<TEI/>", "is <TEI>, expected <Trans>"),
        ("<Trans><Section><Turn startTime='0'/></Section></Trans>", "without its number"),
    ],
)
def test_a_file_that_is_not_transcribers_is_refused(tmp_path, text, complaint):
    (tmp_path / "a.trs").write_text(text)
    with pytest.raises(DataError, match=complaint):
        read_trs(tmp_path / "a.trs")
