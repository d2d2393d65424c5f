"""The true cost of every mixer and encoder: JSON, a table and pictures, from one command.

    python tools/efficiency.py                          # layers and encoders (half an hour, and minutes per encoder)
    python tools/efficiency.py layers --mixers SDPA "SummaryMixing merged" --lengths 1000 4000
    python tools/efficiency.py encoders --encoders hparams/encoders/tiny/*.yaml
    python tools/efficiency.py --quality results.csv    # also quality against cost, with intervals
    python tools/efficiency.py --publish docs/efficiency

`layers` measures one pre-norm layer of width 512 with each mixer at several lengths, on one utterance. Every mixer
takes turns with fused attention (SDPA) in the same process, and its ratio is the one to that: machines are noisy,
ratios are less so. `encoders` measures what YAML files describe: training, use, streaming, export.

Every row is measured in fresh processes of limited memory, so that an error or too little memory costs that row alone,
and written at once: run the command again to go on. Rows that are there are kept, but for those of a mixer with other
options or an encoder whose file changed; after changing code say --again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import efficiency_encoders
import efficiency_layers
import efficiency_plots
import efficiency_report
import torch
from tqdm import tqdm

from lobes.errors import ConfigError, DataError, LobesError
from lobes.evaluation.cost import is_out_of_memory, limit_memory
from lobes.evaluation.provenance import git_state, hardware, package_versions, portable_command

ROOT = Path(__file__).resolve().parent.parent
OUT_OF_MEMORY = "out of memory"
MODULES: dict[str, Any] = {"layers": efficiency_layers, "encoders": efficiency_encoders}
SIZES: dict[str, dict[str, Any]] = {
    "layers": {"dim": 512, "lengths": [250, 1000, 4000, 16000], "train_frames": 1000},
    "encoders": {"audio": [5, 20, 80, 320], "clip_seconds": 15, "batch_seconds": 60, "chunk_seconds": 0.64},
}
QUICK: dict[str, dict[str, Any]] = {
    "layers": {"dim": 64, "lengths": [32, 128], "train_frames": 64},
    "encoders": {"audio": [1, 2], "clip_seconds": 1, "batch_seconds": 2, "chunk_seconds": 0.32},
}


def worker(job: dict[str, Any]) -> None:
    """Measure in this process, which was made for it, and print what came of it as a line of JSON."""
    torch.set_num_threads(job["threads"])
    try:
        if job["device"] == "cpu":
            limit_memory(job["max_gb"])
        result = MODULES[job["level"]].measure(job)
    except Exception as error:  # whatever stops a mixer is a row, not the end of the table
        reason = str(error).splitlines() or [""]
        result = {"error": OUT_OF_MEMORY if is_out_of_memory(error) else f"{type(error).__name__}: {reason[0]}"}
    print(json.dumps(result))


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run `worker` in a fresh process; `{"error": ...}` if it ends in any other way than with a result."""
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0 and done.stdout.strip():
        return json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    # Linux kills with signal 9 what takes the last of the memory; C++ gives up with bad_alloc.
    starved = done.returncode == -9 or is_out_of_memory(RuntimeError(done.stderr))
    return {"error": OUT_OF_MEMORY if starved else said[0]}


def errors(row: Any) -> list[str]:
    """All errors in a row."""
    if isinstance(row, list):
        return [error for value in row for error in errors(value)]
    if not isinstance(row, dict):
        return []
    return [row["error"]] if "error" in row else [error for value in row.values() for error in errors(value)]


def open_document(path: Path, level: str, settings: dict[str, Any], again: bool) -> dict[str, Any]:
    """What was measured before with the same settings, or an empty document.

    Raises
    ------
    ConfigError
        If the file's settings are others: its rows could not stand beside new ones.
    """
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if document is None or again and document["settings"] != settings:
        return {"level": level, "settings": settings, "rows": []}
    before = document["settings"]
    other = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if other:
        there, here = (", ".join(f"{key} {values.get(key)}" for key in other) for values in (before, settings))
        raise ConfigError(
            f"{path}: measured with {there}, expected {here}; choose another --out, or say --again to start anew"
        )
    return document


