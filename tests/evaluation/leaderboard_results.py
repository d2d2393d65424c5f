"""Made-up results of known quality, for leaderboards."""

from __future__ import annotations

from typing import Any

import numpy as np

from lobes.evaluation import Metric, accuracy, bootstrap_interval, cer, label_records
from lobes.evaluation.leaderboard import Entry


def make_result(
    metric: Metric, records: list[dict[str, Any]], seed: int, system: str = "x", **changes: Any
) -> dict[str, Any]:
    """A result as `read_result` gives it, without asking for commit and hardware."""
    cost = {"parameters_trained": 1000, "parameters_total": 100_000, "audio_hours": 1.0, "wall_seconds": 1800.0}
    cost |= {"macs_per_second": 5e7, "peak_memory_mib": {}, **changes.pop("cost", {})}
    interval = bootstrap_interval(records, metric, n=50)
    return {
        "format": 1,
        "date": "2026-01-01T00:00:00+00:00",
        "task": "made up",
        "system": system,
        "metric": {"name": metric.name, **interval.as_dict(), "higher_is_better": metric.higher_is_better},
        "other_metrics": {},
        "seed": seed,
        "data": {},
        "data_name": "made up",
        "generated_speech": False,
        "notes": "",
        "cost": cost,
        "git": {},
        "command": "python train.py",
        "packages": {},
        "hardware": {},
        "records": records,
        **changes,
    }


def decisions(right: float, seed: int, n: int = 120, groups: int = 12) -> list[dict[str, Any]]:
    """Right with some probability; items that are hard for one are hard for all."""
    hard = np.random.default_rng(0).random(n)
    noise = 0.1 * np.random.default_rng([7, seed]).standard_normal(n)
    guesses = ["a" if h + e < right else "b" for h, e in zip(hard, noise, strict=True)]
    return label_records(["a"] * n, guesses, [str(i) for i in range(n)], [f"s{i % groups}" for i in range(n)])


def transcripts(rate: float, seed: int, n: int = 80, groups: int = 8) -> list[dict[str, Any]]:
    """Errors at a rate, of ten characters each."""
    hard = 0.5 + np.random.default_rng(1).random(n)
    errors = np.random.default_rng([8, seed]).binomial(10, np.minimum(rate * hard, 1)).tolist()
    names = [(str(i), f"s{i % groups}") for i in range(n)]
    return [{"id": i, "group": g, "errors": e, "length": 10} for (i, g), e in zip(names, errors, strict=True)]


#: Model: accuracy, error rate, multiply-accumulates per second.
MODELS = {
    "Luna": (0.9, 0.1, 4e7),
    "SummaryMixing": (0.8, 0.2, 2e7),
    "attention": (0.7, 0.3, 9e7),
    "log-mel": (0.4, 0.6, 1e6),
}


def make_entries(seeds: int = 3) -> list[Entry]:
    """Four models in two tasks, the second with two heads, under which the last two models change places."""
    entries = []
    for model, (right, rate, macs) in MODELS.items():
        options = {"system": model, "cost": {"macs_per_second": macs}}
        digits = {s: make_result(accuracy, decisions(right, s), s, **options) for s in range(1, seeds + 1)}
        entries.append(Entry("digits", model, "frozen", "linear", digits, {}, 1800.0 * seeds, 0.25))
        swapped = {"attention": 0.6, "log-mel": 0.3}.get(model, rate)
        for head, error in (("linear", rate), ("BiLSTM", swapped)):
            found = {s: make_result(cer, transcripts(error, s), s, **options) for s in range(1, seeds + 1)}
            rates = dict.fromkeys(range(1, seeds + 1), 0.01)
            entries.append(Entry("French", model, "frozen", head, found, rates, 3600.0 * seeds))
    tuned = {1: make_result(cer, transcripts(0.05, 1), 1, generated_speech=True)}
    return [*entries, Entry("French", "Luna <b>", "finetune", "linear", tuned)]
