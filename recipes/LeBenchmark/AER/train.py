"""Emotion in speech: which one, of a speaker who was not heard; or how much of it, rated continuously.

    python train.py hparams/tiny.yaml --encoder sm-tiny                     # EmoDB: which emotion
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True    # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz              # another
    python train.py hparams/tiny.yaml --encoder sm-tiny --mode LoRA
    python train.py hparams/allosat.yaml --encoder hf:LeBenchmark/wav2vec2-FR-3K-large --normalize_layers True

Where the configuration has a `label`, each speaker is tested by a model of the others: a logistic regression on a layer
of a frozen encoder, or a tuned encoder with a linear head. `result.json` has the unweighted average recall. Where it
has a `target`, a head rates each step of a recording; the checkpoint with the highest concordance correlation
coefficient (CCC) on the validation split is tested, over all files together and file by file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from pathlib import Path

from speechbrain import Stage
from torch.nn.functional import cross_entropy

from lobes.dataio import audio_dataset, read_manifest, take_clips
from lobes.dataio.ratings import rating_range, rating_reader
from lobes.errors import ConfigError
from lobes.evaluation import AGREEMENT, accuracy, agreement_records, bootstrap_interval, ccc, uar, write_result
from lobes.probes import PacedEncoder, ccc_loss, decision_records, probe_fold, rated_steps, seeded
from lobes.training import Brain, DecidingBrain, all_folds, costs, on_main, run, start_experiment, tune_fold
from lobes.training.downstream import FROZEN, head_of, load_upstream, on_layers, with_layers
from lobes.training.folds import class_weights


class Rater(Brain):
    """Trains a head, and the encoder as far as ``mode`` says, to rate each step."""

    def compute_forward(self, batch, stage):
        """Ratings (B, S, 1) and the validity (B, S) of their steps."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """1 - CCC; out of training also a record of each file."""
        predicted, target, valid = rated_steps(*predictions, *batch.rating)
        if stage != Stage.TRAIN:
            pairs = [(t[v].tolist(), p[v].tolist()) for t, p, v in zip(target, predicted, valid, strict=True)]
            self.records += agreement_records(*zip(*pairs, strict=True), batch.id, batch.group)
        over, training = self.hparams.loss_over, stage == Stage.TRAIN
        return self.weighted(*ccc_loss(predicted, target, valid, over, together=training))

    def on_stage_start(self, stage, epoch=None):
        """Begin new records."""
        self.records = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint with the highest CCC on the valid split: the one that `select` names."""
        self.records = self.gather(self.records)
        if stage == Stage.VALID:
            agreement = AGREEMENT[self.hparams.select](self.records)
            self.checkpointer.save_and_keep_only(meta={"ccc": agreement, "epoch": epoch}, max_keys=["ccc"])


class Teller(DecidingBrain):
    """Tunes the encoder, with a head on it, to tell emotions apart."""

    def compute_forward(self, batch, stage):
        """Logits (B, classes)."""
        return self.modules.model(batch)[0]

    def compute_objectives(self, logits, batch, stage):
        """Cross-entropy, each class with the same weight; out of training also the decisions."""
        target, weight = batch.class_number.flatten(), self.hparams.class_weights.to(logits)
        if stage != Stage.TRAIN:
            self.decide(logits, getattr(batch, self.hparams.label), self.hparams.classes, batch)
        return self.weighted(cross_entropy(logits, target, weight), float(weight[target].sum()))


