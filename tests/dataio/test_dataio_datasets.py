"""Datasets and batches: waveforms, labels and crops, whatever files and workers there are."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader

from lobes.dataio import (
    GlobalBatchSampler,
    audio_dataset,
    collate,
    merge_manifests,
    read_audio,
    read_manifest,
    write_manifest,
)
from lobes.errors import ConfigError, DataError


def make_manifest(folder, seconds, broken=(), rate=16000, name="train", **labels):
    """Write ramps of distinct heights, so that every part of a file can be recognised, and their manifest."""
    rows = []
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        frames = round(length * rate)
        soundfile.write(path, np.linspace(0, 0.5, frames) + 0.01 * number, rate, subtype="FLOAT")
        if number in broken:
            path.write_bytes(b"")
        rows.append(
            {
                "id": f"clip{number}",
                "wav": f"$data_root/{number}.wav",
                "start": 0.0,
                "stop": length,
                "duration": length,
                "sample_rate": rate,
                "channel": None,
                "group": f"speaker{number % 2}",
                "text": "abc"[: 1 + number % 3],
                **{label: values[number] for label, values in labels.items()},
            }
        )
    return write_manifest(folder / f"{name}.csv", rows, data_root=folder, source=str(folder.name), licence="CC0")


def letters(text):
    return [ord(letter) - ord("a") + 1 for letter in text]


def test_items_hold_audio_and_labels(tmp_path):
    path = make_manifest(tmp_path, [0.1, 0.2, 0.3], rate=8000)
    dataset = audio_dataset(
        path,
        keys=("id", "sig", "group", "tokens", "length"),
        labels={"tokens": ("text", letters), "length": ("text", len)},
    )
    batch = collate([dataset[0], dataset[1], dataset[2]])
    assert batch.id == ["clip0", "clip1", "clip2"]
    assert batch.sig.data.shape == (3, 4800) and batch.sig.data.dtype == torch.float32
    assert torch.allclose(batch.sig.lengths, torch.tensor([1 / 3, 2 / 3, 1.0]))
    assert batch.group == ["speaker0", "speaker1", "speaker0"]
    assert batch.tokens.data.tolist() == [[1, 0, 0], [1, 2, 0], [1, 2, 3]]
    assert batch.length.tolist() == [1, 2, 3]
    assert batch.skipped == []
    padded = collate([dataset[0], dataset[2]], padding={"tokens": -1})
    assert padded.tokens.data.tolist() == [[1, -1, -1], [1, 2, 3]]


def test_segments_and_channels_are_those_of_the_row(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.stack([np.zeros(1600), np.linspace(0, 0.5, 1600)], 1), 16000)
    row = {"id": "a", "wav": "$data_root/x.wav", "start": 0.05, "stop": 0.1, "duration": 0.05}
    row |= {"sample_rate": 16000, "channel": 1, "group": "g"}
    path = write_manifest(tmp_path / "t.csv", [row], data_root=tmp_path, source="", licence="")
    sig = audio_dataset(path)[0]["sig"]
    assert torch.equal(sig, read_audio(tmp_path / "x.wav", start=0.05, stop=0.1, channel=1))
    assert len(sig) == 800 and sig[0] == pytest.approx(0.25, abs=1e-3)


def test_unreadable_items_are_dropped_and_named(tmp_path):
    path = make_manifest(tmp_path, [0.1, 0.2, 0.3], broken=[1])
    dataset = audio_dataset(path, keys=("id", "sig", "tokens"), labels={"tokens": ("text", letters)})
    bad = dataset[1]
    assert len(bad["sig"]) == 0
    batch = collate([dataset[0], bad, dataset[2]])
    assert batch.id == ["clip0", "clip2"]
    assert batch.tokens.data.tolist() == [[1, 0, 0], [1, 2, 3]]
    assert [name for name, _ in batch.skipped] == ["clip1"]
    assert "1.wav: is empty" in batch.skipped[0][1]


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_of_nothing_readable_has_length_zero(tmp_path, count):
    path = make_manifest(tmp_path, [0.1, 0.2], broken=[0, 1])
    dataset = audio_dataset(path)
    batch = collate([dataset[i] for i in range(count)])
    assert len(batch.id) == len(batch.skipped) == count
    assert batch.sig.lengths.tolist() == [0.0] * count
    assert batch.sig.data.abs().sum() == 0 and batch.sig.data.shape[1] > 0


def test_audio_deleted_after_preparation_is_survived(tmp_path):
    dataset = audio_dataset(make_manifest(tmp_path, [0.1, 0.2]))
    (tmp_path / "0.wav").unlink()
    assert collate([dataset[0], dataset[1]]).skipped[0][0] == "clip0"


def test_crops_are_a_pure_function_of_seed_id_and_epoch(tmp_path):
    path = make_manifest(tmp_path, [1.0, 1.0, 0.2])

    def crops(seed, epoch):
        dataset = audio_dataset(path, max_seconds=0.25, seed=seed)
        dataset.set_epoch(epoch)
        return [dataset[i]["sig"] for i in (2, 1, 0)][::-1]

    first = crops(0, 3)
    assert [len(sig) for sig in first] == [4000, 4000, 3200]
    assert all(torch.equal(a, b) for a, b in zip(first, crops(0, 3), strict=True))
    assert not torch.equal(first[0], crops(0, 4)[0])
    assert not torch.equal(first[0], crops(1, 3)[0])
    starts = [float(sig[0]) - 0.01 * number for number, sig in enumerate(first[:2])]
    assert starts[0] != pytest.approx(starts[1], abs=1e-3), "another id has another crop"


def test_crops_cover_the_whole_clip(tmp_path):
    dataset = audio_dataset(make_manifest(tmp_path, [1.0]), max_seconds=0.25)
    starts = []
    for epoch in range(60):
        dataset.set_epoch(epoch)
        starts.append(float(dataset[0]["sig"][0]) / 0.5)  # the ramp rises from 0 to 0.5 in one second
    assert 0 <= min(starts) < 0.1 and 0.65 < max(starts) <= 0.75


def test_durations_are_those_that_are_loaded(tmp_path):
    dataset = audio_dataset(make_manifest(tmp_path, [1.0, 0.2]), max_seconds=0.5)
    assert dataset.durations == [0.5, 0.2]
    assert [dataset.data[i]["duration"] for i in dataset.data_ids] == [0.5, 0.2]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing_and_see_new_epochs(tmp_path, workers):
    dataset = audio_dataset(make_manifest(tmp_path, [0.5, 0.6, 0.3, 0.4], broken=[2]), max_seconds=0.2)
    sampler = GlobalBatchSampler(dataset.durations, 0.45, seed=1)
    loader = SaveableDataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for epoch in range(2):
        dataset.set_epoch(epoch)
        sampler.set_epoch(epoch)
        batches = list(loader)
        expected = [collate([dataset[i] for i in items]) for items in sampler]
        assert [b.id for b in batches] == [b.id for b in expected]
        assert all(
            torch.equal(a.sig.data, b.sig.data) and a.skipped == b.skipped
            for a, b in zip(batches, expected, strict=True)
        )


def test_wrong_keys_and_labels_are_named(tmp_path):
    path = make_manifest(tmp_path, [0.1])
    with pytest.raises(DataError, match="needs the column 'words'.*text"):
        audio_dataset(path, labels={"tokens": ("words", letters)})
    with pytest.raises(DataError, match="key 'singal' is unknown"):
        audio_dataset(path, keys=("id", "singal"))
    with pytest.raises(ConfigError, match="already a column"):
        audio_dataset(path, labels={"text": ("text", letters)})
    with pytest.raises(ConfigError, match="max_seconds"):
        audio_dataset(path, max_seconds=0)
    dataset = audio_dataset(path, keys=("id", "n"), labels={"n": ("text", int)})
    with pytest.raises(DataError, match="clip0: n cannot be made of 'a'"):
        dataset[0]


def test_labels_alone_do_not_touch_the_audio(tmp_path):
    path = make_manifest(tmp_path, [0.1], broken=[0])
    dataset = audio_dataset(path, keys=("id", "text"))
    assert dataset[0] == {"id": "clip0", "text": "a", "duration": 0.1}
    assert collate([dataset[0]]).text == ["a"]


def test_corpora_with_their_own_roots_are_merged(tmp_path):
    one = make_manifest(tmp_path / "one", [0.1, 0.2], digit=["3", "4"])
    two = make_manifest(tmp_path / "two", [0.3])
    merged = merge_manifests({"first": one, "second": two}, tmp_path / "merged.csv")
    manifest = read_manifest(merged)
    assert [row["id"] for row in manifest.rows] == ["first/clip0", "first/clip1", "second/clip0"]
    assert manifest.groups == ["first/speaker0", "first/speaker1", "second/speaker0"]
    assert manifest.labels == ["text", "corpus"], "labels that not all corpora have are left out"
    assert manifest.meta["source"] == "one; two"
    dataset = audio_dataset(merged)
    assert [len(dataset[i]["sig"]) for i in range(3)] == [1600, 3200, 4800]
    again = merge_manifests({"all": merged, "more": two}, tmp_path / "again.csv")
    assert [len(audio_dataset(again)[i]["sig"]) for i in range(4)] == [1600, 3200, 4800, 4800]
    with pytest.raises(ConfigError, match="a-b"):
        merge_manifests({"a-b": one}, tmp_path / "x.csv")
    with pytest.raises(DataError, match="nothing to merge"):
        merge_manifests({}, tmp_path / "x.csv")
