"""Parsing of speech: CTC over characters, parts of speech and a biaffine dependency parser on an encoder, jointly.

    python train.py hparams/probe.yaml --encoder LeBenchmark/wav2vec2-FR-7K-large
    python train.py hparams/probe.yaml --encoder logmel-40-25hz --normalize_layers False  # a control
    python train.py hparams/probe.yaml --encoder sm-tiny --mode finetune

`result.json` holds LAS of the recognised words with its interval, UAS, UPOS and word error rate, and the same scores
where the words are given. `test.conllu` and `test_given.conllu` hold the parses, `test_gold.conllu` the treebank's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from speechbrain import Stage

from lobes.dataio import audio_dataset, read_manifest
from lobes.dataio.conllu import Tree, read_conllu, write_conllu
from lobes.evaluation import align_order, las, parse_records, uas, upos, wer, word_errors, write_result
from lobes.probes import (
    CharTokenizer,
    SpeechParser,
    TreeLabels,
    ctc_loss,
    decode_trees,
    parse_loss,
    recognised_words,
)
from lobes.training import Brain, costs, on_main, run, start_experiment
from lobes.training.downstream import load_upstream, on_layers, with_layers


class Syntax(Brain):
    """Trains recogniser and parser, and the encoder where it is not frozen, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits, and parses of the words that were said and, out of training, of those that were recognised."""
        return self.modules.model(batch)

    def compute_objectives(self, predictions, batch, stage):
        """-log p(characters, tags, heads, relations) of an utterance; out of training also the parses."""
        heard = predictions
        ctc, weight, _ = ctc_loss(heard.logits, heard.valid, *batch.tokens)
        gold = (batch.tags.data, batch.heads.data, batch.deprels.data)
        parse = parse_loss(heard.given, *gold, heard.aligned)
        if stage == Stage.TRAIN:
            self.log_stats({"ctc": ctc.detach(), "parse": parse.detach()})
        else:
            trees = [Tree.from_json(tree) for tree in batch.tree]
            decode = partial(decode_trees, labels=self.labels, decoder=self.hparams.decoder)
            given = decode(heard.given, [tree.words for tree in trees])
            recognised = decode(heard.recognised, recognised_words(heard, self.tokenizer))
            self.parses += zip(trees, recognised, given, batch.id, batch.group, strict=True)
        return self.weighted(ctc + self.hparams.parser_weight * parse, weight)

    def on_stage_start(self, stage, epoch=None):
        """Begin a new list of (tree, tree of the recognised words, tree of the given words, id, group)."""
        self.parses = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keep the checkpoint with the highest LAS of recognised words on the valid split."""
        self.parses = self.gather(self.parses)
        if stage == Stage.VALID:
            self.checkpointer.save_and_keep_only(meta={"las": self.score(), "epoch": epoch}, max_keys=["las"])

    def score(self):
        """LAS of the stage's recognised words."""
        gold, recognised, _, ids, groups = zip(*self.parses, strict=True)
        return las(parse_records(gold, recognised, ids, groups))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the treebank, train on an encoder, test."""
    hparams, run_opts = start_experiment(argv, __file__)
    encoder = load_upstream(hparams)
    manifests = on_main(hparams["prepare"])
    splits = {split: read_manifest(path) for split, path in manifests.items()}
    tokenizer = CharTokenizer.from_texts([" ", *(row["text"] for row in splits["train"].rows)], unknown=True)
    labels = TreeLabels.from_trees(Tree.from_json(row["tree"]) for row in splits["train"].rows)
    encoded = {
        "tokens": ("text", tokenizer.encode),
        "tags": ("tree", labels.encode_tags),
        "heads": ("tree", labels.encode_heads),
        "deprels": ("tree", labels.encode_deprels),
    }
    keys = ("id", "sig", "group", "tree", *encoded)
    datasets = [
        audio_dataset(splits[split], encoder.sample_rate, keys, labels=encoded) for split in ("train", "valid", "test")
    ]
    train, valid, test = with_layers(hparams, encoder, datasets, run_opts["device"])

    downstream = on_layers(hparams, encoder, len(tokenizer))
    parser = hparams["parser"](downstream.probe.head.dim_states, len(labels.tags), len(labels.deprels))
    model = SpeechParser(downstream, parser, tokenizer)
    hparams["checkpointer"].add_recoverable("model", model)
    groups = model.parameter_groups(hparams["encoder_lr"])
    brain = Syntax({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, hparams["checkpointer"])
    brain.tokenizer, brain.labels = tokenizer, labels
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, max_key="las", test_loader_kwargs=hparams["valid_loader"])
    on_valid = brain.score()
    brain.evaluate(test, max_key="las", test_loader_kwargs=hparams["valid_loader"])
    on_main(save, hparams, brain, manifests, on_valid)


def save(hparams, brain, manifests, on_valid) -> None:
    """Write the parses as CoNLL-U, and ``result.json``: the scores of what was written."""
    *parses, ids, groups = zip(*sorted(brain.parses, key=lambda parse: parse[3]), strict=True)
    folder = Path(hparams["output_folder"])
    names = ("test_gold", "test", "test_given")
    paths = [
        write_conllu(folder / f"{name}.conllu", map(Tree.sentence, trees, ids))
        for name, trees in zip(names, parses, strict=True)
    ]
    gold, recognised, given = ([sentence.tree(checked=False) for sentence in read_conllu(path)] for path in paths)
    words = word_errors([" ".join(tree.words) for tree in gold], [" ".join(tree.words) for tree in recognised])
    of_recognised = parse_records(gold, recognised, ids, groups)
    of_given = parse_records(gold, given, ids, groups, align_order)
    scores = (upos, uas, las)
    kept = [{f"{score.name}_given": record[f"{score.name}_correct"] for score in scores} for record in of_given]
    errors = [{key: record[key] for key in ("errors", "length")} for record in words]
    model = brain.unwrapped("model")
    write_result(
        folder,
        task=hparams["task"],
        system=hparams["name"],
        metric=las,
        records=[parse | more | error for parse, more, error in zip(of_recognised, kept, errors, strict=True)],
        other_metrics={
            "valid": on_valid,
            "wer": wer(words),
            **{score.name: score(of_recognised) for score in scores},
            **{f"{score.name}_given_words": score(of_given) for score in scores},
        },
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        notes="layer weights " + " ".join(f"{weight:.3f}" for weight in model.downstream.probe.weights()),
        **costs(brain, model.downstream.encoder),
    )


if __name__ == "__main__":
    run(main)
