"""BLEU and chrF equal sacreBLEU's on random texts, and in each bootstrap resample; intervals see the groups."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import sacrebleu

from lobes.errors import ConfigError
from lobes.evaluation import (
    bleu,
    bootstrap_interval,
    chrf,
    read_result,
    translation_records,
    translation_signatures,
    write_result,
)

WORDS = "le la un chat chien dort, mange. l'eau aujourd'hui ? Été « bien » 3,5 % -- A".split()


def texts(noise: np.random.Generator, count: int, kept: float) -> tuple[list[str], list[str]]:
    """References, and hypotheses that keep this share of their words."""
    references, hypotheses = [], []
    for _ in range(count):
        words = noise.choice(WORDS, noise.integers(0, 12)).tolist()
        other = [word if noise.random() < kept else str(noise.choice(WORDS)) for word in words]
        references.append(" ".join(words))
        hypotheses.append("  ".join(other[: noise.integers(0, 13)]) + " " * int(noise.integers(2)))
    return references, hypotheses


@pytest.mark.parametrize(("count", "kept"), [(1, 1.0), (3, 0.0), (5, 0.3), (40, 0.7), (40, 0.1), (2, 0.6)])
def test_both_equal_sacrebleu(count, kept):
    for seed in range(5):
        references, hypotheses = texts(np.random.default_rng(seed), count, kept)
        records = translation_records(references, hypotheses)
        expected = sacrebleu.corpus_bleu(hypotheses, [references]).score
        assert 100 * bleu(records) == pytest.approx(expected, abs=1e-6)
        expected = sacrebleu.corpus_chrf(hypotheses, [references]).score
        assert 100 * chrf(records) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [("", ""), ("", "oui"), ("oui", ""), ("a b c d", "a b c d"), ("a b", "a b"), ("été", "ete"), ("x y z", "u v w")],
)
def test_edges_equal_sacrebleu(reference, hypothesis):
    records = translation_records([reference], [hypothesis])
    assert 100 * bleu(records) == pytest.approx(sacrebleu.corpus_bleu([hypothesis], [[reference]]).score, abs=1e-6)
    assert 100 * chrf(records) == pytest.approx(sacrebleu.corpus_chrf([hypothesis], [[reference]]).score, abs=1e-6)


def test_a_weight_is_that_many_copies_and_the_interval_is_over_groups():
    noise = np.random.default_rng(0)
    references, hypotheses = texts(noise, 60, 0.6)
    records = translation_records(references, hypotheses, groups=[f"talk{i % 30}" for i in range(60)])
    weights = noise.integers(0, 4, (3, 60))
    for metric, corpus in ((bleu, sacrebleu.corpus_bleu), (chrf, sacrebleu.corpus_chrf)):
        for row, value in zip(weights, metric(records, weights), strict=True):
            again = [
                [text for text, n in zip(side, row, strict=True) for _ in range(n)] for side in (hypotheses, references)
            ]
            assert 100 * value == pytest.approx(corpus(again[0], [again[1]]).score, abs=1e-6)
        interval = bootstrap_interval(records, metric, n=300)
        assert interval.n_groups == 30 and 0 < interval.low < interval.value < interval.high < 1
        copies = [{**record, "id": f"{record['id']}-{n}"} for record in records for n in range(4)]
        wide, narrow = bootstrap_interval(copies, metric, n=300), bootstrap_interval(copies, metric, group="id", n=300)
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low), "copies within a talk tell nothing new"
        assert np.isnan(metric(records, np.zeros(60)))


def test_result_files_hold_the_counts_and_name_the_version(tmp_path):
    records = translation_records(["le chat dort", "il pleut"], ["le chat dort", "il neige"], ["a", "b"], ["x", "y"])
    write_result(tmp_path, task="t", system="s", metric=bleu, records=records, seed=1, notes=translation_signatures())
    result = read_result(tmp_path)
    assert chrf(result["records"]) == chrf(records) and bleu(result["records"]) == result["metric"]["value"]
    assert result["metric"]["higher_is_better"] is True
    for part in ("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp", "nc:6|nw:0", f"version:{sacrebleu.__version__}"):
        assert part in result["notes"]


def test_without_sacrebleu_there_is_one_line(monkeypatch):
    original = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r"pip install 'lobes\[translation\]'"):
        translation_records(["a"], ["a"])
