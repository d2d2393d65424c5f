"""Corpora of emotional speech, in exactly the layout in which they are downloaded or delivered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lobes.dataio import leave_one_group_out, read_manifest
from lobes.dataio.corpora import prepare_allosat, prepare_att_hack, prepare_cafe, prepare_recola
from lobes.dataio.ratings import read_ratings
from lobes.errors import ConfigError, DataError


def skipped_of(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


def times(paths):
    return {name: path.stat().st_mtime_ns for name, path in paths.items()}


@pytest.fixture
def allosat(tmp_path, tone):
    """audio/*.wav at 8 kHz, annotations/labels/*.csv with semicolons, and three lists of names."""
    root = tmp_path / "allosat"
    (root / "annotations" / "labels").mkdir(parents=True)
    for split, names in {"train": ["c1", "c2"], "dev": ["c3"], "test": ["c4"]}.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            tone(root / "audio" / f"{name}.wav", 1.0, 8000)
            lines = [f"{0.25 * step};0.{step + int(name[1])}\n" for step in range(4)]
            (root / "annotations" / "labels" / f"{name}.csv").write_text("time;satisfaction\n" + "".join(lines))
    return root


def test_allosat(allosat, tmp_path):
    paths = prepare_allosat(allosat, tmp_path / "save")
    rows = {split: read_manifest(path).rows for split, path in paths.items()}
    assert {split: [row["id"] for row in found] for split, found in rows.items()} == {
        "train": ["c1", "c2"],
        "valid": ["c3"],
        "test": ["c4"],
    }
    assert rows["test"][0]["group"] == "c4" and rows["test"][0]["sample_rate"] == 8000
    ratings = read_ratings(rows["test"][0]["ratings"])
    assert ratings.period == 0.25 and ratings.values["satisfaction"].tolist() == [0.4, 0.5, 0.6, 0.7]


def test_allosat_is_prepared_once_and_again_when_a_rating_or_the_place_changes(allosat, tmp_path):
    paths = prepare_allosat(allosat, tmp_path / "save")
    before = times(paths)
    assert times(prepare_allosat(allosat, tmp_path / "save")) == before
    table = allosat / "annotations" / "labels" / "c4.csv"
    table.write_text(table.read_text().replace("0.7", "0.9"))
    again = prepare_allosat(allosat, tmp_path / "save")
    assert times(again) != before
    [row] = read_manifest(again["test"]).rows
    assert read_ratings(row["ratings"]).values["satisfaction"][-1] == 0.9
    (tmp_path / "save").rename(tmp_path / "moved")
    [row] = read_manifest(prepare_allosat(allosat, tmp_path / "moved")["test"]).rows
    assert "moved" in row["ratings"] and read_ratings(row["ratings"])


def test_allosat_names_what_it_leaves_out(allosat, tmp_path, tone):
    labels = allosat / "annotations" / "labels"
    tone(allosat / "audio" / "c9.wav", 1.0, 8000)
    (allosat / "train.txt").write_text("c1.wav\nc2\n\nc5\nc6\nc7\n")
    for name in ("c6", "c7"):
        tone(allosat / "audio" / f"{name}.wav", 1.0, 8000)
    (labels / "c7.csv").write_text("time;satisfaction\n0;?\n")
    paths = prepare_allosat(allosat, tmp_path / "save")
    assert [row["id"] for row in read_manifest(paths["train"]).rows] == ["c1", "c2"]
    skipped = skipped_of(paths["test"])
    assert skipped["audio/c5.wav"] == "is listed in train.txt, but not there"
    assert "c6.csv is missing" in skipped["audio/c6.wav"] and "without a number" in skipped["audio/c7.wav"]
    assert skipped["audio/c9.wav"] == "is in no list"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("x;y\n0;0,5\n1;0,25\n", [0.5, 0.25]),
        ("Satisfaction;x\n0.5;9\n", None),
        ("id;satisfaction;annotator\n0;1;7\n", [1.0]),
        ("id;a;b\n0;1;7\n", None),
        ("", None),
        ("satisfaction\n1\n", None),
    ],
)
def test_allosat_rates_by_the_column_that_is_meant_or_not_at_all(table, expected, allosat, tmp_path):
    (allosat / "annotations" / "labels" / "c2.csv").write_text(table)
    paths = prepare_allosat(allosat, tmp_path / "save")
    found = {row["id"]: row for row in read_manifest(paths["train"]).rows}
    if expected is None:
        assert "c2" not in found and "has no ratings" in skipped_of(paths["train"])["audio/c2.wav"]
    else:
        assert read_ratings(found["c2"]["ratings"]).values["satisfaction"].tolist() == expected


def test_allosat_in_two_lists_or_elsewhere_is_refused(allosat, tmp_path):
    (allosat / "test.txt").write_text("c4\nc1\n")
    with pytest.raises(DataError, match=r"test.txt: 'c1' is in train.txt too"):
        prepare_allosat(allosat, tmp_path / "save")
    (allosat / "test.txt").unlink()
    with pytest.raises(DataError, match="does not look like allosat: no test.txt"):
        prepare_allosat(allosat, tmp_path / "save")


ARFF = """@relation GOLDSTANDARD_{target}

@attribute Instance_name string
@attribute frameTime numeric
@attribute GoldStandard numeric

@data

{lines}
"""


def write_recola(root, tone, rated=("train", "dev"), recordings=3, seconds=0.4):
    """recordings_audio/*.wav, ratings_gold_standard/{arousal,valence}/*.arff; none for the test split."""
    noise = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        for number in range(1, recordings + 1):
            name = f"{split}_{number}"
            tone(root / "recordings_audio" / f"{name}.wav", seconds)
            for target in ("arousal", "valence") if split in rated else ():
                values = noise.uniform(-1, 1, round(seconds / 0.04) + 1)
                lines = "\n".join(f"'{name}',{0.04 * k:.2f},{value:.6f}" for k, value in enumerate(values))
                path = root / "ratings_gold_standard" / target / f"{name}.arff"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(ARFF.format(target=target, lines=lines))
    return root


def test_recola_tests_on_dev_and_chooses_on_the_last_training_recordings(tmp_path, tone):
    root = write_recola(tmp_path / "recola", tone)
    paths = prepare_recola(root, tmp_path / "save", valid_recordings=1)
    found = {split: [row["id"] for row in read_manifest(path).rows] for split, path in paths.items()}
    assert found == {"train": ["train_1", "train_2"], "valid": ["train_3"], "test": ["dev_1", "dev_2", "dev_3"]}
    row = read_manifest(paths["test"]).rows[0]
    ratings = read_ratings(row["ratings"])
    assert ratings.period == 0.04 and len(ratings.values["arousal"]) == 11 and row["group"] == "dev_1"
    line = (root / "ratings_gold_standard" / "valence" / "dev_1.arff").read_text().splitlines()[8]
    assert ratings.values["valence"][0] == float(line.split(",")[2])
    assert "test_2.arff is missing" in skipped_of(paths["test"])["recordings_audio/test_2.wav"]
    before = times(paths)
    assert times(prepare_recola(root, tmp_path / "save", valid_recordings=1)) == before
    for wrong in (-1, 3):
        with pytest.raises(ConfigError, match="valid_recordings"):
            prepare_recola(root, tmp_path / "save", valid_recordings=wrong)
    with pytest.raises(DataError, match="no test recording has ratings"):
        prepare_recola(root, tmp_path / "save", valid_recordings=0)


def test_recola_with_test_ratings_has_its_official_splits(tmp_path, tone):
    root = write_recola(tmp_path / "recola", tone, rated=("train", "dev", "test"), recordings=11)
    paths = prepare_recola(root, tmp_path / "save", valid_recordings=0)
    found = {split: [row["id"] for row in read_manifest(path).rows] for split, path in paths.items()}
    assert found["train"] == [f"train_{n}" for n in range(1, 12)], "by number, not by letter"
    assert found["valid"][-1] == "dev_11" and found["test"][-1] == "test_11"


def test_recola_says_what_is_wrong_with_a_file(tmp_path, tone):
    root = write_recola(tmp_path / "recola", tone)
    path = root / "ratings_gold_standard" / "arousal" / "train_1.arff"
    path.write_text(path.read_text().replace("0.04,", "0.04,x", 1))
    tone(root / "recordings_audio" / "P16.wav", 0.4)
    skipped = skipped_of(prepare_recola(root, tmp_path / "save", valid_recordings=1)["train"])
    assert "train_1.arff, line 10" in skipped["recordings_audio/train_1.wav"]
    assert "is not named by split" in skipped["recordings_audio/P16.wav"]
    with pytest.raises(DataError, match="does not look like recola: no recordings_audio"):
        prepare_recola(tmp_path, tmp_path / "save")


@pytest.fixture
def cafe(tmp_path, tone, broken):
    """CaFE_48k/<Emotion>/<Intensité>/01-C-1-1.wav, the neutral ones without intensity, with two texts."""
    root = tmp_path / "cafe" / "CaFE_48k"
    folders = {"C": "Colère", "D": "Dégoût", "J": "Joie", "P": "Peur", "S": "Surprise", "T": "Tristesse"}
    for speaker in ("01", "02", "12"):
        for sentence in "16":
            for letter, folder in folders.items():
                for number, intensity in (("1", "Faible"), ("2", "Fort")):
                    tone(root / folder / intensity / f"{speaker}-{letter}-{number}-{sentence}.wav", 0.1, 48000)
            tone(root / "Neutre" / f"{speaker}-N-{sentence}.wav", 0.1, 48000)
    (root / "Readme.txt").write_text("AA-E-I-S.wav")
    tone(root / "Neutre" / "03-N-1-1.wav", 0.1)
    tone(root / "Joie" / "03-J-1.wav", 0.1)
    tone(root / "Joie" / "other.wav", 0.1)
    broken(root / "Peur" / "Fort")
    (root / "Peur" / "Fort" / "bad_empty.wav").rename(root / "Peur" / "Fort" / "03-P-2-1.wav")
    return root.parent


def test_cafe_is_read_off_the_names(cafe, tmp_path, tone):
    path = prepare_cafe(cafe, tmp_path / "save")["all"]
    manifest = read_manifest(path)
    assert len(manifest) == 3 * 2 * 13 and manifest.groups == ["01", "02", "12"]
    rows = {row["id"]: row for row in manifest.rows}
    assert len({row["emotion"] for row in manifest.rows}) == 7
    row = rows["02-C-2-6"]
    assert (row["emotion"], row["intensity"], row["sentence"], row["group"]) == ("anger", "strong", "6", "02")
    assert (rows["01-N-1"]["emotion"], rows["01-N-1"]["intensity"]) == ("neutral", "none")
    skipped = skipped_of(path)
    assert skipped["CaFE_48k/Peur/Fort/03-P-2-1.wav"] == "is empty (0 bytes)"
    assert "wrong way round" in skipped["CaFE_48k/Neutre/03-N-1-1.wav"]
    assert "wrong way round" in skipped["CaFE_48k/Joie/03-J-1.wav"]
    assert "not named by" in skipped["CaFE_48k/Joie/other.wav"]
    assert len(leave_one_group_out(path, tmp_path / "folds", valid_groups=0)) == 3
    tone(cafe / "CaFE_192k_1" / "Neutre" / "01-N-1.aiff", 0.1)
    skipped = skipped_of(prepare_cafe(cafe, tmp_path / "save")["all"])
    assert "has the name of CaFE_192k_1/Neutre/01-N-1.aiff" in skipped["CaFE_48k/Neutre/01-N-1.wav"]
    with pytest.raises(DataError, match="does not look like cafe"):
        prepare_cafe(tmp_path / "save", tmp_path / "other")


def test_att_hack_is_read_off_the_names(tmp_path, tone):
    root = tmp_path / "att"
    for speaker in ("F01", "M04"):
        for attitude in "1234":
            for take in "13":
                name = f"{speaker}_a{attitude}_s001_v0{take}"
                tone(root / "wav" / f"{name}.wav", 0.1, 44100)
                (root / "txt").mkdir(exist_ok=True)
                (root / "txt" / f"{name}.txt").write_text("oui")
    tone(root / "wav" / "F01_a5_s001_v01.wav", 0.1)
    path = prepare_att_hack(root, tmp_path / "save")["all"]
    manifest = read_manifest(path)
    assert len(manifest) == 16 and manifest.groups == ["F01", "M04"]
    row = {row["id"]: row for row in manifest.rows}["M04_a3_s001_v03"]
    assert [row[key] for key in ("attitude", "sentence", "take", "gender", "group")] == ["a3", "001", "03", "M", "M04"]
    assert "not named by" in skipped_of(path)["wav/F01_a5_s001_v01.wav"] and "NC-ND" in manifest.meta["licence"]
    with pytest.raises(DataError, match="does not look like att_hack"):
        prepare_att_hack(tmp_path / "save", tmp_path / "other")
