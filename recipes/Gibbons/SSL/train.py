"""Self-supervised pretraining with BEST-RQ on unlabelled recordings of a forest, without the recorder to be tested.

    python train.py hparams/tiny.yaml --held_out S11
    torchrun --nproc_per_node=2 train.py hparams/tiny.yaml --held_out S11

The run's folder then holds the encoder (`encoder/`, for `lobes.export.load_encoder`), `result.json` (the share of
masked frames whose code was predicted, at other recorders) and `train_log.csv`. Run again, it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from lobes.dataio import audio_dataset
from lobes.training import PretrainingBrain, on_main, run, save_pretrained, start_experiment


class SSL(PretrainingBrain):
    """Trains the encoder and the objective inside the module ``ssl``."""

    def compute_forward(self, batch, stage):
        """Mask the batch and predict what was masked."""
        return self.modules.ssl(batch)

    def compute_objectives(self, output, batch, stage):
        """The loss, weighed by the number of predictions that it is the mean of."""
        self.record(output, batch, stage)
        return self.weighted(output.loss, output.weight)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus, pretrain, save the encoder."""
    hparams, run_opts = start_experiment(argv, __file__)
    manifests = on_main(hparams["prepare"])

    keys, rate = ("id", "sig", "group"), hparams["sample_rate"]
    train = audio_dataset(manifests["train"], rate, keys, max_seconds=hparams["max_seconds"], seed=hparams["seed"])
    valid = audio_dataset(manifests["valid"], rate, keys)

    hparams["objective"].prepare(train)
    brain = SSL(hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, valid, None, hparams["train_loader"], hparams["valid_loader"])
    brain.evaluate(valid, test_loader_kwargs=hparams["valid_loader"])
    on_main(save_pretrained, hparams, brain, manifests)


if __name__ == "__main__":
    run(main)
