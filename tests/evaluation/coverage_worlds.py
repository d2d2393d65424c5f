"""Simulated emotion recognisers and raters whose true score is known, for the coverage of intervals.

Speakers, or files, differ; so do seeds, and how a seed gets on with a speaker, where there are several.
"""

from __future__ import annotations

import numpy as np

from lobes.evaluation import agreement_records
from lobes.evaluation.agreement import FIELDS

Table = dict[str, np.ndarray]


def emotions(rng: np.random.Generator, groups: int, seeds: int = 1) -> list[Table]:
    """Four classes, of which the rarer are the harder; 20 to 40 clips of each speaker."""
    skill = 0.5 * rng.standard_normal(groups)
    group = np.repeat(np.arange(groups), rng.integers(20, 41, size=groups))
    target = rng.choice(4, size=len(group), p=[0.4, 0.3, 0.2, 0.1])
    ease, runs = np.array([1.2, 0.8, 0.4, 0.0]), []
    for _ in range(seeds):
        effect = 0.2 * rng.standard_normal() + 0.2 * rng.standard_normal(groups)[group] if seeds > 1 else 0.0
        right = rng.random(len(group)) < 1 / (1 + np.exp(-(ease[target] + skill[group] + effect)))
        other = (target + rng.integers(1, 4, size=len(group))) % 4
        runs.append({"id": np.arange(len(group)), "group": group, "target": target})
        runs[-1]["prediction"] = np.where(right, target, other)
    return runs


def ratings(rng: np.random.Generator, groups: int, seeds: int = 1) -> list[Table]:
    """Recordings of 80 to 240 steps, each with its own level; predictions are too flat, and off by a little in each."""
    seed_gain = 0.15 * rng.standard_normal(seeds) * (seeds > 1)
    targets, predictions = [], [[] for _ in range(seeds)]
    for size in rng.integers(80, 240, size=groups):
        course = np.sin(np.arange(size) / 15 + rng.uniform(0, 6))
        target = 0.5 * rng.standard_normal() + 0.5 * course + 0.2 * rng.standard_normal(size)
        gain, level = 0.6 + 0.15 * rng.standard_normal(), 0.3 * rng.standard_normal()
        targets.append(target)
        for gain_of, predicted in zip(seed_gain, predictions, strict=True):
            own = gain * np.exp(gain_of + 0.1 * rng.standard_normal() * (seeds > 1))
            predicted.append(own * target + level + 0.25 * rng.standard_normal(size))
    names, runs = [str(i) for i in range(groups)], []
    for predicted in predictions:
        records = agreement_records(targets, predicted, names)
        runs.append({name: np.array([record[name] for record in records]) for name in ("id", "group", *FIELDS)})
    return runs
