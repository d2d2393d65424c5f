"""recipes/EmoDB/speakers on tones in the layout in which the corpus is downloaded: a hum tells the speaker."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from recipe_runner import train

from lobes.dataio import read_manifest

RECIPE = "EmoDB/speakers"
LOGMEL = "--encoder=logmel-40-25hz"
SPEAKERS = ("03", "08", "09", "10", "11")
TEXTS = ("a01", "a02", "b03", "b10")


@pytest.fixture
def emodb_folder(tmp_path):
    """Write wav/03a01Fa.wav: the text is a melody, the voice a hum below it, a speaker's own or new in each text."""

    def write(own_voice: bool = True, emotions: str = "WLFTN"):
        noise = np.random.default_rng(0)
        folder = tmp_path / "emodb"
        (folder / "wav").mkdir(parents=True)
        melodies = {text: 1500 * 1.2 ** noise.permutation(5) for text in TEXTS}
        hums = {text: 200 * 1.5 ** (np.arange(5) if own_voice else noise.permutation(5)) for text in TEXTS}
        time = np.arange(8000) / 16000
        fading = 0.1 * np.exp(-8 * time)  # features are centred over time: a steady hum would leave no trace
        for number, speaker in enumerate(SPEAKERS):
            for text, pitches in melodies.items():
                for emotion in emotions:
                    melody = np.repeat(pitches, 1600) * (1 + 0.01 * noise.standard_normal())
                    hum = hums[text][number] * (1 + 0.01 * noise.standard_normal())
                    sound = fading * np.sin(2 * np.pi * hum * time) + 0.05 * np.sin(2 * np.pi * melody * time)
                    sound += 0.003 * noise.standard_normal(len(time))
                    soundfile.write(folder / "wav" / f"{speaker}{text}{emotion}a.wav", sound, 16000)
        return folder

    return write


def test_a_voice_is_known_again_in_an_unheard_text(emodb_folder, tmp_path):
    result = train(RECIPE, tmp_path / "run", f"--data_folder={emodb_folder()}", LOGMEL, "--train_clips=4")
    metric, cost = result["metric"], result["cost"]
    assert metric["name"] == "accuracy" and metric["value"] > 0.9, metric["value"]
    assert (metric["n_items"], metric["n_groups"]) == (100, 4), "each recording once; intervals over texts"
    assert {record["group"] for record in result["records"]} == set(TEXTS)
    assert cost["parameters_trained"] == 2 * 160 * 5 + 5, "linear on mean and deviation"
    # All clips are as long: four of each speaker, once for each text.
    assert cost["audio_hours"] == pytest.approx(4 * len(SPEAKERS) * len(TEXTS) * 0.5 / 3600)


@pytest.mark.slow
def test_a_voice_that_is_new_in_each_text_is_not_known_again(emodb_folder, tmp_path):
    """What tells speakers apart within a text is in no other text: had the fold heard it, all would be right."""
    data = f"--data_folder={emodb_folder(own_voice=False)}"
    metric = train(RECIPE, tmp_path / "run", data, LOGMEL, "--train_clips=null")["metric"]
    assert metric["value"] < 0.45, "chance is 0.2"


@pytest.mark.slow
def test_the_seed_decides_which_clips_are_labelled(emodb_folder, tmp_path):
    data = f"--data_folder={emodb_folder(own_voice=False, emotions='WN')}"
    given = (data, LOGMEL, "--train_clips=2")
    first, again, other = (
        train(RECIPE, tmp_path / run, *given, f"--seed={seed}") for run, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first["records"] == again["records"] != other["records"]
    rows = read_manifest(tmp_path / "a" / "folds" / "a01" / "train.csv").rows
    assert {row["text"] for row in rows} == set(TEXTS) - {"a01"}
