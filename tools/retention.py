"""What has tuning cost? How much of what an encoder knew of speech is left after it was tuned for calls.

    LOBES_DATA=/corpora python tools/retention.py recipes/Gibbons/call_type/results/{LoRA,full,probe}/1 --ssl RUN
    LOBES_DATA=/corpora python tools/retention.py RUNS --ssl RUN --curve LoRA full --out docs/retention

RUNS are runs of a recipe of Gibbons with an `adaptation`. For each of their folds, with the adapter at work: linear CKA
of each layer with the pretrained encoder, on speech and on calls; how far the weights have moved, where the method can
be merged into them; spoken digits (FSDD, a logistic regression, each speaker left out in turn), before and after; and,
given the pretraining's own run (--ssl), its loss and masked accuracy, before and after. --curve adds the encoders
between the two (weights interpolated), probed on digits and on calls alike.

`<out>/<run>.json` keeps what was measured of a run, so that only new ones are measured; `retention.csv`, a table on the
terminal and `retention.svg` are made from them. Runs of one `name` with different seeds are shown as one.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from lobes.adapters import adaptations, load_adapter, merge_adapter, trainable_share
from lobes.adapters.retention import compare_layers, interpolate, total_change, weight_change
from lobes.dataio import AudioDataset, GlobalBatchSampler, audio_dataset, collate, make_folds, read_manifest, take_clips
from lobes.dataio.corpora import prepare_fsdd
from lobes.dataio.manifest import atomic_write
from lobes.errors import DataError
from lobes.evaluation import accuracy, auc, paired_bootstrap, read_result, save_figure, uar
from lobes.evaluation.plots import COLOURS, WIDTH, new_figure, styled
from lobes.export import load_encoder
from lobes.probes import LogisticProbe, decision_records, probe_fold
from lobes.training import MASKED_ACCURACY, HparamsFile, Pretext, load_pretext, pretext_loss, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
COLUMNS = (
    "system", "seed", "method", "trainable_share", "metric", "value", "low", "high", "digits", "digits_change",
    "digits_low", "digits_high", "masked_change", "masked_low", "masked_high", "loss_change", "cka_speech", "cka_calls",
    "weight_change", "effective_rank",
)  # fmt: skip


class Digits:
    """Spoken digits of speakers that a probe has not heard."""

    def __init__(self, folder: Path, max_takes: int, n_folds: int | None) -> None:
        self.all = prepare_fsdd(None, folder / "fsdd", max_takes=max_takes)["all"]
        folds = make_folds(self.all, folder / "fsdd" / "folds", label="digit")
        self.folds = dict(list(folds.items())[:n_folds])

    def records(self, encoder: Any) -> list[dict[str, Any]]:
        """What a logistic regression on a layer of an encoder gets right, clip by clip."""
        known: dict[str, torch.Tensor] = {}
        decisions = []
        for fold in self.folds.values():
            train, test = (_dataset(fold[part], encoder, "digit") for part in ("train", "test"))
            probe = LogisticProbe(strengths=[0.01, 0.1, 1.0])
            decisions += probe_fold(encoder, probe, train, test, "digit", known=known)[0]
        return decision_records(decisions)


def main() -> None:
    """Measure runs that were not measured yet, then make table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="runs with an adaptation: folders with result.json, folds/")
    parser.add_argument("--ssl", type=Path, help="the run that pretrained the encoder; without it, no change of loss")
    parser.add_argument("--out", type=Path, default=Path("results/retention"))
    parser.add_argument("--folds", type=int, help="only the first so many of each run's folds")
    parser.add_argument("--takes", type=int, default=10, help="of each digit and speaker")
    parser.add_argument("--speakers", type=int, help="of digits that are left out in turn; default: all")
    parser.add_argument("--clips", type=int, default=20, help="of speech, of each speaker, for CKA")
    parser.add_argument("--curve", nargs="*", default=[], metavar="NAME", help="runs to interpolate")
    options = parser.parse_args()
    digits = Digits(options.out, options.takes, options.speakers)
    pretext = load_pretext(options.ssl) if options.ssl else None
    known: dict[str, dict[str, Any]] = {}
    rows = []
    for folder in options.runs:
        result = read_result(folder)
        path = options.out / f"{result['system']}-{result['seed']}.json"
        if not path.is_file():
            curve = result["system"] in options.curve
            measured = measure(folder, result, digits, pretext, options.folds, options.clips, curve, known)
            atomic_write(path, json.dumps(measured, indent=1) + "\n")
        rows.append(json.loads(path.read_text(encoding="utf-8")))
    write_table(rows, options.out / "retention.csv")
    save_figure(retention_figure(rows), options.out / "retention.svg")
    print(markdown(rows))


