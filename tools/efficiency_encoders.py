"""What a whole encoder costs: a training step, and in use memory, time, streaming, export. One process each.

A part of `tools/efficiency.py`. The audio is noise, which costs what speech costs. Training is a BEST-RQ step on a
minute of audio in clips of one length, so that no padding is computed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lobes.encoders import Encoder, StreamingEncoder
from lobes.errors import LobesError
from lobes.evaluation.cost import Energy, PeakMemory, time_in_turns
from lobes.mixers import Chunks

TYPICAL = 20.0  # seconds, where one length stands for all
STREAMED = 20.0  # seconds


def load_encoder(path: str | Path) -> Encoder:
    """Build the encoder that a YAML file describes, with fresh weights, the same each time."""
    from lobes.training import load_part

    torch.manual_seed(0)
    return load_part(path)


def checksum(path: str | Path) -> str:
    """Tell one content of a file, its bases included, from another."""
    from lobes.training import HparamsFile

    return hashlib.sha256(HparamsFile(path).text.encode()).hexdigest()[:12]


def item_name(path: str | Path) -> str:
    """Its size and its name: ``base/sdpa`` of ``hparams/encoders/base/sdpa.yaml``."""
    path = Path(path)
    return path.stem if path.parent.name in ("", "encoders") else f"{path.parent.name}/{path.stem}"


def is_of(row: dict[str, Any], path: str) -> bool:
    """Whether a row was measured on what the file holds now."""
    return row["name"] == item_name(path) and row["checksum"] == checksum(path)


def plan(path: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The jobs of one encoder, each for a process of its own."""
    job = {"level": "encoders", "path": path, **settings}
    parts = [job | {"part": part, "what": part} for part in ("facts", "train", "stream", "export")]
    return parts + [
        job | {"part": "use", "what": f"{seconds} s", "audio_seconds": seconds} for seconds in settings["audio"]
    ]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job of `plan`."""
    part = {"facts": facts, "train": train, "stream": stream, "export": export, "use": use}[job["part"]]
    return part(job)


def facts(job: dict[str, Any]) -> dict[str, Any]:
    """What needs no clock."""
    encoder = load_encoder(job["path"])
    return {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "fp32_bytes": sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values()),
        "macs_per_second": encoder.macs(TYPICAL) / TYPICAL,
        "frame_rate": encoder.frame_rate,
        "state_bytes": 4 * encoder.state_floats(),
    }


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Steps of BEST-RQ: features, targets, masks, encoder, loss, backward, clipping, AdamW."""
    device, clip_seconds = job["device"], job["clip_seconds"]
    n_clips = round(job["batch_seconds"] / clip_seconds)
    # What is loaded when something is used for the first time is nobody's memory.
    _trainer(job["path"], 1, 1.0, device)()
    with PeakMemory(device) as memory:
        step = _trainer(job["path"], n_clips, clip_seconds, device)
        step()
        step()  # AdamW's moments come with the first step
    with Energy(device) as energy:
        times = time_in_turns({"step": step}, job["rounds"], job["seconds"], device=device)["step"]
    heard = n_clips * clip_seconds
    return {
        "step_ms": 1000 * times.best,
        "step_median_ms": 1000 * times.median,
        "runs": len(times.seconds),
        "audio_per_second": heard / times.best,
        "memory_mb": memory.mb,
        "padding_share": 0.0,
        "joules_per_audio_second": energy.joules and energy.joules / (heard * len(times.seconds)),
        "energy_source": energy.source,
    }


