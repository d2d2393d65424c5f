"""Students of HuBERT-base, as large and as fast as the papers have them: parameters, multiply-accumulates, one thread.

    python tools/students.py                     # random weights; nothing is downloaded
    python tools/students.py --seconds 20

Equal parameters hide unequal costs: a thin student runs the teacher's whole front-end. "front-end" is its share of the
multiply-accumulates, "faster" the teacher's time over the student's. What papers published of their own stands beside.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from lobes.distillation import first_layers, thin
from lobes.encoders import HuggingFaceEncoder, PrunedEncoder
from lobes.evaluation.cost import time_in_turns
from lobes.training import run

ENCODERS = Path(__file__).resolve().parents[1] / "hparams" / "encoders"
HUBERT = {"model_type": "hubert"}  # the configuration's defaults are HuBERT-base's


class Published(NamedTuple):
    """Parameters in millions, and multiply-accumulates as a share of HuBERT-base's, as their authors counted them."""

    parameters: float | None = None
    macs: float | None = None


#: SUPERB's counter gives HuBERT-base 1669 G; the shares are of that.
PUBLISHED = {
    "HuBERT-base": Published(94.7, 1.0),
    "DistilHuBERT, two blocks": Published(23.5),
    "FitHuBERT, thin": Published(22.5),
    "ARMHuBERT, thin, maps reused": Published(22.4, 449 / 1669),
    "DPHuBERT, pruned": Published(23.6, 654 / 1669),
}


def students() -> dict[str, Callable[[], nn.Module]]:
    """What builds each of them; the first is the teacher."""
    teacher = partial(HuggingFaceEncoder, HUBERT)
    # Cut evenly to DPHuBERT's size; a pruning cuts each layer as much as it bears.
    sizes = {"heads": [2] * 12, "ffn": [560] * 12, "conv": [448] * 6 + [512]}
    return {
        "HuBERT-base": teacher,
        "DistilHuBERT, two blocks": lambda: first_layers(teacher()),
        "FitHuBERT, thin": lambda: thin(teacher()),
        "ARMHuBERT, thin, maps reused": lambda: thin(teacher(), 432, ffn=864, reuse=2),
        "DPHuBERT, pruned": partial(PrunedEncoder, HUBERT, sizes),
        "ours, SummaryMixing, base": partial(ours, "base"),
        "ours, SummaryMixing, small": partial(ours, "small"),
    }


def ours(size: str) -> nn.Module:
    """An encoder of hparams/encoders."""
    return load_hyperpyyaml(f"encoder: !include:{ENCODERS / size}.yaml")["encoder"]


def rows(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row for each student, the teacher first."""
    encoders: dict[str, Any] = {name: build().eval() for name, build in students().items()}
    waveform, lengths = 0.1 * torch.randn(1, round(16000 * seconds)), torch.ones(1)
    with torch.inference_mode():
        functions = {name: partial(encoder, waveform, lengths) for name, encoder in encoders.items()}
        times = time_in_turns(functions, rounds=rounds, seconds=600.0)
    teacher = next(iter(encoders))
    found = []
    for name, encoder in encoders.items():
        macs = encoder.macs(seconds)
        found.append(
            {
                "student": name,
                "parameters": sum(p.numel() for p in encoder.parameters()),
                "macs_per_second": macs / seconds,
                "macs_share": macs / encoders[teacher].macs(seconds),
                "front_end_share": front_end(encoder, seconds) / macs,
                "real_time_factor": times[name].best / seconds,
                "faster": times[teacher].best / times[name].best,
                "published": PUBLISHED.get(name, Published()),
            }
        )
    return found


def front_end(encoder: Any, seconds: float) -> float:
    """Multiply-accumulates before the blocks."""
    if not isinstance(encoder, HuggingFaceEncoder):
        return encoder.macs(seconds) - sum(block.macs(encoder_frames(encoder, seconds)) for block in encoder.blocks)
    config, channels, total = encoder.model.config, 1, 0
    samples = round(seconds * encoder.sample_rate)
    widths = encoder.sizes["conv"] if isinstance(encoder, PrunedEncoder) else config.conv_dim
    for kernel, stride, out in zip(config.conv_kernel, config.conv_stride, widths, strict=True):
        samples = (samples - kernel) // stride + 1
        total, channels = total + samples * kernel * channels * out, out
    return total


def encoder_frames(encoder: Any, seconds: float) -> int:
    """Frames of its blocks."""
    return round(seconds * encoder.frame_rate)


def line(row: Mapping[str, Any]) -> str:
    """A line of the table."""
    published: Published = row["published"]
    theirs = [f"{published.parameters:g}" if published.parameters else "–"]
    theirs.append(f"{published.macs:.2f}" if published.macs else "–")
    cells = [
        row["student"],
        f"{row['parameters'] / 1e6:.1f}",
        theirs[0],
        f"{row['macs_per_second'] / 1e9:.2f}",
        f"{row['macs_share']:.2f}",
        theirs[1],
        f"{100 * row['front_end_share']:.0f} %",
        f"{row['real_time_factor']:.3f}",
        f"{row['faster']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Build, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| student | M parameters | published | GMACs/s | of HuBERT's | published | front-end | real time | faster |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows(options.seconds, options.rounds):
        print(line(row))


if __name__ == "__main__":
    run(main)
