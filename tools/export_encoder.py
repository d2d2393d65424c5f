"""Export an encoder to ONNX in float32 and int8, check both against PyTorch, and say what they cost on one thread.

    python tools/export_encoder.py sm-tiny exported                     # encoder.onnx, encoder.int8.onnx
    python tools/export_encoder.py FOLDER exported --chunk 8 --left 64  # step.onnx, step.int8.onnx: a stream's step

The first argument is what `lobes.export.load_encoder` takes. Differences are over real frames, in standard deviations
of the encoder's output; times are the process's, the best of several turns, for 10 s of noise or one chunk. A step
begins with audio where the features stream (`normalise: running` or `False`), otherwise with features. Needs pip
install 'lobes[export]'.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lobes.evaluation.cost import time_in_turns
from lobes.export import OnnxEncoder, OnnxStep, export_onnx, export_step, load_encoder, quantise_onnx, verify_onnx
from lobes.export.graph import StepGraph
from lobes.export.onnx_report import step_example
from lobes.mixers import Chunks
from lobes.training import run

SECONDS = 10.0
Runs = dict[str, Callable[[], object]]


def whole(encoder: Any, folder: Path, layers: bool) -> tuple[dict[str, Path], float, Runs]:
    """Export for whole utterances; return the files, the seconds of audio of a run, and what runs them."""
    files = {"ONNX float32": folder / "encoder.onnx", "ONNX int8": folder / "encoder.int8.onnx"}
    export_onnx(encoder, files["ONNX float32"], layers=layers)
    quantise_onnx(*files.values())
    waveform, lengths = 0.1 * torch.randn(1, round(SECONDS * encoder.sample_rate)), torch.ones(1)
    runs: Runs = {"PyTorch float32": partial(encoder, waveform, lengths)}
    runs |= {name: partial(OnnxEncoder(path, threads=1), waveform, lengths) for name, path in files.items()}
    return files, SECONDS, runs


def step(encoder: Any, folder: Path, chunks: Chunks) -> tuple[dict[str, Path], float, Runs]:
    """Export a stream's step; return the same, for one chunk."""
    files = {"ONNX float32": folder / "step.onnx", "ONNX int8": folder / "step.int8.onnx"}
    audio = encoder.features.streamable
    export_step(encoder, files["ONNX float32"], chunks, audio=audio)
    quantise_onnx(*files.values())
    graph = StepGraph(encoder, chunks.left, audio)
    chunk, valid = step_example(encoder, chunks.size, audio, batch=1)
    runs: Runs = {"PyTorch float32": partial(graph.reference, chunk, valid, graph.init_state(1))}
    for name, path in files.items():
        model = OnnxStep(path, threads=1)
        runs[name] = partial(model, chunk, valid, model.init_state(1))
    return files, chunks.size / encoder.frame_rate, runs


def rows(encoder: Any, files: dict[str, Path], seconds: float, runs: Runs) -> list[dict]:
    """Size, time and difference of each."""
    with torch.inference_mode():
        times = time_in_turns(runs)
    stored = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    table = []
    for name in runs:
        report = verify_onnx(encoder, files[name]) if name in files else None
        table.append(
            {
                "name": name,
                "bytes": report.bytes if report else stored,
                "milliseconds": 1000 * times[name].best,
                "real_time_factor": times[name].best / seconds,
                "largest_difference": report.error if report else 0.0,
                "typical_difference": report.typical["frames"] if report else 0.0,
            }
        )
    return table


def markdown(table: list[dict], seconds: float) -> str:
    """The same for people."""
    lines = [
        f"| | MB | ms for {seconds:g} s | x real time | largest difference | typical |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in table:
        cost = f"{row['bytes'] / 1e6:.2f} | {row['milliseconds']:.2f} | {1 / row['real_time_factor']:.0f}"
        lines.append(f"| {row['name']} | {cost} | {row['largest_difference']:.1e} | {row['typical_difference']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    """Export, quantise, verify, time, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="folder, run or shipped name")
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--layers", action="store_true", help="also give the layers, for probes")
    parser.add_argument("--chunk", type=int, help="export the step of a stream in chunks of so many frames")
    parser.add_argument("--left", type=int, help="frames before its chunk that attention sees")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(options.encoder)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.chunk is None:
        files, seconds, runs = whole(encoder, options.folder, options.layers)
    else:
        files, seconds, runs = step(encoder, options.folder, Chunks(options.chunk, options.left))
    table = rows(encoder, files, seconds, runs)
    text = json.dumps({"encoder": options.encoder, "seconds": seconds, "rows": table}, indent=2)
    (options.folder / "export.json").write_text(text + "\n", encoding="utf-8")
    print(markdown(table, seconds))


if __name__ == "__main__":
    run(main)
