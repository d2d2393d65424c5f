"""A folder of recordings: what is written, what is not done twice, and what cannot stop it."""

from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
from synthetic_calls import random_calls, write_recording

from lobes.dataio.annotations import load_annotations, read_annotations
from lobes.detection import DetectionOptions, detect_folder, partial, results, run
from lobes.detection.results import table_names
from lobes.errors import ConfigError, DataError
from lobes.evaluation import event_f1, event_records, events_by_file

FILES = {
    "S10/S10_20180311_050000.wav": (40.3, 16000, 1),
    "S10/S10_20180311_060000.flac": (24.0, 48000, 2),
    "S11_20180312_235950.wav": (24.5, 16000, 2),
    "dawn.wav": (16.0, 22050, 1),
    "dawn.flac": (16.0, 16000, 1),
}
NO_PAGE, SHORT_PAGE = DetectionOptions(review=0), DetectionOptions(review=8)


def truth() -> dict[str, list]:
    return {file: random_calls(seconds, seed=number) for number, (file, (seconds, *_)) in enumerate(FILES.items())}


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Good files of many kinds, and bad ones of every kind."""
    folder = tmp_path / "recordings"
    for (file, (seconds, rate, channels)), calls in zip(FILES.items(), truth().values(), strict=True):
        write_recording(folder / file, seconds, calls, rate, channels)
    return folder


def add_bad_files(folder: Path) -> None:
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no audio")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    whole = (folder / "S10/S10_20180311_050000.wav").read_bytes()
    (folder / "S10" / "cut.wav").write_bytes(whole[: len(whole) // 2])


def written(out: Path) -> dict[str, bytes]:
    """Every file that a run wrote."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_table_holds_the_same_calls(detector_folder, recordings, tmp_path):
    out = tmp_path / "out"
    summary = detect_folder(detector_folder, recordings, out, SHORT_PAGE)
    found = read_annotations(out / "detections.csv")
    by_file = events_by_file(found, FILES)
    assert event_f1(event_records(truth(), by_file)) > 0.9
    times = [(a.file, round(a.start, 6), round(a.end, 6), a.label) for a in found]

    combined = read_annotations(out / "detections.selections.txt")
    assert [(a.label, round(a.start, 6), round(a.end, 6)) for a in combined] == [(t[3], *t[1:3]) for t in times]
    assert all(Path(a.file).is_file() and a.low_hz for a in combined)
    begins = [float(a.extra.get("Begin Time (s)", a.start)) for a in combined]  # extra only where the two differ
    before = {result.file: sum(r.seconds for r in summary.results[:i]) for i, result in enumerate(summary.results)}
    assert begins == pytest.approx([before[t[0]] + t[1] for t in times]), "Raven counts through all files"

    for kind, suffix in (("raven", ".Table.1.selections.txt"), ("audacity", ".txt")):
        stems = table_names(FILES)
        single = [
            (file, round(a.start, 6), round(a.end, 6), a.label)
            for file in sorted(FILES)
            for a in read_annotations(out / kind / Path(file).parent / f"{stems[file]}{suffix}", kind)
        ]
        assert single == times
    # What Raven gets can be read back together with its recordings, to train on.
    again, problems = load_annotations(out / "detections.selections.txt", recordings)
    assert len(again) == len(found) and problems == []

    files = rows(out / "files.csv")
    assert [row["recorder"] for row in files] == ["S10", "S10", "S11", "all", "all"]
    assert sum(int(row["calls whoop"]) + int(row["calls hoot"]) for row in files) == len(found)
    assert [float(row["seconds"]) for row in files] == [FILES[row["file"]][0] for row in files]
    activity = rows(out / "calls_per_hour.csv")
    assert sum(int(row["calls"]) for row in activity) == len(found)
    hours = {(row["recorder"], row["date"], row["hour"]): float(row["recorded_seconds"]) for row in activity}
    assert hours["S11", "2018-03-12", "23"] == 10 and hours["S11", "2018-03-13", "0"] == 14.5
    assert hours["all", "", ""] == 32 and rows(out / "skipped.csv") == []
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count('"picture": "UklGR') == 8 and f"{len(found)} detections in 5 files, 0.03 h" in page
    assert (out / "calls_per_hour.svg").stat().st_size > 1000
    assert str(summary).startswith(f"{len(found)} detections in 5 files, 0.03 h; 0.03 h of it now")


