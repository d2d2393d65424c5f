"""Who speaks, in a sentence that no training clip says: a probe on a frozen encoder, leaving one text out at a time.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True  # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz            # another

Each text is tested, on all of its recordings, by a logistic regression on a layer of the encoder that was fitted to
`train_clips` labelled clips of each speaker, drawn from the other texts. Layer and penalty are chosen by leaving
training texts out. `result.json` holds the accuracy over all texts, with an interval clustered by text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lobes.dataio import audio_dataset, leave_one_group_out, read_manifest, take_clips
from lobes.evaluation import accuracy, write_result
from lobes.export import load_encoder
from lobes.probes import decision_records, probe_fold, seeded
from lobes.training import all_folds, on_main, run, start_experiment


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; fit and test once per text."""
    hparams, run_opts = start_experiment(argv, __file__)
    encoder = load_encoder(hparams["encoder"], untrained=hparams["untrained"], seed=hparams["seed"])
    manifests = on_main(hparams["prepare"])
    folds = on_main(leave_one_group_out, manifests["all"], Path(hparams["output_folder"]) / "folds", valid_groups=0)
    known: dict[str, torch.Tensor] = {}  # features are computed once, for all folds
    outcomes = []
    for text, fold in folds.items():
        train, test = read_fold(hparams, text, fold, encoder.sample_rate)
        probe = seeded(hparams["probe"], hparams["seed"])
        given = {"device": run_opts["device"], "known": known, "features_gib": hparams["features_gib"]}
        outcomes.append(probe_fold(encoder, probe, train, test, "speaker", **given))
    on_main(save, hparams, outcomes, manifests)


def read_fold(hparams, text, fold, sample_rate) -> list:
    """The labelled clips of the other texts, and all clips of this one."""
    splits = {split: read_manifest(path) for split, path in fold.items()}
    # Another draw for each text, so that the interval, which is over texts, covers that chance too.
    order = f"{hparams['seed']} {text}"
    splits["train"] = take_clips(splits["train"], hparams["train_clips"], "speaker", seed=order)
    keys = ("id", "sig", "group", "speaker")
    return [audio_dataset(splits[split], sample_rate, keys) for split in ("train", "test")]


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
