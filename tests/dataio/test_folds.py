"""Folds leave whole groups out; clips at random have to be asked for by name."""

from __future__ import annotations

import json

import pytest

from lobes.dataio import make_folds, read_manifest, validate_splits, write_manifest
from lobes.dataio.folds import GROUPS, LEAKS
from lobes.errors import ConfigError, DataError


@pytest.fixture
def manifest(tmp_path):
    """Six sessions of two individuals, with four calls each in two crops."""
    rows = []
    for session in range(6):
        for call in range(4):
            for crop in ("call", "longer"):
                labels = {"individual": ("Baju", "Fajar")[(session + call) % 2], "call": f"s{session}c{call}"}
                name = f"s{session}c{call}{crop}"
                rows.append(
                    {
                        "id": name,
                        "wav": f"$data_root/{name}.wav",
                        "start": 0.0,
                        "stop": 1.0 + session,
                        "duration": 1.0 + session,
                        "sample_rate": 16000,
                        "channel": None,
                        "group": f"s{session}",
                        **labels,
                    }
                )
    return write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="test", licence="CC0")


def all_tested(folds):
    return sorted(row["id"] for fold in folds.values() for row in read_manifest(fold["test"]).rows)


def test_by_default_one_group_is_left_out(manifest, tmp_path):
    folds = make_folds(manifest, tmp_path / "f", label="individual", valid_parts=1)
    assert sorted(folds) == [f"s{n}" for n in range(6)]
    for held_out, fold in folds.items():
        parts = validate_splits(fold)
        assert set(parts) == {"train", "valid", "test"} and parts["test"].groups == [held_out]
    assert all_tested(folds) == sorted(row["id"] for row in read_manifest(manifest).rows)


def test_groups_at_random_stay_whole_and_fill_the_folds_alike(manifest, tmp_path):
    folds = make_folds(manifest, tmp_path / "f", GROUPS, label="individual", n_folds=3, valid_parts=1)
    assert all_tested(folds) == sorted(row["id"] for row in read_manifest(manifest).rows)
    for fold in folds.values():
        parts = validate_splits(fold)
        assert len(parts["test"].groups) == 2 and not parts["test"].meta["options"]["leaks"]
        # 1 to 6 s a clip: the longest group goes with the shortest
        assert sum(parts["test"].durations) == 8 * 7
    with pytest.raises(DataError, match="6 groups cannot make 7 folds"):
        make_folds(manifest, tmp_path / "f", GROUPS, n_folds=7)
    with pytest.raises(ConfigError, match="n_folds is 2: expected 3 or more"):
        make_folds(manifest, tmp_path / "f", GROUPS, n_folds=2, valid_parts=1)


def test_clips_at_random_are_refused_unless_asked_for_by_name(manifest, tmp_path):
    for split in ("random", "clips at random", "kfold", ""):
        with pytest.raises(
            ConfigError, match="Clips at random are refused.*background.*pass 'clips at random .leaks.'"
        ):
            make_folds(manifest, tmp_path / "f", split)
    assert not (tmp_path / "f").exists()
    folds = make_folds(manifest, tmp_path / "f", LEAKS, label="individual", together="call", n_folds=4)
    assert all_tested(folds) == sorted(row["id"] for row in read_manifest(manifest).rows)
    for fold in folds.values():
        parts = {name: read_manifest(path) for name, path in fold.items()}
        with pytest.raises(DataError, match="groups of split"):
            validate_splits(fold)
        calls = {name: {row["call"] for row in part.rows} for name, part in parts.items()}
        assert not calls["train"] & calls["test"], "the two crops of a call stay together"
        assert {row["individual"] for row in parts["test"].rows} == {"Baju", "Fajar"}
        meta = json.loads(fold["test"].with_suffix(".meta.json").read_text())
        assert meta["options"]["leaks"] is True and meta["options"]["split"] == LEAKS
    again = make_folds(manifest, tmp_path / "g", LEAKS, label="individual", together="call", n_folds=4)
    other = make_folds(manifest, tmp_path / "h", LEAKS, label="individual", together="call", n_folds=4, seed=1)
    first = [path["test"].read_text() for path in folds.values()]
    assert [path["test"].read_text() for path in again.values()] == first
    assert [path["test"].read_text() for path in other.values()] != first


def test_labels_that_no_other_group_has_are_named(manifest, tmp_path, caplog):
    with pytest.raises(DataError, match="each call occurs in one group only"):
        make_folds(manifest, tmp_path / "f", label="call")
    with pytest.raises(ConfigError, match="label is 'species': .* has individual, call"):
        make_folds(manifest, tmp_path / "f", label="species")
    whole = read_manifest(manifest)
    rows = [{**row, "individual": "Ama" if row["group"] == "s3" else row["individual"]} for row in whole.rows]
    path = write_manifest(tmp_path / "odd.csv", rows, data_root=tmp_path, source="test", licence="CC0")
    make_folds(path, tmp_path / "f", label="individual")
    assert "individual Ama occurs in one group only" in caplog.text


def test_a_manifest_without_groups_is_refused(manifest, tmp_path):
    rows = [{**row, "group": ""} for row in read_manifest(manifest).rows]
    with pytest.raises(DataError, match="group is empty: expected the speaker"):
        write_manifest(tmp_path / "b.csv", rows, data_root=tmp_path, source="test", licence="CC0")
