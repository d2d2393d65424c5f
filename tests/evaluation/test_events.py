"""Scores become events: as a slow and obvious loop has it, and the same in pieces as all at once."""

from __future__ import annotations

import numpy as np
import pytest

from lobes.errors import ConfigError
from lobes.evaluation import EventFinder, EventRule, OverlapAverage, find_events
from lobes.evaluation.events import MedianFilter, sorted_events

RATE = 25.0
RULES = [
    EventRule(0.5),
    EventRule(0.7, 0.3),
    EventRule(0.6, 0.4, median=0.2, min_duration=0.2, min_gap=0.3),
    EventRule(0.55, 0.5, median=0.0, min_duration=0.12, min_gap=0.08),
    EventRule(0.9, 0.05, median=1.0, min_gap=2.0),
]


def smooth_noise(n_frames: int, n_classes: int, seed: int = 0) -> np.ndarray:
    """Scores that stay a while where they are, float32 in [0, 1]."""
    noise = np.random.default_rng(seed).standard_normal((n_frames + 20, n_classes)).cumsum(0)
    return (1 / (1 + np.exp(-(noise[20:] - noise[:-20])))).astype(np.float32)


def slow_events(scores: np.ndarray, rule: EventRule) -> list[tuple[float, float, float]]:
    """(start, end, score) of one class, frame by frame, as the definition reads."""
    n_frames, half = len(scores), int(rule.median * RATE / 2 + 1e-9)
    filtered = [
        np.median([scores[min(max(t + k, 0), n_frames - 1)] for k in range(-half, half + 1)]) for t in range(n_frames)
    ]
    events, t = [], 0
    while t < n_frames:
        end = t
        while end < n_frames and filtered[end] >= rule.lower:
            end += 1
        if end > t and max(filtered[t:end]) >= rule.high:
            events.append([t, end, max(filtered[t:end])])
        t = end + 1
    joined: list[list] = []
    for event in events:
        if joined and event[0] - joined[-1][1] < rule.min_gap * RATE - 1e-9:
            joined[-1] = [joined[-1][0], event[1], max(joined[-1][2], event[2])]
        else:
            joined.append(event)
    return [(a / RATE, b / RATE, float(p)) for a, b, p in joined if (b - a) / RATE >= rule.min_duration - 1e-9]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n_frames", [0, 1, 2, 30, 700])
def test_events_are_those_of_the_definition(rule, n_frames):
    scores = smooth_noise(n_frames, 1)
    found = [(e.start, e.end, e.score) for e in find_events(scores, {"call": rule}, RATE)]
    assert found == slow_events(scores[:, 0], rule)
    assert n_frames < 700 or len(found) > 1


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 1000])
def test_a_stream_gives_the_same_events(piece):
    scores = smooth_noise(1500, len(RULES))
    rules = {f"class {number}": rule for number, rule in enumerate(RULES)}
    expected = find_events(scores, rules, RATE, duration=59.99)
    finder = EventFinder(rules, RATE)
    for _ in range(2):  # the second recording knows nothing of the first
        found = [event for start in range(0, 1500, piece) for event in finder.feed(scores[start : start + piece])]
        assert len(found) > 20, "events come as soon as they are certain"
        found += finder.finish(duration=59.99)
        assert sorted_events(found) == expected
    assert expected[-1].end <= 59.99 and {event.label for event in expected} == set(rules)


def test_a_stream_keeps_little():
    """Events are given while the stream goes on, not collected until its end."""
    finder = EventFinder({"call": EventRule(0.5, min_gap=1.0)}, RATE)
    block = np.zeros((250, 1), dtype=np.float32)
    block[50:75] = 1.0
    assert [len(finder.feed(block)) for _ in range(4)] == [1, 1, 1, 1]
    assert finder.finish() == []


@pytest.mark.parametrize("width", [1, 3, 5, 21])
@pytest.mark.parametrize("length", [0, 1, 4, 300])
def test_the_running_median_is_the_same_in_pieces(width, length):
    values = np.random.default_rng(1).random(length).astype(np.float32)
    padded = np.pad(values, width // 2, mode="edge") if length else values
    expected = [np.median(padded[t : t + width]) for t in range(length)]
    for piece in (1, 2, 50, 1000):
        median = MedianFilter(width)
        parts = [median.feed(values[start : start + piece]) for start in range(0, length, piece)] + [median.finish()]
        assert np.concatenate(parts).tolist() == expected


@pytest.mark.parametrize(("n_frames", "hop"), [(4, 4), (4, 2), (5, 2), (6, 1)])
@pytest.mark.parametrize("last", [1, 3, 4])
def test_overlapping_windows_are_averaged_frame_by_frame(n_frames, hop, last):
    rng = np.random.default_rng(2)
    windows = rng.random((9, n_frames, 2))
    valid = [n_frames] * 8 + [max(last, n_frames - hop)]
    values: dict[int, list] = {}
    for number, (window, real) in enumerate(zip(windows, valid, strict=True)):
        for frame in range(real):
            values.setdefault(number * hop + frame, []).append(window[frame])
    expected = np.array([np.mean(values[frame], axis=0) for frame in range(len(values))], dtype=np.float32)
    average = OverlapAverage(n_frames, hop)
    for batch in (1, 2, 9):
        parts = [
            average.add(windows[start : start + batch], valid[start : start + batch]) for start in range(0, 9, batch)
        ]
        got = np.concatenate([*parts, average.finish()])
        assert got.dtype == np.float32 and np.allclose(got, expected, atol=1e-7)


def test_rules_that_cannot_be_are_refused():
    for wrong, word in (
        ({"high": 0.5, "low": 0.6}, "low 0.6"),
        ({"high": 0.0}, "0 < low"),
        ({"min_gap": -1.0}, "min_gap"),
        ({"median": float("nan")}, "median"),
    ):
        with pytest.raises(ConfigError, match=word):
            EventRule(**wrong)
    with pytest.raises(ConfigError, match="hop of 5"):
        OverlapAverage(4, 5)
