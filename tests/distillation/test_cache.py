"""Targets that were computed once are those of any batch, come back after a kill, and are never mixed up."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from tiny_models import hubert, ours
from torch.utils.data import DataLoader

from lobes.dataio import audio_dataset, collate, read_manifest, write_manifest
from lobes.distillation import Distillation, TargetCache, Teacher
from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError, DataError
from lobes.mixers import SDPA


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(hubert(), [1, 3])


def online(teacher, dataset) -> dict[str, torch.Tensor]:
    """Targets of each utterance, heard alone."""
    found = {}
    for batch in DataLoader(dataset, batch_size=1, collate_fn=collate):
        targets = teacher(*batch.sig)
        found[batch.id[0]] = torch.stack([layer[0, : int(targets.valid.sum())] for layer in targets.layers], dim=1)
    return found


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-3), ("int8", 0.02)])
def test_cached_targets_are_those_of_the_utterance_alone(precision, tolerance, teacher, dataset, tmp_path):
    cache = TargetCache(tmp_path / "cache", teacher, precision)
    assert cache.extract(dataset(), batch_seconds=3.0, shard_gib=5e-6, progress=False) == 6
    assert len(list((tmp_path / "cache").glob("*.json"))) > 2, "several shards"
    known = dataset().fingerprints()
    for name, expected in online(teacher, dataset()).items():
        found = cache.read(name, known[name]).float()
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    size = sum(file.stat().st_size for file in (tmp_path / "cache").glob("*.npy"))
    assert size == pytest.approx(cache.expected_gib(5.35) * 2**30, rel=0.2)


@pytest.mark.parametrize("student", [ours, hubert], ids=["25Hz", "50Hz"])
def test_cached_and_online_losses_agree(student, teacher, dataset, tmp_path):
    cache = TargetCache(tmp_path / "cache", teacher)
    cache.extract(dataset(), progress=False)
    student = student().eval()
    objective = Distillation(student, teacher).eval()
    objective.mean.zero_()
    [with_cache] = DataLoader(cache.attach(dataset()), batch_size=6, collate_fn=collate)
    [without] = DataLoader(dataset(), batch_size=6, collate_fn=collate)
    assert hasattr(with_cache, "targets") and not hasattr(without, "targets")
    cached, computed = (objective(student, batch) for batch in (with_cache, without))
    assert cached.loss.item() == pytest.approx(computed.loss.item(), abs=1e-3)
    assert cached.weight == computed.weight
    torch.testing.assert_close(cached.items["total"], computed.items["total"], rtol=1e-2, atol=1e-2)


def test_the_teacher_is_not_heard_where_there_is_a_cache(teacher, dataset, tmp_path, monkeypatch):
    cache = TargetCache(tmp_path / "cache", teacher)
    cache.extract(dataset(), progress=False)
    objective = Distillation(ours(), teacher)
    monkeypatch.setattr(teacher, "forward", None)
    [batch] = DataLoader(cache.attach(dataset()), batch_size=6, collate_fn=collate)
    objective(ours(), batch).loss.backward()
    objective.prepare(cache.attach(dataset()))
    assert objective.mean.isfinite().all()


def test_only_what_is_missing_is_computed(teacher, dataset, tmp_path):
    cache = TargetCache(tmp_path / "cache", teacher)
    half = dataset()
    half.data_ids, half.durations = half.data_ids[:3], half.durations[:3]
    assert cache.extract(half, progress=False) == 3
    assert cache.extract(dataset(), progress=False) == 3 and len(cache) == 6
    assert TargetCache(tmp_path / "cache", teacher).extract(dataset(), progress=False) == 0


def test_processes_share_the_work(teacher, dataset, tmp_path):
    first = TargetCache(tmp_path / "cache", teacher)
    added = [first.extract(dataset(), part=(0, 2), progress=False)]
    late = TargetCache(tmp_path / "cache", teacher)  # begins when the other is done
    added.append(late.extract(dataset(), part=(1, 2), progress=False))
    first.refresh()
    assert added == [3, 3] and len(first) == len(late) == 6
    assert {name[:4] for name in os.listdir(tmp_path / "cache") if name.endswith(".npy")} == {"0000", "0001"}


def test_runs_that_share_a_folder_do_not_touch_each_others_shards(teacher, dataset, tmp_path):
    """Two that began at once both find everything missing: what they write stands side by side."""
    one, other = (TargetCache(tmp_path / "cache", teacher) for _ in range(2))
    late, written = dataset(), other._write

    def first_the_other(*arguments):
        other._write = written
        assert one.extract(dataset(), batch_seconds=1.5, shard_gib=1e-6, progress=False) == 6
        return written(*arguments)

    other._write = first_the_other
    assert other.extract(late, batch_seconds=3.0, shard_gib=5e-6, progress=False) == 6
    known, expected = late.fingerprints(), online(teacher, dataset())
    for cache in (one, other):
        cache.refresh()
        assert all((cache.read(n, known[n]).float() - values).abs().max() < 0.01 for n, values in expected.items())


def test_one_id_of_two_sounds_has_two_targets(teacher, dataset, tmp_path):
    clips = dataset()
    cache = TargetCache(tmp_path / "cache", teacher)
    cache.extract(clips, progress=False)
    rows = read_manifest(tmp_path / "all.csv").rows
    moved = [{**row, "wav": other["wav"], "stop": other["stop"], "duration": other["duration"]} for row, other in zip(rows, rows[::-1], strict=True)]  # fmt: skip  # noqa: E501
    path = write_manifest(tmp_path / "moved.csv", moved, data_root=tmp_path, source="noise", licence="CC0-1.0")
    other = audio_dataset(path, 16000)
    with pytest.raises(DataError, match="targets of none of 6"):
        cache.attach(other)
    assert cache.extract(other, progress=False) == 6 and len(cache) == 12
    for found in (clips, other):
        expected = online(teacher, found)
        cache.attach(found)
        for index, name in enumerate(found.data_ids):
            assert (found[index]["targets"].float() - expected[name]).abs().max() < 0.01


def test_options_without_weights_make_another_teacher():
    def attention(heads, **band):
        torch.manual_seed(0)
        return Encoder(LogMel(n_mels=20, **band), StackingStem(20, 16), 16, 2, partial(SDPA, num_heads=heads))

    encoders = (attention(2), attention(4), attention(2), attention(2, high=4000.0), attention(2, low=50.0))
    prints = {Teacher(encoder, [1]).fingerprint() for encoder in encoders}
    assert len(prints) == 4
    for encoder in (attention(2), hubert()):
        teacher = Teacher(encoder, [1])
        before = teacher.fingerprint()
        teacher(torch.randn(2, 8000), torch.tensor([1.0, 0.5]))
        assert teacher.fingerprint() == before


def extract_until_killed(folder) -> None:
    torch.manual_seed(0)
    cache = TargetCache(folder / "cache", Teacher(hubert(), [1, 3]))
    saved, written = cache._save, []

    def save(name, values):
        saved(name, values)
        written.append(name)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # values are there, their index is not

    cache._save = save
    cache.extract(audio_dataset(folder / "all.csv", 16000), batch_seconds=1.5, shard_gib=1e-6, progress=False)


def test_a_killed_extraction_goes_on(dataset, tmp_path):
    clips = dataset()
    process = multiprocessing.get_context("fork").Process(target=extract_until_killed, args=(tmp_path,))
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3
    torch.manual_seed(0)
    teacher = Teacher(hubert(), [1, 3])
    cache = TargetCache(tmp_path / "cache", teacher)
    assert len(cache) == 2
    assert cache.extract(clips, progress=False) == 4
    known, expected = clips.fingerprints(), online(teacher, dataset())
    assert all((cache.read(n, known[n]).float() - values).abs().max() < 0.01 for n, values in expected.items())
    values = {path.stem for path in (tmp_path / "cache").glob("*.npy")}
    [left] = values - {path.stem for path in (tmp_path / "cache").glob("*.json")}
    cache.extract(clips, progress=False)
    assert (tmp_path / "cache" / f"{left}.npy").is_file(), (
        "it might be another process that is about to write its index"
    )
    os.utime(tmp_path / "cache" / f"{left}.npy", (0, 0))
    cache.extract(clips, progress=False)
    assert not (tmp_path / "cache" / f"{left}.npy").exists() and len(cache) == 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers": [1, 2]}, "teacher, layers"),
        ({"other": True}, "teacher"),
        ({"precision": "int8"}, "precision"),
        ({"preprocessing": "speed 1.1"}, "preprocessing"),
    ],
)
def test_targets_of_another_teacher_are_refused(change, named, teacher, dataset, tmp_path):
    TargetCache(tmp_path / "cache", teacher).extract(dataset(), progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    encoder = hubert() if change.get("other") else teacher.encoder
    other = Teacher(encoder, change.get("layers", [1, 3]))
    with pytest.raises(DataError, match=f"holds targets of another {named}; nothing was overwritten"):
        TargetCache(tmp_path / "cache", other, change.get("precision", "float16"), change.get("preprocessing", ""))
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == before


def test_what_cannot_be_is_said(teacher, dataset, tmp_path):
    with pytest.raises(ConfigError, match="precision is 'float8'"):
        TargetCache(tmp_path / "cache", teacher, "float8")
    cache = TargetCache(tmp_path / "cache", teacher)
    with pytest.raises(ConfigError, match="max_gib is 1e-06"):
        cache.extract(dataset(), max_gib=1e-6, progress=False)
    with pytest.raises(DataError, match="targets of none of 6"):
        cache.attach(dataset())
    cache.extract(dataset(), progress=False)
    with pytest.raises(DataError, match="the dataset crops them"):
        cache.attach(dataset(max_seconds=0.5))
    with pytest.raises(DataError, match="holds no targets of 'x'"):
        cache.read("x", "")


def test_unreadable_audio_is_left_out(teacher, dataset, tmp_path):
    (tmp_path / "2.wav").write_bytes(b"no audio")
    cache = TargetCache(tmp_path / "cache", teacher)
    assert cache.extract(dataset(), progress=False) == 5
    assert cache.attach(dataset()).data_ids == ["u0", "u1", "u3", "u4", "u5"]
    assert json.loads((tmp_path / "cache" / "settings.json").read_text())["layers"] == [1, 3]
    assert np.load(next((tmp_path / "cache").glob("*.npy"))).dtype == np.float16
