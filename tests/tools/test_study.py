"""The study's table is what its results say, and the README holds it."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from lobes.errors import ConfigError
from lobes.evaluation import accuracy, cer, label_records, write_result
from lobes.training import HparamsFile

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import study  # noqa: E402
import study_table  # noqa: E402


@pytest.fixture
def results(tmp_path) -> Path:
    """Two seeds of Luna (right in three of four cases), its random weights (in one), and attention (in two)."""
    for seed in (1, 2):
        for label, right in (("luna", 3), ("luna untrained", 1), ("sdpa", 2)):
            truth = ["a"] * 40
            guesses = [("a" if i % 4 < right else "b") for i in range(40)]
            records = label_records(truth, guesses, [str(i) for i in range(40)], [f"s{i // 4}" for i in range(40)])
            write_result(
                tmp_path / "digits" / label.replace(" ", "-") / str(seed),
                task="FSDD digits",
                system=label,
                metric=accuracy,
                records=records,
                seed=seed,
                data={},
                data_name="made up",
                parameters_trained=10,
                parameters_total=1010,
                audio_hours=1.0,
                wall_seconds=1.0,
                macs_per_second=5e6,
            )
    return tmp_path


def test_quality_pools_seeds_and_compares_with_random_weights(results):
    line, attention = study_table.quality(results)
    assert (line["system"], line["seeds"], line["parameters"]) == ("luna", 2, 1000)
    assert float(line["value"]) == 0.75 and float(line["untrained"]) == 0.25
    assert float(line["untrained_difference"]) == 0.5 and float(line["untrained_low"]) > 0
    assert float(line["sdpa_difference"]) == 0.25 and float(line["sdpa_low"]) > 0
    assert float(line["sdpa_p_holm"]) < 0.05 and float(line["seed_deviation"]) == 0
    assert (attention["system"], attention["untrained"], attention["sdpa_difference"]) == ("sdpa", "", "")


def test_a_run_that_was_made_with_other_options_is_not_taken_for_this_one(tmp_path, monkeypatch):
    started = []

    class Recipe:
        """Keeps what a recipe keeps of a run that came to its end."""

        def main(self, argv):
            file, _, overrides = study.Options.from_command_line_args(argv)
            folder = Path(argv[1].partition("=")[2])
            folder.mkdir(parents=True, exist_ok=True)
            text = HparamsFile(ROOT / "recipes" / "Gibbons" / "call_type" / file, overrides).text
            (folder / "hyperparams.yaml").write_text(text)
            (folder / "result.json").write_text("{}")
            started.append(argv)

    monkeypatch.setattr(study, "load", lambda recipe: Recipe())
    lora = "--adaptation=!name:lobes.adapters.LoRA"
    given = [
        lora,
        "--encoder=/here/out/SSL/calls/{fold}/1",
        "--prepare.save_folder=/here/manifests",
        "--folds.n_folds=2",
    ]

    def run(*options, folder="a", seed=1, name="first"):
        study.train("Gibbons/call_type", "tune.yaml", tmp_path / folder, name, seed, list(options))

    run(*given, "--epochs=3")
    run(*given, "--epochs=3")
    moved = [option.replace("/here/", "/there/") for option in given]
    run(*moved, "--epochs=3", "--data_folder=/there", name="another")
    kept = tmp_path / "a" / "hyperparams.yaml"
    text = kept.read_text()
    kept.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("loss:")))
    run(*given, "--epochs=3")  # made before the recipe had this option
    assert len(started) == 1
    other = [option.replace("/calls/", "/both/") for option in given]
    for options, seed, what in (
        (given, 1, "epochs=3, expected 30"),
        ([*given, "--epochs=20"], 1, "epochs=3, expected 20"),
        ([*given, "--epochs=3"], 2, "seed=1, expected 2"),
        ([*other, "--epochs=3"], 1, "encoder=/here/.*, expected /here/out/SSL/both"),
        ([f"{lora} {{rank: 4}}", *given[1:], "--epochs=3"], 1, "adaptation.rank=null, expected 4"),
        ([*given[:-1], "--epochs=3"], 1, "folds.n_folds=2, expected 5"),
    ):
        with pytest.raises(ConfigError, match=f"a: holds a result of {what}.*give another --out, or delete it"):
            run(*options, seed=seed)
    run(*given, folder="b")
    (tmp_path / "b" / "hyperparams.yaml").unlink()
    with pytest.raises(ConfigError, match="b: holds result.json without hyperparams.yaml"):
        run(*given, folder="b")
    assert len(started) == 2


def test_steps_to_what_attention_has_learnt_half_way(tmp_path):
    def run(system: str, seed: int, rate: float) -> None:
        folder = tmp_path / system / str(seed)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
        # Easy and hard batches in turns, the same for all; another seed has other targets.
        losses = [6 * seed - rate * step + step % 2 for step in range(2000)]
        (folder / "train_log.csv").write_text("step,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(losses, 1)))

    for seed in (1, 2):
        run("sdpa", seed, 0.001)
        run("quick", seed, 0.002)
    run("slow", 1, 0.0002)
    run("elsewhere", 3, 0.001)
    found = study_table.steps_to_baseline(tmp_path)
    assert set(found) == {"sdpa", "quick", "slow"} and found["slow"] == ">2000"
    assert found["sdpa"] == "1000"
    assert abs(int(found["quick"]) - 575) <= 1  # an average of 300 steps is that of the step 150 before its last


def test_the_table_is_written_between_its_markers(results, tmp_path):
    docs = tmp_path / "docs" / "study"
    docs.mkdir(parents=True)
    (docs / "README.md").write_text("before\n<!-- study -->\nold\n<!-- /study -->\nafter\n")
    study_table.write_tables(results, docs)
    text = (docs / "README.md").read_text()
    assert (
        "| luna | 2 |  | 75.0 [" in text
        and "] ± 0.0 |  | – |" in text
        and "| luna |  |  | **+50.0 [" in text
        and "old" not in text
        and text.endswith("after\n")
    )
    with open(docs / "results.csv", newline="") as file:
        commands = [row["command"] for row in csv.DictReader(file)]
    assert len(commands) == 6 and "python tools/study.py --systems luna --seeds 2" in commands
    assert not study_table.update(docs)


def test_the_committed_table_is_that_of_the_committed_figures():
    if not (ROOT / "docs" / "study" / "quality.csv").is_file():
        pytest.skip("the study has not been run")
    assert not study_table.update(ROOT / "docs" / "study", write=False)


def test_costs_are_joined_by_name():
    costs = study_table.read_costs(ROOT / "docs" / "efficiency" / "encoders.json")
    assert (
        set(costs) <= set(study.systems())
        and float(costs["luna"]["training, audio s/s"]) > 10
        and float(costs["luna"]["use, ms/s"]) < 100
    )
    assert costs["efficientnetv2"]["chunk, ms"] == "–", "it does not stream"


def test_every_matched_encoder_takes_part():
    names = study.systems()
    assert {"sdpa", "luna", "u_net", "efficientnetv2"} <= set(names)
    assert not [name for name in names if name.endswith("_macs") or name == "streaming"]
    assert study_table.METRICS.keys() == study.PROBES.keys() and study_table.METRICS["french"] is cer
