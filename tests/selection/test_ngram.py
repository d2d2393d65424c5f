"""The n-gram model against its equation, in a slow and obvious loop."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from lobes.errors import ConfigError, DataError
from lobes.selection import NGramModel, Units, ngram


class SlowModel:
    """Interpolated Witten-Bell by dictionaries."""

    def __init__(self, sequences, n_units, order):
        self.n_units, self.order = n_units, order
        self.counts = [defaultdict(Counter) for _ in range(order)]
        for sequence in sequences:
            padded = ["<s>"] * (order - 1) + list(sequence) + ["</s>"]
            for place in range(order - 1, len(padded)):
                for n in range(order):
                    self.counts[n][tuple(padded[place - n : place])][padded[place]] += 1

    def log_probability(self, sequence):
        padded = ["<s>"] * (self.order - 1) + list(sequence) + ["</s>"]
        total = 0.0
        for place in range(self.order - 1, len(padded)):
            p = 1 / (self.n_units + 1)
            for n in range(self.order):
                after = self.counts[n].get(tuple(padded[place - n : place]))
                if after:
                    p = (after[padded[place]] + len(after) * p) / (sum(after.values()) + len(after))
            total += math.log(p)
        return total / (len(sequence) + 1)


def sequences(seed, count, n_units, longest=12):
    random = np.random.default_rng(seed)
    return [random.integers(0, n_units, random.integers(0, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("dense", [True, False])
def test_probabilities_are_those_of_the_equation(order, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(ngram, "_DENSE", 1)
    monkeypatch.setattr(ngram, "_BLOCK", 50)
    train, test = sequences(0, 60, 5), [*sequences(1, 40, 5), [], [4] * 30]
    model, slow = NGramModel(Units.of(train), 5, order), SlowModel(train, 5, order)
    expected = [slow.log_probability(sequence) for sequence in test]
    np.testing.assert_allclose(model.log_probability(Units.of(test)), expected, rtol=1e-12)


def test_probabilities_sum_to_one():
    train = sequences(2, 30, 4)
    model = NGramModel(Units.of(train), 4, 3)
    # All utterances of up to 5 units, and what is longer: less and less.
    everything = [[]]
    total = 0.0
    for length in range(6):
        if length:
            everything = [[*sequence, unit] for sequence in everything for unit in range(4)]
        mean = model.log_probability(Units.of(everything))
        total += np.exp(mean * (length + 1)).sum()
    assert 0.5 < total < 1.0


def test_what_cannot_be_counted_is_named():
    with pytest.raises(DataError, match="no utterance"):
        NGramModel(Units.of([]), 4)
    with pytest.raises(ConfigError, match="unit 7"):
        NGramModel(Units.of([[7]]), 4)
    with pytest.raises(ConfigError, match="unit 9"):
        NGramModel(Units.of([[1]]), 4).log_probability(Units.of([[9]]))
    with pytest.raises(ConfigError, match="order 9 of 1000"):
        NGramModel(Units.of([[1]]), 1000, 9)


def test_units_are_taken_and_collapsed():
    parts = sequences(3, 50, 3)
    units = Units.of(parts)
    chosen = np.random.default_rng(0).integers(0, 50, 30)
    assert [units.take(chosen)[i].tolist() for i in range(30)] == [parts[i] for i in chosen]
    for part, found in zip(parts, units.collapsed(), strict=False):
        assert found.tolist() == [u for i, u in enumerate(part) if i == 0 or u != part[i - 1]]
    assert units.lengths.tolist() == [len(part) for part in parts] and units.size == 3
    assert Units.of([[70_000]]).values.dtype == np.int32 and units.values.dtype == np.uint16
    with pytest.raises(DataError, match="offsets do not divide"):
        Units([1, 2], [0, 1])
