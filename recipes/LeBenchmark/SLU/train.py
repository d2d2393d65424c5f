"""Spoken language understanding: intent, concepts and their values from speech, by a head on an encoder.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True  # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz --normalize_layers False  # another
    python train.py hparams/seq2seq.yaml --encoder LeBenchmark/wav2vec2-FR-7K-large      # PxCorpus, by attention

What is understood is written as a tagged text, `#order an <drink iced mocha >`; `coding` says how such a text becomes a
target: characters and tags by CTC or by a decoder that attends, or a class for each slot. `result.json` holds `metric`
with its interval, the other metrics, and the reference and hypothesis of every utterance.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter

from lobes.dataio import audio_dataset, make_folds, read_manifest
from lobes.evaluation import tagged_records, understanding_metric, with_intervals, write_result
from lobes.training import Brain, Checkpointer, all_folds, costs, on_main, run, start_experiment
from lobes.training.downstream import head_of, load_upstream, on_layers, with_layers

logger = logging.getLogger(__name__)


class SLU(Brain):
    """Trains the head, and what is not frozen of the encoder, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, T, V) or (B, V) and the validity (B, T) of the frames; or what a head that attends gives."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """The loss of the coding; out of training also what was understood."""
        loss, weight = self.coding.loss(*predictions, *batch.tokens)
        if stage != Stage.TRAIN:
            understood = self.coding.decode(*predictions)
            self.outcomes += zip(batch.tagged, understood, batch.id, batch.group, strict=True)
        return self.weighted(loss, weight)

    def on_stage_start(self, stage, epoch=None):
        """Begin a new list of (reference, hypothesis, id, group)."""
        self.outcomes = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint that is best by the metric on the valid split."""
        self.outcomes = self.gather(self.outcomes)
        if stage == Stage.VALID:
            value = self.metric(tagged_records(*zip(*self.outcomes, strict=True)))
            best = "max_keys" if self.metric.higher_is_better else "min_keys"
            self.checkpointer.save_and_keep_only(meta={"metric": value, "epoch": epoch}, **{best: ["metric"]})


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; train and test, once or once for each fold."""
    hparams, run_opts = start_experiment(argv, __file__)
    head_of(hparams)  # a name that is none is told before anything is prepared
    metric = understanding_metric(hparams["metric"])
    manifests = on_main(hparams["prepare"])
    folds = {".": manifests}
    if "all" in manifests:  # no official split
        where, options = Path(hparams["output_folder"]) / "folds", {"n_folds": hparams["n_folds"], "valid_parts": 1}
        folds = on_main(lambda: make_folds(manifests["all"], where, "groups at random", **options))
    found, unseen, on_valid = [], [], []
    for name, fold in folds.items():
        folder = Path(hparams["output_folder"]) / ("" if name == "." else f"folds/{name}")
        outcomes, cost, labels, score = train_fold(hparams, run_opts, metric, folder, fold)
        found.append((outcomes, cost))
        unseen += labels
        on_valid.append(score)
    on_main(save, hparams, metric, found, unseen, sum(on_valid) / len(on_valid), manifests)


def train_fold(hparams, run_opts, metric, folder, fold) -> tuple:
    """What was understood in test, what training cost, labels in test that training has not, the score on valid."""
    torch.manual_seed(hparams["seed"])
    encoder = load_upstream(hparams)
    splits = {split: read_manifest(path) for split, path in fold.items()}
    texts = {split: [row["tagged"] for row in manifest.rows] for split, manifest in splits.items()}
    coding = hparams["coding"](texts["train"])
    unseen = sorted(coding.unseen(texts["test"]).elements())
    if unseen:
        logger.warning(
            f"{len(unseen)} labels in test are absent from training, errors each: {', '.join(sorted(set(unseen)))}"
        )

    keys, labels = ("id", "sig", "group", "tagged", "tokens"), {"tokens": ("tagged", coding.encode)}
    datasets = [
        audio_dataset(splits[split], encoder.sample_rate, keys, labels=labels) for split in ("train", "valid", "test")
    ]
    train, valid, test = with_layers(hparams, encoder, datasets, run_opts["device"])
    model = coding.model(partial(on_layers, hparams, encoder, len(coding)), head_of(hparams))
    groups, epochs = model.parameter_groups(hparams["encoder_lr"]), EpochCounter(hparams["epoch_counter"].limit)
    checkpointer = Checkpointer(f"{folder}/save", {"model": model, "epoch_counter": epochs})
    opt_class, hparams = hparams["opt_class"], {**hparams, "output_folder": str(folder)}
    brain = SLU({"model": model}, lambda _: opt_class(groups), hparams, run_opts, checkpointer)
    brain.coding, brain.metric = coding, metric
    brain.fit(epochs, train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    best = {"max_key" if metric.higher_is_better else "min_key": "metric"}
    brain.evaluate(valid, **best, test_loader_kwargs=hparams["valid_loader"])
    on_valid = metric(tagged_records(*zip(*brain.outcomes, strict=True)))
    brain.evaluate(test, **best, test_loader_kwargs=hparams["valid_loader"])
    return brain.outcomes, costs(brain, encoder), unseen, on_valid


def save(hparams, metric, found, unseen, on_valid, manifests) -> None:
    """Write ``result.json``: the metrics over all folds, what was understood of each utterance."""
    outcomes, cost = all_folds(found)
    records = tagged_records(*zip(*outcomes, strict=True))
    write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=metric,
        records=records,
        other_metrics={"valid": on_valid, "unseen_labels": len(unseen), **with_intervals(records, metric.name)},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        notes=f"absent from training: {', '.join(sorted(set(unseen)))}" if unseen else "",
        **cost,
    )


if __name__ == "__main__":
    run(main)
