"""In which band the calls of each class lie, how much of it an encoder sees, and the time expansion that would fit.

    python tools/band_report.py recordings/                      # audio files; the class is their folder's name
    python tools/band_report.py clips/ --class '([a-z.]+)_'      # the class is what matches in the file's name
    python tools/band_report.py train.csv --label call_type      # a manifest
    python tools/band_report.py tables/ --recordings recordings/ # Raven tables and other annotations of recordings
    python tools/band_report.py clips/ --encoder sm-tiny         # seen by this encoder: its rate, its lowest mel filter

The factor is for `lobes.encoders.TimeExpansion` (or `PitchShift`); 1 is none. `lobes.dataio.band_report` says how it
is measured. With `--csv FILE`, all figures are written too.
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lobes.dataio import (
    Sound,
    band_report,
    find_audio,
    read_manifest,
    sounds_of_annotations,
    sounds_of_files,
    sounds_of_manifest,
)
from lobes.dataio.annotations import load_annotations
from lobes.errors import ConfigError, DataError
from lobes.training import run


def read_sounds(sources: Sequence[Path], label: str, pattern: str, recordings: Path | None = None) -> list[Sound]:
    """What the command line names: manifests, folders and files, or annotations of recordings."""
    sounds: list[Sound] = []
    for source in sources:
        if recordings is not None:
            annotations, problems = load_annotations(source, recordings, label_column=label or None)
            for problem in problems:
                logging.warning("%s", problem)
            sounds += sounds_of_annotations(annotations)
        elif source.suffix == ".csv":
            sounds += sounds_of_manifest(read_manifest(source), label)
        elif source.is_dir():
            sounds += sounds_of_files([source / path for path in find_audio(source)])
        else:
            sounds += sounds_of_files([source])
    if not sounds:
        raise DataError(f"{', '.join(map(str, sources))}: no audio files; expected some, or a manifest (.csv)")
    return [named(sound, pattern) for sound in sounds] if pattern else sounds


def named(sound: Sound, pattern: str) -> Sound:
    """The same, of the class that a pattern finds in the file's name."""
    found = re.search(pattern, Path(sound.path).name)
    return replace(sound, label=(found.group(1) if found.groups() else found.group()) if found else "(no match)")


def lowest_band(encoder: Any) -> float:
    """Hz of the first bin that a mel filter of an encoder reads; 0 where it has none."""
    for module in encoder.modules():
        matrix = getattr(module, "mel_matrix", None)
        if matrix is not None:
            first = int((matrix > 0).any(1).nonzero()[0])
            return first / (len(matrix) - 1) * encoder.sample_rate / 2
    return 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="folders, audio files or manifests")
    parser.add_argument("--label", default="", help="column of a manifest or table that holds the class")
    parser.add_argument("--recordings", type=Path, help="folder of the recordings that the sources are annotations of")
    parser.add_argument("--class", dest="pattern", default="", help="regular expression; its first group is the class")
    parser.add_argument("--sample_rate", type=int, default=16000, help="Hz, of the model")
    parser.add_argument("--lowest", type=float, default=0.0, help="Hz, where its lowest mel filter begins")
    parser.add_argument("--encoder", help="take both from this one: what lobes.export.load_encoder takes")
    parser.add_argument("--keep_background", action="store_true", help="do not take off what is steady")
    parser.add_argument("--csv", type=Path, help="write all figures")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        re.compile(options.pattern)
    except re.error as error:
        raise ConfigError(f"--class is {options.pattern!r}: {error}; expected a regular expression") from error
    rate, lowest = options.sample_rate, options.lowest
    if options.encoder:
        from lobes.export import load_encoder

        encoder: Any = load_encoder(options.encoder, untrained=not options.encoder.endswith(".onnx"))
        rate, lowest = encoder.sample_rate, lowest_band(encoder)
    sounds = read_sounds(options.sources, options.label, options.pattern, options.recordings)
    report = band_report(tqdm(sounds, unit="sound", disable=None), rate, lowest, background=not options.keep_background)
    print(report.table())
    print(f"\nSeen: from {lowest:g} Hz to 95 % of {rate / 2:g} Hz; below: under {lowest:g} Hz.")
    print(f"Left out: {len(report.skipped)} of {len(sounds)} sounds.")
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(asdict(report.bands[0])))
            writer.writeheader()
            writer.writerows(map(asdict, report.bands))


if __name__ == "__main__":
    run(main)
