"""recipes/LeBenchmark/Syntax on a treebank of tones, in Orféo's layout, whose grammar is fixed."""

from __future__ import annotations

import math

import pytest
from recipe_runner import load, steps, torchrun, train, untrained_encoder
from spoken_treebank import write_orfeo

from lobes.dataio.conllu import read_conllu
from lobes.errors import DataError
from lobes.evaluation import align_order, las, parse_records, wer, word_errors

RECIPE = "LeBenchmark/Syntax"
LOGMEL = ("--encoder=logmel-40-25hz", "--normalize_layers=False")


def test_what_was_said_is_parsed(tmp_path):
    data = f"--data_folder={write_orfeo(tmp_path / 'orfeo')}"
    result = train(RECIPE, tmp_path / "run", *LOGMEL, data, "--steps=80", "--opt_class.lr=0.01")
    metric, others = result["metric"], result["other_metrics"]
    assert metric["name"] == "las" and metric["higher_is_better"] and metric["n_groups"] == 2
    assert metric["value"] > 0.85
    assert others["wer"] < 0.1 and others["las_given_words"] > 0.9
    assert others["las"] == pytest.approx(metric["value"]) and others["las"] <= others["uas"]

    parses = {name: read_conllu(tmp_path / "run" / f"{name}.conllu") for name in ("test", "test_given", "test_gold")}
    ids = [sentence.meta("sent_id") for sentence in parses["test_gold"]]
    trees = {name: [sentence.tree() for sentence in sentences] for name, sentences in parses.items()}
    again = parse_records(trees["test_gold"], trees["test_given"], ids, ids, align_order)
    assert las(again) == pytest.approx(others["las_given_words"])
    assert las(parse_records(trees["test_gold"], trees["test"], ids, ids)) == pytest.approx(metric["value"])
    texts = [[sentence.meta("text") for sentence in parses[name]] for name in ("test_gold", "test")]
    assert wer(word_errors(*texts)) == pytest.approx(others["wer"])
    assert all(tree.heads.count(0) == 1 for tree in trees["test"] + trees["test_given"]), "one root"


def test_utterances_without_a_recognised_word_are_in_the_files(tmp_path, monkeypatch):
    """Where all that CTC says is blank, parses are of no words, and score nothing."""
    monkeypatch.setattr(load(RECIPE), "recognised_words", lambda heard, _: [[] for _ in heard.logits])
    data = f"--data_folder={write_orfeo(tmp_path / 'orfeo', recordings=3, utterances=2)}"
    result = train(RECIPE, tmp_path / "run", *LOGMEL, data, "--steps=1")
    gold, heard = (read_conllu(tmp_path / "run" / f"{name}.conllu") for name in ("test_gold", "test"))
    assert [sentence.meta("sent_id") for sentence in heard] == [sentence.meta("sent_id") for sentence in gold]
    trees = [[sentence.tree() for sentence in sentences] for sentences in (gold, heard)]
    assert [len(tree.words) for tree in trees[1]] == [0] * len(gold)
    assert [record["system_words"] for record in result["records"]] == [0] * len(gold)
    assert result["metric"]["value"] == 0 and result["other_metrics"]["wer"] == 1


def test_fine_tuning_trains_the_encoder_with_the_parser(tmp_path):
    data = f"--data_folder={write_orfeo(tmp_path / 'orfeo', recordings=3, utterances=2)}"
    encoder = untrained_encoder(tmp_path / "encoder", dim=32, depth=1)
    given = (f"--encoder={encoder}", "--untrained=True", "--mode=finetune", "--parser.pool=lstm", "--decoder=greedy")
    result = train(RECIPE, tmp_path / "run", *given, data, "--steps=2")
    assert result["cost"]["parameters_trained"] == result["cost"]["parameters_total"] > 30_000
    assert [math.isfinite(float(row["loss"])) for row in steps(tmp_path / "run")] == [True] * 2
    assert result["metric"]["n_items"] == 2 and result["other_metrics"]["las_given_words"] is not None


def test_too_few_recordings_for_three_splits(tmp_path):
    data = f"--data_folder={write_orfeo(tmp_path / 'orfeo', recordings=1, utterances=1)}"
    with pytest.raises(DataError, match="1 groups .* cannot make 3 splits"):
        train(RECIPE, tmp_path / "run", *LOGMEL, data)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    given = (f"--data_folder={write_orfeo(tmp_path / 'orfeo')}", *LOGMEL, "--steps=30", "--opt_class.lr=0.01")
    given = (*given, "--head.dropout=0.0", "--parser.dropout=0.0")
    one, two = (torchrun(RECIPE, tmp_path / str(count), *given, processes=count) for count in (1, 2))
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4)
    assert one["metric"]["value"] > 0.1
