"""What has tuning cost? How much of what an encoder knew of speech is left after it was tuned for calls.

    LOBES_DATA=/corpora python tools/retention.py recipes/Gibbons/call_type/results/{LoRA,full,probe}/1 --ssl RUN
    LOBES_DATA=/corpora python tools/retention.py RUNS --ssl RUN --curve LoRA full --out docs/retention

RUNS are runs of a recipe of Gibbons with an `adaptation`; what is compared is the encoder before and after it, with
reprogram.yaml that of the classifier of the source task. For each of their folds, with the adapter at work: linear CKA
of each layer with the pretrained encoder, on speech and on calls; how far the weights have moved, where the method can
be merged into them; spoken digits (FSDD, a logistic regression, each speaker left out in turn), before and after; and,
given the pretraining's own run (--ssl), its loss and masked accuracy, before and after. --curve adds the encoders
between the two (weights interpolated), probed on digits and on calls alike.

`<out>/<task>-<name>-<seed>.json` keeps what was measured of a run, and of what: a run that is there is measured again
only if it was trained again since, or --ssl or an option is another. From these are made, in --tables, `retention.csv`,
with a row for each run, and `layers.csv`, with the CKA of each of its layers; and, where runs of one `name` that differ
in their seed are one, a mean with an interval over seeds and groups: a table on the terminal, `retention.svg`, and
`curve.svg` with the curves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retention_table import write_tables
from torch import nn
from torch.utils.data import DataLoader

from lobes.adapters import adaptations, load_adapter, merge_adapter, trainable_share
from lobes.adapters.retention import compare_layers, interpolate, total_change, weight_change
from lobes.dataio import AudioDataset, GlobalBatchSampler, audio_dataset, collate, make_folds, read_manifest, take_clips
from lobes.dataio.corpora import prepare_fsdd
from lobes.dataio.manifest import atomic_write
from lobes.errors import DataError
from lobes.evaluation import Metric, accuracy, paired_bootstrap, read_result, uar
from lobes.export import load_encoder
from lobes.probes import LogisticProbe, decision_records, probe_fold
from lobes.training import MASKED_ACCURACY, HparamsFile, Pretext, load_classifier, load_pretext, pretext_loss, run

logger = logging.getLogger(__name__)

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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


def main() -> str:
    """Measure runs that were not measured yet, then make tables and figures; return the main one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="runs with an adaptation: folders with result.json, folds/")
    parser.add_argument("--ssl", type=Path, help="the run that pretrained the encoder; without it, no change of loss")
    parser.add_argument("--out", type=Path, default=Path("results/retention"))
    parser.add_argument("--tables", type=Path, help="where tables and pictures go; default: --out")
    parser.add_argument("--folds", type=int, help="only the first so many of each run's folds")
    parser.add_argument("--takes", type=int, default=10, help="of each digit and speaker")
    parser.add_argument("--speakers", type=int, help="of digits that are left out in turn; default: all")
    parser.add_argument("--clips", type=int, default=20, help="of speech, of each speaker, for CKA")
    parser.add_argument("--curve", nargs="*", default=[], metavar="NAME", help="runs to interpolate")
    options = parser.parse_args()
    digits = Digits(options.out, options.takes, options.speakers)
    pretext = load_pretext(options.ssl) if options.ssl else None
    known: dict[Any, dict[str, Any]] = {}
    rows: dict[Path, dict[str, Any]] = {}
    for folder in options.runs:
        result = read_result(folder)
        name = "-".join(str(result[key]) for key in ("task", "system", "seed"))
        path = options.out / (re.sub(r"[^\w.-]+", "-", name) + ".json")
        if path in rows:
            raise DataError(
                f"{folder}: is a second run of '{result['task']}' that is called '{result['system']}', with seed "
                f"{result['seed']}; give one of them, or train with another --name"
            )
        of = measured_of(folder, result, digits, options)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not covers(kept.get("of", {}), of):
            measured = measure(folder, result, digits, pretext, options.folds, options.clips, of["curve"], known)
            kept = {"of": of, **measured}
            atomic_write(path, json.dumps(kept, indent=1) + "\n")
        rows[path] = {**kept, "result": result}
    table = write_tables(list(rows.values()), options.tables or options.out)
    print(table)
    return table


