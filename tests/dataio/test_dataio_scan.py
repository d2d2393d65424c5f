"""Scanning files, splitting by group, and finding or fetching corpus folders."""

from __future__ import annotations

import csv
import io
import logging
import tarfile
import zipfile
from collections import defaultdict

import pytest

from lobes.dataio import (
    Clip,
    check_audio,
    data_root,
    find_audio,
    leave_one_group_out,
    read_manifest,
    scan,
    scan_clips,
    split_by_group,
    write_manifest,
)
from lobes.dataio.folders import download_archive
from lobes.errors import ConfigError, DataError


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_bad_files_are_left_out_counted_and_named(tmp_path, tone, broken, caplog, n_jobs):
    data, save = tmp_path / "data", tmp_path / "save"
    for number in range(5):
        tone(data / f"{number}.wav", 0.1 * (number + 1), 8000, hertz=200)
    reasons = broken(data)
    names = [*sorted(p.name for p in data.iterdir()), "missing.wav"]
    clips = [Clip(name, name[:-4], "anna", {"n": name}) for name in names]
    with caplog.at_level(logging.INFO):
        scan = scan_clips(clips, data, save, corpus="tiny", skipped=[("x.wav", "is odd")], n_jobs=n_jobs)
    assert [row["id"] for row in scan.rows] == ["0", "1", "2", "3", "4"], "in the order of the clips"
    assert scan.rows[2] == {
        "id": "2",
        "wav": "$data_root/2.wav",
        "start": 0.0,
        "stop": 0.3,
        "duration": 0.3,
        "sample_rate": 8000,
        "channel": None,
        "group": "anna",
        "n": "2.wav",
    }
    with (save / "skipped.csv").open() as file:
        told = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert told == dict(scan.skipped)
    assert set(told) == {*reasons, "missing.wav", "x.wav"}
    assert all(word in told[name] for name, word in reasons.items())
    summaries = [r.message for r in caplog.records if "files left out" in r.message]
    assert len(summaries) == 1 and "5 clips" in summaries[0] and "7 files left out" in summaries[0]


