"""A leaderboard says what its results say: intervals, pairs, ranks, agreement, costs; published rows are kept apart."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from leaderboard_results import MODELS, decisions, make_entries, make_result, transcripts

from lobes.errors import DataError
from lobes.evaluation import accuracy, cer, eer, holm, mapsswe, mcnemar, mean_metric, uar, verification_records, wer
from lobes.evaluation.leaderboard import COST_COLUMNS, Entry, make_board, metric_named
from lobes.evaluation.leaderboard_page import figure, write_board
from lobes.evaluation.published import read_published
from lobes.evaluation.seeds import compare_seeds, seeds_interval

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "leaderboard" / "published.csv"


@pytest.fixture(scope="module")
def board():
    return make_board(make_entries(), read_published(PUBLISHED), n=200)


def row_of(board, **wanted):
    (found,) = (row for row in board["rows"] if all(row[name] == value for name, value in wanted.items()))
    return found


def test_a_row_is_over_all_seeds_with_its_costs(board):
    entry = make_entries()[0]
    row = row_of(board, task="digits", model="Luna")
    interval = seeds_interval([result["records"] for result in entry.results.values()], accuracy)
    assert (row["value"], row["low"], row["high"]) == pytest.approx((interval.value, interval.low, interval.high))
    assert row["seeds"] == 3 and row["method"] == "t over 3 seeds and groups" and row["n_groups"] == 12
    assert [row[name] for name in COST_COLUMNS] == [1000, 100_000, 4e7, 1.0, 0.5, 1.5, 0.25]
    assert row["seed_deviation"] == pytest.approx(
        np.std([r["metric"]["value"] for r in entry.results.values()], ddof=1)
    )
    tuned = row_of(board, mode="finetune", published=False)
    assert tuned["method"] == "t, one seed" and tuned["generated"] and tuned["kwh"] is None
    assert row_of(board, task="French", model="Luna", head="BiLSTM")["learning_rates"] == "0.01"


def test_systems_are_compared_in_pairs_of_the_same_head(board):
    assert len(board["pairs"]) == 3 * 6 and {pair["mode"] for pair in board["pairs"]} == {"frozen"}
    family = [pair for pair in board["pairs"] if pair["task"] == "digits"]
    assert [pair["p_holm"] for pair in family] == holm([pair["p"] for pair in family])
    a, b = (
        {s: r["records"] for s, r in entry.results.items()}
        for entry in make_entries()
        if entry.task == "digits" and entry.model in ("Luna", "attention")
    )
    (pair,) = (pair for pair in family if (pair["a"], pair["b"]) == ("Luna", "attention"))
    assert pair["difference"] == compare_seeds(a, b, accuracy).difference and pair["mcnemar"] is None
    best = row_of(board, task="digits", model="Luna")
    assert best["best"] and best["p_best"] is None
    assert row_of(board, task="digits", model="attention")["p_best"] == pair["p_holm"] < 0.05
    one_seed = make_board([e for e in make_entries(1) if e.task == "digits"], n=20)
    assert all(0 <= pair["mcnemar"] <= 1 and pair["mapsswe"] is None for pair in one_seed["pairs"])
    uars = [
        Entry("t", name, "frozen", "x", {1: make_result(uar, decisions(right, 1), 1)})
        for name, right in (("a", 0.9), ("b", 0.5))
    ]
    (pair,) = make_board(uars, n=20)["pairs"]
    assert pair["mcnemar"] == mcnemar(decisions(0.9, 1), decisions(0.5, 1)) < 0.01
    french = [entry for entry in make_entries(1) if entry.task == "French"]
    for pair in make_board(french, n=20)["pairs"]:
        one, other = (
            next(entry.results[1]["records"] for entry in french if (entry.model, entry.head) == (name, pair["head"]))
            for name in (pair["a"], pair["b"])
        )
        assert pair["mapsswe"] == mapsswe(one, other).p_value and pair["mcnemar"] is None


def test_a_pair_has_the_sign_of_its_rows():
    """One system has one seed, which is its best against the other's worst."""
    runs = {"a": {1: 0.70}, "b": {1: 0.60, 2: 0.80, 3: 0.85}}
    entries = [
        Entry(
            "t", name, "frozen", "x", {s: make_result(accuracy, decisions(right, s), s) for s, right in seeds.items()}
        )
        for name, seeds in runs.items()
    ]
    board = make_board(entries, n=20)
    values = {row["model"]: row["value"] for row in board["rows"]}
    (pair,) = board["pairs"]
    assert pair["difference"] == pytest.approx(values["a"] - values["b"]) and pair["difference"] < 0
    assert pair["mcnemar"] is None and [row["model"] for row in board["rows"] if row["best"]] == ["b"]


