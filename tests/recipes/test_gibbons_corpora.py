"""Recipes of Gibbons on corpora of other primates: whistles in their layouts, whose pitch is what is to be told."""

from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile
from primate_corpora import write_hainan, write_macaques, write_marmosets, write_yellow_cheeked
from recipe_runner import train
from sklearn.metrics import average_precision_score

from lobes.dataio import read_manifest
from lobes.detection import detect_recordings, load_detector
from lobes.errors import ConfigError, DataError

LOGMEL = "--encoder=logmel-40-25hz"


def written(pitch, hum=lambda path: 100.0):
    """A function that writes, by a file's path, a whistle of a pitch (Hz; none of 0) over a hum."""
    noise = np.random.default_rng(0)

    def write(path, seconds, rate):
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        call = 0.1 * np.sin(2 * np.pi * pitch(path) * (1 + 0.02 * noise.standard_normal()) * time)
        call *= np.sin(2 * np.pi * time) ** 2  # each half second: what begins at once is heard at all frequencies
        call += 0.05 * np.sin(2 * np.pi * hum(path) * time) + 0.01 * noise.standard_normal(len(time))
        soundfile.write(path, call, rate)

    return write


def test_yellow_cheeked_gibbons_at_a_recorder_that_was_not_heard(tmp_path):
    write = written(lambda path: 1200.0 if path.parent.name == "Gibbons" else 0.0)
    names = [
        f"{folder}/{folder}_H_R10{recorder}_20220426_060002_{number}"
        for folder in ("Gibbons", "Noise")
        for recorder in range(20, 24)
        for number in range(3)
    ]
    folder = write_yellow_cheeked(tmp_path / "yellow", write, names)
    result = train(
        "Gibbons/call_type", tmp_path / "run", f"--data_folder={folder}", LOGMEL, hparams="yellow_cheeked.yaml"
    )
    assert result["metric"]["name"] == "auc" and result["metric"]["value"] > 0.95
    assert (result["metric"]["n_items"], result["metric"]["n_groups"]) == (24, 4)
    assert {record["group"] for record in result["records"]} == {"R1020", "R1021", "R1022", "R1023"}
    assert result["other_metrics"]["background_value"] < 0.8, "below 300 Hz all hum alike"


@pytest.fixture
def marmosets(tmp_path):
    """Four pairs of twins on three days: the first of a pair calls higher than the second, and lower each pair."""
    lines, recordings = [], []
    for twins in (1, 2):
        for day in range(5):
            for infant in (1, 2):
                name = f"2016090{day}_Twin{twins}_marmoset{infant}"
                recordings.append(name)
                lines += [f"{name},{0.5 * call},{0.5 * call + 0.4},0.4,{1 + call % 2},0" for call in range(4)]

    def pitch(path):
        twins, infant = re.findall(r"Twin(\d)_marmoset(\d)", path.name)[0]
        return 1500.0 * int(twins) + 700.0 * int(infant)

    return write_marmosets(tmp_path / "marmosets", written(pitch), lines, recordings, 2.0)


def test_marmosets_in_sessions_that_were_not_heard(marmosets, tmp_path):
    four = "--classes=[twin1_marmoset1, twin1_marmoset2, twin2_marmoset1, twin2_marmoset2]"
    given = (f"--data_folder={marmosets}", LOGMEL, "--folds.n_folds=3", "--probe.parts=3")
    result = train("Gibbons/individual", tmp_path / "run", *given, four, hparams="marmosets.yaml")
    assert result["metric"]["name"] == "uar" and result["metric"]["value"] > 0.95, result["metric"]["value"]
    assert (result["metric"]["n_items"], result["metric"]["n_groups"]) == (80, 10)
    assert result["other_metrics"]["background_value"] < 0.5, "below 500 Hz nobody is told; chance is 1/4"
    for fold in ("1", "2", "3"):
        parts = [read_manifest(tmp_path / "run" / "folds" / fold / f"{part}.csv").groups for part in ("train", "test")]
        assert not set(parts[0]) & set(parts[1])
    kinds = train(
        "Gibbons/call_type", tmp_path / "kinds", *given, "--classes=[phee, twitter]", hparams="marmosets.yaml"
    )
    assert {record["target"] for record in kinds["records"]} == {"phee", "twitter"}
    assert kinds["metric"]["value"] < 0.7 and kinds["metric"]["n_items"] == 80, "the two sound alike here"


def test_macaques_are_told_by_clips_at_random_and_said_to_leak(tmp_path):
    write = written(lambda path: {"AL": 400.0, "BE": 700.0, "TW": 1100.0}[path.parent.name])
    folder = write_macaques(
        tmp_path / "macaques", write, [f"{who}/{who}{n}" for who in ("AL", "BE", "TW") for n in range(6)]
    )
    given = (f"--data_folder={folder}", LOGMEL, "--classes=[AL, BE, TW]", "--folds.n_folds=3")
    result = train("Gibbons/individual", tmp_path / "run", *given, hparams="macaques.yaml")
    assert result["metric"]["value"] > 0.9 and "leaks" in result["task"]
    assert read_manifest(tmp_path / "run" / "folds" / "1" / "test.csv").meta["options"]["leaks"] is True
    with pytest.raises(Exception, match="no fold can test what it learnt"):
        train(
            "Gibbons/individual",
            tmp_path / "honest",
            *given,
            "--folds.split=leave one group out",
            hparams="macaques.yaml",
        )


