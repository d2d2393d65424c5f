"""The corpora as they really come, where `LOBES_DATA` has them."""

from __future__ import annotations

import pytest

from lobes.dataio import GlobalBatchSampler, audio_dataset, collate, leave_one_group_out, validate_splits
from lobes.dataio.corpora import (
    prepare_audio_folder,
    prepare_emodb,
    prepare_fsdd,
    prepare_gcompris_fr,
    prepare_librispeech,
)

pytestmark = pytest.mark.data


def folder_of(lobes_data, corpus):
    if not (lobes_data / corpus).is_dir():
        pytest.skip(f"LOBES_DATA has no {corpus}")
    return lobes_data / corpus


@pytest.mark.slow
def test_fsdd(lobes_data, tmp_path):
    path = prepare_fsdd(folder_of(lobes_data, "fsdd"), tmp_path)["all"]
    whole = validate_splits({"all": path})["all"]
    assert len(whole) == 3000 and len(whole.groups) == 6 and whole.meta["skipped"] == []
    assert {row["sample_rate"] for row in whole.rows} == {8000}
    folds = leave_one_group_out(path, tmp_path / "folds")
    assert {len(validate_splits(fold)["test"]) for fold in folds.values()} == {500}


def test_emodb(lobes_data, tmp_path):
    path = prepare_emodb(folder_of(lobes_data, "emodb"), tmp_path, group="text")["all"]
    whole = validate_splits({"all": path}, check_files=True)["all"]
    assert whole.meta["skipped"] == [] and {row["sample_rate"] for row in whole.rows} == {16000}
    assert whole.groups == ["a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10"]
    assert len({row["emotion"] for row in whole.rows}) == 7
    speakers = {row["speaker"] for row in whole.rows}
    assert speakers <= {"03", "08", "09", *map(str, range(10, 17))}
    for fold in leave_one_group_out(path, tmp_path / "folds", valid_groups=0).values():
        assert {row["speaker"] for row in validate_splits(fold)["train"].rows} == speakers, "all can be learnt"


def test_librispeech_clips(lobes_data, tmp_path):
    chosen = {"train": ["train-clean-100", "test-other"], "valid": None, "test": None}
    paths = prepare_librispeech(folder_of(lobes_data, "librispeech_clips"), tmp_path, **chosen)
    manifests = validate_splits(paths, check_files=True)
    assert sum(map(len, manifests.values())) == 145
    assert sum(len(m.groups) for m in manifests.values()) == 55


@pytest.mark.slow
def test_gcompris_fr(lobes_data, tmp_path):
    manifests = validate_splits(prepare_gcompris_fr(folder_of(lobes_data, "gcompris_fr"), tmp_path))
    texts = {name: {row["text"] for row in m.rows} for name, m in manifests.items()}
    assert sum(map(len, manifests.values())) == 1158
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["valid"]
    hours = {name: m.hours / sum(m.hours for m in manifests.values()) for name, m in manifests.items()}
    assert hours["test"] == pytest.approx(0.2, abs=0.03)
    letters = set("".join(text for part in texts.values() for text in part))
    assert letters <= set(" 'abcdefghijklmnopqrstuvwxyzàâçèéêëîïôûùœæü")


def test_batches_of_real_audio_of_three_rates(lobes_data, tmp_path):
    include = {"librispeech_clips": r"(\d+)-\d+-\d+\.flac", "picovoice_intents": "file"}
    for corpus in include:
        folder_of(lobes_data, corpus)
    paths = prepare_audio_folder(lobes_data, tmp_path, include=include)
    dataset = audio_dataset(paths["valid"], max_seconds=8)
    sampler = GlobalBatchSampler(dataset.durations, 40)
    for items in sampler:
        batch = collate([dataset[i] for i in items])
        assert batch.skipped == []
        assert batch.sig.data.shape[1] <= 8 * 16000 + 1
        assert batch.sig.data.numel() <= 40 * 16000 * 1.01
        assert 1e-4 < float(batch.sig.data.abs().mean()) < 0.5
