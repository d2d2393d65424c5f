"""Spoken digits, leaving one speaker out at a time, on an encoder, frozen (a probe) or fine-tuned.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True  # a control
    python train.py hparams/tiny.yaml --encoder logmel                    # another
    python train.py hparams/finetune.yaml --encoder sm-tiny

Each speaker is tested, on all of their recordings, by a model that was trained on `train_takes` labelled recordings of
each digit by each other speaker: 2 by default, 100 clips in all, since few labels are what pretraining is for; 50 are
all. A frozen encoder gets a logistic regression on one of its layers; a fine-tuned one is trained with a linear head.
`result.json` holds the accuracy over all speakers, with an interval that takes them for what they are: six draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from speechbrain import Stage
from torch.nn.functional import cross_entropy

from lobes.dataio import audio_dataset, leave_one_group_out, read_manifest
from lobes.evaluation import accuracy, write_result
from lobes.export import load_encoder
from lobes.probes import decision_records, probe_fold, seeded
from lobes.training import DecidingBrain, all_folds, on_main, run, start_experiment, tune_fold
from lobes.training.downstream import head_of

DIGITS = [str(number) for number in range(10)]


class Digits(DecidingBrain):
    """Fine-tunes the encoder, with a head on it, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, 10)."""
        return self.modules.model(batch)[0]

    def compute_objectives(self, logits, batch, stage):
        """Cross-entropy; out of training also the decisions."""
        target = batch.digit_number.flatten()
        if stage != Stage.TRAIN:
            self.decide(logits, batch.digit, DIGITS, batch)
        return self.weighted(cross_entropy(logits, target), len(target))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; train and test once per speaker."""
    hparams, run_opts = start_experiment(argv, __file__)
    folder = Path(hparams["output_folder"]) / "folds"
    if not hparams["frozen"]:
        head_of(hparams)  # a name that is none is told before anything is prepared
    manifests = on_main(hparams["prepare"])
    folds = on_main(leave_one_group_out, manifests["all"], folder, valid_groups=0)
    train_fold = probe if hparams["frozen"] else finetune
    known: dict[str, torch.Tensor] = {}
    outcomes = [
        train_fold({**hparams, "output_folder": str(folder / speaker), "known": known}, run_opts, fold)
        for speaker, fold in folds.items()
    ]
    on_main(save, hparams, outcomes, manifests)


def read_fold(hparams, fold) -> tuple:
    """The encoder as it was given, the labelled takes of all speakers but one, and all recordings of that one."""
    encoder = load_encoder(hparams["encoder"], untrained=hparams["untrained"], seed=hparams["seed"])
    encoder = encoder if hparams["faster"] is None else hparams["faster"](encoder)
    keys, labels = ("id", "sig", "group", "digit", "digit_number"), {"digit_number": ("digit", int)}
    splits = {split: read_manifest(path) for split, path in fold.items()}
    splits["train"].rows = [row for row in splits["train"].rows if int(row["take"]) < hparams["train_takes"]]
    train, test = (
        audio_dataset(splits[split], encoder.sample_rate, keys, labels=labels) for split in ("train", "test")
    )
    return encoder, train, test


def probe(hparams, run_opts, fold) -> tuple[list, dict]:
    """Fit a probe on the frozen encoder; return the decisions and what they cost."""
    encoder, train, test = read_fold(hparams, fold)
    # `known`: features are computed once, for all folds.
    given = {"device": run_opts["device"], "known": hparams["known"], "features_gib": hparams["features_gib"]}
    return probe_fold(encoder, seeded(hparams["probe"], hparams["seed"]), train, test, "digit", **given)


def finetune(hparams, run_opts, fold) -> tuple[list, dict]:
    """Train encoder and head; return the decisions and what they cost."""
    encoder, train, test = read_fold(hparams, fold)
    folder = Path(hparams["output_folder"])
    return tune_fold(Digits, hparams, run_opts, folder, encoder.requires_grad_(), len(DIGITS), train, test)[:2]


def save(hparams, outcomes, manifests) -> None:
    """Write ``result.json``: the decision on each recording, the cost of all folds together."""
    decisions, cost = all_folds(outcomes)
    write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=accuracy,
        records=decision_records(decisions),
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **cost,
    )


if __name__ == "__main__":
    run(main)
