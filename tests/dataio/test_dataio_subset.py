"""Less of a manifest, and several as one."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from lobes.dataio import Manifest, read_manifest, take_clips, take_hours, write_manifest
from lobes.dataio.corpora import prepare_held_out, prepare_mix
from lobes.errors import ConfigError, DataError


def manifest(n_items: int = 100, seconds: float = 36.0) -> Manifest:
    return Manifest([{"id": f"u{i}", "duration": seconds, "group": "a", "wav": f"{i}.wav"} for i in range(n_items)])


def test_the_asked_hours_are_taken_and_smaller_ones_are_inside_larger():
    whole = manifest()
    parts = {hours: {row["id"] for row in take_hours(whole, hours, seed=3).rows} for hours in (0.1, 0.3, 0.9)}
    assert {hours: len(ids) for hours, ids in parts.items()} == {0.1: 10, 0.3: 30, 0.9: 90}
    assert parts[0.1] < parts[0.3] < parts[0.9]
    assert {row["id"] for row in take_hours(whole, 0.1, seed=4).rows} != parts[0.1]
    assert take_hours(whole, None) is whole


def test_a_subset_says_what_it_is_and_nonsense_is_refused():
    whole = manifest()
    subset = take_hours(whole, 0.2)
    assert subset.meta["items"] == 20 and subset.checksum != whole.checksum
    with pytest.raises(ConfigError, match="hours is 0"):
        take_hours(whole, 0)


def test_so_many_clips_of_each_label_are_taken():
    whole = manifest()
    for index, row in enumerate(whole.rows):
        row["bird"] = "jay" if index else "emu"
    parts = {n: take_clips(whole, n, "bird", seed=3) for n in (1, 5, 20)}
    for n, part in parts.items():
        assert sorted(row["bird"] for row in part.rows) == ["emu"] + ["jay"] * n, "the only emu is always kept"
    ids = [{row["id"] for row in part.rows} for part in parts.values()]
    assert ids[0] < ids[1] < ids[2]
    assert {row["id"] for row in take_clips(whole, 20, "bird", seed="4 b").rows} != ids[2]
    assert parts[5].meta["items"] == 6 and parts[5].checksum != whole.checksum
    assert take_clips(whole, None, "bird") is whole
    with pytest.raises(ConfigError, match="clips is 0"):
        take_clips(whole, 0, "bird")
    with pytest.raises(ConfigError, match="label is 'beast': expected one of bird"):
        take_clips(whole, 1, "beast")


def prepare(save_folder: Path, splits: tuple[str, ...]) -> dict[str, Path]:
    """A corpus of one clip per split."""
    paths = {}
    for split in splits:
        save_folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(save_folder / f"{split}.wav", torch.zeros(1600).numpy(), 16000)
        row = {"id": split, "wav": f"$data_root/{split}.wav", "start": 0.0, "stop": 0.1, "duration": 0.1}
        rows = [{**row, "sample_rate": 16000, "channel": None, "group": split}]
        path = save_folder / f"{split}.csv"
        paths[split] = write_manifest(path, rows, data_root=save_folder, source="silence", licence="none")
    return paths


def test_a_mix_trains_on_train_or_all_and_never_on_test(tmp_path):
    corpora = {
        "one": lambda save_folder: prepare(save_folder, ("train", "valid", "test")),
        "two": lambda save_folder: prepare(save_folder, ("all",)),
    }
    mixed = prepare_mix(tmp_path, corpora)
    assert [row["id"] for row in read_manifest(mixed["train"]).rows] == ["one/train", "two/all"]
    assert [row["id"] for row in read_manifest(mixed["valid"]).rows] == ["one/valid"]
    with pytest.raises(ConfigError, match="none has a valid split"):
        prepare_mix(tmp_path / "other", {"two": corpora["two"]})


def test_groups_that_are_held_out_are_in_no_split(tmp_path):
    rows = []
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", torch.zeros(1600).numpy(), 16000)
        row = {"id": str(number), "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": 0.1, "duration": 0.1}
        rows.append(row | {"sample_rate": 16000, "channel": None, "group": f"S{number % 4}"})

    def corpus(save_folder):
        about = {"data_root": tmp_path, "source": "zeros", "licence": "none"}
        return {"all": write_manifest(save_folder / "all.csv", rows, **about)}

    def groups(held_out):
        parts = prepare_held_out(tmp_path / "out", corpus, held_out, valid_share=0.3)
        return {name: set(read_manifest(path).groups) for name, path in parts.items()}

    everyone = {"S0", "S1", "S2", "S3"}
    for held_out in ("S1", ["S1"], "S1,S3", "", None):
        found = groups(held_out)
        names = set(held_out.split(",") if isinstance(held_out, str) else held_out or ()) - {""}
        assert found["train"] | found["valid"] == everyone - names and not found["train"] & found["valid"]
    with pytest.raises(DataError, match="held_out names 'S9'.*S0, S1, S2, S3"):
        groups("S9")
