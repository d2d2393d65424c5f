"""Which tuning suits primate calls, and what does it cost? All methods of `lobes.adapters` on one encoder and corpus.

    LOBES_DATA=/corpora python tools/tuning_study.py --ssl recipes/LibriSpeech/SSL/results/SummaryMixing/1
    LOBES_DATA=/corpora python tools/tuning_study.py --ssl RUN --methods LoRA full --seeds 2 3 --curve LoRA full

--ssl is the run that pretrained the encoder on speech. Every run is one that the command of Gibbons/call_type gives,
with `tune.yaml`, its recorders in --parts parts. Runs, and what tools/retention.py measures of them, go to
results/tuning/<name of the --ssl run>; tables and pictures to docs/tuning/<the same>, and the main table into the
README there, where that has markers of the name. Run again, it goes on where it was stopped. Methods that do not fit
the encoder, such as those of attention without attention, are found out before anything runs and left out; which, and
why, is printed and stands in skipped.csv beside the tables. Learning rates are those that a method's paper or its kind
suggests, given here beforehand; none was chosen on these clips.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import retention
from hyperpyyaml import load_hyperpyyaml
from study import ROOT, train

from lobes.errors import ConfigError, LobesError
from lobes.evaluation import read_result
from lobes.evaluation.tables import put_between
from lobes.export import load_encoder
from lobes.training import run

logger = logging.getLogger(__name__)

#: Name -> what of `lobes.adapters`, learning rate, further options of the recipe.
METHODS: dict[str, tuple[str, float, tuple[str, ...]]] = {
    "probe": ("FrozenProbe", 0.0005, ()),
    "full": ("FullFineTuning", 0.0005, ()),
    "full, L2-SP": ("FullFineTuning", 0.0005, ("--control=!name:lobes.adapters.L2SP {strength: 0.1}",)),
    # The strength of L2-SP, as importance has a mean of 1.
    "full, EWC": ("FullFineTuning", 0.0005, ("--control=!name:lobes.training.ewc_pretext {run: %s, strength: 0.1}",)),
    "full, replay": ("FullFineTuning", 0.0005, ("--control=!name:lobes.training.replay_pretext {run: %s}",)),
    "BitFit": ("BitFit", 0.002, ()),
    "LayerNorm": ("LayerNormTuning", 0.002, ()),
    "LoRA": ("LoRA {rank: 8}", 0.002, ()),
    "DoRA": ("DoRA {rank: 8}", 0.002, ()),
    "Conv-LoRA": ("ConvLoRA", 0.002, ()),
    "IA3": ("IA3", 0.005, ()),
    "VeRA": ("VeRA", 0.01, ()),
    "Houlsby": ("Houlsby", 0.001, ()),
    "CHAPTER": ("CHAPTER", 0.001, ()),
    "prefix": ("PrefixTuning", 0.005, ()),
    "LLaMA-Adapter": ("LLaMAAdapter", 0.005, ()),
    "LLaMA-Adapter v2": ("LLaMAAdapterV2", 0.002, ()),
    "prompt": ("PromptTuning", 0.005, ()),
    "reprogramming": ("Reprogramming", 0.005, ()),
    # In some 200 steps no more than the root mean square of a clip of Danum, .018: what is learned cannot drown it.
    "reprogramming, small steps": ("Reprogramming", 0.0001, ()),
}


def main() -> None:
    """Run what has not been run yet, then measure what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ssl", type=Path, required=True, help="run that pretrained the encoder")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--parts", type=int, default=4, help="of the recorders, each of which is left out once")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of tune.yaml, such as epochs=10")
    parser.add_argument("--out", type=Path, help="runs and measurements; default: results/tuning/<name>")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "tuning", help="tables and pictures, in <name>")
    parser.add_argument("--curve", nargs="*", default=[], metavar="METHOD", help="to interpolate, too")
    options = parser.parse_args()
    fitting, skipped = sort_out(list(METHODS), options.ssl)
    encoder = read_result(options.ssl)["system"] if (options.ssl / "result.json").is_file() else options.ssl.name
    out, tables = options.out or ROOT / "results" / "tuning" / encoder, options.docs / encoder
    write_skipped(skipped, tables / "skipped.csv")
    failed = []
    for seed in options.seeds:
        for name in (name for name in options.methods if name in fitting):
            try:
                tune(name, seed, options.ssl.resolve(), folder_of(out, name) / str(seed), options.parts, options.set)
            except LobesError as error:  # one that fails does not stop the others
                logger.error("%s, seed %d: %s", name, seed, error)
                failed.append(f"{name}: {error}")
    done = [folder for name in METHODS for folder in sorted(folder_of(out, name).glob("*")) if finished(folder)]
    if done:
        arguments = [*map(str, done), "--ssl", str(options.ssl)]
        arguments += ["--out", str(out / "retention"), "--tables", str(tables)]
        sys.argv = ["retention.py", *arguments, *(["--curve", *options.curve] if options.curve else [])]
        table, page = retention.main(), options.docs / "README.md"
        if page.is_file() and f"<!-- {encoder} -->" in page.read_text(encoding="utf-8"):
            put_between(page, encoder, table)
    for name in (name for name in options.methods if name in skipped):
        print(f"skipped: {name}: {skipped[name]}")
    if failed:
        raise LobesError("; ".join(failed))


def folder_of(out: Path, name: str) -> Path:
    """Where the seeds of a method are."""
    return out / name.replace(", ", "-").replace(" ", "-")


def finished(folder: Path) -> bool:
    """Whether a run has come to its end, in this call or in an earlier one."""
    return (folder / "result.json").is_file()


def sort_out(names: Sequence[str], ssl: Path) -> tuple[list[str], dict[str, str]]:
    """The methods that fit the encoder, and why the others do not."""
    fitting, skipped = [], {}
    for name in names:
        adaptation = load_hyperpyyaml(f"method: !name:lobes.adapters.{METHODS[name][0]}")["method"]()
        try:
            adaptation.apply(load_encoder(ssl))
            fitting.append(name)
        except ConfigError as error:
            skipped[name] = str(error)
            logger.warning("skipped: %s: %s", name, error)
    return fitting, skipped


def write_skipped(skipped: Mapping[str, str], path: Path) -> None:
    """Write the methods that do not fit, with the reasons; no file where all do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("method", "reason"), *skipped.items()])


def tune(name: str, seed: int, ssl: Path, folder: Path, parts: int, settings: Sequence[str]) -> None:
    """Run one method with one seed."""
    method, rate, extra = METHODS[name]
    options = [f"--encoder={ssl}", f"--adaptation=!name:lobes.adapters.{method}", f"--encoder_lr={rate}"]
    options += ["--folds.split=groups at random", f"--folds.n_folds={parts}"]
    options += [option % ssl if "%s" in option else option for option in extra]
    options += [f"--{setting}" for setting in settings]
    train("Gibbons/call_type", "tune.yaml", folder, name, seed, options)


if __name__ == "__main__":
    run(main)