def test_bad_files_are_named_and_stop_nothing(detector_folder, recordings, tmp_path, monkeypatch):
    add_bad_files(recordings)
    broken = recordings.resolve() / "dawn.wav"
    whole = partial.score_recording

    def fail(detector, recording, batch_size, known):
        if recording.path == broken:
            raise RuntimeError("out of\nluck")
        return whole(detector, recording, batch_size, known=known)

    monkeypatch.setattr(partial, "score_recording", fail)
    summary = detect_folder(detector_folder, recordings, tmp_path / "out", NO_PAGE)
    skipped = {row["file"]: row["reason"] for row in rows(tmp_path / "out" / "skipped.csv")}
    assert set(skipped) == {"empty.wav", "text.wav", "gone.wav", "dawn.wav"}
    assert skipped["dawn.wav"] == "failed: RuntimeError: out of luck" and "empty" in skipped["empty.wav"]
    files = {row["file"]: row for row in rows(tmp_path / "out" / "files.csv")}
    assert set(files) == {*FILES, "S10/cut.wav"} - {"dawn.wav"}
    assert "truncated" in files["S10/cut.wav"]["problems"]
    assert float(files["S10/cut.wav"]["seconds"]) == pytest.approx(20.15, abs=0.01)
    assert "1 files read in part (files.csv); 4 files skipped (skipped.csv)" in str(summary)
    # What failed is tried again, and only that.
    monkeypatch.setattr(partial, "score_recording", whole)
    again = detect_folder(detector_folder, recordings, tmp_path / "out", NO_PAGE)
    assert again.done_seconds == pytest.approx(16.0, abs=0.1) and len(again.results) == 6


def test_what_is_done_is_not_done_again(detector_folder, recordings, tmp_path):
    out = tmp_path / "out"
    first = detect_folder(detector_folder, recordings, out, SHORT_PAGE)
    before = written(out)
    second = detect_folder(detector_folder, recordings, out, SHORT_PAGE)
    assert second.done_seconds == 0 and "done before" in str(second)
    assert second.results == first.results and written(out) == before

    total = pytest.approx(sum(seconds for seconds, *_ in FILES.values()), abs=0.5)
    higher = detect_folder(detector_folder, recordings, out, DetectionOptions(threshold=0.9, review=0))
    assert higher.done_seconds == total and len(higher.results[0].events) <= len(first.results[0].events)
    assert all(event.score >= 0.9 for result in higher.results for event in result.events)
    # How the windows are batched, and what the page shows, is no reason to do anything again.
    unchanged = DetectionOptions(threshold=0.9, batch_size=3, review=5)
    assert detect_folder(detector_folder, recordings, out, unchanged).done_seconds == 0
    os.utime(recordings / "dawn.wav")
    assert detect_folder(detector_folder, recordings, out, unchanged).done_seconds == pytest.approx(16.0, abs=0.1)
    model = shutil.copytree(detector_folder, tmp_path / "model")
    text = (model / "detector.yaml").read_text()
    (model / "detector.yaml").write_text(text.replace("min_duration: 0.2", "min_duration: 0.3"))
    assert detect_folder(model, recordings, out, unchanged).done_seconds == total


