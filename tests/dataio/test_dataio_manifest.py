"""Manifests: portable, readable by SpeechBrain, and refused with a clear line where they are wrong."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from speechbrain.dataio.dataset import DynamicItemDataset

from lobes.dataio import Manifest, data_checksum, read_manifest, validate_splits, write_manifest
from lobes.dataio.manifest import COLUMNS, meta_path
from lobes.errors import DataError


def row(name="a", group="anna", **changes):
    return {
        "id": name,
        "wav": f"{{data_root}}/{name}.wav",
        "start": 0.0,
        "stop": 0.5,
        "duration": 0.5,
        "sample_rate": 16000,
        "channel": None,
        "group": group,
        "text": 'dit "oui", puis non',
        **changes,
    }


def write(path, rows, **options):
    return write_manifest(path, rows, **{"source": "a test", "licence": "CC0", "data_root": "/data", **options})


def test_what_is_written_is_read(tmp_path):
    rows = [row("a"), row("b", "bob", channel=1, start=0.25, stop=1.0, duration=0.75)]
    path = write(tmp_path / "s" / "train.csv", rows, data_root=tmp_path, skipped=[("x.wav", "is empty")], seed=3)
    manifest = read_manifest(path)
    assert manifest.rows == [{**r, "wav": f"$data_root/{r['id']}.wav"} for r in rows]
    assert manifest.labels == ["text"] and manifest.groups == ["anna", "bob"]
    assert manifest.durations == [0.5, 0.75] and len(manifest) == 2
    assert manifest.audio_path(manifest.rows[0]) == tmp_path / "a.wav"
    meta = json.loads((tmp_path / "s" / "train.meta.json").read_text())
    assert meta["source"] == "a test" and meta["licence"] == "CC0" and meta["generated"] is False
    assert meta["items"] == 2 and meta["groups"] == 2 and meta["seed"] == 3
    assert meta["hours"] == pytest.approx(1.25 / 3600, abs=1e-6)
    assert meta["skipped"] == [{"file": "x.wav", "reason": "is empty"}]
    assert meta["data_root"] == str(tmp_path)
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["train.csv", "train.meta.json"]


def test_speechbrain_reads_it(tmp_path):
    path = write(tmp_path / "train.csv", [row("a"), row("b")], data_root="/somewhere")
    assert path.read_text().splitlines()[0] == ",".join([*COLUMNS, "text"])
    dataset = DynamicItemDataset.from_csv(path, replacements={"data_root": "/elsewhere"})
    with dataset.output_keys_as(["id", "wav", "duration", "text"]):
        assert dataset[1] == {
            "id": "b",
            "wav": "/elsewhere/b.wav",
            "duration": 0.5,
            "text": 'dit "oui", puis non',
        }


def test_audio_that_moved_is_found(tmp_path):
    path = write(tmp_path / "train.csv", [row()], data_root="/old")
    assert str(read_manifest(path, "/new").audio_path(row())) == "/new/a.wav"
    meta_path(path).unlink()
    with pytest.raises(DataError, match="data_root"):
        read_manifest(path).audio_path(row())


def test_checksum_depends_on_the_data_alone(tmp_path, tone):
    for folder in ("one", "two"):
        tone(tmp_path / folder / "a.wav", 0.5)
        tone(tmp_path / folder / "b.wav", 0.5, 8000)
    rows = [row("a"), row("b", sample_rate=8000)]
    here = Manifest(rows, {}, {"data_root": str(tmp_path / "one")})
    there = Manifest(rows[::-1], {}, {"data_root": str(tmp_path / "two")})
    assert data_checksum(here) == data_checksum(there)
    assert here.checksum == read_manifest(write(tmp_path / "x.csv", rows, data_root=tmp_path / "one")).checksum
    before = data_checksum(there)
    shutil.copy(tmp_path / "two" / "a.wav", tmp_path / "two" / "b.wav")
    assert data_checksum(there) != before
    renamed = [row("c", wav="{data_root}/a.wav"), rows[1]]
    assert data_checksum(Manifest(renamed, {}, here.roots)) != data_checksum(here)


def test_a_failed_write_leaves_the_old_manifest(tmp_path, monkeypatch):
    path = write(tmp_path / "train.csv", [row()])
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, [row("b")])
    assert path.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.csv", "train.meta.json"]


HEADER = ",".join(COLUMNS)
GOOD = "a,$data_root/a.wav,0.0,0.5,0.5,16000,,anna"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column ID, wav"),
        ("ID,wav,start,stop\n", "no column duration, sample_rate, channel, group"),
        (HEADER + "\n", "holds no items"),
        (f"{HEADER}\n{GOOD}\nb,b.wav,0,half,0.5,16000,,x\n", "line 3: stop is 'half'"),
        (f"{HEADER}\nb,b.wav,0,1,1,16k,,x\n", "line 2: sample_rate is '16k'"),
        (f"{HEADER}\nb,b.wav,0,1,1,16000,left,x\n", "line 2: channel is 'left'"),
        (f"{HEADER}\nb,b.wav,0,1\n", "line 2: the number of fields"),
        (f"{HEADER}\n{GOOD},more\n", "line 2: the number of fields"),
        (f"{HEADER}\n{GOOD}\n{GOOD}\n", "id 'a' occurs twice"),
        (f"{HEADER}\nb,b.wav,1,1,0,16000,,x\n", "range 1.0-1.0 s is impossible"),
        (f"{HEADER}\nb,b.wav,2,1,1,16000,,x\n", "range 2.0-1.0 s is impossible"),
        (f"{HEADER}\nb,b.wav,0,nan,1,16000,,x\n", "range 0.0-nan s is impossible"),
        (f"{HEADER}\nb,b.wav,0,1,-1,16000,,x\n", "duration is -1.0 s"),
        (f"{HEADER}\nb,b.wav,0,1,3,16000,,x\n", "duration is 3.0 s: expected stop - start = 1 s"),
        (f"{HEADER}\nb,b.wav,0,1,1,0,,x\n", "sample_rate is 0"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_manifest_and_a_bad_sidecar(tmp_path):
    with pytest.raises(DataError, match="prepare the corpus first"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "none.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_manifest(tmp_path / "none.csv")
    path = write(tmp_path / "train.csv", [row()])
    meta_path(path).write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_manifest(path)


def test_rows_with_other_columns_are_refused(tmp_path):
    with pytest.raises(DataError, match="speaker"):
        write(tmp_path / "x.csv", [row("a"), row("b", speaker="x")])
    with pytest.raises(DataError, match="group"):
        write(tmp_path / "x.csv", [{k: v for k, v in row().items() if k != "group"}])


def test_splits_that_share_groups_or_ids_are_refused(tmp_path):
    train = Manifest([row("a", "anna"), row("b", "bob")])
    with pytest.raises(DataError, match="'bob' .also in 'train'"):
        validate_splits({"train": train, "test": Manifest([row("c", "bob")])})
    validate_splits({"train": train, "test": Manifest([row("c", "bob")])}, allow_group_overlap=True)
    with pytest.raises(DataError, match="id 'a' is in both"):
        validate_splits({"train": train, "test": Manifest([row("a", "carl")])}, allow_group_overlap=True)
    with pytest.raises(DataError, match="test holds no items"):
        validate_splits({"train": train, "test": Manifest([])})
    path = write(tmp_path / "valid.csv", [row("d", "dora")])
    assert list(validate_splits({"train": train, "valid": path})["valid"].groups) == ["dora"]


def test_ranges_beyond_the_file_are_refused(tmp_path, tone):
    tone(tmp_path / "a.wav", 0.5)
    roots = {"data_root": str(tmp_path)}
    validate_splits({"train": Manifest([row()], {}, roots)}, check_files=True)
    long = row(stop=0.7, duration=0.7)
    with pytest.raises(DataError, match="stop is 0.7 s, after the end of"):
        validate_splits({"train": Manifest([long], {}, roots)}, check_files=True)
    with pytest.raises(DataError, match="No such file"):
        validate_splits({"train": Manifest([row("b")], {}, roots)}, check_files=True)
