"""Find calls in recordings of any length, rate and format with a trained detector.

    python detect.py model/ recordings/ --out out/
    python detect.py model/ night.wav --out out/ --threshold 0.7 --threads 4
    python detect.py model/ recordings/ --out out/ --names "{recorder}/{date}_{time}" --channel 1

It needs constant memory, and can be stopped and started again: files that are done are not gone through again, unless
the file, the model or an option has changed, and the one in which it was stopped goes on where its scores were kept
last, as they are after every --keep_minutes of audio. Files that cannot be read are skipped and named in
out/skipped.csv. What it writes, below --out:

    index.html                    what was found, to look at, listen to, and mark as right or wrong
    detections.selections.txt     one selection table for Raven over all files; raven/ has one for each
    detections.csv                the same for everything else; audacity/ has labels for Audacity
    calls_per_hour.csv, .svg      calls by recorder and clock hour, and how much was recorded
    files.csv, skipped.csv        every file: its recorder, start, length, calls and faults
"""

from __future__ import annotations

import argparse

import torch

from lobes.detection import DetectionOptions, detect_folder
from lobes.training import run


def main() -> None:
    """Detect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = DetectionOptions()
    parser.add_argument("model", help="folder of a detector, as train.py writes it")
    parser.add_argument("recordings", help="folder of recordings, at any depth, or one file")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--threshold", type=float, help="score that a call must reach; default: each class' own")
    parser.add_argument("--channel", type=int, help="channel, counted from 1; default: the mean of all")
    parser.add_argument("--names", default=default.name_pattern, help=f"default: {default.name_pattern}")
    parser.add_argument("--review", type=int, default=default.review, help="detections on the page, at most; 0: none")
    parser.add_argument("--batch_size", type=int, default=default.batch_size, help="windows that are encoded at once")
    parser.add_argument(
        "--keep_minutes",
        type=float,
        default=default.keep_minutes,
        help="audio after which scores are kept; default: 30",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: all cores")
    parser.add_argument("--device", default=default.device, help="cpu or cuda")
    given = parser.parse_args()
    torch.set_num_threads(max(given.threads, 1))
    options = DetectionOptions(
        channel=None if given.channel is None else given.channel - 1,
        threshold=given.threshold,
        name_pattern=given.names,
        batch_size=given.batch_size,
        device=given.device,
        review=given.review,
        keep_minutes=given.keep_minutes,
    )
    print(detect_folder(given.model, given.recordings, given.out, options))


if __name__ == "__main__":
    run(main)
