"""Corpora of spoken language understanding: tiny ones in the layout in which they are downloaded or delivered."""

from __future__ import annotations

import json

import pytest

from lobes.dataio import audio_dataset, make_folds, read_manifest, read_tagged, validate_splits
from lobes.dataio.corpora import prepare_media, prepare_picovoice_intents, prepare_pxcorpus
from lobes.dataio.corpora.media import clean_words
from lobes.errors import ConfigError, DataError


def left_out(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


# --------------------------------------------------------------------------- Picovoice


@pytest.fixture
def picovoice(tmp_path, tone, broken):
    """data/label/label.json, data/speech/<condition>/<id>.wav: one order twice, one in noise too, one not there."""
    root = tmp_path / "picovoice"
    orders = {f"{number}.wav": {"size": size} for number, size in enumerate(("small", "large", "small", "medium"))}
    orders["4.wav"] = {"size": "large", "milkAmount": " Soy milk"}
    label = {name: {"intent": "orderDrink", "slots": slots} for name, slots in orders.items()}
    (root / "data" / "label").mkdir(parents=True)
    (root / "data" / "label" / "label.json").write_text(json.dumps(label))
    for name in (*list(orders)[:4], "stranger.wav"):
        tone(root / "data" / "speech" / "clean" / name, 0.2)
    tone(root / "data" / "speech" / "kitchen_6db" / "0.wav", 0.2)
    tone(root / "data" / "speech" / "clean" / "1.flac", 0.2)
    broken(root / "data" / "speech" / "clean", prefix="")
    (root / "data" / "speech" / "clean" / "empty.wav").rename(root / "data" / "speech" / "clean" / "3.wav")
    return root


def test_picovoice(picovoice, tmp_path):
    path = prepare_picovoice_intents(picovoice, tmp_path / "save")["all"]
    rows = {row["id"]: row for row in read_manifest(path).rows}
    assert set(rows) == {"clean/0", "clean/1", "clean/2", "kitchen_6db/0"}
    assert {rows[name]["group"] for name in ("clean/0", "clean/2", "kitchen_6db/0")} == {"0"}, "the same order"
    assert rows["clean/1"]["group"] == "1" and rows["kitchen_6db/0"]["condition"] == "kitchen_6db"
    assert rows["clean/0"]["tagged"] == "#orderDrink <size small >" and rows["clean/0"]["intent"] == "orderDrink"
    reasons = left_out(path)
    assert reasons["data/speech/*/4.wav"] == "is in label.json, but not among the audio"
    assert reasons["data/speech/clean/stranger.wav"] == "is not in label.json"
    assert reasons["data/speech/clean/1.wav"] == "has the name of data/speech/clean/1.flac, which is taken"
    assert "empty" in reasons["data/speech/clean/3.wav"]


def test_picovoice_labels_of_another_kind(picovoice, tmp_path):
    label = picovoice / "data" / "label" / "label.json"
    label.write_text('{"0.wav": {"intent": "orderDrink"}}')
    with pytest.raises(DataError, match=r"label.json cannot be read \(KeyError\('slots'\)\): expected"):
        prepare_picovoice_intents(picovoice, tmp_path / "save")
    label.unlink()
    with pytest.raises(DataError, match="does not look like picovoice_intents"):
        prepare_picovoice_intents(picovoice, tmp_path / "save")


@pytest.mark.data
def test_picovoice_as_it_really_comes(lobes_data, tmp_path):
    folder = lobes_data / "picovoice_intents"
    if not folder.is_dir():
        pytest.skip("LOBES_DATA has no picovoice_intents")
    path = prepare_picovoice_intents(folder, tmp_path)["all"]
    whole = read_manifest(path)
    meanings = [read_tagged(row["tagged"]) for row in whole.rows]
    assert {meaning.intent for meaning in meanings} == {"orderDrink"}
    assert len({name for meaning in meanings for name, _ in meaning.concepts}) == 6
    assert all(value and value == value.strip() for meaning in meanings for _, value in meaning.concepts)
    assert len(whole) == 625 - len(left_out(path))
    folds = make_folds(path, tmp_path / "folds", "groups at random", n_folds=5, valid_parts=1)
    tested = [row["id"] for fold in folds.values() for row in validate_splits(fold)["test"].rows]
    assert sorted(tested) == sorted(row["id"] for row in whole.rows), "each once"
    for fold in folds.values():
        orders = {split: {row["tagged"] for row in read_manifest(csv).rows} for split, csv in fold.items()}
        assert not orders["train"] & orders["test"] and not orders["train"] & orders["valid"]


# --------------------------------------------------------------------------- PxCorpus

UTTERANCES = [
    ("paracétamol deux Comprimés", "medical_prescription", ["B-drug", "B-dos_val", "B-dos_uf"]),
    ("non", "negate", ["O"]),
    ("", "none", []),
    ("acide folique le matin", "medical_prescription", ["B-inn", "I-inn", "O", "B-rhythm_tdte"]),
]


@pytest.fixture
def pxcorpus(tmp_path, tone):
    """seq.in, seq.label, PxSLU_conll.txt, paths.txt and recordings/<folder>/<recording>.wav; five folders."""
    root = tmp_path / "pxcorpus"
    lines, blocks = {"seq.in": [], "seq.label": [], "paths.txt": []}, []
    for folder in range(5):
        for number, (text, intent, tags) in enumerate(UTTERANCES):
            path = f"{folder}/{folder}_{number}.wav"
            tone(root / "recordings" / path, 0.2)
            for name, line in zip(lines, (text, intent, path), strict=True):
                lines[name].append(line)
            if text:
                pairs = zip(text.split(), tags, strict=True)
                blocks.append("".join(f"{word}\t{tag}\n" for word, tag in pairs))
    for name, found in lines.items():
        (root / name).write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    (root / "PxSLU_conll.txt").write_text("\n".join(blocks), encoding="utf-8")
    return root


def test_pxcorpus(pxcorpus, tmp_path, tone):
    (pxcorpus / "recordings" / "0" / "0_1.wav").unlink()
    tone(pxcorpus / "recordings" / "0" / "0_9.wav", 0.2)
    paths = prepare_pxcorpus(pxcorpus, tmp_path / "save", valid_share=0.2, test_share=0.2)
    splits = validate_splits(paths)
    assert {split: len(m.groups) for split, m in splits.items()} == {"train": 3, "valid": 1, "test": 1}
    rows = {row["id"]: row for manifest in splits.values() for row in manifest.rows}
    assert len(rows) == 19
    prescribed = "#medical_prescription <drug paracétamol > <dos_val deux > <dos_uf comprimés >"
    assert rows["1/1_0"]["tagged"] == prescribed and rows["1/1_0"]["text"] == "paracétamol deux comprimés"
    assert rows["1/1_3"]["tagged"] == "#medical_prescription <inn acide folique > le <rhythm_tdte matin >"
    assert (rows["1/1_2"]["tagged"], rows["1/1_2"]["text"], rows["1/1_2"]["group"]) == ("#none", "", "1")
    reasons = left_out(paths["train"])
    assert reasons["recordings/0/0_1.wav"] == "is in paths.txt, but not among the audio"
    assert reasons["recordings/0/0_9.wav"] == "is not in paths.txt"


def test_pxcorpus_lines_without_a_recording_of_their_own(pxcorpus, tmp_path):
    paths = pxcorpus / "paths.txt"
    lines = paths.read_text().split("\n")
    lines[1:3] = ["", "recordings/0/0_0.wav"]
    paths.write_text("\n".join(lines))
    reasons = left_out(prepare_pxcorpus(pxcorpus, tmp_path / "save")["train"])
    assert reasons["paths.txt, line 2"] == "is empty"
    assert reasons["paths.txt, line 3"] == "names a recording twice"
    assert reasons["recordings/0/0_1.wav"] == "is not in paths.txt"


def test_pxcorpus_files_that_do_not_belong_together(pxcorpus, tmp_path):
    conll = pxcorpus / "PxSLU_conll.txt"
    good = conll.read_text()
    conll.write_text(good + "\nun\tO\n")
    with pytest.raises(DataError, match="16 blocks of PxSLU_conll.txt, 15 lines of seq.in that are not empty"):
        prepare_pxcorpus(pxcorpus, tmp_path / "save")
    conll.write_text(good.replace("B-drug", "drug"))
    with pytest.raises(DataError, match="expected a word, a tab, and O, B-label or I-label"):
        prepare_pxcorpus(pxcorpus, tmp_path / "save")
    conll.write_text(good)
    (pxcorpus / "seq.label").write_text("none\n")
    with pytest.raises(DataError, match=r"lines of seq.in 20, seq.label 1, paths.txt 20"):
        prepare_pxcorpus(pxcorpus, tmp_path / "save")
    conll.unlink()
    with pytest.raises(DataError, match="does not look like pxcorpus: no PxSLU_conll.txt"):
        prepare_pxcorpus(pxcorpus, tmp_path / "save")


# --------------------------------------------------------------------------- MEDIA

TURN = """
  <turn id="{dialogue}_1" speaker="compere" startTime="0.0" endTime="0.2" audioFilename="{dialogue}.r.wav">
    <transcription>bonjour</transcription>
  </turn>
  <turn id="{dialogue}_2" speaker="spk" startTime="0.2" endTime="0.9" audioFilename="x/{dialogue}.l.wav">
    <transcription>Euh, <Sync time="0.3"/> deux chambres à (Mâcon) s'il vous plaît</transcription>
    <semAnnotation withContext="true"><sem concept="autre" mode="+" specif="null" value="x">
      <transcription>deux</transcription></sem></semAnnotation>
    <semAnnotation withContext="false">
      <sem concept="null" mode="null" specif="null" value=""><transcription>Euh, </transcription></sem>
      <sem concept="nombre-chambre" mode="+" specif="-reservation" value="2">
        <transcription>deux<Sync time="0.5"/> chambres</transcription></sem>
      <sem concept="localisation-ville" mode="-" specif="Relative-hotel" value="macon">
        <transcription>à (Mâcon)</transcription></sem>
      <sem concept="null" mode="null" specif="null" value=""><transcription>s'il vous plaît</transcription></sem>
    </semAnnotation>
  </turn>
  <turn id="{dialogue}_3" speaker="spk" startTime="0.9" endTime="1.0" audioFilename="x/{dialogue}.l.wav">
    <semAnnotation withContext="false"/>
  </turn>
  <turn id="{dialogue}_4" speaker="spk" startTime="0.9" endTime="" audioFilename="x/{dialogue}.l.wav"/>"""
NAMES = ("lot1", "lot2", "lot3", "lot4", "testHC_a_blanc", "testHC")


@pytest.fixture
def media(tmp_path, tone):
    """S0272 with audio of two channels at 8 kHz, E0024 with the XML in Latin 1, declared or not; a dialogue each."""
    root = tmp_path / "media"
    data = root / "E0024" / "MEDIA1FR_00" / "MEDIA1FR" / "DATA"
    data.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        dialogue = f"10{number}"
        body = f'<dialogue id="{dialogue}" nameSpk="spk {number % 5}">{TURN.format(dialogue=dialogue)}</dialogue>'
        head = '<?xml version="1.0" encoding="ISO-8859-1"?>' if number % 2 else ""
        (data / f"media_{name}.xml").write_bytes(f"{head}<corpus>{body}</corpus>".encode("latin-1"))
        tone(root / "S0272" / "MEDIA1FR_01" / "MEDIA1FR" / "BLOCK00" / f"{dialogue}.wav", 1.0, 8000, channels=2)
    return root


def test_media(media, tmp_path):
    paths = prepare_media(media, tmp_path / "save")
    splits = validate_splits(paths)
    assert {split: len(manifest) for split, manifest in splits.items()} == {"train": 8, "valid": 2, "test": 2}
    row = {row["id"]: row for row in splits["test"].rows}["105_2"]
    assert row["tagged"] == "euh <nombre-chambre deux chambres > <localisation-ville à mâcon > s'il vous plaît"
    assert row["text"] == "euh deux chambres à mâcon s'il vous plaît"
    assert json.loads(row["frame"])[1] == ["localisation-ville", "Relative-hotel", "-", "macon"]
    assert (row["start"], row["stop"], row["channel"], row["sample_rate"]) == (0.2, 0.9, 0, 8000)
    assert (row["group"], row["dialogue"], row["speaker"]) == ("105", "105", "spk 0")
    assert left_out(paths["test"])["105_4"] == "has times '0.9' and '', expected seconds"
    dataset = audio_dataset(splits["test"], 16000, ("id", "sig", "tagged"))
    item = next(dataset[i] for i in range(2) if dataset.data_ids[i] == "105_2")
    assert len(item["sig"]) == 11200, "0.7 s, resampled from 8 to 16 kHz"
    assert 0.05 < float(item["sig"].abs().max()) < 0.15, "the caller's channel; the machine's is twice as loud"


def test_media_options(media, tmp_path):
    def tagged(**options):
        rows = read_manifest(prepare_media(media, tmp_path / "save", **options)["valid"]).rows
        return {row["id"]: row["tagged"] for row in rows}

    assert [name for name, _ in read_tagged(tagged(detail="full", modes=True)["104_2"]).concepts] == [
        "nombre-chambre-reservation",
        "localisation-ville-relative-hotel/-",
    ]
    assert set(tagged()) == {"104_2", "104_3"} and tagged()["104_3"] == ""
    assert set(tagged(drop_empty=True)) == {"104_2"}
    assert left_out(tmp_path / "save" / "valid.csv")["104_3"] == "has no words, which drop_empty leaves out"
    with pytest.raises(DataError, match="spk 0"):
        prepare_media(media, tmp_path / "save", group="speaker")
    with pytest.raises(ConfigError, match="detail is 'all': expected one of relax, full"):
        prepare_media(media, tmp_path / "save", detail="all")


def test_media_that_is_incomplete(media, tmp_path):
    (media / "S0272" / "MEDIA1FR_01" / "MEDIA1FR" / "BLOCK00" / "100.wav").unlink()
    paths = prepare_media(media, tmp_path / "save")
    assert left_out(paths["train"])["100_2"] == "has no audio: 100.wav is not there"
    xml = media / "E0024" / "MEDIA1FR_00" / "MEDIA1FR" / "DATA" / "media_testHC.xml"
    xml.write_bytes(b"<corpus>")
    with pytest.raises(DataError, match=r"media_testHC.xml is not XML \(no element found"):
        prepare_media(media, tmp_path / "save")
    xml.unlink()
    with pytest.raises(DataError, match=r"no E0024/\*\*/media_testHC.xml"):
        prepare_media(media, tmp_path / "save")


def test_clean_words():
    assert clean_words("L’ hôtel*, (euh) a-t-il 2 étoiles -- ?") == "l'hôtel euh a-t-il 2 étoiles"
    assert clean_words("…") == ""