def measured_of(folder: Path, result: Mapping[str, Any], digits: Digits, options: argparse.Namespace) -> dict[str, Any]:
    """What figures are of: the run, the pretraining, the digits and the options."""
    ssl = options.ssl / "result.json" if options.ssl else None
    return {
        "task": result["task"],
        "date": result["date"],
        "result": _checksum(folder / "result.json"),
        "pretraining": _checksum(ssl) if ssl and ssl.is_file() else str(options.ssl),
        "digits": read_manifest(digits.all).checksum,
        "curve": result["system"] in options.curve,
        **{name: getattr(options, name) for name in ("folds", "takes", "speakers", "clips")},
    }


def covers(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether what was measured is what is wanted: a curve that nobody asks for does no harm."""
    return all(kept.get(key) == value for key, value in wanted.items() if key != "curve" or value) and bool(kept)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start_folder(folder: Path) -> Path | None:
    """The folder in which a run was started, as its `env.log` has it."""
    path = folder / "env.log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((Path(line.removeprefix("folder: ")) for line in lines if line.startswith("folder: ")), None)


def find_source(folder: Path, source: str) -> str:
    """An encoder's path as a run was given it: from where it was started, from here, or from a folder around the run.

    Older runs do not say where they were started, and most lie in their recipe's own folder.
    """
    started = start_folder(folder)
    for place in ([started] if started else []) + [Path(), *folder.resolve().parents]:
        if (place / source).exists():
            return str(place / source)
    return source


def measure(
    folder: Path,
    result: Mapping[str, Any],
    digits: Digits,
    pretext: Pretext | None,
    n_folds: int | None,
    clips: int,
    curve: bool,
    known: dict[Any, dict[str, Any]],
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
        source = find_source(folder, hparams.get("encoder").format(fold=fold.name))
        untrained, seed = hparams.get("untrained"), result["seed"]
        mapped = hparams.get("mapping") is not None
        load = partial(_load, source, mapped, untrained=untrained, seed=seed)
        before, after = load(), load_adapter(load(), fold / "adapter")
        pretrained = (source, seed if untrained else None)
        if pretrained not in known:
            known[pretrained] = {"digits": digits.records(before)}
            if pretext:
                known[pretrained]["ssl"] = pretext_loss(before, pretext.objective, pretext.valid)
        found: dict[str, Any] = {"fold": fold.name, "share": trainable_share(after)}
        [adaptation] = adaptations(after).values()
        found["method"] = type(adaptation).__name__
        speech = take_clips(read_manifest(digits.all), clips, "speaker")
        calls = read_manifest(fold / "test.csv")
        for kind, manifest in (("speech", speech), ("calls", calls)):
            layers = compare_layers(before, after, _batches(manifest, before), every=2)
            found[f"cka_{kind}"] = [layer.value() for layer in layers]
        after_records += _of_fold(digits.records(after), fold.name)
        before_records += _of_fold(known[pretrained]["digits"], fold.name)
        if pretext:
            loss, old = known[pretrained]["ssl"]
            new_loss, new = pretext_loss(after, pretext.objective, pretext.valid)
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
        elif curve:
            logger.warning("%s cannot be merged into weights, so that there is nothing between", found["method"])
        measured.append(found)
        logger.info("%s, %s: CKA on speech %.3f", result["system"], fold.name, found["cka_speech"][-1])
    row = {name: result[name] for name in ("task", "system", "seed", "metric")}
    row["digits"] = compare(before_records, after_records, accuracy)
    if pretext:
        row["masked"] = compare(*masked, MASKED_ACCURACY)
    return {**row, "folds": measured}


def _load(source: str, mapped: bool, **options: Any) -> Any:
    """The encoder that a run adapted: where labels are mapped, that of another run's classifier."""
    return load_classifier(source, **options).encoder if mapped else load_encoder(source, **options)


def compare(before: list[dict[str, Any]], after: list[dict[str, Any]], metric: Metric) -> dict[str, Any]:
    """A share before, its change, and the sums of each group, from which runs of several seeds are compared."""
    found = paired_bootstrap(after, before, metric)
    groups: dict[str, dict[str, Any]] = {}
    for when, records in (("before", before), ("after", after)):
        for record in records:
            sums = groups.setdefault(record["group"], {"group": record["group"], "of": 0, "before": 0, "after": 0})
            sums[when] += record["correct"] if "correct" in record else int(record["target"] == record["prediction"])
            sums["of"] += record.get("predictions", 1) if when == "before" else 0
    return {
        "before": found.value_b, "change": found.difference, "low": found.low, "high": found.high,
        "groups": list(groups.values()),
    }  # fmt: skip


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