def _trainer(path: str, n_clips: int, seconds: float, device: str) -> Callable[[], None]:
    """A new encoder's training step on so many clips."""
    from lobes.objectives import BestRQ, SSLModel

    encoder = load_encoder(path)
    model = SSLModel(encoder, BestRQ(encoder)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    audio = _noise(n_clips, seconds, encoder.sample_rate, device)
    batch = SimpleNamespace(id=[str(n) for n in range(n_clips)], sig=audio, step=0)

    def step() -> None:
        model(batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def use(job: dict[str, Any]) -> dict[str, Any]:
    """One recording from audio to frames: memory with the encoder's weights, and seconds per second of audio."""
    device, seconds = job["device"], job["audio_seconds"]
    _user(job["path"], 1.0, device)()
    with PeakMemory(device) as memory:
        run = _user(job["path"], seconds, device)
        run()
    times = time_in_turns({"run": run}, job["rounds"], job["seconds"], device=device)["run"]
    return {
        "audio_seconds": seconds,
        "best_ms": 1000 * times.best,
        "median_ms": 1000 * times.median,
        "runs": len(times.seconds),
        "real_time_factor": times.best / seconds,
        "memory_mb": memory.mb,
    }


def _user(path: str, seconds: float, device: str) -> Callable[[], None]:
    """A new encoder's pass over one recording."""
    encoder = load_encoder(path).to(device).eval()
    audio, lengths = _noise(1, seconds, encoder.sample_rate, device)

    def run() -> None:
        with torch.inference_mode():
            encoder(audio, lengths)

    return run


def stream(job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of computation for each chunk of a stream."""
    encoder = load_encoder(job["path"]).to(job["device"])
    own_features = encoder.features.streamable
    if not own_features:
        encoder.features.normalise = "running"
    size = round(job["chunk_seconds"] * encoder.frame_rate)
    size = max(encoder.granularity, size // encoder.granularity * encoder.granularity)
    samples = round(size / encoder.frame_rate * encoder.sample_rate)
    try:
        running = StreamingEncoder(encoder, Chunks(size))
    except LobesError as error:
        return {"status": f"cannot stream: {_first_part(error)}"}
    audio = _noise(1, max(STREAMED, 5 * samples / encoder.sample_rate), encoder.sample_rate, job["device"])[0][0]
    pieces = iter(audio.split(samples))
    running.feed(next(pieces))
    rounds = len(audio) // samples - 1
    times = time_in_turns(
        {"chunk": lambda: running.feed(next(pieces))}, rounds, job["seconds"], least=3, device=job["device"]
    )["chunk"].seconds
    return {
        "status": "streams" if own_features else "streams with features normalised by running statistics",
        "chunk_frames": size,
        "chunk_audio_ms": 1000 * samples / encoder.sample_rate,
        "chunk_median_ms": 1000 * statistics.median(times),
        "chunk_worst_ms": 1000 * max(times),
        "chunks": len(times),
    }


def export(job: dict[str, Any]) -> dict[str, Any]:
    """ONNX files in float and int8, on the CPU: bytes, seconds per second of audio, and how far they are off."""
    try:
        for package in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(package)
        from lobes.export import OnnxEncoder, export_onnx, quantise_onnx, verify_onnx
    except ImportError as error:
        return {"status": f"not measured: {error}; pip install 'lobes[export]'"}
    encoder = load_encoder(job["path"])
    seconds = min(job["audio"], key=lambda length: abs(length - TYPICAL))
    audio, lengths = _noise(1, seconds, encoder.sample_rate, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        try:
            exported = export_onnx(encoder, whole)
            quantise_onnx(whole, small)
        except LobesError as error:
            return {"status": f"does not export: {_first_part(error)}"}
        int8 = verify_onnx(encoder, small)
        models = {name: OnnxEncoder(path, job["threads"]) for name, path in (("onnx", whole), ("int8", small))}
        runs = {name: functools.partial(model, audio, lengths) for name, model in models.items()}
        times = time_in_turns(runs, job["rounds"], job["seconds"])
    return {
        "status": "ONNX",
        "audio_seconds": seconds,
        "onnx_bytes": exported.bytes,
        "onnx_difference": exported.error,
        "onnx_real_time_factor": times["onnx"].best / seconds,
        "int8_bytes": int8.bytes,
        "int8_difference": int8.typical["frames"],
        "int8_real_time_factor": times["int8"].best / seconds,
    }


def _first_part(error: LobesError) -> str:
    # What could be built instead stands behind it, and is too long for a table.
    return str(error).split(";")[0]


def _noise(n_clips: int, seconds: float, sample_rate: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(n_clips, round(seconds * sample_rate), generator=generator)
    return audio.to(device), torch.ones(n_clips, device=device)


def assemble(path: str, jobs: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table from the jobs of `plan` and what each gave."""
    row: dict[str, Any] = {"name": item_name(path), "path": path, "checksum": checksum(path), "use": []}
    for job, result in zip(jobs, results, strict=True):
        if job["part"] == "use":
            row["use"].append({"audio_seconds": job["audio_seconds"]} | result)
        else:
            row[job["part"]] = result
    return row
