"""LeBenchmark's speech recognition: CTC or attention, characters or pieces, on any encoder, frozen, adapted or tuned.

    python train.py hparams/tiny.yaml --encoder sm-tiny
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True --name untrained               # a control
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz --normalize_layers False --name log-mel  # another
    python train.py hparams/mls.yaml --encoder hf:LeBenchmark/wav2vec2-FR-7K-large --decoder.beam 16 --language_model 3
    python train.py hparams/attention.yaml --encoder sm-tiny
    python train.py hparams/phones.yaml --encoder sm-tiny --lexicon /corpora/librispeech-lexicon.txt    # SUPERB's PR

The checkpoint with the lowest character (or phone) error rate of the best path on the validation split is tested, with
the decoder or search that is asked for. `result.json` has the rate with its interval, and every utterance's hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from speechbrain import Stage
from speechbrain.utils.logger import get_logger

from lobes.dataio import audio_dataset, read_manifest, take_hours
from lobes.errors import ConfigError
from lobes.evaluation import recognition_rates, write_result
from lobes.probes import Seq2Seq, ctc_greedy, ctc_loss, seq2seq_loss, unseen_characters
from lobes.training import Brain, costs, on_main, run, start_experiment
from lobes.training.downstream import head_of, load_upstream, on_layers, with_layers

logger = get_logger(__name__)


class ASR(Brain):
    """Trains the head, and what ``mode`` leaves free of the encoder, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, T, V) and the validity (B, T) of their frames."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """CTC; out of training also the transcripts."""
        logits, valid = predictions
        loss, weight, _ = ctc_loss(logits, valid, *batch.tokens)
        if stage != Stage.TRAIN:
            self.transcribe((self.decoder if stage == Stage.TEST else ctc_greedy)(logits, valid), batch)
        return self.weighted(loss, weight)

    def transcribe(self, paths, batch):
        """Keep the texts of tokens."""
        hypotheses = [self.tokenizer.decode(path) for path in paths]
        self.transcripts += zip(batch[self.hparams.target], hypotheses, batch.id, batch.group, strict=True)

    def on_stage_start(self, stage, epoch=None):
        """Begin a new list of (reference, hypothesis, id, group)."""
        self.transcripts = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint with the lowest error rate of characters, or of phones, on the valid split."""
        self.transcripts = self.gather(self.transcripts)
        if stage == Stage.VALID:
            meta = {self.chosen_by: self.rate(self.chosen_by), "epoch": epoch}
            self.checkpointer.save_and_keep_only(meta=meta, min_keys=[self.chosen_by])

    def records(self, name):
        """Errors by utterance, of words, characters or phones."""
        return self.rates[name][1](*zip(*self.transcripts, strict=True))

    def rate(self, name):
        """Of all transcripts of the stage."""
        return self.rates[name][0](self.records(name))


class AttentionASR(ASR):
    """The same with a head that writes, attending to the frames; a share of CTC on them teaches it to align."""

    def compute_objectives(self, output, batch, stage):
        """Cross-entropy and CTC; out of training also the transcripts, in validation greedily."""
        head, training = self.unwrapped("model").head, stage == Stage.TRAIN
        if not training:
            search = self.hparams.search if stage == Stage.TEST else {**self.hparams.search, "beam": 1}
            self.transcribe([found.tokens for found in head.search(output.memory, output.valid, **search)], batch)
        smoothing, share = (self.hparams.label_smoothing, self.hparams.ctc_weight) if training else (0.0, 0.0)
        return self.weighted(*seq2seq_loss(output, batch, head.end, smoothing, share))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus, train on an encoder, test."""
    hparams, run_opts = start_experiment(argv, __file__)
    rates, target = recognition_rates(hparams["metric"]), hparams["target"]
    encoder = load_upstream(hparams)
    manifests = on_main(hparams["prepare"])
    splits = {split: read_manifest(path) for split, path in manifests.items()}
    splits["train"] = take_hours(splits["train"], hparams["train_hours"], hparams["seed"])
    texts = {split: [row[target] for row in splits[split].rows] for split in ("train", "valid", "test")}
    tokenizer = hparams["tokenizer"](texts["train"])
    on_main(tokenizer.save, Path(hparams["output_folder"]) / "tokenizer.json")
    decoder = hparams["decoder"](tokenizer, texts["train"])
    unseen = {split: sum(unseen_characters(tokenizer, texts[split]).values()) for split in ("valid", "test")}
    logger.info(f"{len(tokenizer)} tokens; symbols that no training text has: {unseen}")

    attends = hparams["search"] is not None
    if attends and decoder.beam > 1:
        raise ConfigError(f"decoder.beam is {decoder.beam}, and the head attends: expected 1; its beam is search.beam")
    keys, labels = ["id", "sig", "group", target, "tokens"], {"tokens": (target, tokenizer.encode)}
    if attends and hparams["ctc_weight"]:
        keys, labels = [*keys, "source_tokens"], {**labels, "source_tokens": labels["tokens"]}
    datasets = [audio_dataset(splits[split], encoder.sample_rate, keys, labels=labels) for split in texts]
    train, valid, test = with_layers(hparams, encoder, datasets, run_opts["device"])

    if attends:
        head = partial(head_of(hparams), n_source=len(tokenizer) if hparams["ctc_weight"] else 0)
        model = Seq2Seq(on_layers(hparams, encoder, len(tokenizer), head))
    else:
        model = on_layers(hparams, encoder, len(tokenizer))
    hparams["checkpointer"].add_recoverable("model", model)
    groups = model.parameter_groups(hparams["encoder_lr"])
    make = AttentionASR if attends else ASR
    brain = make({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, hparams["checkpointer"])
    brain.tokenizer, brain.decoder, brain.rates = tokenizer, decoder, rates
    brain.chosen_by = best = "cer" if "cer" in rates else hparams["metric"]
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, min_key=best, test_loader_kwargs=hparams["valid_loader"])
    on_valid = {"valid": brain.rate(hparams["metric"]), **{f"valid_{name}": brain.rate(name) for name in rates}}
    brain.evaluate(test, min_key=best, test_loader_kwargs=hparams["valid_loader"])
    on_main(save, hparams, brain, manifests, on_valid, unseen["test"])


def save(hparams, brain, manifests, on_valid, unseen) -> None:
    """Write ``result.json``: words, characters or phones in error, by utterance."""
    name, *others = brain.rates
    hypotheses = {name: hypothesis for _, hypothesis, name, _ in brain.transcripts}
    model = brain.unwrapped("model")
    weights = " ".join(f"{weight:.3f}" for weight in model.probe.weights())
    write_result(
        hparams["output_folder"],
        task=hparams["task"],
        system=hparams["name"],
        metric=brain.rates[name][0],
        records=[{**record, "hypothesis": hypotheses[record["id"]]} for record in brain.records(name)],
        other_metrics={**{other: brain.rate(other) for other in others}, **on_valid},
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        notes=f"layer weights {weights}; {unseen} symbols of the test texts are in no training text",
        **costs(brain, model.encoder),
    )


if __name__ == "__main__":
    run(main)
