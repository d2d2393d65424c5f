"""Recorder and time from names, and calls by clock hour with the effort behind them."""

from __future__ import annotations

from datetime import datetime

import pytest

from lobes.dataio.annotations import Annotation
from lobes.errors import ConfigError
from lobes.evaluation.activity import Heard, NamePattern, calls_per_hour


@pytest.mark.parametrize(
    ("pattern", "path", "recorder", "start"),
    [
        ("{recorder}_{date}_{time}", "S11_20180311_080003.wav", "S11", datetime(2018, 3, 11, 8, 0, 3)),
        ("{recorder}_{date}_{time}", "a/b/SM4_left_20180311_080003.flac", "SM4_left", datetime(2018, 3, 11, 8, 0, 3)),
        ("{recorder}_{date}_{time}", "HGSM3D_0+1_20160429_051600.wav", "HGSM3D_0+1", datetime(2016, 4, 29, 5, 16)),
        ("{recorder}/{date}_{time}", "site/moth 3/20230102_235959.WAV", "moth 3", datetime(2023, 1, 2, 23, 59, 59)),
        ("{date}T{time}_{recorder}", "2023-01-02T06-30-00_x.ogg", "x", datetime(2023, 1, 2, 6, 30)),
        ("{recorder}_{date}_{time}_{any}", "x_230102_0630_+0800.wav", "x", datetime(2023, 1, 2, 6, 30)),
        ("{recorder}.{any}", "R7.dawn.wav", "R7", None),
        ("{recorder}_{date}_{time}", "site/dawn.wav", "site", None),
        ("{recorder}_{date}_{time}", "dawn.wav", "all", None),
        ("{recorder}_{date}_{time}", "x_20231302_080000.wav", "x", None),  # no such month
        ("{recorder}_{date}", "x_20231202.wav", "x", None),
    ],
)
def test_names_are_read(pattern, path, recorder, start):
    assert NamePattern(pattern).read(path) == (recorder, start)


@pytest.mark.parametrize("pattern", ["{site}_{date}", "{date}{date}", "plain", "{}"])
def test_patterns_that_cannot_be_read_are_named(pattern):
    with pytest.raises(ConfigError, match="name_pattern"):
        NamePattern(pattern)


def test_hours_without_calls_count_and_midnight_is_a_new_day():
    night = Heard("r", datetime(2020, 12, 31, 22, 30), 2 * 3600.0, [Annotation(6000.0, 6001.0, "a")])
    more = Heard("r", datetime(2020, 12, 31, 22, 0), 1800.0, [Annotation(1.0, 2.0, "b"), Annotation(9.0, 9.5, "b")])
    rows = calls_per_hour([night, more], ["a", "b"])
    got = [(r["date"], r["hour"], r["label"], r["calls"], r["recorded_seconds"], r["calls_per_hour"]) for r in rows]
    assert got == [
        ("2020-12-31", 22, "a", 0, 3600.0, 0.0),
        ("2020-12-31", 22, "b", 2, 3600.0, 2.0),
        ("2020-12-31", 23, "a", 0, 3600.0, 0.0),
        ("2020-12-31", 23, "b", 0, 3600.0, 0.0),
        ("2021-01-01", 0, "a", 1, 1800.0, 2.0),
        ("2021-01-01", 0, "b", 0, 1800.0, 0.0),
    ]
    assert sum(r["recorded_seconds"] for r in rows if r["label"] == "a") == 9000.0


def test_recordings_of_unknown_time_are_counted_by_recorder():
    rows = calls_per_hour([Heard("r", None, 1800.0, [Annotation(0.0, 1.0, "a")]), Heard("r", None, 1800.0, [])], ["a"])
    assert [(r["date"], r["hour"], r["calls"], r["calls_per_hour"]) for r in rows] == [("", "", 1, 1.0)]


def test_a_call_in_the_last_frame_belongs_to_the_last_hour():
    rows = calls_per_hour([Heard("r", datetime(2020, 1, 1, 5), 3600.0, [Annotation(3600.0, 3600.0, "a")])], ["a"])
    assert [(r["hour"], r["calls"]) for r in rows] == [(5, 1)]
