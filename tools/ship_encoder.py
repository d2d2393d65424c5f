"""Put the encoder of a finished pretraining run into the package, in half precision, with its model card.

    python tools/ship_encoder.py recipes/LibriSpeech/SSL/results/sm-tiny/1 sm-tiny \\
        --licence "CC BY 4.0" --result RUN [RUN ...] --limits "..."

`--result` names finished runs on the encoder, whose figures the card shall give: `result.json` files or their folders.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lobes.evaluation import read_result
from lobes.export import WEIGHTS_FOLDER, ModelCard, load_encoder, save_encoder
from lobes.training import run


def figure(result: dict[str, Any]) -> str:
    """One result as a line of Markdown."""
    metric = result["metric"]
    interval = f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f}"
    return (
        f"- {result['data_name']}, {result['system']}: {metric['name']} {100 * metric['value']:.1f} % "
        f"(95 % interval {interval})"
    )


def main() -> None:
    """Load, halve, describe, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of the pretraining")
    parser.add_argument("name", help="what load_encoder will know it by")
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--result", nargs="*", type=Path, default=[], help="results to quote")
    parser.add_argument("--limits", required=True, help="what it is not for")
    options = parser.parse_args()
    pretraining = read_result(options.run)
    manifests = {"train": options.run / "manifests" / "train.csv"}
    card = ModelCard.of_run(pretraining, manifests)
    card = replace(
        card,
        name=options.name,
        licence=f"Of the weights: {options.licence}.\n\n{card.licence}",
        figures="\n".join([*map(figure, map(read_result, options.result)), "", card.figures]),
        limits=options.limits,
    )
    text = (options.run / "encoder" / "hyperparams.yaml").read_text(encoding="utf-8")
    print(save_encoder(load_encoder(options.run), WEIGHTS_FOLDER / options.name, text, half=True, card=card))


if __name__ == "__main__":
    run(main)
