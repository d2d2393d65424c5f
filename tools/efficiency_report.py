"""The tables of `tools/efficiency.py`, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import efficiency_layers as layers
from efficiency_encoders import TYPICAL

from lobes.evaluation.tables import quantity

NONE = "–"


def write(document: dict[str, Any], path: Path) -> list[Path]:
    """Write the table of a document beside its JSON; return what was written."""
    table = path.with_suffix(".md")
    body = {"layers": layers_report, "encoders": encoders_report}[document["level"]](document)
    table.write_text(f"{heading(document)}\n\n{body}\n", encoding="utf-8")
    return [table]


def heading(document: dict[str, Any]) -> str:
    """Where the figures come from, before any of them."""
    about, settings = document["about"], document["settings"]
    dates = sorted({row["date"] for row in document["rows"]})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    threads = f"{settings['threads']} thread" + "s" * (settings["threads"] > 1)
    machine = about["gpu"] or f"{about['hardware']['processor']}, {threads} of {about['hardware']['cores']} cores"
    return (
        f"# Efficiency: {document['level']}\n\nOn {machine}, torch {about['packages']['torch']}, float32, {when}; the "
        f"last rows by:\n\n```sh\n{about['command']}\n```"
    )


def layers_report(document: dict[str, Any]) -> str:
    """What the figures are, the table, and what falls short."""
    settings, rows = document["settings"], document["rows"]
    lengths, train_frames = settings["lengths"], settings["train_frames"]
    titles = ["mixer", "parameters", f"MACs at {train_frames}", *(f"ms at {n}" for n in lengths)]
    titles += [f"MB at {n}" for n in lengths] + [f"training at {train_frames}: ms", "MB", "state", "can", "verdict"]
    cells = [_layer_cells(row, lengths) for row in rows]
    clock = "CPU time" if settings["device"] == "cpu" and settings["threads"] == 1 else "time"
    speeds = ", ".join(f"{ratio:g}× SDPA at {n}" for n, ratio in layers.REQUIRED_SPEED.items())
    first, last, least, most = layers.LINEAR_MEMORY
    return "\n".join(
        [
            f"One pre-norm layer (LayerNorm, mixer; LayerNorm, feed-forward of {4 * settings['dim']}) of width "
            f"{settings['dim']}, one utterance. Milliseconds of {clock}: the best run (the median), and how many times "
            "as fast as SDPA, which takes turns with each mixer in the same process, best against best. The row of "
            "SDPA itself shows the noise. MB: growth of the peak over an idle layer, in a fresh process, 10⁶ bytes. "
            "Parameters, MACs (multiply-accumulates) and state (numbers kept of a stream) are the mixer's alone; "
            "\\* the counter of PyTorch does not see fused attention and Fourier transforms on a CPU, so these were "
            "counted from shapes; ≠ shows a count that is not what the mixer says.",
            "",
            f"Required of linear mixers: {speeds} (SSD in plain PyTorch exempt), none more than 10 % slower at 1000, "
            f"memory growing {least:g}× to {most:g}× from {first} to {last}.",
            "",
            *_table(titles, cells),
        ]
    )


def _layer_cells(row: dict[str, Any], lengths: Sequence[int]) -> list[str]:
    by_length = {figures["frames"]: figures for figures in row["forward"]}
    times = [_time(by_length.get(n)) for n in lengths]
    memory = [_number(by_length.get(n), "memory_mb") for n in lengths]
    train = row["train"]
    able = ", ".join(row.get("abilities", ())).replace("streamable", "stream").replace("exportable", "export")
    state = quantity(row["state_floats"]) if row.get("state_floats") else NONE
    return [
        row["name"],
        quantity(row["parameters"]) if "parameters" in row else NONE,
        _macs(row),
        *times,
        *memory,
        _time(train),
        _number(train, "memory_mb"),
        state,
        able or NONE,
        "; ".join(row["verdict"]) or "meets all",
    ]


def _macs(row: dict[str, Any]) -> str:
    if "macs" not in row:
        return NONE
    by_hand = " \\*" if row["macs_by_hand"] else ""
    if row["macs"] == row["macs_counted"]:
        return quantity(row["macs"]) + by_hand
    return f"{quantity(row['macs'])} ≠ {quantity(row['macs_counted'])} counted{by_hand}"


def _time(figures: dict[str, Any] | None) -> str:
    if not figures or "error" in figures:
        return figures["error"] if figures else NONE
    ratio = f" {figures['ratio']:.2f}×" if "ratio" in figures else ""
    return f"{_short(figures['best_ms'])} ({_short(figures['median_ms'])}){ratio}"


def _number(figures: dict[str, Any] | None, name: str) -> str:
    return _short(figures[name]) if figures and figures.get(name) is not None else NONE


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.3g}"


def encoders_report(document: dict[str, Any]) -> str:
    """Three tables: what an encoder is and costs to train, what it costs in use, and what it is as a file."""
    settings, rows = document["settings"], document["rows"]
    audio = settings["audio"]
    made = ["encoder", "parameters", "fp32 MB", "MACs per s", "train: audio s per s", "MB", "J per audio s"]
    used = ["encoder", *(f"RTF at {n} s" for n in audio), *(f"MB at {n} s" for n in audio)]
    used += ["state KB", "ms per chunk: median (worst)", "stream"]
    shipped = ["encoder", "export", "ONNX MB", "int8 MB", "ONNX RTF", "int8 RTF", "int8 off by"]
    batch, clip = settings["batch_seconds"], settings["clip_seconds"]
    return "\n".join(
        [
            f"Training: a BEST-RQ step (AdamW) on {batch} s of noise in clips of {clip} s, so without padding; MB: "
            "growth of the peak with weights, gradients and moments, 10⁶ bytes, in a fresh process. Energy is measured "
            "where NVML or CodeCarbon is installed.",
            "",
            *_table(made, [_made_cells(row) for row in rows]),
            "",
            "Use: one recording of noise, from audio to frames. RTF (real-time factor): seconds of computation per "
            "second of audio, the best run. MB: growth of the peak with the weights. A chunk is "
            f"{1000 * settings['chunk_seconds']:g} ms of audio, or the nearest that the encoder can.",
            "",
            *_table(used, [_used_cells(row, audio) for row in rows]),
            "",
            "Shipped: ONNX Runtime on the CPU, float and int8 in turns, on the recording nearest to "
            f"{TYPICAL:g} s. Off by: root mean square difference from PyTorch's frames, of their standard deviation, "
            "with weights that were not trained.",
            "",
            *_table(shipped, [_shipped_cells(row) for row in rows]),
        ]
    )


def _made_cells(row: dict[str, Any]) -> list[str]:
    facts, train = row["facts"], row["train"]
    if "error" in facts:
        return [row["name"], facts["error"], *[NONE] * 5]
    return [
        row["name"],
        quantity(facts["parameters"]),
        _short(facts["fp32_bytes"] / 1e6),
        quantity(facts["macs_per_second"]),
        train.get("error") or _short(train["audio_per_second"]),
        _number(train, "memory_mb"),
        _number(train, "joules_per_audio_second") if train.get("joules_per_audio_second") else "not measured",
    ]


def _used_cells(row: dict[str, Any], audio: Sequence[int]) -> list[str]:
    use = {figures["audio_seconds"]: figures for figures in row["use"]}
    stream = row["stream"]
    runs = [use.get(n, {}) for n in audio]
    factors = [
        run.get("error") or (f"{run['real_time_factor']:.2g}" if "real_time_factor" in run else NONE) for run in runs
    ]
    chunk = f"{_short(stream['chunk_median_ms'])} ({_short(stream['chunk_worst_ms'])})" if "chunks" in stream else NONE
    return [
        row["name"],
        *factors,
        *(_number(run, "memory_mb") for run in runs),
        _short(row["facts"]["state_bytes"] / 1e3) if row["facts"].get("state_bytes") else NONE,
        chunk,
        stream.get("error") or stream["status"],
    ]


def _shipped_cells(row: dict[str, Any]) -> list[str]:
    export = row["export"]
    if "int8_bytes" not in export:
        return [row["name"], export.get("error") or export["status"], *[NONE] * 5]
    return [
        row["name"],
        export["status"],
        _short(export["onnx_bytes"] / 1e6),
        _short(export["int8_bytes"] / 1e6),
        f"{export['onnx_real_time_factor']:.2g}",
        f"{export['int8_real_time_factor']:.2g}",
        f"{100 * export['int8_difference']:.1f} %",
    ]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(titles) + " |", "|" + "|".join("---" for _ in titles) + "|"]
    return lines + [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
