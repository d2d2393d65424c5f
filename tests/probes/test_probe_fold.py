"""probe_fold learns from the training clips alone, and takes features that are known already."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from lobes.dataio import audio_dataset, write_manifest
from lobes.errors import DataError
from lobes.evaluation import accuracy, auc, uar
from lobes.export import load_encoder
from lobes.probes import Decision, LogisticProbe, decision_records, probe_fold


@pytest.fixture
def datasets(tmp_path):
    """Two birds of three sites: two to train on, one to test on, its labels as given."""

    def make(labels=("low", "high")):
        time, noise = np.arange(4000) / 16000, np.random.default_rng(0)
        rows = []
        for site in ("hill", "lake", "wood"):
            for number in range(6):
                name, high = f"{site}{number}", number % 2
                call = np.exp(-9 * time) * np.sin(2 * np.pi * (2500 if high else 500) * time)
                soundfile.write(tmp_path / f"{name}.wav", call * 0.1 + 0.001 * noise.standard_normal(4000), 16000)
                bird = (labels if site == "wood" else ("low", "high"))[high]
                rows.append({"id": name, "wav": f"$data_root/{name}.wav", "start": 0.0, "stop": 0.25, "duration": 0.25})
                rows[-1] |= {"sample_rate": 16000, "channel": None, "group": site, "bird": bird}
        parts = {"train": rows[:12], "test": rows[12:]}
        about = {"data_root": tmp_path, "source": "tones", "licence": "none"}
        paths = [write_manifest(tmp_path / f"{name}.csv", part, **about) for name, part in parts.items()]
        return [audio_dataset(path, 16000, ("id", "sig", "group", "bird")) for path in paths]

    return make


def test_decisions_do_not_depend_on_the_labels_that_are_tested(datasets):
    encoder = load_encoder("logmel-40-25hz")
    found, cost = probe_fold(encoder, LogisticProbe(), *datasets(), "bird")
    assert [(label, decision) for label, decision, *_ in found] == [("low", "low"), ("high", "high")] * 3
    assert [one.id for one in found] == [f"wood{n}" for n in range(6)] and {one.group for one in found} == {"wood"}
    assert all(max(one.scores, key=one.scores.get) == one.prediction for one in found)
    swapped, _ = probe_fold(encoder, LogisticProbe(), *datasets(("high", "low")), "bird")
    assert [row[1] for row in swapped] == [row[1] for row in found] != [row[0] for row in swapped]
    assert cost["audio_hours"] == pytest.approx(12 * 0.25 / 3600) and cost["parameters_trained"] == 2 * 160 + 1


def test_known_features_are_not_computed_again(datasets, monkeypatch):
    encoder, known = load_encoder("logmel-40-25hz"), {}
    found, _ = probe_fold(encoder, LogisticProbe(), *datasets(), "bird", known=known)
    assert len(known) == 18
    monkeypatch.setattr(encoder, "forward", None)
    assert probe_fold(encoder, LogisticProbe(), *datasets(), "bird", known=known)[0] == found


def test_the_memory_that_features_may_take_is_given(datasets):
    encoder = load_encoder("logmel-40-25hz")
    needed = 12 * 320 * 4 / 2**30  # of the twelve clips to train on
    with pytest.raises(DataError, match="features_gib=.*; give more"):
        probe_fold(encoder, LogisticProbe(), *datasets(), "bird", features_gib=0.4 * needed)
    assert len(probe_fold(encoder, LogisticProbe(), *datasets(), "bird", features_gib=1.01 * needed)[0]) == 6


def test_records_of_a_detection():
    decisions = [
        Decision("call", "call", "a", "hill", {"call": 0.9, "none": 0.1}),
        Decision("none", "call", "b", "hill", {"call": 0.6, "none": 0.4}),
        Decision("call", "none", "c", "lake", {"call": 0.4, "none": 0.6}),
    ]
    records = decision_records(decisions, positive="call")
    assert (accuracy(records), auc(records), uar(records)) == (pytest.approx(1 / 3), 0.5, 0.25)
    assert accuracy(decision_records(decisions)) == pytest.approx(1 / 3)
