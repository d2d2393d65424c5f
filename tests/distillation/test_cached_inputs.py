"""Inputs that were computed once: a student makes of them what it makes of the audio, and no audio is read."""

from __future__ import annotations

import json
import logging
from functools import partial

import pytest
import torch
from tiny_models import hubert, ours
from torch.utils.data import DataLoader

from lobes.dataio import collate, datasets
from lobes.dataio.background import BackgroundSwap
from lobes.distillation import Distillation, MaskedTwoWay, MaskedUnits, STaR, TargetCache, Teacher, front_end
from lobes.encoders import EfficientNetV2, Encoder, LogMel, StackingStem, absolute_lengths, frame_mask
from lobes.errors import ConfigError, DataError
from lobes.mixers import SummaryMixing
from lobes.training.students import inputs_of, with_targets

OBJECTIVES = {
    "Distillation": Distillation,
    "STaR": STaR,
    "MaskedUnits": partial(MaskedUnits, n_units=5, mask_probability=0.2, mask_span=3),
}
STUDENTS = {
    "25 Hz": ours,
    "50 Hz": partial(ours, factor=2),
    "EfficientNetV2": lambda: EfficientNetV2(LogMel(n_mels=20), dim=16),
}


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(hubert(), [1, 3])


def whole(dataset):
    """All utterances as one batch, of step 3."""
    [batch] = DataLoader(dataset, batch_size=6, collate_fn=collate)
    batch.step = 3
    return batch


