"""Which animal calls, at a recorder that was not heard: gibbons, argus pheasants, hornbills, or none of them.

    python train.py hparams/tiny.yaml --encoder sm-tiny                            # a probe on a frozen encoder
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True           # a control
    python train.py hparams/tiny.yaml --encoder '../SSL/results/calls/{fold}/1'    # an encoder for each fold
    python train.py hparams/tune.yaml --encoder sm-tiny --adaptation '!name:lobes.adapters.LoRA'

Each recorder is tested, on all of its clips, by a model that was trained on those of the others. A frozen encoder gets a
logistic regression on one of its layers; a tuned one (`adaptation`) is trained with a linear head. `result.json` holds
the unweighted average recall (with `positive`, of two classes: the AUC) with an interval over recorders, and beside it what the background alone would give: the
same probe, on audio without the band in which the animals call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from speechbrain import Stage
from torch.nn.functional import cross_entropy

from lobes.dataio import audio_dataset, read_manifest
from lobes.evaluation import auc, uar, write_result
from lobes.export import load_encoder
from lobes.probes import decision_records, probe_fold
from lobes.training import DecidingBrain, all_folds, on_main, run, start_experiment, tune_fold


class CallType(DecidingBrain):
    """Tunes the encoder, with a head on it, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, classes)."""
        return self.modules.model(batch)[0]

    def compute_objectives(self, logits, batch, stage):
        """Cross-entropy, each class with the same weight; out of training also the decisions."""
        target, weight = batch.class_number.flatten(), self.hparams.class_weights.to(logits)
        if stage != Stage.TRAIN:
            self.decide(logits, batch.call_type, self.hparams.classes, batch)
        return self.weighted(cross_entropy(logits, target, weight), float(weight[target].sum()))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; train and test once per recorder, on the calls and on the background."""
    hparams, run_opts = start_experiment(argv, __file__)
    manifests = on_main(hparams["prepare"])
    folds = on_main(hparams["folds"], manifests["all"], Path(hparams["output_folder"]) / "folds")
    train_fold = probe if hparams["adaptation"] is None else tune
    known: dict[str, dict] = {"calls": {}, "background": {}}  # features of an encoder that is the same in all folds
    outcomes, backgrounds = [], []
    for recorder, fold in folds.items():
        encoder = load_encoder(
            hparams["encoder"].format(fold=recorder), untrained=hparams["untrained"], seed=hparams["seed"]
        )
        if "{fold}" in hparams["encoder"]:
            known = {"calls": {}, "background": {}}
        background = read_fold(hparams, fold, encoder, hparams["background"])
        backgrounds.append(probe(hparams, run_opts, recorder, encoder, *background, known["background"]))
        calls = read_fold(hparams, fold, encoder)
        outcomes.append(train_fold(hparams, run_opts, recorder, encoder, *calls, known["calls"]))
    on_main(save, hparams, outcomes, backgrounds, manifests)


def read_fold(hparams, fold, encoder, transform=None) -> list:
    """The clips to train on and those to test on."""
    keys, number = ("id", "sig", "group", "call_type", "class_number"), ("call_type", hparams["classes"].index)
    return [
        audio_dataset(
            read_manifest(fold[split]), encoder.sample_rate, keys, labels={"class_number": number}, transform=transform
        )
        for split in ("train", "test")
    ]


def probe(hparams, run_opts, recorder, encoder, train, test, known) -> tuple[list, dict]:
    """Fit a logistic regression on the frozen encoder; return the decisions and what they cost."""
    return probe_fold(encoder, hparams["probe"](), train, test, "call_type", run_opts["device"], known=known)


def tune(hparams, run_opts, recorder, encoder, train, test, known) -> tuple[list, dict]:
    """Adapt the encoder and train a head on it; return the decisions and what they cost."""
    classes = hparams["classes"]
    hparams["adaptation"]().apply(encoder)
    labels = [train.data[name]["call_type"] for name in train.data_ids]
    counts = torch.tensor([labels.count(name) for name in classes])
    hparams = {**hparams, "class_weights": len(labels) / (len(classes) * counts.clamp(min=1))}
    folder = Path(hparams["output_folder"]) / "folds" / recorder
    return tune_fold(CallType, hparams, run_opts, folder, encoder, len(classes), train, test)


def save(hparams, outcomes, backgrounds, manifests) -> None:
    """Write ``result.json``: the decision on each clip, the cost of all folds together, the score of the background."""
    decisions, cost = all_folds(outcomes)
    positive = hparams["positive"]
    metric = auc if positive else uar
    alone = metric(decision_records(all_folds(backgrounds)[0], positive))
    result = write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=metric,
        records=decision_records(decisions, positive),
        other_metrics={f"background_{metric.name}": alone},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **cost,
    )
    print(f"{metric.name} {result['metric']['value']:.3f}; of the background alone {alone:.3f}")


if __name__ == "__main__":
    run(main)
