"""Speech recognition with CTC over characters on an encoder, frozen (a probe) or fine-tuned.

    python train.py hparams/tiny.yaml --encoder ../SSL/results/SummaryMixing/1
    python train.py hparams/tiny.yaml --encoder ../SSL/results/SummaryMixing/1 --untrained True  # a control
    python train.py hparams/tiny.yaml --encoder logmel-25hz                                      # another
    python train.py hparams/finetune.yaml --encoder ../SSL/results/SummaryMixing/1

`result.json` holds the character error rate with its interval, and every utterance's errors and hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence

from speechbrain import Stage

from lobes.dataio import audio_dataset, read_manifest, take_hours
from lobes.evaluation import cer, char_errors, wer, word_errors, write_result
from lobes.export import load_encoder
from lobes.probes import CharTokenizer, Downstream, Probe, cache_features, ctc_greedy, ctc_loss
from lobes.training import Brain, costs, on_main, run, start_experiment
from lobes.training.downstream import head_of


class ASR(Brain):
    """Trains the probe, and the encoder where it is not frozen, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, T, V) and the validity (B, T) of their frames."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """CTC; out of training also the greedy transcripts."""
        logits, valid = predictions
        loss, weight, _ = ctc_loss(logits, valid, *batch.tokens)
        if stage != Stage.TRAIN:
            hypotheses = [self.tokenizer.decode(path) for path in ctc_greedy(logits, valid)]
            self.transcripts += zip(batch.text, hypotheses, batch.id, batch.group, strict=True)
        return self.weighted(loss, weight)

    def on_stage_start(self, stage, epoch=None):
        """Begin a new list of (reference, hypothesis, id, group)."""
        self.transcripts = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint with the lowest character error rate on the valid split."""
        self.transcripts = self.gather(self.transcripts)
        if stage == Stage.VALID:
            self.checkpointer.save_and_keep_only(meta={"cer": self.error(), "epoch": epoch}, min_keys=["cer"])

    def error(self):
        """Character error rate of the stage."""
        return cer(char_errors(*zip(*self.transcripts, strict=True)))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus, train on an encoder, test."""
    hparams, run_opts = start_experiment(argv, __file__)
    head_of(hparams)  # a name that is none is told before anything is prepared
    encoder = load_encoder(hparams["encoder"], untrained=hparams["untrained"], seed=hparams["seed"])
    manifests = on_main(hparams["prepare"])
    splits = {split: read_manifest(path) for split, path in manifests.items()}
    splits["train"] = take_hours(splits["train"], hparams["train_hours"], hparams["seed"])
    tokenizer = CharTokenizer.from_texts([row["text"] for row in splits["train"].rows], unknown=True)

    keys, labels = ("id", "sig", "group", "text", "tokens"), {"tokens": ("text", tokenizer.encode)}
    train, valid, test = (
        audio_dataset(splits[split], encoder.sample_rate, keys, labels=labels) for split in ("train", "valid", "test")
    )
    if hparams["frozen"] and hparams["cache_features"]:
        most = hparams["features_gib"]
        train, valid, test = (cache_features(dataset, encoder, features_gib=most) for dataset in (train, valid, test))

    head = head_of(hparams)(encoder.layer_dims[0], len(tokenizer))
    model = Downstream(encoder, Probe(encoder.layer_dims, head, hparams["normalize_layers"]), hparams["frozen"])
    hparams["checkpointer"].add_recoverable("model", model)
    groups = model.parameter_groups(hparams["encoder_lr"])
    brain = ASR({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, hparams["checkpointer"])
    brain.tokenizer = tokenizer
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, min_key="cer", test_loader_kwargs=hparams["valid_loader"])
    on_valid = brain.error()
    brain.evaluate(test, min_key="cer", test_loader_kwargs=hparams["valid_loader"])
    on_main(save, hparams, brain, manifests, on_valid)


def save(hparams, brain, manifests, on_valid) -> None:
    """Write ``result.json``: characters in error, by utterance."""
    columns = list(zip(*brain.transcripts, strict=True))
    hypotheses = {name: hypothesis for _, hypothesis, name, _ in brain.transcripts}
    model = brain.unwrapped("model")
    write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=cer,
        records=[{**record, "hypothesis": hypotheses[record["id"]]} for record in char_errors(*columns)],
        other_metrics={"valid": on_valid, "wer": wer(word_errors(*columns))},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        notes="layer weights " + " ".join(f"{weight:.3f}" for weight in model.probe.weights()),
        **costs(brain, model.encoder),
    )


if __name__ == "__main__":
    run(main)