def test_limits_and_headers_only(tmp_path, tone):
    for number in range(1, 5):
        tone(tmp_path / f"{number}.flac", 0.1 * number)
    content = (tmp_path / "3.flac").read_bytes()
    (tmp_path / "3.flac").write_bytes(content[: len(content) * 3 // 4])
    clips = [Clip(f"{number}.flac", str(number), "g") for number in range(1, 5)]
    kept = [r["id"] for r in scan_clips(clips, tmp_path, tmp_path, corpus="t", min_seconds=0.15).rows]
    assert kept == ["2", "4"]
    quick = scan_clips(clips, tmp_path, tmp_path, corpus="t", max_seconds=0.35, decode=False)
    assert [row["id"] for row in quick.rows] == ["1", "2", "3"]
    assert quick.skipped == [("4.flac", "is longer than 0.35 s")]


def test_parts_of_a_file_are_rows_and_the_file_is_decoded_once(tmp_path, tone, monkeypatch):
    tone(tmp_path / "long.wav", 2.0, 8000, channels=2)
    (tmp_path / "empty.wav").touch()
    decoded = []
    monkeypatch.setattr(scan, "check_audio", lambda path: decoded.append(path.name) or check_audio(path))
    ranges = [(0.0, 0.5, None), (0.5, 2.005, 1), (1.5, 2.6, None), (2.0, 2.1, None), (0.7, 0.7, None), (0.0, 1.0, 2)]
    clips = [Clip("long.wav", str(n), "g", {}, *part) for n, part in enumerate(ranges)]
    clips += [Clip("empty.wav", f"e{n}", "g", {}, n, n + 1.0) for n in range(3)]
    found = scan_clips(clips, tmp_path, tmp_path, corpus="t", n_jobs=1)
    kept = [(r["start"], r["stop"], r["duration"], r["channel"]) for r in found.rows]
    assert kept == [(0.0, 0.5, 0.5, None), (0.5, 2.0, 1.5, 1)], "cut where a table was rounded"
    assert sorted(decoded) == ["empty.wav", "long.wav"]
    assert found.skipped == [
        ("long.wav, 1.5-2.6 s", "ends after the file, which holds 2.000 s"),
        ("long.wav, 2-2.1 s", "ends after the file, which holds 2.000 s"),
        ("long.wav, 0.7-0.7 s", "is an impossible range: expected 0 <= start < stop"),
        ("long.wav, 0-1 s", "is of channel 2, counted from 0, of a file that has 2"),
        ("empty.wav", "is empty (0 bytes)"),
    ]
    long = scan_clips(clips[:2], tmp_path, tmp_path, corpus="t", max_seconds=1.0)
    assert long.skipped == [("long.wav, 0.5-2.005 s", "is longer than 1 s")]


def test_a_part_that_ends_after_its_file_is_cut_where_half_of_it_is_there(tmp_path, tone, caplog):
    tone(tmp_path / "talk.wav", 2.0, 8000)
    ranges = [(0.0, 1.0), (1.0, 2.1), (1.5, 2.5), (1.4, 2.7), (1.9, 9.0)]
    clips = [Clip("talk.wav", str(n), "g", {}, *part) for n, part in enumerate(ranges)]
    with caplog.at_level(logging.WARNING):
        found = scan_clips(clips, tmp_path, tmp_path, corpus="talks", n_jobs=1)
    assert [(row["id"], row["stop"], row["duration"]) for row in found.rows] == [
        ("0", 1.0, 1.0), ("1", 2.0, 1.0), ("2", 2.0, 0.5)
    ]  # fmt: skip
    assert [name for name, _ in found.skipped] == ["talk.wav, 1.4-2.7 s", "talk.wav, 1.9-9 s"]
    with (tmp_path / "cut.csv").open() as file:
        told = [(row["file"], row["reason"]) for row in csv.DictReader(file)]
    why = "is cut at 2 s, where the file ends"
    assert told == found.cut == [("talk.wav, 1-2.1 s", why), ("talk.wav, 1.5-2.5 s", why)]
    assert "talks: 2 parts are cut where their file ends, the first: talk.wav, 1-2.1 s" in caplog.text
    scan_clips(clips[:1], tmp_path, tmp_path, corpus="talks", n_jobs=1)
    assert (tmp_path / "cut.csv").read_text() == "file,reason\n", "not of the scan before"


def test_nothing_good_is_an_error(tmp_path, broken):
    clips = [Clip(name, name, "g") for name in broken(tmp_path)]
    with pytest.raises(DataError, match="tiny: none of 5 files .* can be used; the first: bad_empty.wav"):
        scan_clips(clips, tmp_path, tmp_path / "save", corpus="tiny")
    assert (tmp_path / "save" / "skipped.csv").is_file()
    with pytest.raises(DataError, match="none of 0 files"):
        scan_clips([], tmp_path, tmp_path / "save", corpus="tiny")


def test_audio_is_found_in_any_case_and_not_where_it_is_hidden(tmp_path):
    for name in ("b/x.WAV", "a/y.flac", ".git/z.wav", "a/.w.wav", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_audio(tmp_path) == ["a/y.flac", "b/x.WAV"]
    assert find_audio(tmp_path, "b") == ["b/x.WAV"]


def rows_of(seconds_of_group):
    return [
        {"id": f"{group}-{n}", "group": group, "duration": seconds / 4}
        for group, seconds in seconds_of_group.items()
        for n in range(4)
    ]


def test_groups_stay_together_and_shares_are_met():
    rows = rows_of({f"s{i:02d}": 10.0 + i for i in range(40)})
    total = sum(row["duration"] for row in rows)
    parts = split_by_group(rows, {"valid": 0.1, "test": 0.2}, seed=3)
    assert list(parts) == ["train", "valid", "test"]
    owner = defaultdict(set)
    for name, part in parts.items():
        for row in part:
            owner[row["group"]].add(name)
    assert all(len(names) == 1 for names in owner.values())
    assert sorted(r["id"] for part in parts.values() for r in part) == sorted(r["id"] for r in rows)
    for name, share in {"valid": 0.1, "test": 0.2}.items():
        assert sum(row["duration"] for row in parts[name]) == pytest.approx(share * total, abs=30)
    assert parts == split_by_group(rows, {"valid": 0.1, "test": 0.2}, seed=3)
    assert parts != split_by_group(rows, {"valid": 0.1, "test": 0.2}, seed=4)


@pytest.mark.parametrize("seed", range(5))
def test_a_giant_group_is_not_held_out(seed):
    parts = split_by_group(rows_of({"giant": 1000.0, "a": 30.0, "b": 30.0}), {"valid": 0.05}, seed=seed)
    assert "giant" in {row["group"] for row in parts["train"]}
    assert parts["valid"]


@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_a_group_even_where_shares_cannot_be_met(seed):
    rows = rows_of({"a": 10.0, "b": 10.0, "c": 10.0})
    parts = split_by_group(rows, {"valid": 0.01, "test": 0.9}, seed=seed)
    assert all(parts.values()) and sum(map(len, parts.values())) == 12


def test_impossible_splits_are_refused():
    with pytest.raises(DataError, match="1 groups .only. cannot make 2 splits"):
        split_by_group(rows_of({"only": 10.0}), {"valid": 0.1})
    for shares in ({"valid": -0.1}, {"valid": 0.6, "test": 0.4}):
        with pytest.raises(ConfigError, match="shares"):
            split_by_group(rows_of({"a": 1.0, "b": 1.0, "c": 1.0}), shares)
    assert list(split_by_group(rows_of({"a": 1.0}), {"valid": 0})) == ["train"]


def test_each_group_is_left_out_once(tmp_path, tone):
    tone(tmp_path / "x.wav", 1.0)
    rows = [
        {"id": f"{g}{n}", "wav": "$data_root/x.wav", "start": 0.0, "stop": 1.0, "duration": 1.0}
        | {"sample_rate": 16000, "channel": None, "group": g, "digit": str(n)}
        for g in ("anna", "bob", "carl")
        for n in range(2)
    ]
    whole = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="s", licence="l")
    folds = leave_one_group_out(whole, tmp_path / "folds")
    assert list(folds) == ["anna", "bob", "carl"]
    for held_out, paths in folds.items():
        parts = {name: read_manifest(path) for name, path in paths.items()}
        assert parts["test"].groups == [held_out]
        assert sum(map(len, parts.values())) == 6 and len(parts) == 3
        assert parts["train"].meta["options"]["held_out"] == held_out
        assert parts["train"].meta["licence"] == "l"
        assert parts["train"].audio_path(parts["train"].rows[0]).is_file()
    assert read_manifest(folds["carl"]["valid"]).groups == ["anna"]
    without = leave_one_group_out(whole, tmp_path / "two", valid_groups=0)
    assert set(without["bob"]) == {"train", "test"}
    with pytest.raises(DataError, match="3 groups"):
        leave_one_group_out(whole, tmp_path / "folds", valid_groups=2)


def test_data_root_comes_from_the_option_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("LOBES_DATA", raising=False)
    with pytest.raises(DataError, match="--data_folder=FOLDER, or set LOBES_DATA"):
        data_root("fsdd")
    with pytest.raises(DataError, match="not a folder"):
        data_root("fsdd", tmp_path / "none")
    monkeypatch.setenv("LOBES_DATA", str(tmp_path))
    with pytest.raises(DataError, match="LOBES_DATA/fsdd"):
        data_root("fsdd")
    (tmp_path / "fsdd").mkdir()
    assert data_root("fsdd") == data_root("fsdd", "") == tmp_path / "fsdd"
    (tmp_path / "mine").mkdir()
    assert data_root("fsdd", tmp_path / "mine") == tmp_path / "mine"


def pack(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path.as_uri()


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_archives_are_fetched_and_unpacked(tmp_path, kind):
    url = pack(tmp_path / kind, {"repo/keep/1.wav": b"one", "repo/notes.txt": b"no"})
    folder = tmp_path / "data"
    count = download_archive(url, folder, lambda name: name[5:] if name.endswith(".wav") else None)
    assert count == 1
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["keep/1.wav"]
    assert (folder / "keep/1.wav").read_bytes() == b"one"
    with pytest.raises(DataError, match="none of the files"):
        download_archive(url, folder, lambda name: None)


def test_archives_that_are_bad_or_unreachable_are_refused(tmp_path):
    folder = tmp_path / "data"
    with pytest.raises(DataError, match="cannot be fetched"):
        download_archive((tmp_path / "none.zip").as_uri(), folder, lambda name: name)
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="could not be unpacked"):
        download_archive((tmp_path / "bad.zip").as_uri(), folder, lambda name: name)
    url = pack(tmp_path / "evil.tar.gz", {"../../outside.wav": b"x"})
    with pytest.raises(DataError, match="outside"):
        download_archive(url, folder, lambda name: name)
    assert not (tmp_path / "outside.wav").exists() and not (tmp_path.parent / "outside.wav").exists()
    assert not list(folder.iterdir()), "nothing is left behind"
