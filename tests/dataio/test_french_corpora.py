"""Common Voice and MLS in exactly the layouts in which they are downloaded, and French text as it is read aloud."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from lobes.dataio import audio_dataset, collate, read_manifest, validate_splits
from lobes.dataio.corpora import prepare_common_voice, prepare_mls
from lobes.dataio.corpora.french import spoken_french
from lobes.errors import ConfigError, DataError
from lobes.probes import CharTokenizer

COLUMNS = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale segment"
)


def skipped_of(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


def texts_of(path, label="text"):
    return {row["id"]: row[label] for row in read_manifest(path).rows}


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("L’été, où l‘on va…", "l'été où l'on va"),
        ("Il naquit le 1er mai 1984.", "il naquit le premier mai mille neuf cent quatre vingt quatre"),
        ("le 21e siècle, la 9ème, la 5e, les 4es", "le vingt et unième siècle la neuvième la cinquième les quatrièmes"),
        ("12,5 % de 1 000 000 €", "douze virgule cinq pour cent de un million euros"),
        ("en 2010 150 personnes", "en deux mille dix cent cinquante personnes"),
        ("Le 06 à 007", "le zéro six à zéro zéro sept"),
        ("99999999999", "neuf " * 10 + "neuf"),
        ("Œuvre & cætera", "œuvre et cætera"),
        ("L'œuf de Łódź", "l'œuf de łódź"),
        ("R2D2", "r deux d deux"),
        ("!?", ""),
        ("", ""),
    ],
)
def test_every_text_is_read(text, spoken):
    assert spoken_french(text) == spoken


@pytest.fixture
def common_voice(tmp_path):
    """cv-corpus-*/fr/{train,dev,test,validated,...}.tsv and clips/*.mp3 at 32 kHz."""
    folder = tmp_path / "archive" / "cv-corpus-19.0-2024-09-13" / "fr"
    (folder / "clips").mkdir(parents=True)
    sentences = {
        "train": ["Il dit : « Bonjour » à tous.", 'Le "chat" dort.', "Oui.", "Sous le pont", "perdu"],
        "dev": ["Une phrase de test.", "Non."],
        "test": ["Oui.", "…", "En 1984, à Łódź.", "abîmé"],
    }
    soundfile.write(tmp_path / "tone.mp3", 0.1 * np.sin(np.arange(9600) / 10), 32000, format="MP3")
    mp3, number = (tmp_path / "tone.mp3").read_bytes(), 0
    for split, lines in sentences.items():
        rows = [COLUMNS.replace(" ", "\t")]
        for place, sentence in enumerate(lines):
            name, number = f"common_voice_fr_{17299384 + number}.mp3", number + 1
            speaker = f"{split}{place % 2}" + "0a" * 40
            rows.append(
                "\t".join([speaker, name, "77", sentence, "", "2", "0", "", "male_masculine", "", "", "fr", ""])
            )
            if sentence != "perdu":
                (folder / "clips" / name).write_bytes(mp3)
            if sentence == "abîmé":
                (folder / "clips" / name).write_bytes(b"not a sound at all" * 50)
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for other in ("validated", "invalidated", "other", "reported"):
        (folder / f"{other}.tsv").write_text("whatever\tis\there\n")
    return folder


def test_common_voice_keeps_every_test_sentence(common_voice, tmp_path):
    paths = prepare_common_voice(common_voice.parents[1], tmp_path / "save")
    manifests = validate_splits(paths)
    assert {name: len(manifest.rows) for name, manifest in manifests.items()} == {"train": 4, "valid": 2, "test": 3}
    assert list(texts_of(paths["test"]).values()) == ["oui", "", "en mille neuf cent quatre vingt quatre à łódź"]
    assert list(texts_of(paths["train"]).values()) == ["il dit bonjour à tous", "le chat dort", "oui", "sous le pont"]
    assert list(texts_of(paths["train"], "raw_text").values())[1] == 'Le "chat" dort.'
    row = manifests["test"].rows[0]
    assert row["group"] == "test0" + "0a" * 40 and row["sample_rate"] == 32000 and row["gender"] == "male_masculine"
    skipped = skipped_of(paths["train"])
    assert len(skipped) == 2 and "No such file" in skipped["clips/common_voice_fr_17299388.mp3"]
    assert "not readable" in skipped["clips/common_voice_fr_17299394.mp3"]


def test_a_sentence_that_is_nothing_is_an_empty_transcript(common_voice, tmp_path):
    manifest = read_manifest(prepare_common_voice(common_voice, tmp_path / "save")["test"])
    tokenizer = CharTokenizer.from_texts(["en oui"], unknown=True)
    dataset = audio_dataset(manifest, 16000, ("id", "sig", "tokens"), labels={"tokens": ("text", tokenizer.encode)})
    batch = collate([dataset[index] for index in range(3)])
    tokens, lengths = batch.tokens
    assert (lengths * tokens.shape[1]).round().int().tolist() == [3, 0, 45]
    assert collate([dataset[1]]).tokens[0].shape == (1, 0)


def test_common_voice_leaves_short_sentences_out_of_training_alone(common_voice, tmp_path):
    paths = prepare_common_voice(common_voice, tmp_path / "save", min_words=3)
    sizes = {name: len(read_manifest(path).rows) for name, path in paths.items()}
    assert sizes == {"train": 3, "valid": 2, "test": 3}
    assert "fewer than 3 words" in skipped_of(paths["train"])["clips/common_voice_fr_17299386.mp3"]
    before = paths["train"].stat().st_mtime_ns
    assert prepare_common_voice(common_voice, tmp_path / "save", min_words=3)["train"].stat().st_mtime_ns == before


def test_common_voice_says_what_is_wrong(common_voice, tmp_path):
    with pytest.raises(ConfigError, match="min_words is -1"):
        prepare_common_voice(common_voice, tmp_path / "save", min_words=-1)
    with pytest.raises(DataError, match="does not look like common_voice_fr"):
        prepare_common_voice(common_voice / "clips", tmp_path / "save")
    table = common_voice / "dev.tsv"
    whole = table.read_text(encoding="utf-8")
    table.write_text(whole.replace("client_id", "speaker"), encoding="utf-8")
    with pytest.raises(DataError, match="no column client_id"):
        prepare_common_voice(common_voice, tmp_path / "save")
    table.write_text(whole.replace("dev0", "test0"), encoding="utf-8")
    with pytest.raises(DataError, match="test0"):
        prepare_common_voice(common_voice, tmp_path / "save")


@pytest.fixture
def mls(tmp_path, tone):
    """mls_french/{train,dev,test}/{audio,transcripts.txt,segments.txt}, and lists for few labels."""
    folder = tmp_path / "mls_french"
    handles = {
        "train": [f"{speaker}_2048_{n:06d}" for speaker in (1474, 1591, 1840) for n in range(3)],
        "dev": ["9924_8200_000000"],
        "test": ["10065_10039_000000", "10065_10039_000001"],
    }
    for split, names in handles.items():
        for name in names:
            speaker, book, _ = name.split("_")
            tone(folder / split / "audio" / speaker / book / f"{name}.flac", 0.3)
        lines = [f"{name}\tc'est peut-être le numéro {place}" for place, name in enumerate(names)]
        (folder / split / "transcripts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / split / "segments.txt").write_text("".join(f"{name}\thttp://x\t0\t10\n" for name in names))
    limited = folder / "train" / "limited_supervision"
    lists = {"9hr": handles["train"][:3], "1hr/0": handles["train"][3:4], "1hr/5": handles["train"][6:7]}
    for place, names in lists.items():
        (limited / place).mkdir(parents=True)
        (limited / place / "handles.txt").write_text("\n".join(names) + "\n")
    return folder


@pytest.mark.parametrize(("hours", "expected"), [(None, 9), (10, 5), (9, 3), (1, 2)])
def test_mls_trains_on_its_own_subsets(mls, tmp_path, hours, expected):
    paths = prepare_mls(mls.parent if hours == 1 else mls, tmp_path / "save", hours=hours)
    sizes = {name: len(manifest.rows) for name, manifest in validate_splits(paths).items()}
    assert sizes == {"train": expected, "valid": 1, "test": 2}
    row = read_manifest(paths["test"]).rows[0]
    assert (row["id"], row["group"], row["book"]) == ("10065_10039_000000", "10065", "10039")
    assert row["text"] == "c'est peut-être le numéro 0", "as it comes"
    assert skipped_of(paths["train"]) == {}


def test_mls_names_what_does_not_fit(mls, tmp_path, tone, broken):
    with (mls / "test" / "transcripts.txt").open("a", encoding="utf-8") as file:
        file.write("10065_10039_000009\tperdu\nodd\tétrange\n")
    tone(mls / "dev/audio/9924/8200/9924_8200_000007.flac", 0.3)
    with (mls / "train/limited_supervision/9hr/handles.txt").open("a") as file:
        file.write("1_2_3\n")
    broken(mls / "train/audio/1474/2048", ".flac", "1474_2048_")
    paths = prepare_mls(mls, tmp_path / "save", hours=10)
    skipped = skipped_of(paths["train"])
    assert "No such file" in skipped["test/audio/10065/10039/10065_10039_000009.flac"]
    assert "is not named" in skipped["test/transcripts.txt: odd"]
    assert skipped["dev/audio/9924/8200/9924_8200_000007.flac"] == "has no transcript"
    assert "no transcript" in skipped["1_2_3"] and len(read_manifest(paths["test"]).rows) == 2


def test_mls_says_what_is_wrong(mls, tmp_path):
    with pytest.raises(ConfigError, match="hours is 2: expected 1, 9, 10"):
        prepare_mls(mls, tmp_path / "save", hours=2)
    with pytest.raises(DataError, match="does not look like mls_french"):
        prepare_mls(mls / "train", tmp_path / "save")
    (mls / "train/limited_supervision/9hr/handles.txt").unlink()
    with pytest.raises(DataError, match="no 9hr/handles.txt"):
        prepare_mls(mls, tmp_path / "save", hours=10)