#: In each recording of Hainan, and, in its fourth minute, in the first alone.
CALLS = ((3, 7, 1), (9, 13, 2), (15, 19, 3), (21, 25, 1), (26, 30, 2), (184, 189, 1), (170, 176, 4))
HEARD = {1: 1200.0, 2: 2000.0, 3: 3200.0, 4: 1200.0}


@pytest.fixture(scope="module")
def hainan(tmp_path_factory):
    """Eleven recordings of six recorders, in which the types of calls have pitches of their own."""
    noise = np.random.default_rng(0)

    def write(path, seconds, rate):
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * rate)) / rate
        sound = 0.03 * noise.standard_normal(len(time))
        for start, end, kind in [call for call in CALLS if call[1] <= seconds]:
            call = slice(round(start * rate), round(end * rate))
            sound[call] += 0.1 * np.sin(2 * np.pi * HEARD[kind] * time[call]) * np.hanning(len(time[call])) ** 0.5
        soundfile.write(path, sound, rate)

    layout = {"calls": CALLS, "recorders": "ABBCCDDEEFF", "seconds": (190.0, 31.0)}
    return write_hainan(tmp_path_factory.mktemp("hainan"), write, rate=9600, **layout)


HAINAN = (LOGMEL, "--normalize_layers=False", "--epochs=10", "--opt_class.lr=0.02", "--features=memory")


def test_hainan_gibbons_by_the_protocol_of_beans(hainan, tmp_path):
    run = tmp_path / "run"
    result = train("Gibbons/detection", run, f"--data_folder={hainan}", *HAINAN, hparams="hainan.yaml")
    metric, other = result["metric"], result["other_metrics"]
    assert metric["name"] == "mean_average_precision" and metric["value"] > 0.85, metric["value"]
    test = read_manifest(run / "manifests" / "test.csv")
    assert (metric["n_items"], metric["n_groups"]) == (3 * len(test), 2), "a record for each window and class"
    # The metric of BEANS: that of scikit-learn, macro, of windows in the order of the manifest.
    records = {record["id"]: record for record in result["records"]}
    of = {row["id"]: [records[f"{row['id']}/{kind}"] for kind in "123"] for row in test.rows}
    truth = np.array([[kind in row["types"].split() for kind in "123"] for row in test.rows])
    assert truth.sum(0).min() > 0 and [[r["annotated"] for r in of[row["id"]]] for row in test.rows] == truth.tolist()
    scores = np.array([[record["score"] for record in of[row["id"]]] for row in test.rows])
    assert metric["value"] == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-9)
    each = average_precision_score(truth, scores, average=None)
    assert [other[f"average_precision_{kind}"] for kind in "123"] == pytest.approx(each.tolist(), abs=1e-9)
    assert other["background_low"] <= other["background_value"] < 0.6 < metric["value"], "below 300 Hz there is noise"
    assert "1, AP " in (run / "precision_recall.svg").read_text()
    # The detector is one for recordings too.
    detector = load_detector(run / "model")
    path = sorted((hainan / "Train").iterdir())[-1]
    [found] = detect_recordings(detector, [path]).values()
    assert {event.label for event in found} == {"1", "2", "3"}
    assert all(any(event.start < end and start < event.end for start, end, _ in CALLS) for event in found)


@pytest.mark.slow
def test_hainan_gibbons_at_recorders_that_were_not_heard(hainan, tmp_path):
    run = tmp_path / "run"
    result = train("Gibbons/detection", run, f"--data_folder={hainan}", *HAINAN, "--prepare.shares.test=0.5",
                   hparams="hainan_full.yaml")  # fmt: skip
    parts = {name: read_manifest(run / "manifests" / f"{name}.csv") for name in ("train", "valid", "test")}
    recorders = [set(part.groups) for part in parts.values()]
    assert set().union(*recorders) == {f"HGSM3{letter}" for letter in "ABCDEF"} and sum(map(len, recorders)) == 6
    # Every window of every recording, one each two seconds: 31 s are 15, the last of them short, and 190 s are 94.
    assert sum(map(len, parts.values())) == 10 * 15 + 94
    assert result["metric"]["value"] > 0.75 > 0.4 > result["other_metrics"]["background_value"]
    assert result["metric"]["n_groups"] == len(recorders[2]) >= 2


def test_windows_refuse_what_cannot_be_tested(hainan, tmp_path):
    given = (f"--data_folder={hainan}", *HAINAN)
    with pytest.raises(ConfigError, match="decides on each frame; windows with labels need one that"):
        head = "--head=!name:lobes.probes.FrameLinear {dropout: 0.1}"
        train("Gibbons/detection", tmp_path / "a", *given, head, hparams="hainan.yaml")
    with pytest.raises(DataError, match=r"4, 5 call in 0 groups \(\): a test needs two or more"):
        train("Gibbons/detection", tmp_path / "b", *given, "--classes=['4', '5']", hparams="hainan.yaml")
