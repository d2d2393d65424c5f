"""The model card of a saved encoder: what it is, what it learnt from, under which licence, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lobes
from lobes.dataio.manifest import read_meta


@dataclass(frozen=True)
class ModelCard:
    """What the architecture does not say about an encoder; each field is Markdown.

    Arguments
    ---------
    name : str
        Title, and for a shipped encoder what `load_encoder` is called with.
    data : str
        What it was trained on: corpora, hours, languages.
    licence : str
        Licence of the weights, and of the audio behind them.
    command : str
        What trained it, on which machine, in what time.
    figures : str
        Results with their intervals, beside the controls.
    limits : str
        What it should not be used for, and where it fails.

    Example
    -------
    >>> from torch import nn
    >>> encoder = nn.Linear(2, 3)
    >>> print(ModelCard("tiny", data="FSDD, 1 h").markdown(encoder, "float16"))
    # tiny
    ...
    ## Data
    FSDD, 1 h
    ...
    """

    name: str = "encoder"
    data: str = "Not stated."
    licence: str = "Not stated."
    command: str = "Not stated."
    figures: str = "Not stated."
    limits: str = "Not stated."

    @classmethod
    def of_run(cls, result: Mapping[str, Any], manifests: Mapping[str, str | Path]) -> ModelCard:
        """What a finished pretraining run knows of itself.

        Arguments
        ---------
        result : dict
            Its `result.json`.
        manifests : dict
            Split -> CSV; the sidecar of ``train`` tells source, licence and hours.
        """
        meta, cost, metric = read_meta(manifests["train"]), result["cost"], result["metric"]
        generated = " Generated speech." if meta.get("generated") else ""
        interval = f"{metric['low']:.3f} to {metric['high']:.3f}"
        return cls(
            result["system"],
            data=f"{meta.get('source')}; {meta.get('hours', 0):.2f} hours without labels.{generated}",
            licence=f"Of the audio: {meta.get('licence')}.",
            command=(
                f"`{result['command']}`\n\n{cost['audio_hours']:.1f} hours of audio heard, repeats included, in "
                f"{cost['wall_seconds'] / 60:.0f} minutes; seed {result['seed']}."
            ),
            figures=(
                f"{metric['name']} {metric['value']:.3f} (95 % interval {interval}) on {result['data_name']}: "
                "how training went, not how good the features are; probe them."
            ),
        )

    def markdown(self, encoder: Any, stored_as: str) -> str:
        """Write the card.

        Arguments
        ---------
        encoder : nn.Module
            The encoder; what its contract tells (rates, widths, cost) is tabulated.
        stored_as : str
            Type of the stored weights, such as "float16".

        Returns
        -------
        str
        """
        rows = [("parameters", f"{sum(p.numel() for p in encoder.parameters()):,}"), ("stored as", stored_as)]
        if hasattr(encoder, "frame_rate"):
            rows += [
                ("input", f"mono, {encoder.sample_rate} Hz"),
                ("output", f"{encoder.dim} features at {encoder.frame_rate:g} Hz, {len(encoder.layer_dims)} layers"),
                ("cost", f"{encoder.macs(10.0) / 10e6:,.0f} million multiply-accumulates per second of audio"),
            ]
        table = "\n".join(f"| {label} | {value} |" for label, value in rows)
        sections = "\n\n".join(
            f"## {title}\n\n{text}"
            for title, text in [
                ("Data", self.data),
                ("Licence", self.licence),
                ("Training", self.command),
                ("Figures", self.figures),
                ("Limits", self.limits),
            ]
        )
        return (
            f"# {self.name}\n\nAn audio encoder, saved by lobes {lobes.__version__}.\n\n"
            "```python\nfrom lobes.export import load_encoder\n\n"
            f'encoder = load_encoder("{self.name}")  # or the path of this folder\n'
            "frames, valid, layers = encoder(waveform, lengths)\n```\n\n"
            f"| | |\n|---|---|\n{table}\n\n{sections}\n"
        )
