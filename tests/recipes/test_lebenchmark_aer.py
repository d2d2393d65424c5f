"""recipes/LeBenchmark/AER on sounds in the layouts in which the corpora are delivered."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from recipe_runner import torchrun, train

from lobes.dataio import read_manifest
from lobes.errors import ConfigError, DataError
from lobes.evaluation import ccc, ccc_per_file

RECIPE = "LeBenchmark/AER"
LOGMEL = "--encoder=logmel-40-25hz"
EMOTIONS = {"W": 300.0, "F": 900.0, "T": 2700.0}


@pytest.fixture
def emodb(tmp_path):
    """wav/03a01Fa.wav: the pitch says the emotion, or, if not `told`, nothing; a hum below it the speaker."""

    def write(told=True):
        noise = np.random.default_rng(0)
        (tmp_path / "emodb" / "wav").mkdir(parents=True)
        time = np.arange(8000) / 16000
        for number, speaker in enumerate(("03", "08", "09", "10")):
            for text in ("a01", "a02", "b03", "b10"):
                pitches = list(EMOTIONS.values())
                for place, letter in enumerate(EMOTIONS):
                    pitch = (pitches[place] if told else noise.choice(pitches)) * (1 + 0.02 * noise.standard_normal())
                    sound = np.exp(-8 * time) * np.sin(2 * np.pi * pitch * time)
                    sound = 0.1 * sound + 0.02 * np.sin(2 * np.pi * (4000 + 500 * number) * time)
                    sound += 0.003 * noise.standard_normal(len(time))
                    soundfile.write(tmp_path / "emodb" / "wav" / f"{speaker}{text}{letter}a.wav", sound, 16000)
        return tmp_path / "emodb"

    return write


def test_an_emotion_is_known_of_an_unheard_speaker(emodb, tmp_path):
    result = train(RECIPE, tmp_path / "run", f"--data_folder={emodb()}", LOGMEL)
    metric = result["metric"]
    assert metric["name"] == "uar" and metric["value"] > 0.9, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (48, 4), "each recording once; intervals over speakers"
    assert {record["target"] for record in result["records"]} == {"anger", "happiness", "sadness"}
    assert result["other_metrics"]["accuracy"] > 0.9
    assert result["other_metrics"]["valid"] > 0.9, "of the training speakers, each left out"


def test_what_is_not_told_is_not_known_and_few_clips_are_drawn(emodb, tmp_path):
    result = train(RECIPE, tmp_path / "run", f"--data_folder={emodb(told=False)}", LOGMEL, "--train_clips=4")
    assert result["metric"]["value"] < 0.6, "chance is a third"
    assert 0.1 < result["other_metrics"]["valid"] < 0.8, "what layer and penalty are chosen by, of few clips"
    assert result["cost"]["audio_hours"] == pytest.approx(4 * 4 * 3 * 0.5 / 3600), "4 folds, 4 clips of 3 emotions"


@pytest.mark.slow
def test_a_tuned_encoder_is_another_in_each_fold(emodb, tmp_path):
    quick = ("--epochs=3", "--train_loader.batch_seconds=6", "--encoder=sm-tiny")
    result = train(RECIPE, tmp_path / "run", f"--data_folder={emodb()}", *quick, "--mode=finetune")
    assert result["metric"]["value"] > 0.6 and result["metric"]["n_groups"] == 4
    assert result["cost"]["parameters_trained"] == result["cost"]["parameters_total"] > 1e6
    assert sorted(path.name for path in (tmp_path / "run" / "folds").glob("*/save")) == ["save"] * 4
    again = train(RECIPE, tmp_path / "lora", f"--data_folder={tmp_path / 'emodb'}", *quick, "--mode=LoRA")
    assert again["cost"]["parameters_trained"] < 0.2 * again["cost"]["parameters_total"]
    assert result["other_metrics"]["valid"] > 0.6 and 0 <= again["other_metrics"]["valid"] <= 1
    parts = ("train", "valid", "test")
    fold = {name: read_manifest(tmp_path / "run" / "folds" / "10" / f"{name}.csv").groups for name in parts}
    assert fold == {"train": ["08", "09"], "valid": ["03"], "test": ["10"]}
    given = (f"--data_folder={tmp_path / 'emodb'}", *quick[1:], "--mode=LoRA", "--epochs=1", "--valid_speakers=0")
    assert "valid" not in train(RECIPE, tmp_path / "alone", *given)["other_metrics"]


@pytest.mark.parametrize("probe", ["KNNProbe {balanced: True}", "MLPProbe {n_points: 1, max_epochs: 6}", "KNNProbe"])
def test_hears_probes_take_the_place_of_logistic_regression(emodb, tmp_path, probe):
    given = (f"--data_folder={emodb()}", LOGMEL, f"--probe=!name:lobes.probes.{probe}")
    result = train(RECIPE, tmp_path / "1", *given)
    assert result["metric"]["value"] > 0.8 and result["other_metrics"]["valid"] > 0.8
    assert (result["cost"]["parameters_trained"] > 0) == probe.startswith("MLP")


@pytest.fixture
def allosat(tmp_path):
    """Calls at 8 kHz whose pitch is, if `told`, the satisfaction, which goes up and down about a mean of each call."""

    def write(told=True, seconds=12.0):
        noise = np.random.default_rng(0)
        root = tmp_path / "allosat"
        (root / "audio").mkdir(parents=True)
        (root / "annotations" / "labels").mkdir(parents=True)
        names = [f"call{number:02d}" for number in range(16)]
        for split, part in {"train": names[:8], "dev": names[8:11], "test": names[11:]}.items():
            (root / f"{split}.txt").write_text("\n".join(part) + "\n")
        steps = round(seconds / 0.25)
        for name in names:
            course = noise.uniform(0.3, 0.7) + 0.3 * np.sin(np.arange(steps) / 5 + noise.uniform(0, 6))
            rating = np.clip(course, 0, 1)
            heard = rating if told else np.clip(noise.permutation(rating), 0, 1)
            pitch = np.repeat(400 * 6**heard, 2000)
            sound = 0.1 * np.sin(2 * np.pi * np.cumsum(pitch) / 8000) + 0.003 * noise.standard_normal(len(pitch))
            soundfile.write(root / "audio" / f"{name}.wav", sound, 8000)
            table = "".join(f"{0.25 * k};{value:.4f}\n" for k, value in enumerate(rating))
            (root / "annotations" / "labels" / f"{name}.csv").write_text("time;satisfaction\n" + table)
        return root

    return write


FEW = ("--steps=100", "--train_loader.batch_seconds=25", "--opt_class.lr=0.02", "--normalize_layers=False")


def test_a_course_is_followed_and_the_best_checkpoint_on_dev_is_tested(allosat, tmp_path):
    given = (f"--data_folder={allosat()}", LOGMEL, *FEW, "--piece_seconds=4")
    result = train(RECIPE, tmp_path / "run", *given, hparams="allosat.yaml")
    metric, records, others = result["metric"], result["records"], result["other_metrics"]
    assert metric["name"] == "ccc" and metric["value"] > 0.8, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (5, 5)
    assert ccc(records) == metric["value"] and ccc_per_file(records) == others["ccc_per_file_value"] > 0.7
    assert others["ccc_per_file_low"] <= others["ccc_per_file_value"] <= others["ccc_per_file_high"]
    assert [record["n"] for record in records] == [48] * 5, "a prediction for each rating"
    kept = [path for path in (tmp_path / "run" / "save").iterdir() if path.is_dir()]
    assert 1 <= len(kept) <= 2 and all("ccc:" in (path / "CKPT.yaml").read_text() for path in kept)


@pytest.mark.slow
def test_what_is_not_heard_is_not_followed(allosat, tmp_path):
    given = (f"--data_folder={allosat(told=False)}", LOGMEL, *FEW)
    result = train(RECIPE, tmp_path / "run", *given, hparams="allosat.yaml")
    assert abs(result["metric"]["value"]) < 0.45


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--head=!name:lobes.probes.LinearRater {}", "--loss_over=file", "--select=ccc_per_file"),
        ("--head=!name:lobes.probes.BiLSTMRater {hidden: 16, layers: 5}", "--features=null"),
        ("--period=null", "--piece_seconds=null"),
    ],
)
def test_other_heads_losses_and_paces(options, allosat, tmp_path):
    given = (f"--data_folder={allosat()}", LOGMEL, *FEW, *options)
    result = train(RECIPE, tmp_path / "run", *given, hparams="allosat.yaml")
    assert result["metric"]["value"] > 0.5, result["metric"]["value"]
    expected = 300 if "--period=null" in options else 48
    assert all(record["n"] in (expected, expected - 1) for record in result["records"])


@pytest.mark.slow
def test_features_of_a_folder_serve_all_heads(allosat, tmp_path):
    given = (f"--data_folder={allosat()}", "--encoder=sm-tiny", "--steps=10", "--train_loader.batch_seconds=50")
    given += (f"--features={tmp_path / 'features'}",)
    train(RECIPE, tmp_path / "gru", *given, hparams="allosat.yaml")
    shards = sorted((tmp_path / "features").glob("*.npy"))
    train(RECIPE, tmp_path / "lin", *given, "--head=!name:lobes.probes.LinearRater {}", hparams="allosat.yaml")
    assert shards and sorted((tmp_path / "features").glob("*.npy")) == shards
    with pytest.raises(DataError, match="another teacher"):  # another pace is another feature
        train(RECIPE, tmp_path / "other", *given, "--piece_seconds=5", hparams="allosat.yaml")
    tuned = (*given, "--mode=finetune", "--piece_seconds=4")
    result = train(RECIPE, tmp_path / "tuned", *tuned, hparams="allosat.yaml")
    assert result["cost"]["parameters_trained"] == result["cost"]["parameters_total"]


@pytest.mark.slow
def test_recola_rates_one_target_every_40_ms(tmp_path):
    noise = np.random.default_rng(0)
    root = tmp_path / "recola"
    for split, count in {"train": 4, "dev": 2}.items():
        for number in range(1, count + 1):
            course = 0.8 * np.sin(np.arange(101) / 8 + noise.uniform(0, 6))
            pitch = np.repeat(500 * 3 ** course[:100], 640)
            sound = 0.1 * np.sin(2 * np.pi * np.cumsum(pitch) / 16000) + 0.003 * noise.standard_normal(len(pitch))
            (root / "recordings_audio").mkdir(parents=True, exist_ok=True)
            soundfile.write(root / "recordings_audio" / f"{split}_{number}.wav", sound, 16000)
            for target, values in {"arousal": course, "valence": noise.uniform(-1, 1, 101)}.items():
                path = root / "ratings_gold_standard" / target / f"{split}_{number}.arff"
                path.parent.mkdir(parents=True, exist_ok=True)
                names = "".join(f"@attribute {name} numeric\n" for name in ("frameTime", "GoldStandard"))
                data = "".join(f"{0.04 * k:.2f},{value:.4f}\n" for k, value in enumerate(values))
                path.write_text(f"@relation gs\n\n{names}\n@data\n{data}")
    few = ("--steps=60", "--train_loader.batch_seconds=8", "--opt_class.lr=0.02", "--normalize_layers=False")
    result = train(RECIPE, tmp_path / "run", f"--data_folder={root}", LOGMEL, *few, hparams="recola.yaml")
    assert result["task"] == "RECOLA arousal" and result["metric"]["value"] > 0.6, result["metric"]["value"]
    assert [record["n"] for record in result["records"]] == [100, 100], "the last of 101 ratings is of no audio"
    valid = read_manifest(tmp_path / "run" / "manifests" / "valid.csv").rows
    assert [row["id"] for row in valid] == ["train_3", "train_4"]
    with pytest.raises(DataError, match="target is 'dominance': .*has arousal, valence"):
        train(RECIPE, tmp_path / "no", f"--data_folder={root}", LOGMEL, "--target=dominance", hparams="recola.yaml")


@pytest.mark.slow
@pytest.mark.data
def test_emodb_itself_is_told_above_chance(lobes_data, tmp_path):
    if not (lobes_data / "emodb").is_dir():
        pytest.skip("no emodb under LOBES_DATA")
    result = train(RECIPE, tmp_path / "run", f"--data_folder={lobes_data / 'emodb'}", LOGMEL)
    speakers = {row["group"] for row in read_manifest(tmp_path / "run" / "manifests" / "all.csv").rows}
    assert result["metric"]["n_groups"] == len(speakers) and result["metric"]["value"] > 0.2, "chance is a seventh"


def test_wrong_choices_are_named(allosat, tmp_path):
    data = (f"--data_folder={allosat(seconds=1.0)}", LOGMEL, "--steps=1")
    with pytest.raises(ConfigError, match="over is 'corpus'"):
        train(RECIPE, tmp_path / "a", *data, "--loss_over=corpus", hparams="allosat.yaml")
    with pytest.raises(ConfigError, match="head is .*: expected LinearRater, GRURater or BiLSTMRater"):
        train(RECIPE, tmp_path / "h", *data, "--head=LinearHead", hparams="allosat.yaml")
    labels = tmp_path / "allosat" / "annotations" / "labels"
    for path in labels.glob("*.csv"):
        path.write_text("time;satisfaction\n0;0.5\n")
    with pytest.raises(DataError, match="satisfaction: all ratings are 0.5"):
        train(RECIPE, tmp_path / "b", *data, hparams="allosat.yaml")
    assert json.loads(next((tmp_path / "b" / "manifests" / "ratings").glob("*.json")).read_text())["period"] == 0.25


@pytest.mark.slow
def test_two_processes_learn_what_one_does(allosat, tmp_path):
    given = (f"--data_folder={allosat()}", LOGMEL, *FEW, "--piece_seconds=4")
    one, two = (
        torchrun(RECIPE, tmp_path / str(count), *given, hparams="allosat.yaml", processes=count) for count in (1, 2)
    )
    assert two["metric"]["value"] == pytest.approx(one["metric"]["value"], abs=1e-4)
    assert one["metric"]["value"] > 0.3
