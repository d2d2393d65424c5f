"""Which encoders and mixers keep the contract of `tests/mixers` and `tests/encoders`: public ones beside our own.

    python tools/contract_table.py            print the table
    python tools/contract_table.py --write    write docs/contract.csv and docs/contract.md

Random weights, no downloads, about a minute. `tools/contract` has the models and the checks.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
from contract import checks, ours, public
from contract.checks import CHECKS, FAIL, NOT_OFFERED, PASS, RAISES, TOLERANCE, Found
from contract.subject import Masks, Subject
from tqdm import tqdm

Row = dict[str, str]

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLUMNS = ("library", "version", "torch", "model", "call", "check", "outcome", "difference", "note")
SUBJECTS: tuple[Subject, ...] = (*public.SUBJECTS, *ours.SUBJECTS)
MASKS: tuple[Masks, ...] = (public.SpeechBrainMasks(), ours.OurMasks())
MASKED_SHARE = "masked share"
HEADINGS = {
    "padding, zeros": "alone = padded with zeros",
    "padding, garbage": "… with garbage",
    "padding, NaN": "… with NaN",
    "batch order": "batch order",
    "causal form": "causal: future unseen",
    "chunks": "chunks: future unseen",
    "streaming": "stream = chunks",
    "export": "export",
    "1 frame": "1 frame",
    "0 frames in a batch": "0 frames, in a batch",
    "0 frames alone": "0 frames, alone",
}

PAGE = f"""\
# The contract, and who keeps it

The encoders and mixers here promise that an utterance comes out the same whatever it is batched with, that the future
is unseen where a model says so, that a stream equals the whole, and that an exported model equals the original at any
length. The same checks, put to public models:

{{table}}

A number is the largest difference over all real frames, in standard deviations of the expected output; up to
{TOLERANCE:g} passes. "–" is not offered by the model. Weights are random, as each model is born, so a number says that
this is no rounding error, not what a trained model loses. The models have two layers of width 64 and are otherwise as
published, in evaluation mode. What is raised stands in full in [contract.csv](contract.csv).

`python tools/contract_table.py --write` makes this page, in about a minute and without downloads; this one with
{{versions}}.

- **alone = padded**: utterances of 20 and 47 frames against the same beside one of 60, with zeros, noise 100 times as
  loud as the audio, or NaN in the padding.
- **batch order**: a batch of three lengths, and the same in another order.
- **causal**, **chunks**: everything from frame 24 on is replaced; frames before it are compared, in the model's causal
  form, and in chunks of 8 that see 16 frames before them.
- **stream = chunks**: 44 frames, chunk by chunk, against the pass in chunks.
- **export**: `torch.export` of one layer from 32 frames with `Dim.AUTO`, against the original at 21 and 300.
- **1 frame**, **0 frames**: it runs and is finite; an empty utterance does not touch its neighbour and the gradients.

How they are called:

{{calls}}

## Masks for a pretext task

The share of the frames of an utterance of 15 s that BEST-RQ masks, alone and beside one of 2 s:

{{masks}}

## What it means in practice

- **Padding that is read** (SpeechBrain's Conformer and Branchformer, torchaudio's Conformer, Wav2Vec2 base, data2vec,
  Wav2Vec2-Conformer, FNet): a transcript, an embedding or a distance depends on what else was in the batch. Encode one
  utterance at a time, or utterances of one length; FNet always at its one length. Zeros do not help: the convolutions
  read what biases and norms made of them, and the group norm of Wav2Vec2 base takes its statistics over them. Our
  HuggingFaceEncoder mends it around the same models, in any batch.
- **NaN alone that fails**: the mask is a product, or an attention weight of zero, and 0 · NaN is NaN. It matters where
  buffers are used again, or one recording of a batch is broken.
