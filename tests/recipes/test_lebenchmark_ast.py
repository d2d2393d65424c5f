"""recipes/LeBenchmark/AST on tones in the layout of Mboshi-French: a pitch is a word, here and there."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
import soundfile
from recipe_runner import train
from sounds import tones

from lobes.dataio import read_manifest
from lobes.errors import CheckpointError
from lobes.evaluation import bleu

RECIPE = "LeBenchmark/AST"
LOGMEL = ("--encoder=logmel-40-25hz", "--normalize_layers=False")
#: Mboshi, French: of other lengths and letters, so that attention has to move.
WORDS = [("wa", "ah"), ("obhe", "bo"), ("ngi", "cle"), ("i", "du")]


@pytest.fixture(scope="module")
def mboshi_folder(tmp_path_factory):
    """Sentences of three words out of four, all different; the official dev part holds a quarter of them."""
    noise = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("ast") / "mboshi_french"
    for number in range(64):
        folder = root / "full_corpus_newsplit" / ("dev" if number % 4 == 0 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        chosen = [number // 16, number // 4 % 4, number % 4]
        name = f"{('abiayi', 'kouarata')[number % 2]}_2015_{number}"
        sound = np.concatenate([tones(2 * word, 0.2, noise, 16000) for word in chosen])
        soundfile.write(folder / f"{name}.wav", sound, 16000)
        for suffix, side in ((".mb", 0), (".fr", 1)):
            (folder / f"{name}{suffix}").write_text(" ".join(WORDS[word][side] for word in chosen), encoding="utf-8")
    return root


def test_it_translates_sentences_that_it_has_not_heard(mboshi_folder, tmp_path):
    few = ("--steps=160", "--opt_class.lr=0.006", "--head.width=32", "--head.hidden=64", "--head.depth=1")
    quick = ("--head.dropout=0.0", "--train_loader.batch_seconds=12", "--search.max_tokens=20", "--average=2")
    result = train(RECIPE, tmp_path, f"--data_folder={mboshi_folder}", *LOGMEL, *few, *quick)
    metric = result["metric"]
    assert metric["name"] == "bleu" and (metric["n_items"], metric["n_groups"]) == (16, 16)
    assert result["other_metrics"]["chrf"] > 0.7, "one of four words for each would be 0.4"
    assert (
        result["other_metrics"]["chrf_low"] <= result["other_metrics"]["chrf"] <= result["other_metrics"]["chrf_high"]
    )
    references = {row["id"]: row["translation"] for row in read_manifest(tmp_path / "manifests" / "test.csv").rows}
    records = result["records"]
    wanted = [references[record["id"]] for record in records]
    again = sacrebleu.corpus_bleu([record["hypothesis"] for record in records], [wanted])
    assert 100 * metric["value"] == pytest.approx(again.score, abs=1e-6) and bleu(records) == metric["value"]
    assert "tok:13a" in result["notes"] and "layer weights 1.000" in result["notes"]
    assert len(list((tmp_path / "save").glob("CKPT+*"))) >= 2, "those that were averaged are kept"


def test_it_transcribes_too_and_says_when_there_is_nothing_to_average(mboshi_folder, tmp_path):
    small = ("--steps=2", "--head.width=8", "--head.hidden=8", "--head.heads=2", "--head.depth=1", "--search.beam=1")
    data = (f"--data_folder={mboshi_folder}", *LOGMEL, *small, "--ctc_weight=0.0", "--search.max_tokens=3")
    result = train(RECIPE, tmp_path / "text", "--target=text", *data)
    assert all(len(record["hypothesis"]) <= 3 for record in result["records"])
    letters = set("".join(record["hypothesis"] for record in result["records"]))
    assert letters <= {*"waobhengi \ufffd"}, "the alphabet of the transcripts"
    with pytest.raises(CheckpointError, match="has no checkpoint of 'model'"):
        train(RECIPE, tmp_path / "none", "--test_only", *data)
