"""Do 95 % intervals of the equal error rate hold the truth 95 % of the time, where a trial is of two speakers?

The slow test prints how often, next to what would be found if trials were clustered by one of their speakers only, or
counted as independent:

    python -m pytest -m slow -s tests/evaluation/test_trial_intervals.py
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from lobes.evaluation import bootstrap_interval, eer

DIM, UTTERANCES = 8, 4


def world(rng: np.random.Generator, n_speakers: int) -> dict[str, np.ndarray]:
    """Speakers, some alike and some changeable, with four utterances each; all trials between them."""
    means = rng.normal(size=(n_speakers, 1, DIM))
    spread = rng.gamma(6, 0.9 / 6, size=(n_speakers, 1, 1))
    vectors = (means + spread * rng.normal(size=(n_speakers, UTTERANCES, DIM))).reshape(-1, DIM)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    first, second = np.triu_indices(len(vectors), 1)
    group = np.stack([first, second], axis=1) // UTTERANCES
    return {"target": group[:, 0] == group[:, 1], "score": (vectors[first] * vectors[second]).sum(-1), "group": group}


@functools.cache
def truth(worlds: int) -> float:
    """Over infinitely many speakers, nearly: the mean over large worlds."""
    rng = np.random.default_rng(99)
    return float(np.mean([eer(world(rng, 100)) for _ in range(worlds)]))


def coverage(n_speakers: int, runs: int, clusters: str = "both", n: int = 200) -> tuple[float, float]:
    """Share of runs, in percent, whose interval holds the truth, and the mean width of the intervals."""
    true, rng, hits, width = truth(8 if runs < 200 else 60), np.random.default_rng(n_speakers), 0, 0.0
    for run in range(runs):
        records = world(rng, n_speakers)
        if clusters == "first":
            records["group"] = records["group"][:, 0]
        interval = bootstrap_interval(records, eer, None if clusters == "none" else "group", n=n, seed=run)
        hits += interval.low <= true <= interval.high
        width += (interval.high - interval.low) / runs
    return 100 * hits / runs, width


def test_ten_speakers_are_enough_for_an_interval() -> None:
    assert coverage(10, 100)[0] >= 91


@pytest.mark.slow
def test_coverage_of_trial_intervals() -> None:
    print("\nspeakers  clusters  coverage  mean width of 95 % intervals of the EER")
    for n_speakers, runs in ((6, 600), (10, 600), (24, 120)):
        found = {kind: coverage(n_speakers, runs, kind) for kind in ("both", "first", "none")}
        for kind, (share, width) in found.items():
            print(f"{n_speakers:8}  {kind:8}  {share:8.1f}  {width:.3f}", flush=True)
        assert found["both"][0] >= (93 if runs > 200 else 91), "never too narrow, as far as so many runs tell"
        assert found["none"][0] < 85, "trials are not independent"