def rate(hparams, run_opts, manifests) -> dict:
    """Train on one split, choose on another, test on the third."""
    if "bounds" not in signature(head_of(hparams)).parameters:
        raise ConfigError(f"head is {hparams['head']}: expected LinearRater, GRURater or BiLSTMRater, which rate steps")
    encoder = PacedEncoder(load_upstream(hparams), hparams["period"], hparams["piece_seconds"])
    splits = {split: read_manifest(path) for split, path in manifests.items()}
    keys = ("id", "sig", "group", "rating")
    labels = {"rating": ("ratings", rating_reader(hparams["target"], encoder.period))}
    order = ("train", "valid", "test")
    data = [audio_dataset(splits[split], encoder.sample_rate, keys, labels=labels) for split in order]
    train, valid, test = with_layers(hparams, encoder, data, run_opts["device"])
    bounds = rating_range(splits["train"].rows, hparams["target"])
    model = on_layers(hparams, encoder, 1, partial(head_of(hparams), bounds=bounds))
    hparams["checkpointer"].add_recoverable("model", model)
    groups = model.parameter_groups(hparams["encoder_lr"])
    brain = Rater({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, max_key="ccc", test_loader_kwargs=hparams["valid_loader"])
    on_valid = ccc(brain.records)
    brain.evaluate(test, max_key="ccc", test_loader_kwargs=hparams["valid_loader"])
    by_file = bootstrap_interval(brain.records, AGREEMENT["ccc_per_file"])
    others = {f"ccc_per_file_{name}": getattr(by_file, name) for name in ("value", "low", "high")} | {"valid": on_valid}
    notes = "layer weights " + " ".join(f"{weight:.3f}" for weight in model.probe.weights())
    return {"metric": ccc, "records": brain.records, "other_metrics": others, "notes": notes, **costs(brain, encoder)}


def tell(hparams, run_opts, manifests) -> dict:
    """Train and test once per speaker, or whatever the folds leave out."""
    label, classes = hparams["label"], sorted({row[hparams["label"]] for row in read_manifest(manifests["all"]).rows})
    keys, labels = ("id", "sig", "group", label, "class_number"), {"class_number": (label, classes.index)}
    frozen, where = hparams["mode"] == FROZEN, Path(hparams["output_folder"]) / "folds"
    valid = {"valid_parts": 0 if frozen else hparams["valid_speakers"]}
    folds = on_main(lambda: hparams["folds"](manifests["all"], where, **valid))
    outcomes, held_out, known = [], [], {}  # features of a frozen encoder are computed once, for all folds
    for name, fold in folds.items():
        encoder = load_upstream(hparams)  # anew, since another fold may have tuned it to this one's speaker
        splits = {split: read_manifest(path) for split, path in fold.items()}
        splits["train"] = take_clips(splits["train"], hparams["train_clips"], label, f"{hparams['seed']} {name}")
        data = {split: audio_dataset(rows, encoder.sample_rate, keys, labels=labels) for split, rows in splits.items()}
        if frozen:
            probe = seeded(hparams["probe"], hparams["seed"])
            given = {"device": run_opts["device"], "known": known, "features_gib": hparams["features_gib"]}
            found = probe_fold(encoder, probe, data["train"], data["test"], label, **given)
            held_out += probe.held_out
        else:
            tuned = {**hparams, "classes": classes, "class_weights": class_weights(data["train"], label, classes)}
            *found, on_valid = tune_fold(Teller, tuned, run_opts, where / name, encoder, len(classes), **data)
            held_out += decision_records(on_valid)
        outcomes.append(found)
    decisions, cost = all_folds(outcomes)
    records = decision_records(decisions)
    others = {"accuracy": accuracy(records), **({"valid": uar(held_out)} if held_out else {})}
    return {"metric": uar, "records": records, "other_metrics": others, **cost}


def save(hparams, manifests, found) -> None:
    """Write ``result.json``."""
    given = {"task": hparams["task"], "system": hparams["name"], "seed": hparams["seed"]}
    write_result(hparams["output_folder"], **given, data=manifests, data_name=hparams["data_name"], **found)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus, and do what its labels are for."""
    hparams, run_opts = start_experiment(argv, __file__)
    head_of(hparams)  # a name that is none is told before anything is prepared
    manifests = on_main(hparams["prepare"])
    found = (rate if "target" in hparams else tell)(hparams, run_opts, manifests)
    on_main(save, hparams, manifests, found)


if __name__ == "__main__":
    run(main)
