"""The main job, end to end, offline: generate speech, pretrain two encoders, probe them beside honest controls, report.

    python tools/demo.py [--folder results/demo] [--fresh]

Stop it whenever you like: run again, it goes on where it was. It runs the recipes in recipes/MiniFrench as they are.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lobes.evaluation import cer, paired_bootstrap, read_result, write_report
from lobes.training import run

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "MiniFrench"
#: What is compared: name -> (SSL run or shipped encoder, whether its weights stay random).
SYSTEMS = {
    "pretrained SummaryMixing": ("SummaryMixing", False),
    "pretrained SDPA": ("SDPA", False),
    "untrained SummaryMixing": ("SummaryMixing", True),
    "untrained SDPA": ("SDPA", True),
    "log-mel": ("logmel-40-25hz", False),  # the encoder's own 40 bands
}
CONTROLS = ("untrained {}", "log-mel")


def recipe(task: str) -> ModuleType:
    """Load recipes/MiniFrench/<task>/train.py."""
    path = RECIPES / task / "train.py"
    spec = importlib.util.spec_from_file_location(f"minifrench_{task.lower()}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stage(title: str, folder: Path, work: Callable[[], None]) -> dict[str, Any]:
    """Do a piece of work that ends by writing ``result.json``, unless it was done before."""
    started = time.monotonic()
    done = (folder / "result.json").is_file()
    print(f"== {title}{': done before' if done else ''}", flush=True)
    if not done:
        work()
        print(f"   {time.monotonic() - started:.0f} s", flush=True)
    return read_result(folder)


def pretrain(mixer: str, folder: Path) -> None:
    """Run recipes/MiniFrench/SSL."""
    hparams = {"SummaryMixing": "tiny.yaml", "SDPA": "tiny_sdpa.yaml"}[mixer]
    recipe("SSL").main([f"hparams/{hparams}", f"--output_folder={folder}"])


def probe(system: str, folder: Path, encoder: str, untrained: bool) -> None:
    """Run recipes/MiniFrench/ASR with a frozen encoder."""
    options = {
        "encoder": encoder,
        "untrained": untrained,
        "normalize_layers": system != "log-mel",
        "name": system,
        "output_folder": folder,
    }
    recipe("ASR").main(["hparams/linear.yaml", *(f"--{key}={value}" for key, value in options.items())])


def differences(results: dict[str, dict[str, Any]]) -> list[str]:
    """Pretrained minus control, in points of character error rate, with paired intervals."""
    lines = []
    for system in (name for name in results if name.startswith("pretrained")):
        for template in CONTROLS:
            control = template.format(system.removeprefix("pretrained "))
            found = paired_bootstrap(results[system]["records"], results[control]["records"], cer)
            points = ", ".join(f"{100 * edge:+.1f}" for edge in (found.low, found.high))
            lines.append(f"{system} minus {control}: {100 * found.difference:+.1f} points [{points}]")
    return lines


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as text."""
    lines = [f"{'':26}{'CER %':>7}  {'95 % interval':15}{'WER %':>7}{'M MACs/s':>10}{'pretrained on':>16}"]
    for name, result in results.items():
        metric, cost = result["metric"], result["cost"]
        heard = f"{result['pretraining_hours']:.1f} h" if result.get("pretraining_hours") else "-"
        interval = f"[{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"
        lines.append(
            f"{name:26}{100 * metric['value']:7.1f}  {interval:15}{100 * result['other_metrics']['wer']:7.1f}"
            f"{cost['macs_per_second'] / 1e6:10.0f}{heard:>16}"
        )
    return "\n".join(lines)


def report(folder: Path, results: dict[str, dict[str, Any]], notes: list[str]) -> Path:
    """Write report.html."""
    weights = {
        name: [float(weight) for weight in result["notes"].removeprefix("layer weights ").split()]
        for name, result in results.items()
        if name != "log-mel"
    }
    return write_report(
        folder / "report.html",
        title="Two small encoders, pretrained on generated French",
        summary=(
            "Two encoders of 0.7 million parameters, one with SummaryMixing and one with attention, were pretrained "
            "with BEST-RQ, for a minute or two each, on half an hour of generated French speech without its text. Then "
            "one linear layer was trained with CTC on six minutes of transcribed speech, on each encoder with its "
            "weights frozen, on the same encoders before any pretraining, and on log-mel features; it is tested on "
            "speakers and sentences that none of them has heard."
        ),
        results=list(results.values()),
        curves={mixer: folder / "ssl" / mixer / "train_log.csv" for mixer in ("SummaryMixing", "SDPA")},
        curve_unit="nats",
        layer_weights=weights,
        notes=["Differences over the same utterances, with paired intervals:", *notes],
        commands=["make demo"],
    )


def main() -> None:
    """Run every stage that is not done yet, then print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/demo"), help="where everything goes")
    parser.add_argument("--fresh", action="store_true", help="begin again")
    options = parser.parse_args()
    folder, started = options.folder.resolve(), time.monotonic()
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"About five minutes on two cores; everything goes to {options.folder}. Ctrl-C and run again: it goes on.")
    pretrained = {
        mixer: stage(f"pretrain {mixer}", folder / "ssl" / mixer, partial(pretrain, mixer, folder / "ssl" / mixer))
        for mixer in ("SummaryMixing", "SDPA")
    }
    results = {}
    for system, (source, untrained) in SYSTEMS.items():
        encoder = str(folder / "ssl" / source) if source in pretrained else source
        target = folder / "asr" / system.replace(" ", "-")
        results[system] = stage(f"probe {system}", target, partial(probe, system, target, encoder, untrained))
        if system.startswith("pretrained"):
            results[system]["pretraining_hours"] = pretrained[source]["cost"]["audio_hours"]
    notes = differences(results)
    print("\nFrench characters, generated speech, unheard speakers and sentences\n" + table(results))
    print("\n" + "\n".join(notes))
    print(f"\n{report(folder, results, notes)}\n{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    run(main)
