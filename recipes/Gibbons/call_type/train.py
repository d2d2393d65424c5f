"""Which animal calls, at a recorder that was not heard: gibbons, argus pheasants, hornbills, or none of them.

    python train.py hparams/tiny.yaml --encoder sm-tiny                            # a probe on a frozen encoder
    python train.py hparams/tiny.yaml --encoder sm-tiny --untrained True           # a control
    python train.py hparams/tiny.yaml --encoder '../SSL/results/calls/{fold}/1'    # an encoder for each fold
    python train.py hparams/tune.yaml --encoder sm-tiny --adaptation '!name:lobes.adapters.LoRA'
    python train.py hparams/reprogram.yaml --source_task ../../FSDD/digits/results/finetuned/1

Each recorder is tested, on all of its clips, by a model that was trained on those of the others. A frozen encoder gets
a logistic regression on one of its layers; a tuned one (`adaptation`) is trained with a linear head. Reprogrammed, a
classifier of spoken digits stays as it is, and what is added to its input is learned. `result.json` has the unweighted
average recall (of two classes with `positive`: the AUC) with an interval over recorders, and beside it what the
background alone would give: a logistic regression on the frozen encoder, on audio without the band in which the animals
call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechbrain import Stage

from lobes.training import DecidingBrain, cross_validate, on_main, run, save_folds, start_experiment


class CallType(DecidingBrain):
    """Tunes the encoder, with a head on it, inside the module ``model``."""

    def compute_forward(self, batch, stage):
        """Logits (B, classes)."""
        return self.modules.model(batch)[0]

    def compute_objectives(self, logits, batch, stage):
        """The loss, each class with the same weight, and any control; out of training also the decisions."""
        target, weight = batch.class_number.flatten(), self.hparams.class_weights.to(logits)
        if stage != Stage.TRAIN:
            self.decide(logits, batch.call_type, self.hparams.classes, batch)
        loss = self.hparams.loss(logits, target, weight) + self.control(stage)
        return self.weighted(loss, float(weight[target].sum()))


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; train and test once per recorder, on the calls and on the background."""
    hparams, run_opts = start_experiment(argv, __file__)
    manifests = on_main(hparams["prepare"])
    folds = on_main(hparams["folds"], manifests["all"], Path(hparams["output_folder"]) / "folds")
    found = cross_validate(CallType, hparams, run_opts, folds)
    on_main(save_folds, hparams, found, manifests)


if __name__ == "__main__":
    run(main)
