"""Gibbons and siamangs as they really come: what is there, and that backgrounds name individuals."""

from __future__ import annotations

import numpy as np
import pytest

from lobes.dataio import audio_dataset, make_folds, read_manifest, validate_splits
from lobes.dataio.annotations import load_annotations, read_annotations, write_annotations
from lobes.dataio.background import BandOnly, BandStop
from lobes.dataio.corpora import (
    prepare_borneo_sulawesi,
    prepare_danum_clips,
    prepare_gibbon_females,
    prepare_siamang,
)
from lobes.dataio.corpora.danum_clips import DUET_OR_NOISE, SIX_CLASSES
from lobes.dataio.folds import LEAKS
from lobes.errors import DataError

pytestmark = pytest.mark.data


def folder_of(lobes_data, corpus):
    if not (lobes_data / corpus).is_dir():
        pytest.skip(f"LOBES_DATA has no {corpus}")
    return lobes_data / corpus


def cepstra(manifest, transform=None, low=0.0, high=8000.0):
    """Mean and deviation of 20 cepstra of 40 bands between two frequencies: id -> (40,)."""
    from scipy.fft import dct

    dataset = audio_dataset(manifest, 16000, transform=transform)
    edges = np.linspace(low, high, 42)
    hertz = np.fft.rfftfreq(1024, 1 / 16000)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.clip(np.minimum(rising, falling), 0, None)
    features = {}
    for item in (dataset[i] for i in range(len(dataset))):
        frames = np.lib.stride_tricks.sliding_window_view(item["sig"].numpy(), 1024)[::512] * np.hanning(1024)
        coefficients = dct(np.log(np.abs(np.fft.rfft(frames)) ** 2 @ bank.T + 1e-10), norm="ortho")[:, :20]
        features[item["id"]] = np.r_[coefficients.mean(0), coefficients.std(0)]
    return features


def balanced_accuracy(folds, features):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    true, said = [], []
    for fold in folds.values():
        parts = {name: read_manifest(path).rows for name, path in fold.items()}
        inputs = {name: [features[row["id"]] for row in rows] for name, rows in parts.items()}
        labels = {name: [row["individual"] for row in rows] for name, rows in parts.items()}
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)).fit(inputs["train"], labels["train"])
        true += labels["test"]
        said += list(model.predict(inputs["test"]))
    return balanced_accuracy_score(true, said)


def test_danum_clips(lobes_data, tmp_path):
    folder = folder_of(lobes_data, "danum_clips")
    whole = validate_splits(prepare_danum_clips(folder, tmp_path), check_files=True)["all"]
    assert len(whole) == 225 and whole.groups == [f"S{n}" for n in range(10, 18)] and whole.meta["skipped"] == []
    for row in whole.rows:  # the times in the name are those of the clip
        assert row["duration"] == pytest.approx(float(row["end"]) - float(row["begin"]), abs=1e-3)
    counts = {}
    for classes in (DUET_OR_NOISE, SIX_CLASSES):
        path = prepare_danum_clips(folder, tmp_path, classes=classes)["all"]
        folds = make_folds(path, tmp_path / "folds", label="call_type")
        counts[len(classes)] = (len(read_manifest(path)), len(folds))
    assert counts == {2: (160, 6), 6: (224, 8)}


def test_every_selection_table_of_danum_is_written_again_byte_for_byte(lobes_data, tmp_path):
    tables = sorted((folder_of(lobes_data, "danum_clips") / "selection_tables").glob("*.txt"))
    assert len(tables) == 24
    read = {path: read_annotations(path) for path in tables}
    assert sum(map(len, read.values())) == 449
    assert {table.label_column for table in read.values()} == {"Call type", "Call.type"}
    for path, table in read.items():
        assert write_annotations(tmp_path / path.name, table).read_bytes() == path.read_bytes()
    kept, problems = load_annotations(tables[0].parent, folder_of(lobes_data, "borneo_sulawesi_cc0"))
    assert kept == [] and len(problems) == 24  # the long recordings are not there, which is named and not fatal
    assert all("no such recording" in problem.reason for problem in problems)


def test_focal_calls_and_soundscapes(lobes_data, tmp_path):
    path = prepare_borneo_sulawesi(folder_of(lobes_data, "borneo_sulawesi_cc0"), tmp_path)["all"]
    whole = validate_splits({"all": path}, check_files=True)["all"]
    kinds = [row["call_type"] for row in whole.rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "FemaleGibbon": 4,
        "MaleSolo": 4,
        "GreatArgus": 4,
        "Soundscape": 8,
    }
    assert {row["sample_rate"] for row in whole.rows} == {16000, 44100, 48000} and len(whole.groups) == 16


@pytest.mark.slow
def test_the_background_names_the_gibbon(lobes_data, tmp_path):
    path = prepare_gibbon_females(folder_of(lobes_data, "gibbon_females"), tmp_path)["all"]
    assert len(read_manifest(path)) == 36 and len(read_manifest(path).groups) == 12
    with pytest.raises(DataError, match="no fold can test"):
        make_folds(path, tmp_path / "honest", label="individual")
    folds = make_folds(path, tmp_path / "folds", LEAKS, label="individual", n_folds=3)
    scores = {
        "full": balanced_accuracy(folds, cepstra(path)),
        "without the call's band": balanced_accuracy(folds, cepstra(path, BandStop(400, 1800))),
        "3-8 kHz": balanced_accuracy(folds, cepstra(path, BandOnly(3000, 8000), 3000, 8000)),
        "0-300 Hz": balanced_accuracy(folds, cepstra(path, BandOnly(0, 300), 0, 300)),
    }
    assert scores["full"] > 0.95 and scores["without the call's band"] > 0.95, scores
    assert scores["3-8 kHz"] > 0.9 and scores["0-300 Hz"] > 0.55, scores  # chance is .083


@pytest.mark.slow
def test_siamangs_are_told_apart_less_well_in_another_session(lobes_data, tmp_path):
    folder = folder_of(lobes_data, "siamang")
    path = prepare_siamang(folder, tmp_path / "call")["all"]
    whole = validate_splits({"all": path}, check_files=True)["all"]
    assert len(whole) == 112 and len(whole.groups) == 11 and whole.meta["skipped"] == []
    both = read_manifest(prepare_siamang(folder, tmp_path / "both", crops="both")["all"])
    assert len(both) == 224 and len({row["call"] for row in both.rows}) == 112
    at_random = make_folds(path, tmp_path / "random", LEAKS, label="individual")
    by_session = make_folds(path, tmp_path / "session", label="individual")
    features = cepstra(path)
    leaking, honest = balanced_accuracy(at_random, features), balanced_accuracy(by_session, features)
    assert leaking > 0.87 and 0.75 < honest < 0.86 and leaking - honest > 0.05, (leaking, honest)
