"""Spoken digits with an encoder that stops as soon as it is sure: a head on each layer, all fine-tuned together.

    python early_exit.py hparams/early_exit.yaml --encoder sm-tiny
    python early_exit.py hparams/early_exit.yaml --encoder sm-tiny --thresholds '[0.5, 0.99]'

The folds and clips are those of `train.py`. Each threshold, the probability at which a clip leaves, is a system of its
own, in `results/<name>/<seed>/<threshold>`: its accuracy, and the multiply-accumulates that the average clip took.
At a threshold above 1 all clips are heard to the end: the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from train import DIGITS, Digits, read_fold, save

from lobes.dataio import leave_one_group_out
from lobes.encoders import EarlyExit
from lobes.training import Checkpointer, on_main, run, start_experiment
from lobes.training.costs import costs
from lobes.training.downstream import head_of


class AllHeads(nn.Module):
    """What is trained: the logits (B, 10) of every head."""

    def __init__(self, early: EarlyExit) -> None:
        super().__init__()
        self.early = early

    def forward(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """See `EarlyExit.logits`."""
        return self.early.logits(waveform, lengths)


class EarlyDigits(Digits):
    """Trains the module ``model``, all of whose heads count alike; notes the layer at which each tested clip leaves."""

    def compute_forward(self, batch, stage):
        """Logits of all heads, or, out of training, where and with what each clip leaves."""
        if stage == Stage.TRAIN:
            return self.modules.model(*batch.sig)
        return self.unwrapped("model").early(*batch.sig)

    def compute_objectives(self, output, batch, stage):
        """Cross-entropy, the mean over heads."""
        if stage != Stage.TRAIN:
            self.layers += output.layer.tolist()
            return super().compute_objectives(output.logits, batch, stage)
        target = batch.digit_number.flatten()
        losses = [cross_entropy(logits, target) for logits in output]
        return self.weighted(sum(losses) / len(losses), len(target))

    def on_stage_start(self, stage, epoch=None):
        """Begin a new list of layers too."""
        super().on_stage_start(stage, epoch)
        self.layers = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Collect those of all processes too."""
        super().on_stage_end(stage, stage_loss, epoch)
        self.layers = self.gather(self.layers)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the corpus; train once per speaker, test once per speaker and threshold."""
    hparams, run_opts = start_experiment(argv, __file__)
    folder = Path(hparams["output_folder"])
    head_of(hparams)  # a name that is none is told before anything is prepared
    manifests = on_main(hparams["prepare"])
    folds = on_main(leave_one_group_out, manifests["all"], folder / "folds", valid_groups=0)
    tested = [train_fold(hparams, run_opts, folder / "folds" / name, fold) for name, fold in folds.items()]
    for number, threshold in enumerate(hparams["thresholds"]):
        outcomes = [outcome[number] for outcome in tested]
        # Clips, not folds, are what the mean is over.
        spent = sum(cost["macs_per_second"] * len(decisions) for decisions, cost in outcomes)
        macs = spent / sum(len(decisions) for decisions, _ in outcomes)
        outcomes = [(decisions, {**cost, "macs_per_second": macs}) for decisions, cost in outcomes]
        system = {"output_folder": str(folder / f"{threshold:g}"), "name": f"{hparams['name']} at {threshold:g}"}
        on_main(save, {**hparams, **system}, outcomes, manifests)


def train_fold(hparams, run_opts, folder, fold) -> list[tuple[list, dict]]:
    """Train on one fold; the decisions and what they cost, for each threshold."""
    encoder, train, test = read_fold(hparams, fold)
    early = EarlyExit(encoder.requires_grad_(), [head_of(hparams)(dim, len(DIGITS)) for dim in encoder.layer_dims])
    model, epochs = AllHeads(early), EpochCounter(hparams["epochs"])
    tuned = {"params": encoder.parameters(), "lr": hparams["encoder_lr"], "weight_decay": 0.0}  # as `Downstream` has it
    groups = [{"params": early.heads.parameters()}, tuned]
    checkpointer = Checkpointer(f"{folder}/save", {"model": model, "epochs": epochs})
    settings = {**hparams, "output_folder": str(folder)}
    brain = EarlyDigits({"model": model}, lambda _: hparams["opt_class"](groups), settings, run_opts, checkpointer)
    brain.fit(epochs, train, None, None, hparams["train_loader"])
    outcomes = []
    for threshold in hparams["thresholds"]:
        early.threshold = threshold
        brain.evaluate(test, test_loader_kwargs=hparams["test_loader"])
        macs = sum(early.macs(10.0, layer) / 10 for layer in brain.layers) / len(brain.layers)
        outcomes.append((brain.decisions, {**costs(brain, encoder), "macs_per_second": macs}))
    return outcomes


if __name__ == "__main__":
    run(main)
