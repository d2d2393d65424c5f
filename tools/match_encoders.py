"""Write hparams/encoders/<size>/<variant>.yaml: every mixer and layout at the parameters, or the MACs, of the baseline.

    python tools/match_encoders.py            # write them
    python tools/match_encoders.py --check    # exit with 2 if a file is not what would be written
    python tools/match_encoders.py --list     # parameters and MACs of each

The baseline of a size is attention (SDPA with RoPE) in hparams/encoders/<size>.yaml. A variant keeps width and depth,
and the width of its feed-forwards makes up for what its mixer has more or less: `<variant>.yaml` has the baseline's
parameters, `<variant>_macs.yaml` its multiply-accumulates on ten seconds of audio. Where no width can do so, the file
says what is left over.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from lobes.errors import ConfigError
from lobes.training import load_part, run

FOLDER = Path(__file__).parents[1] / "hparams" / "encoders"
SECONDS = 10.0


class Size(NamedTuple):
    """What mixers need to know of a size."""

    heads: int
    head_dim: int
    rank: int
    max_frames: int


SIZES = {
    "tiny": Size(heads=4, head_dim=36, rank=32, max_frames=1024),
    "small": Size(heads=4, head_dim=64, rank=64, max_frames=1024),
    "base": Size(heads=8, head_dim=64, rank=128, max_frames=1024),
}

# Mixer class and options; {…} are the size's.
MIXERS = {
    "sdpa": ("SDPA", {"num_heads": "{heads}"}),
    "local_sdpa": ("LocalSDPA", {"num_heads": "{heads}", "window": "32"}),
    "summary_mixing": ("SummaryMixing", {"form": "merged"}),
    "summary_mixing_full": ("SummaryMixing", {"form": "full"}),
    "summary_mixing_lite": ("SummaryMixing", {"form": "lite"}),
    "luna": ("Luna", {"num_heads": "{heads}", "memory": "16"}),
    "linformer": ("Linformer", {"num_heads": "{heads}", "rank": "{rank}", "max_frames": "{max_frames}"}),
    "linear_attention": ("LinearAttention", {"num_heads": "{heads}"}),
    "fastformer": ("Fastformer", {"num_heads": "{heads}"}),
    "fnet": ("FNet", {}),
    "fnet_block": ("FNet", {"block": "32"}),
    "mlp_mixer": ("MLPMixer", {"block": "32"}),
    "hyper_mixing": ("HyperMixing", {"num_heads": "{heads}"}),
    "pom": ("PoM", {"degree": "2"}),
    "ssd": ("SSD", {"head_dim": "{head_dim}"}),
    "ssd_bidirectional": ("SSD", {"head_dim": "{head_dim}", "bidirectional": "True"}),
    "convnext": ("ConvNeXt", {"version": "1"}),
    "convnext_v2": ("ConvNeXt", {"version": "2"}),
    "cgmlp": ("ConvolutionalGating", {"expand": "4"}),
}

# Layouts: YAML below the mixer, which is SummaryMixing but for a hybrid of it and attention, and ConvNeXt's own layers.
LAYOUTS = {
    "plain": "block: !name:lobes.encoders.PlainBlock\n",
    "branchformer": "block: !name:lobes.encoders.BranchformerBlock\n",
    "u_net": "rates: {rates}\n",
    "streaming": "features:\n    normalise: running\n",
    "hybrid": "",
    "convnext_encoder": "block: !name:lobes.encoders.MixerBlock\n",
}


def main() -> None:
    """Write, check or list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--list", action="store_true", help="print a table instead of writing")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    options = parser.parse_args()
    wrong = []
    for size in options.sizes:
        for name, text in files(size).items():
            path = FOLDER / size / f"{name}.yaml"
            if options.list:
                encoder = load_part(path)
                print(f"{size} {name:28} {count(encoder):>11,} {encoder.macs(SECONDS) / SECONDS:>16,.0f} MACs/s")
            elif options.check:
                wrong += [] if path.is_file() and path.read_text(encoding="utf-8") == text else [str(path)]
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if wrong:
        raise ConfigError(f"{len(wrong)} files are not what tools/match_encoders.py writes: {', '.join(wrong[:3])}")


def files(size: str) -> dict[str, str]:
    """Text of each file of a size, by its name."""
    depth = len(load_part(FOLDER / f"{size}.yaml").blocks)
    written = {}
    for name in [*MIXERS, *LAYOUTS]:
        body = variant(name, SIZES[size], depth)
        for suffix, measure in (("", count), ("_macs", lambda encoder: encoder.macs(SECONDS))):
            written[name + suffix] = matched(size, name, body, measure, "MACs" if suffix else "parameters")
    return written


def variant(name: str, size: Size, depth: int) -> str:
    """YAML of a variant without the width of its feed-forwards."""
    if name in MIXERS:
        return f"mixer: {constructor(*MIXERS[name], size, 1)}"
    if name == "hybrid":  # one attention in four
        kinds = ["sdpa" if i % 4 == 3 else "summary_mixing" for i in range(depth)]
        return "mixer:\n" + "".join(f"    - {constructor(*MIXERS[kind], size, 2)}" for kind in kinds)
    rates = [1, 2, *[4] * (depth - 3), 2]
    mixer = "convnext" if name == "convnext_encoder" else "summary_mixing"
    return f"mixer: {constructor(*MIXERS[mixer], size, 1)}" + LAYOUTS[name].format(rates=rates)


def constructor(mixer: str, options: dict[str, str], size: Size, indent: int) -> str:
    """A `!name:` tag with its options, each on a line of its own."""
    lines = [f"{'    ' * indent}{key}: {value.format(**size._asdict())}\n" for key, value in options.items()]
    return f"!name:lobes.mixers.{mixer}\n" + "".join(lines)


def count(encoder: Any) -> int:
    """Parameters."""
    return sum(p.numel() for p in encoder.parameters())


def matched(size: str, name: str, body: str, measure: Any, what: str) -> str:
    """The file, with the hidden width (or depth) at which the encoder measures what the baseline does."""
    base = FOLDER / f"{size}.yaml"
    baseline = measure(load_part(base, variant("sdpa", SIZES[size], 1)))
    dim = load_part(base).dim
    # A layout without feed-forwards is made deeper instead.
    step, least, line = (1, 1, "depth: {0}\n") if "MixerBlock" in body else (8, 8, "ffn_factor: {1!r}  # {0} wide\n")

    def at(number: int) -> int:
        return measure(load_part(base, body + line.format(number, number / dim)))

    low, slope = at(least), (at(17 * least) - at(least)) / (16 * least)
    number = max(least, step * round((least + (baseline - low) / slope) / step))
    found = at(number)
    off = 100 * (found / baseline - 1)
    amount = f"{found / 1e6:.2f} M parameters" if what == "parameters" else f"{found / SECONDS / 1e6:.1f} M MACs/s"
    remark = "" if abs(off) < 1 else f", {off:+.0f} % from the baseline's"
    return (
        f"# {size}, {name}: {amount}{remark}. Written by tools/match_encoders.py.\n"
        f"base: ../{size}.yaml\n{body}{line.format(number, number / dim)}"
    )


if __name__ == "__main__":
    run(main)