def test_ranks_are_of_models_that_have_every_task(board):
    frozen, tuned = board["ranks"]
    assert (frozen["mode"], frozen["tasks"]) == ("frozen", ["digits", "French"])
    assert [(s["model"], s["rank"]) for s in frozen["systems"]] == [
        ("Luna", 1), ("SummaryMixing", 2), ("attention", 3.25), ("log-mel", 3.75)
    ]  # fmt: skip
    # French: third and fourth with one head, fourth and third with the other, so level; digits: third and fourth.
    for system in frozen["systems"]:
        assert 1 <= system["low"] <= system["rank"] <= system["high"] <= 4
    assert frozen["friedman"]["p"] < 0.2 and frozen["resampled"] and len(frozen["nemenyi"]["p"]) == 4
    assert tuned["systems"] == [] and tuned["friedman"] is None
    without = [e for e in make_entries(1) if (e.task, e.model) != ("digits", "log-mel")]
    (found, _) = make_board(without, n=20)["ranks"]
    assert found["left_out"] == {"log-mel": ["digits (linear)"]} and len(found["systems"]) == 3


def test_heads_that_rank_otherwise_are_seen(board):
    (row,) = board["taus"]
    assert (row["task"], {row["head"], row["other"]}, row["models"]) == ("French", {"linear", "BiLSTM"}, 4)
    assert row["tau"] == pytest.approx(4 / 6) and row["low"] <= row["tau"] <= row["high"]


def test_published_figures_are_apart(board):
    published = [row for row in board["rows"] if row["published"]]
    assert len(published) > 40 and all(row["source"].endswith(("[R]", "[P]")) for row in published)
    assert all(row["p_best"] is None and row["low"] is None and not row["best"] for row in published)
    names = {row["model"] for row in published}
    assert not names & {name for pair in board["pairs"] for name in (pair["a"], pair["b"])}
    assert not names & {system["model"] for found in board["ranks"] for system in found["systems"]}
    row = row_of(board, task="SLU, MEDIA", model="LeBenchmark wav2vec2-FR-14K-large")
    assert (row["value"], row["seed_deviation"]) == pytest.approx((0.126, 0.006)) and not row["higher_is_better"]
    row = row_of(board, task="AST, mTEDx fr-en", model="Pantagruel L-114k")
    assert row["higher_is_better"] and (row["value"], figure(row, "value")) == (0.252, "25.2"), "a fraction, as ours is"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a,b,,,wer,%,x,,R,here", "could not convert string to float: 'x'"),
        ("a,b,,,wer,%,,,R,here", "value is ''"),
        ("a,b,,,wer,%,1,,R,", "source is empty"),
        ("a,b,,,bleu,,18.0,,R,here", "unit is '', expected % for bleu"),
        ("a,b,,,wer,%,1", "another number of columns"),
    ],
)
def test_published_rows_without_figure_or_source_are_refused(tmp_path, line, complaint):
    path = tmp_path / "published.csv"
    path.write_text(PUBLISHED.read_text().splitlines()[0] + f"\n{line}\n")
    with pytest.raises(DataError, match=complaint):
        read_published(path)
    path.write_text("task,value\n")
    with pytest.raises(DataError, match="expected task,model"):
        read_published(path)


def test_published_errors_and_costs_are_better_when_lower(tmp_path):
    path = tmp_path / "published.csv"
    lower = [
        "wer",
        "concept_error_rate",
        "concept_value_error_rate",
        "min_dcf_0.01",
        "cllr",
        "eer",
        "cver",
        "concept_er",
    ]
    higher = ["slot_f1", "bleu", "uar", "ccc", "concept_f1", "average_precision", "intent_accuracy"]
    rows = [f"a,b,,,{name},%,12,,R,here" for name in lower + higher]
    path.write_text("\n".join([PUBLISHED.read_text().splitlines()[0], *rows]) + "\n")
    assert [row["higher_is_better"] for row in read_published(path)] == [False] * len(lower) + [True] * len(higher)


def test_a_metric_that_is_not_known_is_shown_but_not_resampled():
    odd = mean_metric("oddity", "errors")
    entries = [
        Entry("odd", model, "frozen", "x", {s: make_result(odd, transcripts(rate, s), s) for s in (1, 2)})
        for model, rate in (("a", 0.1), ("b", 0.5))
    ]
    board = make_board(entries, n=20)
    assert board["pairs"] == [] and "oddity is not computed" in board["notes"][0]
    row = board["rows"][0]
    assert row["method"] == "t over 2 seeds alone" and row["low"] < row["value"] < row["high"]
    (ranks,) = board["ranks"]
    assert [s["rank"] for s in ranks["systems"]] == [1, 2] and not ranks["resampled"]
    # The same name is not enough: the records have to give the figure again.
    false = {1: make_result(accuracy, decisions(0.5, 1), 1)}
    false[1]["metric"] |= {"value": 0.123, "low": 0.1, "high": 0.2}
    assert "accuracy is not computed" in make_board([Entry("t", "m", "frozen", "x", false)])["notes"][0]