def none_is_read(*_: object, **__: object) -> None:
    raise AssertionError("audio was read, or features computed")


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 1e-3), ("float32", 1e-6)])
@pytest.mark.parametrize(
    ("objective", "student"),
    [(name, "50 Hz") for name in OBJECTIVES] + [("Distillation", "25 Hz"), ("Distillation", "EfficientNetV2")],
)
def test_losses_are_those_of_the_audio(
    objective, student, precision, tolerance, teacher, dataset, tmp_path, monkeypatch
):
    student = STUDENTS[student]()
    loss = OBJECTIVES[objective](student, teacher)
    loss.prepare(dataset())
    cache = TargetCache(tmp_path / "cache", teacher, precision, inputs=front_end(student))
    assert cache.extract(dataset(), batch_seconds=3.0, shard_gib=5e-6, progress=False) == 6
    online = loss(student, whole(dataset()))
    monkeypatch.setattr(datasets, "read_audio", none_is_read)
    monkeypatch.setattr(LogMel, "forward", none_is_read)
    monkeypatch.setattr(Teacher, "forward", none_is_read)
    batch = whole(cache.attach(dataset()))
    assert not hasattr(batch, "sig") and batch.features.data.dtype == getattr(torch, precision)
    cached = loss(student, batch)
    assert cached.loss.item() == pytest.approx(online.loss.item(), abs=tolerance) and cached.weight == online.weight
    features, lengths = batch.features
    valid = frame_mask(absolute_lengths(lengths, features.shape[1]), features.shape[1])
    features[~valid] = torch.nan  # what is padded is not heard
    assert loss(student, batch).loss.item() == pytest.approx(cached.loss.item(), abs=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_student_learns_the_same(objective, teacher, dataset, tmp_path):
    """Ten steps of gradients, and its fidelity after them, tested on audio."""
    found = []
    for inputs in (True, False):
        torch.manual_seed(1)
        student = STUDENTS["50 Hz"]()
        loss = OBJECTIVES[objective](student, teacher)
        cache = TargetCache(tmp_path / "cache", teacher, "float32", inputs=front_end(student) if inputs else None)
        cache.extract(dataset(), progress=False)
        train = cache.attach(dataset())
        loss.prepare(train)
        optimizer = torch.optim.SGD([p for p in (*student.parameters(), *loss.parameters()) if p.requires_grad], 0.05)
        for _ in range(10):
            optimizer.zero_grad()
            loss(student, whole(train)).loss.backward()
            optimizer.step()
        items = loss.eval()(student.eval(), whole(dataset())).items
        found.append((items["residual"].sum() / items["total"].sum()).item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_cache_without_inputs_is_completed(teacher, dataset, tmp_path, monkeypatch):
    TargetCache(tmp_path / "cache", teacher).extract(dataset(), progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    cache = TargetCache(tmp_path / "cache", teacher, inputs=front_end(ours()))
    known = dataset().fingerprints()
    assert len(cache) == 6 and not cache.has("u0", known["u0"])
    with pytest.raises(DataError, match="holds targets of none of 6"):
        cache.attach(dataset())
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "forward", none_is_read)
        assert cache.extract(dataset(), progress=False) == 6
    assert cache.extract(dataset(), progress=False) == 0 and cache.has("u0", known["u0"])
    after = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir() if path.is_file()}
    assert after == before, "targets stay as they are"
    assert whole(TargetCache(tmp_path / "cache", teacher).attach(dataset())).sig.data.shape[1] == 1.3 * 16000


def test_processes_share_the_work_and_see_each_others(teacher, dataset, tmp_path):
    parts = [TargetCache(tmp_path / "cache", teacher, inputs=front_end(ours())) for _ in range(2)]
    added = [cache.extract(dataset(), part=(rank, 2), progress=False) for rank, cache in enumerate(parts)]
    parts[0].refresh()
    assert added == [3, 3] and len(parts[0].attach(dataset())) == 6
    [folder] = (tmp_path / "cache" / "inputs").iterdir()
    assert {path.name[:4] for path in folder.glob("*.npy")} == {"0000", "0001"}


def test_every_front_end_has_its_own(teacher, dataset, tmp_path):
    """Its band is in no weight."""
    bands = [LogMel(n_mels=20), LogMel(n_mels=20, high=4000.0), LogMel(n_mels=20, normalise=False), LogMel(n_mels=20)]
    found = []
    for features in bands:
        student = Encoder(features, StackingStem(20, 16), 16, 1, SummaryMixing)
        cache = TargetCache(tmp_path / "cache", teacher, "float32", inputs=front_end(student))
        cache.extract(dataset(), progress=False)
        found.append(whole(cache.attach(dataset())).features.data)
        torch.testing.assert_close(found[-1], features(*whole(dataset()).sig)[0], atol=1e-5, rtol=0)
    assert len(list((tmp_path / "cache" / "inputs").iterdir())) == 3


def test_inputs_count_where_size_does(teacher, dataset, tmp_path, caplog):
    cache = TargetCache(tmp_path / "cache", teacher, "int8", inputs=front_end(ours()))
    targets = TargetCache(tmp_path / "cache", teacher, "int8").expected_gib(5.35)
    assert cache.expected_gib(5.35) - targets == pytest.approx(5.35 * 100 * 20 * 2 / 2**30), "float16"
    with pytest.raises(ConfigError, match="targets and inputs would take .* max_gib is 1e-05"):
        cache.extract(dataset(), max_gib=1e-5, progress=False)
    assert targets < 1e-5, "without inputs they would have fitted"
    with caplog.at_level(logging.INFO):
        cache.extract(dataset(), progress=False)
    assert "targets and inputs of 6 utterances take 0.000 GiB" in caplog.text
    size = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    assert size == pytest.approx(cache.expected_gib(5.35) * 2**30, rel=0.2)
    settings = [json.loads(path.read_text())["precision"] for path in (tmp_path / "cache").rglob("settings.json")]
    assert sorted(settings) == ["float16", "int8"]


def test_what_cannot_be_read_is_left_out(teacher, dataset, tmp_path):
    (tmp_path / "2.wav").write_bytes(b"no audio")
    cache = TargetCache(tmp_path / "cache", teacher, inputs=front_end(ours()))
    assert cache.extract(dataset(), progress=False) == 5
    batch = whole(cache.attach(dataset()))
    assert batch.id == ["u0", "u1", "u3", "u4", "u5"] and batch.skipped == []


class Dithered(LogMel):
    """Draws something in each step."""


@pytest.mark.parametrize(
    ("student", "objective", "said"),
    [
        (ours, Distillation, ""),
        (hubert, Distillation, "HuggingFaceEncoder reads audio, so that only targets are cached"),
        (
            lambda: Encoder(Dithered(n_mels=20), StackingStem(20, 16), 16, 1, SummaryMixing),
            Distillation,
            "Encoder reads audio",
        ),
        (partial(ours, factor=2), MaskedTwoWay, "MaskedTwoWay needs audio, so that only targets are cached"),
    ],
)
def test_who_needs_audio_gets_it(student, objective, said, teacher, dataset, tmp_path, caplog):
    student = student()
    loss = objective(student, teacher)
    hparams = {"cache": str(tmp_path / "cache"), "cache_inputs": True, "cache_precision": "float16", "transform": None}
    hparams["cache_gib"] = 1.0
    with caplog.at_level(logging.INFO):
        inputs = inputs_of(hparams, student, loss)
    assert (said in caplog.text) if said else "cache_inputs" not in caplog.text
    [train] = with_targets(hparams, teacher, [dataset()], inputs=inputs)
    batch = whole(train)
    assert hasattr(batch, "features") == (not said) and hasattr(batch, "sig") == bool(said)
    loss(student, batch).loss.backward()
    for off in ({"cache": None}, {"cache_inputs": False}):
        assert inputs_of(hparams | off, student, loss) is None


def test_what_changes_from_epoch_to_epoch_is_refused(teacher, dataset, tmp_path):
    student = STUDENTS["50 Hz"]()
    loss = MaskedTwoWay(student, teacher)
    cache = TargetCache(tmp_path / "cache", teacher, inputs=front_end(student))
    cache.extract(dataset(), progress=False)
    with pytest.raises(ConfigError, match="MaskedTwoWay: the batch holds no audio.*--cache_inputs False"):
        loss(student, whole(cache.attach(dataset())))
    swap = BackgroundSwap(tmp_path / "all.csv")
    hparams = {"cache": str(tmp_path / "other"), "cache_precision": "float16", "transform": swap, "cache_gib": 1.0}
    with pytest.raises(ConfigError, match="transform BackgroundSwap changes the audio .* give --cache null"):
        with_targets(hparams, teacher, [dataset(transform=swap)])
    assert len(with_targets(hparams | {"cache": None}, teacher, [dataset(transform=swap)])) == 1
