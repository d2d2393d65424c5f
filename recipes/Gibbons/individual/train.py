"""Which individual calls, in a session that was not heard; and a corpus of which that cannot be asked.

    python train.py hparams/tiny.yaml --encoder sm-tiny           # siamangs: a probe on a frozen encoder
    python train.py hparams/tiny.yaml --encoder logmel-40-25hz    # a control
    python train.py hparams/leak.yaml --encoder logmel-40-25hz    # gibbon females, of one recording each
    python train.py hparams/tune.yaml --encoder sm-tiny --adaptation '!name:lobes.adapters.LoRA'

Each session is tested by a model that was trained on the others. `result.json` holds the unweighted average recall with
an interval over sessions, and beside it what the background alone would give to the probe of a frozen encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechbrain import Stage
from torch.nn.functional import cross_entropy

from lobes.training import DecidingBrain, cross_validate, on_main, run, save_folds, start_experiment


class Individual(DecidingBrain):
    """Tunes the encoder, with a head on it, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, classes)."""
        return self.modules.model(batch)[0]

    def compute_objectives(self, logits, batch, stage):
        """Cross-entropy, each class with the same weight, and any control; out of training also the decisions."""
        target, weight = batch.class_number.flatten(), self.hparams.class_weights.to(logits)
        if stage != Stage.TRAIN:
            self.decide(logits, batch.individual, self.hparams.classes, batch)
        loss = cross_entropy(logits, target, weight) + self.control(stage)
        return self.weighted(loss, float(weight[target].sum()))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; train and test once per session, on the calls and on the background."""
    hparams, run_opts = start_experiment(argv, __file__)
    manifests = on_main(hparams["prepare"])
    folds = on_main(hparams["folds"], manifests["all"], Path(hparams["output_folder"]) / "folds")
    found = cross_validate(Individual, hparams, run_opts, folds)
    on_main(save_folds, hparams, found, manifests)


if __name__ == "__main__":
    run(main)