def test_systems_on_other_items_are_not_compared():
    entries = [Entry("t", str(n), "frozen", "x", {1: make_result(accuracy, decisions(0.5, 1, n), 1)}) for n in (60, 72)]
    board = make_board(entries, n=20)
    assert board["pairs"] == [] and "in one system only" in board["notes"][0] and len(board["rows"]) == 2


def trials(quality, seed, speakers=3, utterances=4):
    """Every pair of the utterances of a few speakers, with scores that tell them apart the better the higher."""
    said = [(f"s{i}", f"s{i}-{j}") for i in range(speakers) for j in range(utterances)]
    pairs = list(itertools.combinations(said, 2))
    same = np.array([one[0] == other[0] for one, other in pairs])
    scores = quality * same + np.random.default_rng([3, seed]).standard_normal(len(pairs))
    speaker_of = {name: speaker for speaker, name in said}
    listed = [(int(target), one[1], other[1]) for target, (one, other) in zip(same, pairs, strict=True)]
    return verification_records(listed, scores, speaker_of)


def test_resamples_in_which_a_metric_is_undefined_are_left_out_and_counted():
    """Of three speakers one is drawn thrice in one resample of nine: no two speakers, so no equal error rate."""
    entries = [
        Entry("speakers", model, "frozen", head, {s: make_result(eer, trials(quality, s), s) for s in (1, 2)})
        for head in ("cosine", "ECAPA")
        for model, quality in (("a", 3.0), ("b", 1.5), ("c", 0.2))
    ]
    entries += [
        Entry("digits", model, "frozen", "x", {s: make_result(accuracy, decisions(right, s), s) for s in (1, 2)})
        for model, right in (("a", 0.9), ("b", 0.8), ("c", 0.4))
    ]
    board = make_board(entries, n=300)
    first, second = board["notes"]
    count = int(first.split(" of 300 resamples")[0].split()[-1])
    assert first.startswith("speakers, frozen, cosine: eer is undefined in ") and "ECAPA" in second
    assert 20 <= count <= 50  # a ninth of 300, with a standard error of 5
    (ranks,) = board["ranks"]
    assert [(s["model"], s["rank"]) for s in ranks["systems"]] == [("a", 1), ("b", 2), ("c", 3)]
    assert ranks["resampled"] and all(1 <= s["low"] <= s["rank"] <= s["high"] <= 3 for s in ranks["systems"])
    (tau,) = board["taus"]
    assert tau["tau"] == 1 and tau["low"] <= 1 == tau["high"]


def test_a_task_has_one_metric():
    mixed = [
        Entry("t", "a", "frozen", "x", {1: make_result(accuracy, decisions(0.5, 1), 1)}),
        Entry("t", "b", "frozen", "x", {1: make_result(cer, transcripts(0.5, 1), 1)}),
    ]
    with pytest.raises(DataError, match="task t: its results have the metrics accuracy, cer"):
        make_board(mixed)
    assert metric_named("wer") is wer and metric_named("nonsense") is None


def test_files_hold_the_board(tmp_path, board):
    failed = {"task": "digits", "model": "broken", "mode": "frozen", "head": "x", "seed": 1, "rate": 0.1}
    paths = write_board(tmp_path, {**board, "failed": [{**failed, "error": "no | memory"}]}, "Mine & yours")
    assert [path.name for path in paths] == ["leaderboard.csv", "pairs.csv", "leaderboard.md", "leaderboard.html"]
    with open(paths[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(board["rows"])
    assert math.isclose(float(rows[0]["value"]), board["rows"][0]["value"], rel_tol=1e-5)
    text = paths[2].read_text()
    order = [text.index(f"| {model} |", text.index("## French")) for model in ("Luna", "SummaryMixing", "attention")]
    assert order == sorted(order) and "CER (%) ↓" in text and "no \\| memory" in text
    assert (
        text.index("## digits") < text.index("## Published") and "Pantagruel" not in text[: text.index("## Published")]
    )
    assert "| 9.75 | WER (%) | LeBenchmark repository" in text
    assert "| Luna | 1.00 [1.00, 1.00] |" in text and "Generated speech" in text
    page = paths[3].read_text()
    assert "<title>Mine &amp; yours</title>" in page and "Luna <b>" not in page and len(MODELS) == 4