def fill(document: dict[str, Any], items: Sequence[Any], path: Path, again: bool) -> None:
    """Measure the items of which there is no row yet, writing the document after each."""
    module, settings = MODULES[document["level"]], document["settings"]
    kept = [
        item
        for item in items
        for row in document["rows"]
        if not again and module.is_of(row, item) and not set(errors(row)) - {OUT_OF_MEMORY}
    ]
    plans = {module.item_name(item): (item, module.plan(item, settings)) for item in items if item not in kept}
    with tqdm(total=sum(len(jobs) for _, jobs in plans.values()), unit="job", disable=None) as bar:
        for name, (item, jobs) in plans.items():
            results = []
            for job in jobs:
                bar.set_description(f"{name}, {job['what']}")
                results.append(run_job(job))
                bar.update()
            row = module.assemble(item, jobs, results) | {"date": datetime.date.today().isoformat()}
            document["rows"] = list(({old["name"]: old for old in document["rows"]} | {name: row}).values())
            document["about"] = about(settings["device"])
            write(path, document)


def about(device: str) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "command": portable_command(),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "packages": package_versions(),
        **git_state(),
    }


def write(path: Path, document: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def settings_of(level: str, options: argparse.Namespace, device: str) -> dict[str, Any]:
    """All that figures depend on beside the item."""
    settings = dict((QUICK if options.quick else SIZES)[level])
    if level == "layers" and options.lengths:
        settings["lengths"] = sorted(options.lengths)
    if level == "encoders" and options.audio:
        settings["audio"] = sorted(options.audio)
    limits = {"rounds": 2, "seconds": 0.2} if options.quick else {"rounds": options.rounds, "seconds": options.seconds}
    machine = {"processor": hardware()["processor"], "torch": torch.__version__}
    return settings | limits | machine | {"device": device, "threads": options.threads, "max_gb": options.max_gb}


def items_of(level: str, options: argparse.Namespace) -> list[Any]:
    """What to measure."""
    if level == "encoders":
        return options.encoders or sorted(os.path.relpath(p) for p in (ROOT / "hparams/encoders").glob("*/*.yaml"))
    variants = {variant.name.lower(): variant for variant in efficiency_layers.available_variants()}
    unknown = [name for name in options.mixers or () if name.lower() not in variants]
    if unknown:
        known = ", ".join(variant.name for variant in variants.values())
        raise ConfigError(f"--mixers: there is no '{unknown[0]}'; expected some of {known}")
    return [variants[name.lower()] for name in options.mixers] if options.mixers else list(variants.values())


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("levels", nargs="*", metavar="level", help="layers, encoders; both by default")
    parser.add_argument("--mixers", nargs="+", help="names as in the table; default: all that there are")
    parser.add_argument("--encoders", nargs="+", metavar="YAML", help="default: hparams/encoders/*/*.yaml")
    parser.add_argument("--lengths", type=int, nargs="+", help="frames of the layers' input; default 250 to 16000")
    parser.add_argument("--audio", type=int, nargs="+", help="seconds of the encoders' input; default 5 to 320")
    parser.add_argument("--rounds", type=int, default=20, help="how often a mixer and SDPA take turns, at most")
    parser.add_argument("--seconds", type=float, default=6.0, help="no round begins later, but for the first two")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), default=devices)
    parser.add_argument("--max-gb", type=float, default=12.0, help="memory of a process on the CPU, 10^9 bytes")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that all works; the figures say little"
    )
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    parser.add_argument("--out", type=Path, default=Path("results/efficiency"))
    parser.add_argument("--quality", type=Path, help="csv with system (as in the tables), value, low, high; metric")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="copy JSON, tables and pictures there as well")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    unknown = set(options.levels) - set(MODULES)
    if unknown:
        parser.error(f"level is {unknown.pop()!r}; expected layers or encoders")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 if it was not given right."""
    options = parse(argv)
    if options.worker:
        worker(json.loads(options.worker))
        return 0
    try:
        written = []
        for device in options.devices:
            for level in options.levels or MODULES:
                path = options.out / f"{level}{'' if device == 'cpu' else '-' + device}.json"
                document = open_document(path, level, settings_of(level, options, device), options.again)
                fill(document, items_of(level, options), path, options.again)
                if document["rows"]:
                    written += [path, *efficiency_report.write(document, path)]
                    written += efficiency_plots.write(document, path, options.quality)
        if options.quality and not any(path.stem.endswith("-quality") for path in written):
            raise DataError(
                f"--quality {options.quality}: none of its systems was measured; expected names as in the tables"
            )
    except LobesError as error:
        print(error, file=sys.stderr)
        return 2
    for path in written:
        if options.publish:
            options.publish.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, options.publish / path.name)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
