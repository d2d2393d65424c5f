"""Windows with labels: several classes at once, thresholds of their own, and a score that is scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score, f1_score

from lobes.dataio import Clip, read_manifest, scan_clips, write_manifest
from lobes.dataio.background import BandOnly
from lobes.detection import Detector, LabelledWindows, frame_loss, window_records
from lobes.evaluation import mean_average_precision
from lobes.export import load_encoder
from lobes.probes import LinearHead

CLASSES = ["a", "b"]


@pytest.fixture
def windows(tmp_path):
    """A manifest of twelve windows in three recordings, for each of the splits."""
    noise, clips = np.random.default_rng(0), []
    for number in range(3):
        soundfile.write(tmp_path / f"r{number}.wav", 0.1 * noise.standard_normal(16 * 16000), 16000)
        for k, labels in enumerate(("", "a", "b", "a b")):
            clips.append(
                Clip(f"r{number}.wav", f"r{number}-{k}", f"r{number}", {"types": labels}, 4.0 * k, 4.0 * k + 4)
            )
    rows = scan_clips(clips, tmp_path, tmp_path / "save", corpus="noise").rows
    return write_manifest(tmp_path / "save" / "all.csv", rows, data_root=tmp_path, source="a test", licence="CC0")


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return Detector(load_encoder("logmel-40-25hz"), LinearHead, CLASSES, window=4.0).eval()


def test_the_metric_is_that_of_scikit_learn():
    noise = np.random.default_rng(1)
    for _ in range(20):
        truth = noise.random((40, 3)) < 0.2
        truth[:3] |= np.eye(3, dtype=bool)
        scores = noise.integers(0, 8, (40, 3)) / 8  # with ties
        items = [
            {"id": str(n), "group": "g", "targets": torch.from_numpy(row[None]).float()} for n, row in enumerate(truth)
        ]
        found = mean_average_precision(window_records(items, scores, ["a", "b", "c"]))
        assert found == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-12)


def test_a_window_may_hold_several_classes_and_the_loss_counts_each(windows, detector):
    dataset = LabelledWindows("types", CLASSES).dataset(windows, detector)
    targets = torch.stack([dataset[n]["targets"] for n in range(4)])
    assert targets.tolist() == [[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]
    logits = torch.randn(4, 2)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[:, 0])
    assert frame_loss(logits, torch.ones(4, 100, dtype=torch.bool), targets) == pytest.approx(expected.item())


def test_thresholds_are_those_of_the_highest_f1(windows, detector):
    protocol = LabelledWindows("types", CLASSES)
    protocol.tune(detector, windows)
    tested = protocol.test(detector, windows, windows.parent)
    assert tested.figures.keys() == {"average_precision_a", "average_precision_b"}
    for name in CLASSES:
        of_class = [record for record in tested.records if record["label"] == name]
        truth, scores = ([record[of] for record in of_class] for of in ("annotated", "score"))
        reached = {high: f1_score(truth, np.array(scores) >= high) for high in scores}
        assert reached[detector.rules[name].high] == max(reached.values()) and detector.rules[name].low is None
    with torch.no_grad():
        audio = [protocol.dataset(windows, detector)[n]["sig"] for n in range(12)]
        direct, _ = detector.scores(torch.stack(audio), torch.full((12,), 64000))
    found = {record["id"]: record["score"] for record in tested.records}
    ids = [row["id"] for row in read_manifest(windows).rows]
    assert [found[f"{name}/b"] for name in ids] == pytest.approx(direct[:, 0, 1].tolist(), abs=1e-5)


def test_what_is_heard_is_filtered_and_the_control_hears_the_rest(windows, detector):
    low = LabelledWindows("types", CLASSES, heard=BandOnly(high_hz=1000.0), background=BandOnly(low_hz=3000.0))
    spectrum = torch.fft.rfft(low.dataset(windows, detector)[0]["sig"]).abs()
    hertz = torch.fft.rfftfreq(64000, 1 / 16000)
    assert spectrum[hertz > 1100].max() < 1e-3 < spectrum[hertz < 900].max()
    found = low.control(detector, dict.fromkeys(("train", "test"), windows), "cpu", seed=1)
    assert found.keys() == {"background_value", "background_low", "background_high"}
    assert found["background_low"] <= found["background_value"] <= found["background_high"]
    assert LabelledWindows("types", CLASSES).control(detector, {}, "cpu", seed=1) == {}