def kill_at(file_number: int, *arguments) -> None:
    """Detect, and be killed when that file has been gone through, before its result is kept."""
    count = iter(range(file_number))
    keep = run.save_result

    def keep_or_die(result, folder):
        if next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(result, folder)

    run.save_result = keep_or_die
    detect_folder(*arguments)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_killed_and_started_again_gives_the_same(detector_folder, recordings, tmp_path, after):
    add_bad_files(recordings)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    detect_folder(detector_folder, recordings, whole, SHORT_PAGE)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=kill_at, args=(after, detector_folder, recordings, stopped, NO_PAGE))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(list((stopped / "state").rglob("*.json"))) == after
    assert not (stopped / "detections.csv").exists()
    summary = detect_folder(detector_folder, recordings, stopped, SHORT_PAGE)
    assert written(stopped) == written(whole)
    done = sum(result.seconds for result in summary.results[:after])
    total = sum(result.seconds for result in summary.results)
    assert summary.done_seconds == pytest.approx(total - done, abs=0.5), "finished files are not repeated"


def test_a_damaged_state_is_done_again(detector_folder, recordings, tmp_path):
    out = tmp_path / "out"
    detect_folder(detector_folder, recordings, out, NO_PAGE)
    before = written(out)
    states = sorted((out / "state").rglob("*.json"))
    for path, text in zip(states, ("", "{}", "[1]", '{"stamp": 1}'), strict=False):
        path.write_text(text)
    detect_folder(detector_folder, recordings, out, NO_PAGE)
    assert written(out) == before


def test_one_file_and_one_channel(detector_folder, recordings, tmp_path):
    options = DetectionOptions(channel=1, name_pattern="{recorder}_{date}_{any}", review=0)
    file = recordings / "S11_20180312_235950.wav"
    summary = detect_folder(detector_folder, file, tmp_path / "out", options)
    assert [result.file for result in summary.results] == [file.name]
    table = read_annotations(tmp_path / "out" / "raven" / "S11_20180312_235950.Table.1.selections.txt")
    assert {a.channel for a in table} == {1}
    assert rows(tmp_path / "out" / "files.csv")[0]["recorder"] == "S11"
    with pytest.raises(DataError, match="none of 1 files.*no channel 3: it has 2, counted from 1"):
        detect_folder(detector_folder, file, tmp_path / "out", DetectionOptions(channel=2))


def test_near_misses_are_for_review_only(detector_folder, recordings, tmp_path):
    strict = DetectionOptions(threshold=0.97, review=0)
    summary = detect_folder(detector_folder, recordings, tmp_path / "out", strict)
    near = [event for result in summary.results for event in result.near_misses]
    assert near and all(0.97 * run.NEAR <= event.score for event in near)
    for result in summary.results:
        for miss in result.near_misses:
            others = [event for event in result.events if event.label == miss.label]
            assert all(event.end <= miss.start or event.start >= miss.end for event in others)
    assert len(read_annotations(tmp_path / "out" / "detections.csv")) == sum(len(r.events) for r in summary.results)


def test_what_cannot_work_is_said_at_once(detector_folder, recordings, tmp_path):
    for arguments, error, word in (
        ((detector_folder, tmp_path / "nowhere"), DataError, "does not exist"),
        ((detector_folder, detector_folder), DataError, "no audio files"),
        ((detector_folder, recordings, DetectionOptions(threshold=1.5)), ConfigError, "threshold is 1.5"),
        ((detector_folder, recordings, DetectionOptions(name_pattern="{site}")), ConfigError, "name_pattern"),
        ((detector_folder, recordings, DetectionOptions(device="abacus")), ConfigError, "device is 'abacus'"),
    ):
        model, folder, *options = arguments
        with pytest.raises(error, match=word):
            detect_folder(model, folder, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_results_are_kept_as_they_are(tmp_path):
    found = results.FileResult("a/ü.wav", {"size": 3}, 1.5, 16000, 2, ["is odd"])
    results.save_result(found, tmp_path)
    assert results.read_result(tmp_path, "a/ü.wav", {"size": 3}) == found
    assert results.read_result(tmp_path, "a/ü.wav", {"size": 4}) is None
    assert results.read_result(tmp_path, "b.wav", {"size": 3}) is None
