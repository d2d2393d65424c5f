"""Continuous ratings: their files, and their rate against a slow loop."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lobes.dataio import audio_dataset, collate, write_manifest
from lobes.dataio.ratings import (
    Ratings,
    n_steps,
    rated_rows,
    rating_range,
    rating_reader,
    read_ratings,
    resample_ratings,
    write_ratings,
)
from lobes.errors import ConfigError, DataError


def slowly_resampled(values, period, new_period, parts=1000):
    """The mean of many points in each new period."""
    total = len(values) * period
    means = []
    for step in range(n_steps(total, new_period)):
        start, stop = step * new_period, min((step + 1) * new_period, total)
        points = [start + (stop - start) * (k + 0.5) / parts for k in range(parts)]
        means.append(sum(values[min(int(point / period), len(values) - 1)] for point in points) / parts)
    return means


@pytest.mark.parametrize(
    ("period", "new_period"), [(0.25, 0.25), (0.04, 0.25), (0.25, 0.04), (0.04, 0.02), (0.1, 0.07), (0.25, 0.5)]
)
@pytest.mark.parametrize("count", [1, 7, 50])
def test_resampling_is_the_mean_over_each_new_period(period, new_period, count):
    values = np.random.default_rng(count).uniform(-1, 1, count)
    found = resample_ratings(values, period, new_period)
    expected = slowly_resampled(values, period, new_period)
    assert len(found) == len(expected) and found == pytest.approx(expected, abs=5e-3)
    if (count * period / new_period) % 1 < 1e-9:  # every new period is whole
        assert found.mean() == pytest.approx(values.mean())


def test_a_constant_stays_constant_and_halves_make_wholes_again():
    assert resample_ratings([0.3] * 9, 0.04, 0.25) == pytest.approx([0.3, 0.3])
    values = np.random.default_rng(0).uniform(0, 1, 20)
    there_and_back = resample_ratings(resample_ratings(values, 0.25, 0.05), 0.05, 0.25)
    assert there_and_back == pytest.approx(values)
    for wrong in (0.0, -1.0):
        with pytest.raises(ConfigError, match="expected positive numbers"):
            resample_ratings(values, 0.25, wrong)


def test_steps_are_counted_without_rounding_errors():
    for period in (0.01, 0.02, 0.04, 0.25):
        for steps in (1, 3, 999, 7501):
            assert n_steps(steps * period, period) == steps and n_steps(steps * period + 0.005, period) == steps + 1


def test_a_file_holds_them_and_is_written_once(tmp_path):
    ratings = Ratings(0.04, {"arousal": np.array([0.1, -0.2, 1 / 3]), "valence": np.array([0.0, 0.5, 1.0])})
    path = write_ratings(tmp_path / "ratings" / "a.json", ratings)
    written = path.stat().st_mtime_ns
    again = read_ratings(write_ratings(path, ratings))
    assert path.stat().st_mtime_ns == written
    assert again.period == 0.04 and again.seconds == pytest.approx(0.12)
    assert all((again.values[target] == ratings.values[target]).all() for target in ratings.values)
    assert rating_reader("arousal")(str(path)).tolist() == pytest.approx([0.1, -0.2, 1 / 3])
    assert rating_reader("valence", period=0.02)(str(path)).tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    "values", [{}, {"arousal": []}, {"arousal": [1.0], "valence": [1.0, 2.0]}, {"arousal": [1.0, float("nan")]}]
)
def test_bad_ratings_are_refused_in_one_line(values, tmp_path):
    with pytest.raises(DataError, match="expected") as caught:
        write_ratings(tmp_path / "a.json", Ratings(0.04, {name: np.array(row) for name, row in values.items()}))
    assert "\n" not in str(caught.value) and not (tmp_path / "a.json").exists()


def test_a_file_that_is_another_is_refused(tmp_path):
    for content in (None, "{}", "no json", '{"period": 1, "values": {"a": ["x"]}}', "[]"):
        path = tmp_path / "a.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=r"ratings .*a\.json cannot be read|has no ratings"):
            read_ratings(path)
    path = write_ratings(tmp_path / "b.json", Ratings(0.25, {"arousal": np.array([0.5, 0.5])}))
    with pytest.raises(DataError, match="target is 'valence': .*b.json has arousal"):
        rating_reader("valence")(str(path))
    with pytest.raises(DataError, match="arousal: all ratings are 0.5"):
        rating_range([{"ratings": str(path)}], "arousal")


def test_batches_hold_ratings_padded(tmp_path, tone, caplog):
    rows = []
    for number, seconds in enumerate((1.0, 0.5)):
        tone(tmp_path / f"{number}.wav", seconds)
        values = np.linspace(number, 1 + number, round(seconds / 0.25))
        path = write_ratings(tmp_path / "ratings" / f"{number}.json", Ratings(0.25, {"arousal": values}))
        where = {"id": f"u{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": seconds}
        row = {**where, "duration": seconds, "sample_rate": 16000, "channel": None, "group": f"s{number}"}
        rows.append({**row, "ratings": str(path)})
    manifest = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="tones", licence="CC0-1.0")
    labels = {"rating": ("ratings", rating_reader("arousal"))}
    dataset = audio_dataset(manifest, 16000, ("id", "sig", "rating"), labels=labels)
    batch = collate([dataset[0], dataset[1]])
    assert batch.rating.data.shape == (2, 4) and batch.rating.lengths.tolist() == [1.0, 0.5]
    assert rating_range(rows, "arousal") == (0.0, 2.0)
    with caplog.at_level(logging.WARNING):
        assert rated_rows(rows) == rows and not caplog.records
        rated_rows([{**rows[0], "duration": 3.0}])
    assert "u0: -2.00 s" in caplog.text
