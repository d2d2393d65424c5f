"""Corpora of speech translation, tiny ones in exactly the layout in which they are downloaded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import yaml

from lobes.dataio import audio_dataset, read_manifest, validate_splits
from lobes.dataio.corpora import prepare_covost2, prepare_mboshi_french, prepare_mtedx
from lobes.errors import DataError


def skipped_of(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


def rows_of(paths, split):
    return {row["id"]: row for row in read_manifest(paths[split]).rows}


# ----------------------------------------------------------------- mTEDx


@pytest.fixture
def mtedx_folder(tmp_path, tone):
    """fr-es/data/{split}/{wav/*.flac,txt/{split}.{yaml,fr,es}} as OpenSLR 100 unpacks; the yaml says `talk.wav`."""
    for split, talks in {"train": ("aaa", "bbb"), "valid": ("ccc",), "test": ("ddd",)}.items():
        data = tmp_path / "mtedx" / "fr-es" / "data" / split
        segments, lines = [], {"fr": [], "es": []}
        for talk in talks:
            tone(data / "wav" / f"{talk}.flac", 3.0)
            for number in range(3):
                length = 0.5 + number / 8
                segment = {
                    "duration": length,
                    "offset": 0.25 + number,
                    "speaker_id": f"s-{talk}",
                    "wav": f"{talk}.wav",
                }
                segments.append(segment)
                lines["fr"].append(f"phrase {talk} {number}\u2028 suite")
                lines["es"].append(f"frase {talk} {number}")
        lines["es"][1] = ""
        (data / "txt").mkdir()
        (data / "txt" / f"{split}.yaml").write_text(yaml.safe_dump(segments, default_flow_style=None))
        for language, texts in lines.items():
            (data / "txt" / f"{split}.{language}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return tmp_path / "mtedx"


def test_mtedx(mtedx_folder, tmp_path):
    paths = prepare_mtedx(mtedx_folder, tmp_path / "save", target="es")
    whole = validate_splits(paths, check_files=True)
    assert {split: (len(part), part.groups) for split, part in whole.items()} == {
        "train": (5, ["aaa", "bbb"]),
        "valid": (3, ["ccc"]),
        "test": (3, ["ddd"]),
    }
    row = rows_of(paths, "train")["train-000005-bbb"]
    assert (row["start"], row["stop"]) == (2.25, 3.0)
    assert row["wav"] == "$data_root/data/train/wav/bbb.flac", "which the yaml calls bbb.wav"


def test_mtedx_takes_the_file_that_is_there(mtedx_folder, tmp_path, tone):
    wav = mtedx_folder / "fr-es" / "data" / "train" / "wav"
    tone(wav / "aaa.wav", 3.0)
    (wav / "bbb.flac").unlink()
    paths = prepare_mtedx(mtedx_folder, tmp_path / "save", target="es")
    assert {row["wav"].rpartition("/")[2] for row in rows_of(paths, "train").values()} == {"aaa.wav"}
    assert {file.partition(",")[0] for file in skipped_of(paths["train"]) if "bbb" in file} == {
        "data/train/wav/bbb.wav"
    }


def test_no_test_segment_of_mtedx_is_lost_for_an_end_that_is_off(mtedx_folder, tmp_path):
    path = mtedx_folder / "fr-es" / "data" / "test" / "txt" / "test.yaml"
    segments = yaml.safe_load(path.read_text())
    segments[2]["duration"] = 1.0  # from 2.25 s, in a talk of 3 s
    path.write_text(yaml.safe_dump(segments))
    paths = prepare_mtedx(mtedx_folder, tmp_path / "save", target="es")
    row = rows_of(paths, "test")["test-000002-ddd"]
    assert (row["start"], row["stop"]) == (2.25, 3.0) and len(rows_of(paths, "test")) == 3
    assert "ddd.flac, 2.25-3.25 s,is cut at 3 s" in (tmp_path / "save" / "cut.csv").read_text().replace('"', "")


def test_mtedx_cuts_segments_out_of_talks(mtedx_folder, tmp_path):
    options = {"target": "es", "max_train_seconds": 0.6}
    paths = prepare_mtedx(mtedx_folder / "fr-es", tmp_path / "save", **options)
    assert list(rows_of(paths, "train")) == ["train-000000-aaa", "train-000003-bbb"]
    reasons = skipped_of(paths["train"])
    assert reasons["data/train/wav/aaa.flac, segment 2 of train"] == "has no translation"
    assert reasons["data/train/wav/bbb.flac, segment 5 of train"] == "is longer than max_train_seconds = 0.6"
    assert len(reasons) == 4, "one without translation, three too long"
    test = rows_of(paths, "test")
    assert len(test) == 3 and test["test-000001-ddd"]["translation"] == "", "nothing is filtered from the test split"
    row = test["test-000002-ddd"]
    assert (row["start"], row["stop"], row["group"], row["speaker"]) == (2.25, 3.0, "ddd", "s-ddd")
    assert row["text"].startswith("phrase ddd 2") and row["translation"] == "frase ddd 2"
    assert len(audio_dataset(paths["test"])[2]["sig"]) == 12000
    modified = paths["test"].stat().st_mtime_ns
    prepare_mtedx(mtedx_folder / "fr-es", tmp_path / "save", **options)
    assert paths["test"].stat().st_mtime_ns == modified, "prepared once"


def test_mtedx_that_does_not_fit_is_one_line(mtedx_folder, tmp_path):
    with pytest.raises(DataError, match=r"does not look like mtedx fr-en: no data/train/txt/train.yaml"):
        prepare_mtedx(mtedx_folder, tmp_path / "save", target="en")
    text = mtedx_folder / "fr-es" / "data" / "valid" / "txt" / "valid.es"
    text.write_text(text.read_text() + "una más\n")
    with pytest.raises(DataError, match=r"valid.es has 4 lines for 3 segments"):
        prepare_mtedx(mtedx_folder, tmp_path / "save", target="es")
    (text.parent / "valid.yaml").write_text("- {offset: 1.0, wav: ccc.flac}\n")
    with pytest.raises(DataError, match=r"valid.yaml, segment 1, has no duration"):
        prepare_mtedx(mtedx_folder, tmp_path / "save", target="es")


# ----------------------------------------------------------------- CoVoST 2


@pytest.fixture
def covost_folder(tmp_path):
    """clips/*.mp3 of Common Voice 4, and the tables that get_covost_splits.py writes."""
    folder = tmp_path / "covost2"
    (folder / "clips").mkdir(parents=True)
    tables = {"train": 4, "dev": 2, "test": 2}
    for split, count in tables.items():
        lines = ["path\tsentence\ttranslation\tclient_id"]
        for number in range(count):
            name = f"common_voice_fr_{split}{number}.mp3"
            sound = 0.1 * np.sin(np.arange(12000) / 10)
            soundfile.write(folder / "clips" / name, sound, 48000, format="MP3")
            lines.append(f'{name}\tElle dit "{number}"\tShe says "{number}"\tclient-{split}-{number // 2}')
        (folder / f"covost_v2.fr_en.{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_covost2(covost_folder, tmp_path):
    table = covost_folder / "covost_v2.fr_en.train.tsv"
    table.write_text(table.read_text() + "none.mp3\tRien\tNothing\tclient-x\nempty.mp3\tRien\t\tclient-x\n")
    (covost_folder / "clips" / "common_voice_fr_train3.mp3").write_bytes(b"")
    paths = prepare_covost2(covost_folder, tmp_path / "save")
    whole = validate_splits(paths, check_files=True)
    assert {split: len(part) for split, part in whole.items()} == {"train": 3, "valid": 2, "test": 2}
    row = rows_of(paths, "valid")["common_voice_fr_dev1"]
    assert (row["text"], row["translation"]) == ('Elle dit "1"', 'She says "1"')
    assert row["group"] == "client-dev-0" and row["sample_rate"] == 48000
    reasons = skipped_of(paths["train"])
    assert reasons["clips/empty.mp3"] == "has no translation"
    assert "empty" in reasons["clips/common_voice_fr_train3.mp3"] and "clips/none.mp3" in reasons


def test_covost2_with_a_speaker_on_both_sides(covost_folder, tmp_path):
    table = covost_folder / "covost_v2.fr_en.test.tsv"
    table.write_text(table.read_text().replace("client-test-0", "client-train-0"))
    with pytest.raises(DataError, match="client-train-0"):
        prepare_covost2(covost_folder, tmp_path / "save")
    paths = prepare_covost2(covost_folder, tmp_path / "save", allow_group_overlap=True)
    assert len(read_manifest(paths["test"])) == 2
    table.write_text(table.read_text().replace("client_id", "speaker"))
    with pytest.raises(DataError, match="test.tsv has no column client_id"):
        prepare_covost2(covost_folder, tmp_path / "save")
    table.unlink()
    with pytest.raises(DataError, match="get_covost_splits.py"):
        prepare_covost2(covost_folder, tmp_path / "save")


# ----------------------------------------------------------------- Mboshi-French


def write_sentence(folder, tone, name, mboshi, french, suffix=".wav"):
    tone(folder / f"{name}{suffix}", 0.3)
    if mboshi is not None:
        (folder / f"{name}.mb").write_text(mboshi + "\r\n", encoding="utf-8")
    (folder / f"{name}.fr").write_text(french + "\r\n", encoding="utf-8")


@pytest.fixture
def mboshi_folder(tmp_path, tone):
    """full_corpus_newsplit/{train,dev}/*.{wav,mb,fr}; two sentences of train are in dev too."""
    root = tmp_path / "mboshi_french" / "full_corpus_newsplit"
    for part, count in (("train", 20), ("dev", 12)):
        for number in range(count):
            speaker = ("abiayi", "kouarata")[number % 2]
            name = f"{speaker}_2015-09-08-11-33-57_samsung_mdw_elicit_Dico{part}_{number}"
            suffix = ".flac" if part == "dev" else ".wav"
            write_sentence(root / part, tone, name, f"Wa {part} {number}", f"Il est {part} {number}.", suffix)
    again = "martial_2015-09-09-11-33-57_samsung_mdw_elicit_Dico19_"
    write_sentence(root / "train", tone, again + "1", "Wá bvúa", "il est DEV 3")
    write_sentence(root / "train", tone, again + "2", "Wa dev 4!", "C'est autre chose")
    write_sentence(root / "train", tone, again + "3", None, "Sans texte")
    return root.parent


def test_mboshi_with_both_official_parts(mboshi_folder, tmp_path):
    paths = prepare_mboshi_french(mboshi_folder, tmp_path / "save", valid_share=0.2)
    whole = validate_splits(paths, check_files=True)
    assert [len(whole[split]) for split in ("train", "valid", "test")] == [16, 4, 12], "dev is whole"
    reasons = skipped_of(paths["train"])
    repeated = [file for file, reason in reasons.items() if "sentence of dev too" in reason]
    assert len(repeated) == 2 and all("martial" in file for file in repeated)
    assert [reason for file, reason in reasons.items() if file.endswith("_3.wav") and "martial" in file] == [
        "has no .mb"
    ]
    row = next(row for row in rows_of(paths, "test").values() if row["id"].endswith("Dicodev_5"))
    assert (row["text"], row["translation"], row["speaker"]) == ("Wa dev 5", "Il est dev 5.", "kouarata")
    assert row["session"].endswith("Dicodev") and row["group"] == row["id"]
    published = prepare_mboshi_french(mboshi_folder, tmp_path / "save", valid_share=0.2, drop_repeated=False)
    assert sum(len(read_manifest(published[split])) for split in ("train", "valid")) == 22


def test_mboshi_with_one_part_is_divided_by_sentences(mboshi_folder, tmp_path, tone):
    dev = mboshi_folder / "full_corpus_newsplit" / "dev"
    (dev.parent / "train").rename(tmp_path / "elsewhere")
    for number in range(12):  # everything is said by another speaker too, with the same French only
        name = f"martial_2015-09-09-11-33-57_samsung_mdw_elicit_Dico19_{number}"
        write_sentence(dev, tone, name, f"Ngá {number}", f"il est dev {number}", ".flac")
    paths = prepare_mboshi_french(mboshi_folder, tmp_path / "save", valid_share=0.2, test_share=0.3)
    whole = validate_splits(paths)
    assert sum(len(part) for part in whole.values()) == 24 and all(len(part) >= 4 for part in whole.values())
    side = {}
    for split, part in whole.items():
        for row in part.rows:
            assert side.setdefault(row["translation"].casefold().strip("."), split) == split
    with pytest.raises(DataError, match="full_corpus_newsplit/train"):
        prepare_mboshi_french(tmp_path / "save", tmp_path / "other")


@pytest.mark.data
def test_mboshi_as_it_comes(lobes_data, tmp_path):
    if not (lobes_data / "mboshi_french").is_dir():
        pytest.skip("LOBES_DATA has no mboshi_french")
    paths = prepare_mboshi_french(lobes_data / "mboshi_french", tmp_path)
    whole = validate_splits(paths, check_files=True)
    assert sum(len(part) for part in whole.values()) == 160 and whole["test"].meta["skipped"] == []
    speakers = {row["speaker"] for part in whole.values() for row in part.rows}
    assert speakers == {"abiayi", "kouarata", "martial"}
    texts = {split: {row["translation"] for row in part.rows} for split, part in whole.items()}
    assert not texts["train"] & texts["test"] and not texts["valid"] & texts["test"]
