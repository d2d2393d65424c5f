"""The review page holds what was found, in bounded size; what it shows and plays is what was recorded."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from PIL import Image
from review_items import RATE, ROWS, make_items, make_page, write_recordings

from lobes.dataio.annotations import Annotation
from lobes.errors import DataError
from lobes.evaluation.plots import new_figure
from lobes.evaluation.review import ReviewItem, choose_items, draw_spectrogram, encode_sound, write_review


def contents(page) -> dict:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    figure, [axes] = new_figure(3, 2)
    axes.set_title("calls")
    page = make_page(tmp_path, figures=[(figure, "Calls per hour & day")])
    text = page.read_text(encoding="utf-8")
    assert "<title>Calls &amp; more</title>" in text and "Calls per hour &amp; day" in text
    for asks in (r'(?:src|href)="(?!#)', r"url\((?!#)", r"https?://(?!www\.w3\.org)", "@import", r"fetch\("):
        assert not re.search(asks, text), asks
    assert text.count("</script>") == 2, "a label must not end the script"
    assert [item["file"] for item in contents(page)["items"]] == [row[0] for row in ROWS]


def test_sounds_and_pictures_are_those_of_the_recording(tmp_path):
    data = contents(make_page(tmp_path))
    first = data["items"][0]
    assert (first["from"], first["length"], first["clock"]) == (4.0, 3.5, "2018-03-11 05:00:05")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(first["audio"])))
    assert rate == RATE and len(samples) / rate == pytest.approx(3.5, abs=0.2)  # MP3 adds some silence
    loud = np.abs(samples) > 0.3
    assert np.flatnonzero(loud)[0] / rate == pytest.approx(1.0, abs=0.15), "the call begins a second into the sound"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(first["picture"]))).convert("L")).astype(float)
    assert first["top"] == 2500
    # 1 kHz of 2.5: three fifths from the top; from 1 s to 2.5 s of 3.5.
    rows, columns = np.nonzero(picture < 60)
    assert rows.mean() / picture.shape[0] == pytest.approx(0.6, abs=0.03)
    assert columns.min() / picture.shape[1] == pytest.approx(1 / 3.5, abs=0.02)
    own = columns[columns < 2.7 / 3.5 * picture.shape[1]]  # the next call begins 3 s into the picture
    assert own.max() / picture.shape[1] == pytest.approx(2.5 / 3.5, abs=0.02)
    assert contents(make_page(tmp_path, longest=4.0))["items"][2]["length"] == 4.0
    assert data["items"][4]["length"] == pytest.approx(1.5), "nothing after the end of the file"


def test_what_lies_beside_is_drawn(tmp_path):
    events = [item.event for item in make_items(tmp_path)]
    by_file = {file: [event for event in events if event.file == file] for file in {event.file for event in events}}
    items = contents(make_page(tmp_path, others=by_file))["items"]
    assert [len(item["others"]) for item in items] == [1, 1, 0, 0, 0, 0]
    assert items[0]["others"][0]["start"] == 7.0


def test_sounds_above_hearing_are_played_slowly(tmp_path):
    data = contents(make_page(tmp_path, slow_down=4.0))
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data["items"][0]["audio"])))
    assert len(samples) / rate == pytest.approx(4 * 3.5, abs=0.8) and data["slow"] == 0.25
    quiet = encode_sound(np.zeros(1000), RATE)
    assert quiet[0].startswith("audio/") and len(quiet[1]) > 100


def test_the_size_is_bounded_and_what_is_left_out_is_said(tmp_path):
    whole = make_page(tmp_path).stat().st_size
    page = make_page(tmp_path, megabytes=0.09)
    items = contents(page)["items"]
    assert page.stat().st_size < whole and 0 < len(items) < 6
    assert f"{6 - len(items)} further ones would not fit" in page.read_text(encoding="utf-8")


def test_a_recording_that_is_gone_is_said_and_costs_only_its_pictures(tmp_path):
    write_recordings(tmp_path)
    (tmp_path / "south.wav").unlink()
    page = write_review(tmp_path / "index.html", make_items(tmp_path), title="", summary="", progress=False)
    items = contents(page)["items"]
    assert [bool(item["picture"]) for item in items] == [True] * 3 + [False] * 3
    assert "cannot be opened" in items[3]["problem"] and contents(page)["audio"].startswith("data:audio/")


def test_a_page_of_nothing_is_a_page(tmp_path):
    page = write_review(tmp_path / "index.html", [], title="Silence", summary="No call.", progress=False)
    assert contents(page)["items"] == [] and "Silence" in page.read_text(encoding="utf-8")


def test_detections_need_scores(tmp_path):
    write_recordings(tmp_path)
    item = ReviewItem(Annotation(0.0, 1.0, "a", file="south.wav"), tmp_path / "south.wav", 0.5)
    with pytest.raises(DataError, match="has no score"):
        write_review(tmp_path / "index.html", [item], title="", summary="", progress=False)


def some(label: str, scores, near: bool = False) -> list[ReviewItem]:
    return [
        ReviewItem(Annotation(float(i), i + 0.5, label, score=float(s), file="f"), "f", 0.5, near)
        for i, s in enumerate(scores)
    ]


def test_a_choice_is_even_over_scores_and_fair_to_rare_classes():
    scores = np.linspace(0.5, 1.0, 1000)
    items = some("common", scores) + some("rare", [0.6, 0.7]) + some("common", np.linspace(0.25, 0.5, 500), near=True)
    chosen = choose_items(items, 100)
    assert len(chosen) == 100 and chosen == choose_items(items, 100)
    assert 0.5 < np.mean([item.event.score for item in chosen[:50]]) < 0.8, "the first of them are as fair a choice"
    near = [item.event.score for item in chosen if item.near_miss]
    assert len(near) == 25 and min(near) > 0.48, "the likeliest near misses"
    assert sum(item.event.label == "rare" for item in chosen) == 2
    common = sorted(item.event.score for item in chosen if item.event.label == "common" and not item.near_miss)
    assert len(common) == 73 and np.abs(np.diff(common) - 0.5 / 72).max() < 1e-3 and common[0] == 0.5
    assert len(choose_items(items, 10_000)) == len(items)
    assert choose_items(items, 0) == [] and choose_items([], 10) == []
    few = choose_items(some("a", [0.6, 0.9]) + some("a", [0.3] * 50, near=True), 20)
    assert sum(item.near_miss for item in few) == 18, "room that is left is for near misses"


@pytest.mark.parametrize("length", [1, 100, 16000 * 15])
@pytest.mark.parametrize(("rate", "top"), [(16000, 8000.0), (16000, 500.0), (9600, 2000.0), (160000, 80000.0)])
def test_anything_can_be_drawn(length, rate, top):
    picture = Image.open(io.BytesIO(draw_spectrogram(np.zeros(length, dtype=np.float32), rate, top)))
    assert picture.size == (480, 152)
