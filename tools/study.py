"""Pretrain every encoder of hparams/encoders/tiny alike, and probe each beside its own random weights.

    LOBES_DATA=/corpora python tools/study.py                             # all, seed 1; goes on where it was stopped
    LOBES_DATA=/corpora python tools/study.py --systems luna pom --seeds 2 3
    python tools/study.py --table                                         # docs/study from what has been run

Each system hears the same clips for the same number of steps (recipes/LibriSpeech/SSL/hparams/study.yaml), in the same
batches and under the same masks, and has the same number of parameters. Its features are then probed by three recipes:
digits (FSDD, one speaker left out), speakers (EmoDB, one sentence left out) and French CTC (GCompris, held-out texts).
`untrained` is the same encoder with the random weights of that seed. Every run is one that its recipe's command gives;
one that is there is refused if it was made with other options, such as --steps.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from lobes.errors import ConfigError, LobesError
from lobes.training import HparamsFile, run
from lobes.training.experiment import Options, plain_values

ROOT = Path(__file__).resolve().parents[1]
ENCODERS = ROOT / "hparams" / "encoders" / "tiny"
PRETRAINING = "LibriSpeech/SSL"
#: What a run and its parts are called.
LABELS = ("name", "task", "data_name")
logger = logging.getLogger(__name__)


class Probe(NamedTuple):
    """A recipe that tells what features are worth."""

    recipe: str
    hparams: str
    options: tuple[str, ...] = ()


PROBES = {
    "digits": Probe("FSDD/digits", "tiny.yaml", ("--train_takes=10",)),
    "speakers": Probe("EmoDB/speakers", "tiny.yaml"),
    "french": Probe("MiniFrench/ASR", "gcompris_linear.yaml"),
}


def main() -> None:
    """Run what has not been run yet, or make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="*", default=systems(), choices=systems(), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--probes", nargs="*", default=list(PROBES), choices=list(PROBES))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "study")
    parser.add_argument("--steps", type=int, help="in place of study.yaml's")
    parser.add_argument("--table", action="store_true", help="write docs/study instead of running")
    options = parser.parse_args()
    if options.table:
        from study_table import write_tables

        write_tables(options.out, ROOT / "docs" / "study")
        return
    failed = []
    for seed in options.seeds:
        for system in options.systems:
            try:
                study(system, seed, options.probes, options.out, options.steps)
            except Exception as error:  # one system that fails does not stop the others
                logger.exception("%s, seed %d", system, seed)
                failed.append(f"{system}, seed {seed}: {error}")
    if failed:
        raise LobesError("; ".join(failed))


def systems() -> list[str]:
    """The parameter-matched encoders of the tiny size, whose features see a whole utterance."""
    return sorted(path.stem for path in ENCODERS.glob("*.yaml") if not path.stem.endswith(("_macs", "streaming")))


def study(system: str, seed: int, probes: list[str], out: Path, steps: int | None) -> None:
    """Pretrain one system with one seed and probe it, and its random weights."""
    pretrained = out / "pretraining" / system / str(seed)
    options = [f"--encoder=!include:{ENCODERS / system}.yaml", f"--prepare.save_folder={out / 'manifests' / 'clips'}"]
    options += [f"--steps={steps}"] if steps else []
    train(PRETRAINING, "study.yaml", pretrained, system, seed, options)
    for name in probes:
        probe = PROBES[name]
        for untrained in (False, True):
            label = f"{system} untrained" if untrained else system
            options = [f"--encoder={pretrained}", f"--untrained={untrained}", *probe.options]
            options.append(f"--prepare.save_folder={out / 'manifests' / name}")
            train(probe.recipe, probe.hparams, out / name / label.replace(" ", "-") / str(seed), label, seed, options)


def train(recipe: str, hparams: str, folder: Path, name: str, seed: int, options: list[str]) -> None:
    """Run a recipe, unless its result is there.

    Raises
    ------
    ConfigError
        The result that is there was made with other options.
    """
    argv = [f"hparams/{hparams}", f"--output_folder={folder}", f"--name={name}", f"--seed={seed}", "--device=cpu"]
    argv += ["--noprogressbar", *options]
    if (folder / "result.json").is_file():
        check_options(recipe, folder, argv)
    else:
        load(recipe).main(argv)


def check_options(recipe: str, folder: Path, argv: list[str]) -> None:
    """Refuse a finished run that was made with other options, were it only that steps were given then and not now.

    Where data and manifests are does not count, nor what a run is called, nor what the recipe had not yet or has no
    more; of paths, such as an encoder's, the last three parts do.
    """
    kept = folder / "hyperparams.yaml"
    if not kept.is_file():
        raise ConfigError(f"{folder}: holds result.json without hyperparams.yaml, which says of what; delete it")
    file, _, overrides = Options.from_command_line_args(argv)
    old, new = HparamsFile(kept), HparamsFile(ROOT / "recipes" / recipe / file, overrides)
    both = [key for key in new.tree if key in old.tree and key not in LABELS]
    then, now = (
        {place: value for key in both for place, value in plain_values(known.get(key), key).items()}
        for known in (old, new)
    )
    for place in {**now, **then}:
        values = [known.get(place, "null") for known in (then, now)]
        if _last_parts(values[0]) != _last_parts(values[1]):
            raise ConfigError(
                f"{folder}: holds a result of {place}={values[0]}, expected {values[1]}; "
                "give another --out, or delete it"
            )


def _last_parts(value: str) -> list[str]:
    return value.split("/")[-3:]


def load(recipe: str) -> ModuleType:
    """The train.py of `<Corpus>/<task>`."""
    path = ROOT / "recipes" / recipe / "train.py"
    spec = importlib.util.spec_from_file_location(recipe.replace("/", "_") + "_train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    run(main)