def measure(
    folder: Path,
    result: Mapping[str, Any],
    digits: Digits,
    pretext: Pretext | None,
    n_folds: int | None,
    clips: int,
    curve: bool,
    known: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Everything about one run; `known` keeps what the pretrained encoders themselves get."""
    hparams = HparamsFile(folder / "hyperparams.yaml")
    folds = sorted(path.parent for path in folder.glob("folds/*/adapter"))[:n_folds]
    if not folds:
        raise DataError(f"{folder}: holds no folds/*/adapter; expected a run of a recipe with an adaptation")
    measured: list[dict[str, Any]] = []
    before_records: list[dict[str, Any]] = []
    after_records: list[dict[str, Any]] = []
    masked: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for fold in folds:
        source = hparams.get("encoder").format(fold=fold.name)
        load = partial(load_encoder, source, untrained=hparams.get("untrained"), seed=result["seed"])
        before, after = load(), load_adapter(load(), fold / "adapter")
        if source not in known:
            known[source] = {"digits": digits.records(before)}
            if pretext:
                known[source]["ssl"] = pretext_loss(before, pretext.objective, pretext.valid)
        found: dict[str, Any] = {"fold": fold.name, "share": trainable_share(after)}
        [adaptation] = adaptations(after).values()
        found["method"] = type(adaptation).__name__
        speech = take_clips(read_manifest(digits.all), clips, "speaker")
        calls = read_manifest(fold / "test.csv")
        for kind, manifest in (("speech", speech), ("calls", calls)):
            layers = compare_layers(before, after, _batches(manifest, before), every=2)
            found[f"cka_{kind}"] = [layer.value() for layer in layers]
        after_records += _of_fold(digits.records(after), fold.name)
        before_records += _of_fold(known[source]["digits"], fold.name)
        if pretext:
            (loss, old), (new_loss, new) = (
                known[source]["ssl"],
                pretext_loss(after, pretext.objective, pretext.valid),
            )
            found["loss"] = [loss, new_loss]
            for records, of in zip(masked, (old, new), strict=True):
                records += _of_fold(of, fold.name)
        if adaptation.mergeable:
            merge_adapter(after)
            moved = [change for change in weight_change(before, after) if change.relative > 0]
            found["weight_change"] = total_change(before, after)
            found["effective_rank"] = float(np.mean([change.effective_rank for change in moved])) if moved else 0.0
            if curve:
                found["curve"] = list(between(before, after, fold, hparams, digits))
        measured.append(found)
        logger.info("%s, %s: CKA on speech %.3f", result["system"], fold.name, found["cka_speech"][-1])
    change = paired_bootstrap(after_records, before_records, accuracy)
    summary = {"before": accuracy(before_records), "change": change.difference, "low": change.low, "high": change.high}
    row = {"system": result["system"], "seed": result["seed"], "metric": result["metric"], "digits": summary}
    if pretext:
        difference = paired_bootstrap(masked[1], masked[0], MASKED_ACCURACY)
        row["masked"] = {"change": difference.difference, "low": difference.low, "high": difference.high}
    return {**row, "folds": measured}


def between(
    before: nn.Module, after: nn.Module, fold: Path, hparams: HparamsFile, digits: Digits
) -> Iterator[dict[str, float]]:
    """Digits and calls, both by a probe, of the encoders between the pretrained and the tuned one."""
    import copy

    label = hparams.get("label")
    for share in SHARES:
        encoder: Any = copy.deepcopy(before)
        encoder.load_state_dict(interpolate(before, after, share), strict=False)
        train, test = (_dataset(fold / f"{part}.csv", encoder, label) for part in ("train", "test"))
        probe = LogisticProbe(strengths=[0.01, 0.1, 1.0], balanced=True)
        calls = probe_fold(encoder, probe, train, test, label)[0]
        yield {"share": share, "digits": accuracy(digits.records(encoder)), "calls": uar(decision_records(calls))}


def write_table(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """`retention.csv`: a row for each run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.4g}" if isinstance(v, float) else v for name, v in flat(row).items()})


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A run's figures, means over its folds, by the columns of `retention.csv`."""
    metric, digits, folds = row["metric"], row["digits"], row["folds"]

    def mean(name: str) -> float | str:
        values = [np.asarray(fold[name]) for fold in folds if name in fold]
        return float(np.mean([value if value.ndim == 0 else value[-1] for value in values])) if values else ""

    masked = row.get("masked", {"change": "", "low": "", "high": ""})
    losses = [after - before for before, after in (fold["loss"] for fold in folds if "loss" in fold)]
    return {
        "system": row["system"], "seed": row["seed"], "method": folds[0]["method"],
        "trainable_share": mean("share"), "metric": metric["name"],
        "value": metric["value"], "low": metric["low"], "high": metric["high"],
        "digits": digits["before"] + digits["change"], "digits_change": digits["change"],
        "digits_low": digits["low"], "digits_high": digits["high"],
        "masked_change": masked["change"], "masked_low": masked["low"], "masked_high": masked["high"],
        "loss_change": float(np.mean(losses)) if losses else "",
        "cka_speech": mean("cka_speech"), "cka_calls": mean("cka_calls"),
        "weight_change": mean("weight_change"), "effective_rank": mean("effective_rank"),
    }  # fmt: skip


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The main columns, for a README; points of 100."""
    lines = [
        "| tuning | trained | calls | spoken digits: change | masked accuracy: change | CKA: speech, calls | moved |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]

    def points(part: Mapping[str, Any], low: str, high: str, change: str) -> str:
        if part[change] == "":
            return "–"
        return f"{100 * part[change]:+.1f} [{100 * part[low]:+.1f}, {100 * part[high]:+.1f}]"

    for row in map(flat, rows):
        moved = "–" if row["weight_change"] == "" else f"{row['weight_change']:.3f}"
        cells = [
            row["system"],
            f"{100 * row['trainable_share']:.2f} %",
            f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            points(row, "digits_low", "digits_high", "digits_change"),
            points(row, "masked_low", "masked_high", "masked_change"),
            f"{row['cka_speech']:.3f}, {row['cka_calls']:.3f}",
            moved,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@styled
def retention_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy on calls against the share that trains, and against what is left of the spoken digits."""
    figure, panels = new_figure(WIDTH, 7.0, ratios=[1.0, 1.0])
    for number, row in enumerate(map(flat, rows)):
        colour, marker = COLOURS[number % len(COLOURS)], "os^Dv*"[number // len(COLOURS) % 6]
        value = 100 * row["value"]
        error = [[value - 100 * row["low"]], [100 * row["high"] - value]]
        style: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2, "linewidth": 1.0, "markersize": 5}
        share = max(100 * row["trainable_share"], 1e-3)
        panels[0].errorbar(share, value, error, label=row["system"], **style)
        change = 100 * row["digits_change"]
        across = [[change - 100 * row["digits_low"]], [100 * row["digits_high"] - change]]
        panels[1].errorbar(change, value, error, across, **style)
    metric = {uar.name: "unweighted recall", auc.name: "AUC"}.get(rows[0]["metric"]["name"], "score")
    panels[0].set(xscale="log", xlabel="share of the encoder that trains (%)", ylabel=f"calls: {metric} (%)")
    panels[1].set(xlabel="spoken digits after tuning less before (points)", ylabel=f"calls: {metric} (%)")
    panels[1].axvline(0, color=COLOURS[0], linewidth=0.8, linestyle=":")
    for axes in panels:
        axes.grid()
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=3, handlelength=1.0, fontsize=8)
    return figure


def _dataset(manifest: Path, encoder: Any, label: str) -> AudioDataset:
    return audio_dataset(read_manifest(manifest), encoder.sample_rate, ("id", "sig", "group", label))


def _batches(manifest: Any, encoder: Any) -> DataLoader[Any]:
    dataset = audio_dataset(manifest, encoder.sample_rate, ("id", "sig", "group"))
    sampler = GlobalBatchSampler(dataset.durations, 60.0, shuffle=False)
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]


def _of_fold(records: Iterable[Mapping[str, Any]], fold: str) -> list[dict[str, Any]]:
    """The same clips are heard by the encoder of each fold."""
    return [{**record, "id": f"{fold}/{record['id']}"} for record in records]


if __name__ == "__main__":
    run(main)
