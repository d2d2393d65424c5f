"""Speech translation: a Transformer that writes the translation, on an encoder that is frozen, adapted or fine-tuned.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True  # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz            # another
    python train.py hparams/mtedx.yaml --encoder hf:LeBenchmark/wav2vec2-FR-7K-large --target_language es

Tested is the mean of several checkpoints, with beam search. `result.json` holds corpus BLEU with its interval, chrF,
sacreBLEU's signatures, and every sentence's counts and translation. With `--target text` it transcribes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from speechbrain import Stage

from lobes.dataio import audio_dataset, read_manifest
from lobes.evaluation import bleu, bootstrap_interval, chrf, translation_records, translation_signatures, write_result
from lobes.probes import Seq2Seq, seq2seq_loss
from lobes.training import Brain, average_checkpoints, costs, on_main, run, start_experiment
from lobes.training.downstream import head_of, load_upstream, on_layers, with_layers


class AST(Brain):
    """Trains the head, and what is not frozen of the encoder, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Memory of the frames and, given the tokens before, logits of each token."""
        return self.modules.model(batch)

    def compute_objectives(self, output, batch, stage):
        """Cross-entropy and CTC; in the test also the translations."""
        head = self.unwrapped("model").head
        if stage == Stage.TEST:
            found = head.search(output.memory, output.valid, **self.hparams.search)
            texts = [self.tokenizer.decode(hypothesis.tokens) for hypothesis in found]
            self.translations += zip(batch[self.hparams.target], texts, batch.id, batch.group, strict=True)
        # What is validated is the likelihood of the text alone.
        share = self.hparams.ctc_weight if stage == Stage.TRAIN else 0.0
        smoothing = self.hparams.label_smoothing if stage == Stage.TRAIN else 0.0
        return self.weighted(*seq2seq_loss(output, batch, head.end, smoothing, share))

    def on_stage_start(self, stage, epoch=None):
        """Begin a new list of (reference, translation, id, group)."""
        self.translations = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep as many checkpoints as are averaged."""
        self.translations = self.gather(self.translations)
        if stage == Stage.VALID:
            keys = [key for key in [self.hparams.average_by] if key]
            meta = {"loss": stage_loss, "epoch": epoch}
            self.checkpointer.save_and_keep_only(meta=meta, num_to_keep=self.hparams.average, min_keys=keys)

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the mean of the checkpoints."""
        super().on_evaluate_start(max_key, min_key)
        mean = average_checkpoints(self.checkpointer, "model", self.hparams.average, self.hparams.average_by)
        self.unwrapped("model").load_state_dict(mean)

    def records(self):
        """The counts of each sentence of the stage, and its translation."""
        references, texts, names, groups = zip(*self.translations, strict=True)
        counted = translation_records(references, texts, names, groups)
        return [{**record, "hypothesis": text} for record, text in zip(counted, texts, strict=True)]


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus, train on an encoder, translate the test split."""
    hparams, run_opts = start_experiment(argv, __file__)
    signatures = translation_signatures()  # before anything is trained: sacreBLEU may not be there
    encoder = load_upstream(hparams)
    manifests = on_main(hparams["prepare"])
    splits = {split: read_manifest(path) for split, path in manifests.items()}
    target, source = (
        hparams["tokenizer"]([row[column] for row in splits["train"].rows]) for column in (hparams["target"], "text")
    )

    keys = ["id", "sig", "group", hparams["target"], "tokens"]
    labels = {"tokens": (hparams["target"], target.encode)}
    if hparams["ctc_weight"]:
        keys, labels = [*keys, "source_tokens"], {**labels, "source_tokens": ("text", source.encode)}
    datasets = [
        audio_dataset(splits[split], encoder.sample_rate, keys, labels=labels) for split in ("train", "valid", "test")
    ]
    train, valid, test = with_layers(hparams, encoder, datasets, run_opts["device"])

    head = partial(head_of(hparams), n_source=len(source) if hparams["ctc_weight"] else 0)
    model = Seq2Seq(on_layers(hparams, encoder, len(target), head))
    hparams["checkpointer"].add_recoverable("model", model)
    groups = model.parameter_groups(hparams["encoder_lr"])
    brain = AST({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, hparams["checkpointer"])
    brain.tokenizer = target
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, test_loader_kwargs=hparams["valid_loader"])
    on_valid = {f"valid{suffix}": metric(brain.records()) for suffix, metric in (("", bleu), ("_chrf", chrf))}
    brain.evaluate(test, test_loader_kwargs=hparams["valid_loader"])
    on_main(save, hparams, brain, manifests, signatures, on_valid)


def save(hparams, brain, manifests, signatures, on_valid) -> None:
    """Write ``result.json``: the counts of each sentence, and its translation."""
    records = brain.records()
    interval = bootstrap_interval(records, chrf)
    weights = " ".join(f"{weight:.3f}" for weight in brain.unwrapped("model").probe.weights())
    brain.tokenizer.save(Path(hparams["output_folder"]) / "tokenizer.json")
    write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=bleu,
        records=records,
        other_metrics={"chrf": interval.value, "chrf_low": interval.low, "chrf_high": interval.high, **on_valid},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        notes=f"{signatures}; layer weights {weights}",
        **costs(brain, brain.unwrapped("model").encoder),
    )


if __name__ == "__main__":
    run(main)
