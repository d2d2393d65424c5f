"""A run that was killed within a recording goes on there, and what it writes is the same to the last byte."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from synthetic_calls import new_detector, random_calls, with_calls, write_recording

from lobes.dataio import Recording
from lobes.detection import DetectionOptions, detect_folder, partial, run, save_detector, score_recording
from lobes.detection.progress import Progress
from lobes.errors import ConfigError
from lobes.export import encoder_text

#: Windows of 4 s every 2 s, two at once: scores are kept about every 6 s of audio.
OPTIONS = DetectionOptions(review=0, batch_size=2, keep_minutes=0.1)
#: Name, seconds, rate (Hz), channels.
FORMATS = [("a.wav", 40.3, 16000, 1), ("b.flac", 31.7, 44100, 2), ("c.wav", 33.1, 96000, 2), ("d.mp3", 24.0, 48000, 1)]


def record(folder: Path, formats=FORMATS) -> Path:
    for number, (name, seconds, rate, channels) in enumerate(formats):
        write_recording(folder / name, seconds, random_calls(seconds, seed=number), rate, channels)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("resume") / "in")


@pytest.fixture(scope="module")
def whole(detector_folder, recordings) -> dict[str, bytes]:
    """What a run writes that is left alone."""
    out = recordings.parent / "whole"
    assert len(detect_folder(detector_folder, recordings, out, OPTIONS).results) == len(FORMATS)
    return written(out)


def written(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(turn: int, place: str) -> None:
    """Arrange for a kill when scores are kept for the `turn`th time."""
    count = iter(range(turn))

    def due() -> bool:
        return next(count, None) is None

    if place == "scoring":
        heard = partial.score_recording

        def score(*args, **options):
            for piece in heard(*args, **options):
                yield piece
                if due():
                    die()

        partial.score_recording = score
    elif place == "rows":  # half of them
        flush = os.fsync

        def cut(stream):
            flush(stream)
            if due():
                os.ftruncate(stream, max(os.fstat(stream).st_size - 101, 0))
                die()

        partial.os.fsync = cut
    elif place == "between":
        write = partial.atomic_write
        partial.atomic_write = lambda path, text: die() if due() else write(path, text)
    elif place == "count":  # beside the file that it is to replace
        move = os.replace
        os.replace = lambda a, b: die() if b.suffix == ".partial" and due() else move(a, b)
    else:  # the result is there, the scores are not removed yet
        run.remove_partial = lambda *_: die()


def detect_and_die(turn: int, place: str, *arguments) -> None:
    die_at(turn, place)
    detect_folder(*arguments)


def killed(turn: int, place: str, *arguments) -> None:
    """Detect in another process until it is killed."""
    process = multiprocessing.get_context("fork").Process(target=detect_and_die, args=(turn, place, *arguments))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def kept(out: Path) -> dict[str, int]:
    """Frames whose scores are kept, by recording."""
    found = sorted((out / "state").rglob("*.partial"))
    return {path.stem: json.loads(path.read_text())["frames"] for path in found}


@pytest.mark.parametrize(
    ("turn", "place"),
    [(0, "scoring"), (3, "scoring"), (25, "scoring"), (0, "rows"), (2, "rows"), (1, "between"), (0, "count"),
     (7, "count"), (11, "between"), (0, "result")],
)  # fmt: skip
def test_killed_anywhere_it_finds_the_same(detector_folder, recordings, whole, tmp_path, turn, place):
    out = tmp_path / "out"
    killed(turn, place, detector_folder, recordings, out, OPTIONS)
    assert not (out / "detections.csv").exists()
    known = kept(out)
    assert len(known) == (0 if (turn, place) in ((0, "scoring"), (0, "rows"), (0, "count")) else 1)
    done = {path.name.removesuffix(".json") for path in (out / "state").glob("*.json")}
    summary = detect_folder(detector_folder, recordings, out, OPTIONS)
    assert written(out) == whole, "nothing but what a run writes that is left alone"
    seconds = {result.file: result.seconds for result in summary.results if result.file not in done}
    before = sum(frames / 25 for file, frames in known.items() if file in seconds)
    assert summary.done_seconds == pytest.approx(sum(seconds.values()) - before, abs=0.3)


def test_killed_again_and_again_it_comes_to_its_end(detector_folder, recordings, whole, tmp_path):
    out = tmp_path / "out"
    before = (0, 0)
    for _ in range(5):
        killed(5, "scoring", detector_folder, recordings, out, OPTIONS)
        after = len(list((out / "state").glob("*.json"))), sum(kept(out).values())
        assert after > before
        before = after
    detect_folder(detector_folder, recordings, out, OPTIONS)
    assert written(out) == whole


@pytest.mark.parametrize(("name", "seconds", "rate", "channels"), FORMATS, ids=[f[0] for f in FORMATS])
def test_scores_go_on_to_the_last_bit(detector, recordings, name, seconds, rate, channels):
    for batch_size in (1, 3):
        expected = np.concatenate(list(score_recording(detector, Recording(recordings / name), batch_size)))
        for known in (1, 50, 99, 100, 101, 250, len(expected) - 100, len(expected) - 1):
            rest = list(score_recording(detector, Recording(recordings / name), batch_size, known=known))
            assert np.array_equal(np.concatenate(rest), expected[known:]), known


def test_windows_that_overlap_little_or_much_go_on_too(tmp_path):
    path = write_recording(tmp_path / "a.wav", 48.0, random_calls(48.0, seed=1))
    for window, hop in ((4.0, 4.0), (4.0, 0.4), (3.0, 2.0)):
        model = new_detector(window=window, hop=hop)
        expected = np.concatenate(list(score_recording(model, Recording(path), 4)))
        for known in range(model.hop_frames, len(expected), 7 * model.hop_frames):
            rest = list(score_recording(model, Recording(path), 4, known=known))
            assert np.array_equal(np.concatenate(rest), expected[known:]), (window, hop, known)


@pytest.fixture
def stopped(detector_folder, tmp_path) -> Path:
    """A run that was killed in the middle of its only recording."""
    record(tmp_path / "in", FORMATS[:1])
    killed(8, "scoring", detector_folder, tmp_path / "in", tmp_path / "out", OPTIONS)
    assert 20 * 25 < kept(tmp_path / "out")["a.wav"] < 40 * 25
    return tmp_path / "out"


def test_another_threshold_keeps_the_scores(detector_folder, stopped, tmp_path):
    higher = replace(OPTIONS, threshold=0.9)
    again = detect_folder(detector_folder, tmp_path / "in", stopped, higher)
    assert again.done_seconds < 20
    detect_folder(detector_folder, tmp_path / "in", tmp_path / "whole", higher)
    assert written(stopped) == written(tmp_path / "whole")


@pytest.mark.parametrize("other", ["detector", "batch_size", "channel", "file"])
def test_scores_of_anything_else_are_not_used(detector_folder, stopped, tmp_path, other, caplog):
    model, options = detector_folder, OPTIONS
    if other == "detector":
        torch.manual_seed(5)
        model = save_detector(new_detector(), tmp_path / "other", encoder_text("logmel-40-25hz"))
    elif other == "file":
        write_recording(tmp_path / "in/a.wav", 40.3, random_calls(40.3, seed=9))
    else:
        options = replace(OPTIONS, **{"batch_size": {"batch_size": 3}, "channel": {"channel": 0}}[other])
    with caplog.at_level(logging.WARNING):
        again = detect_folder(model, tmp_path / "in", stopped, options)
    assert "a.wav: begun again, for what is kept of it is of another file, model or option" in caplog.text
    assert again.done_seconds == pytest.approx(40.3, abs=0.1)
    detect_folder(model, tmp_path / "in", tmp_path / "whole", options)
    assert written(stopped) == written(tmp_path / "whole")


@pytest.mark.parametrize(
    ("file", "damage", "word"),
    [
        ("a.wav.scores", lambda data: data[:-1], "is truncated"),
        ("a.wav.scores", lambda data: b"", "is truncated"),
        ("a.wav.scores", lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:], "is damaged"),
        ("a.wav.scores", None, "lacks its scores"),
        ("a.wav.partial", lambda data: data[:-20], "cannot be read"),
        ("a.wav.partial", lambda data: b"[]", "cannot be read"),
    ],
)
def test_damaged_scores_are_not_used(detector_folder, stopped, tmp_path, file, damage, word, caplog):
    path = stopped / "state" / file
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        again = detect_folder(detector_folder, tmp_path / "in", stopped, OPTIONS)
    assert f"a.wav: begun again, for what is kept of it {word}" in caplog.text
    assert again.done_seconds == pytest.approx(40.3, abs=0.1)
    detect_folder(detector_folder, tmp_path / "in", tmp_path / "whole", OPTIONS)
    assert written(stopped) == written(tmp_path / "whole")


def test_what_failed_goes_on_where_it_failed_and_tells_of_the_same_faults(detector_folder, tmp_path, monkeypatch):
    """Samples that are no numbers before and behind the place, in a file that ends before its header says so."""
    samples = with_calls(60.0, random_calls(60.0, seed=2))
    samples[[16000, 400_000, 700_000]] = np.nan
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", samples, 16000, "FLOAT")
    data = (tmp_path / "in/a.wav").read_bytes()
    (tmp_path / "in/a.wav").write_bytes(data[: len(data) * 5 // 6])
    [result] = detect_folder(detector_folder, tmp_path / "in", tmp_path / "whole", OPTIONS).results
    assert len(result.problems) == 2 and "holds 3 NaN" in result.problems[1]
    heard = partial.score_recording

    def fail(*args, **options):
        for number, piece in enumerate(heard(*args, **options)):
            if number == 9:
                raise RuntimeError("out of memory")
            yield piece

    (tmp_path / "in/b.wav").write_bytes((tmp_path / "in/a.wav").read_bytes()[:1_000_000])
    monkeypatch.setattr(partial, "score_recording", fail)
    detect_folder(detector_folder, tmp_path / "in", tmp_path / "out", OPTIONS)
    monkeypatch.setattr(partial, "score_recording", heard)
    (tmp_path / "in/b.wav").unlink()
    summary = detect_folder(detector_folder, tmp_path / "in", tmp_path / "out", OPTIONS)
    assert summary.results == [result] and 0 < summary.done_seconds < 25
    (tmp_path / "out/state/b.wav.json").unlink()
    for table in ("raven/b.Table.1.selections.txt", "audacity/b.txt"):
        (tmp_path / "out" / table).unlink()
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_the_bar_begins_where_the_run_goes_on(detector_folder, stopped, tmp_path, monkeypatch):
    bars = []

    class Seen(Progress):
        def __init__(self, *args):
            super().__init__(*args)
            bars.append((args, self))

        def begin(self, file, seconds):
            super().begin(file, seconds)
            assert not self.bar.disable and self.bar.n == self.bar.initial == pytest.approx(frames / 25 / 3600)

    frames = kept(stopped)["a.wav"]
    monkeypatch.setattr(run, "Progress", Seen)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    summary = detect_folder(detector_folder, tmp_path / "in", stopped, OPTIONS)
    [((total, before, n_files), seen)] = bars
    assert (total, before, n_files) == (40.3, frames / 25, 1)
    assert seen.bar.n == pytest.approx(40.3 / 3600) and summary.done_seconds == pytest.approx(40.3 - before, abs=0.1)


def test_minutes_are_more_than_zero():
    with pytest.raises(ConfigError, match="keep_minutes is 0: expected minutes of audio, above 0"):
        DetectionOptions(keep_minutes=0.0)


def test_little_is_kept_of_short_recordings(detector_folder, recordings, tmp_path, monkeypatch):
    """By default nothing is written but results, where all files are shorter than half an hour."""
    monkeypatch.setattr(partial.PartialScores, "add", lambda *_: pytest.fail("scores were written"))
    shutil.copy(recordings / "a.wav", tmp_path / "a.wav")
    detect_folder(detector_folder, tmp_path / "a.wav", tmp_path / "out", DetectionOptions(review=0))
