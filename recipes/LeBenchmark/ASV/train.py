"""Speaker verification: do two utterances have one speaker? An x-vector or ECAPA head on an encoder's layers.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True  # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz            # another
    python train.py hparams/cosine.yaml --encoder sm-tiny                 # without training, on one layer

The head, and the encoder as far as ``mode`` lets it, is trained to tell the training speakers. Checkpoint, layer and
calibration are chosen on trials of the valid split; the test trials are scored once, at the end. No speaker is in two
splits. `result.json` holds the equal error rate with an interval over speakers, and the score of every trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechbrain import Stage

from lobes import evaluation
from lobes.dataio import audio_dataset, cut_clips, read_manifest, read_trials, validate_splits
from lobes.evaluation import act_dcf, calibrate, cllr, eer, min_dcf, trials_eer, write_result
from lobes.probes import training_free
from lobes.training import Brain, costs, on_main, run, start_experiment
from lobes.training.downstream import load_upstream, on_layers, with_layers


class ASV(Brain):
    """Trains head and encoder in the module ``model``; ``margin`` has a direction for each training speaker."""

    def compute_forward(self, batch, stage):
        """Embeddings (B, E) and the validity (B, T) of the frames they are of."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """Softmax with a margin over the training speakers; out of training, embeddings are kept by id."""
        embeddings, valid = predictions
        heard = valid.any(1)
        if stage == Stage.TRAIN:
            return self.weighted(self.modules.margin(embeddings[heard], batch.speaker[heard]), heard.sum())
        rows = zip(batch.id, embeddings.float().cpu().numpy(), heard.tolist(), strict=True)
        self.embeddings.update({name: row for name, row, is_heard in rows if is_heard})
        return self.weighted(embeddings.new_zeros(()), heard.sum())

    def on_stage_start(self, stage, epoch=None):
        """Begin with no embeddings."""
        self.embeddings = {}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint with the lowest equal error rate on the valid trials."""
        self.embeddings = self.gather(self.embeddings)
        if stage == Stage.VALID:
            self.checkpointer.save_and_keep_only(
                meta={"eer": trials_eer(self.embeddings, self.trials), "epoch": epoch}, min_keys=["eer"]
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare corpus and trials, train, test."""
    hparams, run_opts = start_experiment(argv, __file__)
    encoder = load_upstream(hparams)
    manifests = on_main(hparams["prepare"])
    splits = {split: cut_clips(read_manifest(path), hparams["cut_seconds"][split]) for split, path in manifests.items()}
    validate_splits(splits)
    trials = {split: trials_of(hparams, splits, split) for split in ("valid", "test")}
    number_of = {speaker: number for number, speaker in enumerate(splits["train"].groups)}
    labels = {"train": {"speaker": ("group", number_of.__getitem__)}}
    datasets = {
        split: audio_dataset(
            splits[split], encoder.sample_rate, ("id", "sig", *labels.get(split, ())), labels=labels.get(split)
        )
        for split in ("train", "valid", "test")
    }
    if hparams["head"] is None:
        embeddings, cost, notes = training_free(encoder, datasets, trials["valid"], run_opts["device"])
    else:
        embeddings, cost, notes = trained(hparams, run_opts, encoder, datasets, trials["valid"], len(number_of))
    on_main(save, hparams, manifests, splits, trials, embeddings, cost, notes)


def trials_of(hparams, splits, split) -> list:
    """The trials of a split: made here, or read from a list."""
    given = hparams[f"{split}_trials"]
    if callable(given):
        path = Path(hparams["output_folder"]) / "manifests" / f"{split}_trials.txt"
        given = on_main(given, splits[split], path, apart_from=[splits["train"]])
    return read_trials(given, splits[split])


def trained(hparams, run_opts, encoder, datasets, valid_trials, n_speakers) -> tuple:
    """Embeddings by split and id from the head that is best on the valid trials, and what it cost."""
    train, valid, test = with_layers(hparams, encoder, list(datasets.values()), run_opts["device"])
    model = on_layers(hparams, encoder, hparams["embedding_dim"])
    margin = hparams["loss"](hparams["embedding_dim"], n_speakers)
    for name, module in {"model": model, "margin": margin}.items():
        hparams["checkpointer"].add_recoverable(name, module)
    groups = [*model.parameter_groups(hparams["encoder_lr"]), {"params": list(margin.parameters())}]
    modules, checkpointer = {"model": model, "margin": margin}, hparams["checkpointer"]
    brain = ASV(modules, lambda _: hparams["opt_class"](groups), hparams, run_opts, checkpointer)
    brain.trials = valid_trials
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    embeddings = {}
    for split, dataset in {"train": train, "valid": valid, "test": test}.items():
        if split != "train" or hparams["s_norm"] is not None:
            brain.evaluate(dataset, min_key="eer", test_loader_kwargs=hparams["valid_loader"])
            embeddings[split] = brain.embeddings
    weights = " ".join(f"{weight:.3f}" for weight in brain.unwrapped("model").probe.weights())
    return embeddings, costs(brain, encoder), f"layer weights {weights}"


def save(hparams, manifests, splits, trials, embeddings, cost, notes) -> None:
    """Score, calibrate on the valid trials, and write ``result.json``."""
    speakers = {row["id"]: row["group"] for manifest in splits.values() for row in manifest.rows}
    if hparams["s_norm"] is None:
        scores = {split: evaluation.cosine_scores(embeddings[split], trials[split]) for split in trials}
    else:
        cohort = evaluation.speaker_means(embeddings["train"], speakers)
        scores = {
            split: evaluation.s_norm(embeddings[split], trials[split], cohort, **hparams["s_norm"]) for split in trials
        }
    targets = [trial.target for trial in trials["valid"]]
    llr = calibrate(targets, scores["valid"])(scores["test"])
    records = evaluation.verification_records(trials["test"], scores["test"], speakers, llr)
    on_valid = {"valid": eer(evaluation.verification_records(trials["valid"], scores["valid"], speakers))}
    costs_of_errors = [measure(p_target) for measure in (min_dcf, act_dcf) for p_target in hparams["p_target"]]
    write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=eer,
        records=records,
        other_metrics={**{metric.name: metric(records) for metric in (*costs_of_errors, cllr)}, **on_valid},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        notes=notes,
        **cost,
    )


if __name__ == "__main__":
    run(main)