- **A future that is seen** (HyperMixing in a Conformer, and a Branchformer's convolution): the option is taken without
  an error and changes nothing, or not enough. A model trains well for streaming, it seems, and then cannot stream.
- **Export that raises**: RoPEMHA takes no more frames than it was called with before, rounded up to a power of two;
  torchaudio's Conformer reads its lengths as numbers, at which tracing ends. Our LocalSDPA and FNet raise too, as their
  `exportable` says.
- **1 or 0 frames that raise**: a Branchformer of kernel 31 takes no utterance of 15 frames or fewer, and of the public
  models only one takes an empty utterance by itself: catch these before the call.
- **A masked share that depends on the neighbour**: how hard pretraining is depends on how clips are batched, as
  SpeechBrain's docstring says.
"""


def measure(subjects: tuple[Subject, ...], names: tuple[str, ...]) -> Iterator[Row]:
    """Rows of these models in these checks."""
    for subject in tqdm(subjects, desc="models", unit="model", leave=False):
        for name in names:
            yield as_row(subject, name, checks.run(subject, name))


def measure_masks() -> Iterator[Row]:
    """Rows of the masks for a pretext task."""
    for masks in MASKS:
        yield as_row(masks, MASKED_SHARE, checks.masked_share(masks))


def as_row(subject: Subject | Masks, check: str, found: Found) -> Row:
    """A row of the CSV file."""
    number = "" if found.difference is None else f"{found.difference:.1e}"
    library, version = subject.library, metadata.version(subject.library).split("+")[0]
    torch_version = str(torch.__version__).split("+")[0]
    values = (library, version, torch_version, subject.name, subject.call, check, found.outcome, number, found.note)
    return dict(zip(COLUMNS, values, strict=True))


def page(rows: list[Row]) -> str:
    """The Markdown page of these rows."""
    models = {(row["library"], row["model"]): row["call"] for row in rows if row["check"] in CHECKS}
    versions = {row["library"]: row["version"] for row in rows} | {"torch": rows[0]["torch"]}
    return PAGE.format(
        table=_table(rows, list(models)),
        calls=_calls(models),
        masks=_masks_table([row for row in rows if row["check"] == MASKED_SHARE]),
        versions=", ".join(f"{library} {version}" for library, version in versions.items()),
    )


def _calls(models: dict[tuple[str, str], str]) -> str:
    named: dict[str, list[str]] = {}
    for (library, model), call in models.items():
        named.setdefault(f"{library}: `{call}`", []).append(model)
    return "\n".join(f"- {call} ({'; '.join(names)})" for call, names in named.items())


def _table(rows: list[Row], models: list[tuple[str, str]]) -> str:
    notes: list[str] = []
    lines = [["library", "model", *HEADINGS.values()], ["---"] * (2 + len(HEADINGS))]
    found = {(row["library"], row["model"], row["check"]): row for row in rows}
    for library, model in models:
        lines.append([library, model, *(_cell(found[library, model, check], notes) for check in HEADINGS)])
    numbered = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*map(_line, lines), "", "Notes:", "", *numbered])


def _cell(row: Row, notes: list[str]) -> str:
    texts = {PASS: "pass", FAIL: "**fails**", RAISES: "**raises**", NOT_OFFERED: "–"}
    text = texts[row["outcome"]]
    if row["outcome"] == FAIL and row["difference"]:
        value = float(row["difference"])
        text += " NaN" if math.isnan(value) else f" {value:.2g}"
    if row["note"] and row["check"] != "0 frames alone":
        note = row["note"].replace("|", "\\|")
        if note not in notes:
            notes.append(note)
        text += f" [{notes.index(note) + 1}]"
    return text


def _masks_table(rows: list[Row]) -> str:
    lines = [["library", "call", "share masked", ""], ["---"] * 4]
    for row in rows:
        lines.append([row["library"], f"`{row['call']}`", row["note"], _cell({**row, "note": ""}, [])])
    return "\n".join(map(_line, lines))


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[Row]) -> None:
    """Write rows as a CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/contract.csv and docs/contract.md")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows = [*measure(SUBJECTS, tuple(CHECKS)), *measure_masks()]
    if options.write:
        write(DOCS / "contract.csv", rows)
        (DOCS / "contract.md").write_text(page(rows), encoding="utf-8")
    else:
        print(page(rows))


if __name__ == "__main__":
    main()
