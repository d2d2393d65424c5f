"""recipes/LeBenchmark/SLU on tones in the layouts in which the corpora come: a pitch for each value, or each word."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from recipe_runner import torchrun, train
from sounds import tones

from lobes.evaluation import slot_f1, tagged_records

RECIPE = "LeBenchmark/SLU"
LOGMEL = ("--encoder=logmel-40-25hz", "--normalize_layers=False")
PITCHES = {"small": 0, "large": 1, "tea": 2, "huge": 3, "coffee": 4, "water": 6, "light": 8, "dark": 9}


@pytest.fixture
def orders(tmp_path):
    """A drink, a size or none and a roast or none, in any order of speech; one size occurs in a single order."""
    noise, root = np.random.default_rng(0), tmp_path / "picovoice"
    combinations = [
        {"drink": drink, **({"size": size} if size else {}), **({"roast": roast} if roast else {})}
        for drink in ("tea", "coffee", "water")
        for size in ("", "small", "large")
        for roast in ("", "light", "dark")
    ]
    label = {}
    for number, slots in enumerate([*combinations, {"drink": "tea", "size": "huge"}]):
        said = [tones(PITCHES[value], 0.25, noise, 16000) for value in slots.values()]
        silence = 0.003 * noise.standard_normal(4000)
        sound = np.concatenate([*[said[i] for i in noise.permutation(len(said))], silence])
        path = root / "data" / "speech" / "clean" / f"{number:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, 16000)
        label[path.name] = {"intent": "orderDrink", "slots": slots}
    (root / "data" / "label").mkdir()
    (root / "data" / "label" / "label.json").write_text(json.dumps(label))
    return root


def test_slots_are_filled_in_orders_that_were_not_heard(orders, tmp_path):
    few = ("--steps=40", "--train_loader.batch_seconds=7", "--n_folds=4", "--head.width=5", "--opt_class.lr=0.01")
    result = train(RECIPE, tmp_path / "run", f"--data_folder={orders}", *LOGMEL, *few)
    metric, others = result["metric"], result["other_metrics"]
    assert metric["name"] == "slot_f1" and metric["value"] > 0.65, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (28, 28), "each recording once; intervals over orders"
    assert others["unseen_labels"] >= 1 and "<size huge >" in result["notes"], "said, and counted as an error"
    assert others["intent_accuracy"] == 1.0 and "slot_f1" not in others
    records = result["records"]
    again = tagged_records([r["reference"] for r in records], [r["hypothesis"] for r in records])
    assert slot_f1(again) == pytest.approx(metric["value"])


@pytest.fixture(scope="module")
def pxcorpus(tmp_path_factory):
    """Two words an utterance, a pitch each: the first is a drug and decides the intent, the second is said only."""
    noise, root = np.random.default_rng(0), tmp_path_factory.mktemp("slu") / "pxcorpus"
    lines, blocks = {"seq.in": [], "seq.label": [], "paths.txt": []}, []
    for folder in range(8):
        for number in range(10):
            word, other = noise.choice(["a", "b", "c"]), noise.choice(["d", "e"])
            pitches = [{"a": 0, "b": 2, "c": 4, "d": 6, "e": 8}[w] for w in (word, other)]
            sound = np.concatenate([tones(pitch, 0.4, noise, 16000) for pitch in pitches])
            path = root / "recordings" / str(folder) / f"{folder}_{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound, 16000)
            found = (f"{word} {other}", {"a": "take", "b": "leave", "c": "stop"}[word], f"{folder}/{path.name}")
            for name, line in zip(lines, found, strict=True):
                lines[name].append(line)
            blocks.append(f"{word}\tB-drug\n{other}\tO\n")
    for name, found in lines.items():
        (root / name).write_text("".join(f"{line}\n" for line in found))
    (root / "PxSLU_conll.txt").write_text("\n".join(blocks))
    return root


@pytest.mark.slow
def test_ctc_writes_concepts_and_intents(pxcorpus, tmp_path):
    few = (
        "--steps=400",
        "--train_loader.batch_seconds=12",
        "--head.hidden=48",
        "--head.layers=1",
        "--opt_class.lr=0.01",
    )
    result = train(RECIPE, tmp_path / "run", f"--data_folder={pxcorpus}", *LOGMEL, *few, hparams="pxcorpus.yaml")
    others = result["other_metrics"]
    assert result["metric"]["name"] == "slot_f1" and result["metric"]["value"] > 0.6
    assert others["intent_accuracy"] > 0.6 and others["concept_error_rate"] < 0.5 and others["unseen_labels"] == 0


def test_a_decoder_that_attends_writes_concepts_and_intents(pxcorpus, tmp_path):
    """Always the commonest drug and intent would have some 0.4."""
    small = ("width=32", "hidden=64", "heads=2", "depth=1", "encoder_depth=0", "dropout=0.0")
    few = ("--steps=90", "--train_loader.batch_seconds=12", "--opt_class.lr=0.005", "--features=memory")
    given = (f"--data_folder={pxcorpus}", *LOGMEL, *few, *(f"--head.{option}" for option in small), "--coding.beam=2")
    result = train(RECIPE, tmp_path / "run", *given, hparams="seq2seq.yaml")
    others = result["other_metrics"]
    assert result["metric"]["name"] == "slot_f1" and result["metric"]["value"] > 0.75, result["metric"]
    assert others["intent_accuracy"] > 0.75 and others["concept_value_error_rate"] < 0.3, others
    assert others["concept_error_rate"] < 0.1 and others["unseen_labels"] == 0
    assert {record["reference"].count("<drug") for record in result["records"]} == {1}


@pytest.mark.slow
def test_two_processes_learn_what_one_does(orders, tmp_path):
    few = ("--steps=20", "--train_loader.batch_seconds=7", "--n_folds=3", "--head.width=5", "--opt_class.lr=0.01")
    given = (f"--data_folder={orders}", *LOGMEL, *few, "--head.dropout=0.0")
    one, two = (torchrun(RECIPE, tmp_path / str(count), *given, processes=count) for count in (1, 2))
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4)
    assert one["metric"]["value"] > 0.1
