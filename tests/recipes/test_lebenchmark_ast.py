"""recipes/LeBenchmark/AST on tones in the layout of Mboshi-French: a pitch is a word, here and there."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
import soundfile
from recipe_runner import torchrun, train
from sounds import tones

from lobes.dataio import read_manifest
from lobes.errors import CheckpointError
from lobes.evaluation import bleu, chrf, translation_records

RECIPE = "LeBenchmark/AST"
LOGMEL = ("--encoder=logmel-40-25hz", "--normalize_layers=False")
#: Mboshi, French.
WORDS = [("wa", "elle"), ("obe", "bois"), ("ngi", "ici"), ("i", "du"), ("mwa", "chat")]
SENTENCES = [
    (0, 1, 2, 3),
    (4, 3, 2, 1),
    (2, 2, 0, 4),
    (1, 0, 3, 0),
    (3, 4, 1, 4),
    (0, 4, 4, 2),
    (2, 3, 3, 3),
    (1, 1, 4, 0),
]


@pytest.fixture(scope="module")
def mboshi_folder(tmp_path_factory):
    """Eight sentences, each six times in the official training part and three times in dev."""
    noise = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("ast") / "mboshi_french"
    for part, takes in (("train", 6), ("dev", 3)):
        folder = root / "full_corpus_newsplit" / part
        folder.mkdir(parents=True)
        for number in range(takes * len(SENTENCES)):
            chosen = [int(word) for word in SENTENCES[number % len(SENTENCES)]]
            name = f"{('abiayi', 'kouarata')[number % 2]}_2015_{part}_{number}"
            sound = np.concatenate([tones(2 * word, 0.2, noise, 16000) for word in chosen])
            soundfile.write(folder / f"{name}.wav", sound, 16000)
            for suffix, side in ((".mb", 0), (".fr", 1)):
                text = " ".join(WORDS[word][side] for word in chosen)
                (folder / f"{name}{suffix}").write_text(text, encoding="utf-8")
    return root


def test_it_translates_new_recordings_of_what_it_has_heard(mboshi_folder, tmp_path):
    """All but the sentence that is set aside to validate on; so the last checkpoints are averaged, not the best."""
    few = ("--steps=100", "--opt_class.lr=0.006", "--head.width=32", "--head.hidden=64", "--head.depth=1")
    quick = ("--head.dropout=0.0", "--train_loader.batch_seconds=17", "--search.max_tokens=25", "--average_by=null")
    data = (f"--data_folder={mboshi_folder}", "--prepare.drop_repeated=False", "--prepare.valid_share=0.1")
    result = train(RECIPE, tmp_path, *data, *LOGMEL, *few, *quick)
    metric, other = result["metric"], result["other_metrics"]
    assert metric["name"] == "bleu" and (metric["n_items"], metric["n_groups"]) == (24, 8)
    assert metric["value"] > 0.35 and other["chrf"] > 0.65, "they are 0.47 and 0.76"
    assert other["chrf_low"] <= other["chrf"] <= other["chrf_high"]
    references = {row["id"]: row["translation"] for row in read_manifest(tmp_path / "manifests" / "test.csv").rows}
    records = result["records"]
    wanted = [references[record["id"]] for record in records]
    same = translation_records(wanted, wanted[:1] * len(wanted))
    assert bleu(same) < metric["value"] - 0.1 and chrf(same) < other["chrf"] - 0.2, "always the same sentence"
    again = sacrebleu.corpus_bleu([record["hypothesis"] for record in records], [wanted])
    assert 100 * metric["value"] == pytest.approx(again.score, abs=1e-6) and bleu(records) == metric["value"]
    assert "tok:13a" in result["notes"] and "layer weights 1.000" in result["notes"]
    assert len(list((tmp_path / "save").glob("CKPT+*"))) >= 2, "those that were averaged are kept"


def test_it_transcribes_too_and_says_when_there_is_nothing_to_average(mboshi_folder, tmp_path):
    small = ("--steps=2", "--head.width=8", "--head.hidden=8", "--head.heads=2", "--head.depth=1", "--search.beam=1")
    kept = (f"--data_folder={mboshi_folder}", "--prepare.drop_repeated=False")
    data = (*kept, *LOGMEL, *small, "--ctc_weight=0.0", "--search.max_tokens=3")
    result = train(RECIPE, tmp_path / "text", "--target=text", *data)
    assert all(len(record["hypothesis"]) <= 3 for record in result["records"])
    letters = set("".join(record["hypothesis"] for record in result["records"]))
    assert letters <= {*"waobengim \ufffd"}, "the alphabet of the transcripts"
    with pytest.raises(CheckpointError, match="has no checkpoint of 'model'"):
        train(RECIPE, tmp_path / "none", "--test_only", *data)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(mboshi_folder, tmp_path):
    few = ("--steps=100", "--opt_class.lr=0.006", "--head.width=32", "--head.hidden=64", "--head.depth=1")
    quick = ("--head.dropout=0.0", "--train_loader.batch_seconds=17", "--search.max_tokens=25", "--average_by=null")
    data = (f"--data_folder={mboshi_folder}", "--prepare.drop_repeated=False", "--prepare.valid_share=0.1")
    given = (*data, *LOGMEL, *few, *quick)
    one, two = (torchrun(RECIPE, tmp_path / str(count), *given, processes=count) for count in (1, 2))
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4)
    assert one["other_metrics"]["chrf"] > 0.5
