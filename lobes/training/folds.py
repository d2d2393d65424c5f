"""Cross-validation by training: a model per fold, the decisions of all folds together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechbrain import Stage
from speechbrain.utils.epoch_loop import EpochCounter
from torch import Tensor, nn

from lobes.dataio import AudioDataset
from lobes.probes import Decision, Downstream, Probe
from lobes.training.brain import Brain
from lobes.training.checkpointer import Checkpointer
from lobes.training.costs import costs


class DecidingBrain(Brain):
    """A Brain that notes what it decides on each clip of a test set, in all processes: `decisions`."""

    decisions: list[Decision]

    def decide(self, logits: Tensor, targets: Sequence[str], classes: Sequence[str], batch: Any) -> None:
        """Note the decisions on a batch; call it out of training.

        Parameters
        ----------
        logits : Tensor
            (B, C).
        targets : sequence of str
            Labels of the B clips.
        classes : sequence of str
            Names of the C outputs.
        batch : PaddedBatch
            With ``id`` and ``group``.
        """
        for row, target, name, group in zip(logits.softmax(-1).tolist(), targets, batch.id, batch.group, strict=True):
            scores = dict(zip(classes, row, strict=True))
            self.decisions.append(Decision(target, max(scores, key=scores.__getitem__), name, group, scores))

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Begin a new list."""
        self.decisions = []

    def on_stage_end(self, stage: Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Collect what other processes decided; save when training is over."""
        self.decisions = self.gather(self.decisions)
        if stage == Stage.TRAIN and epoch == self.hparams.epochs:
            self.checkpointer.save_and_keep_only(meta={"epoch": epoch})


def tune_fold(
    brain_class: type[DecidingBrain],
    hparams: Mapping[str, Any],
    run_opts: Any,
    folder: Path,
    encoder: nn.Module,
    n_classes: int,
    train: AudioDataset,
    test: AudioDataset,
) -> tuple[list[Decision], dict[str, Any]]:
    """Train an encoder, as far as it is not frozen, with a head on the weighted sum of its layers, and test it.

    Parameters
    ----------
    brain_class : type
        Its ``modules.model`` is a `Downstream`.
    hparams : mapping
        ``head``, ``opt_class``, ``encoder_lr``, ``epochs``, ``train_loader``, ``test_loader``, and what a Brain takes.
    run_opts : RunOptions
        From `start_experiment`.
    folder : Path
        Of the fold; checkpoints go into ``save``, from which it goes on where it was stopped.
    encoder : nn.Module
        Keeps the Encoder contract; what is trained of it has been chosen.
    n_classes : int
        Outputs of the head.
    train, test : AudioDataset
        Of the fold.

    Returns
    -------
    tuple of list and dict
        The decision on each clip of `test`; what the training cost, as `lobes.evaluation.write_result` takes it.
    """
    head = hparams["head"](encoder.layer_dims[0], n_classes)  # type: ignore[index]
    model = Downstream(encoder, Probe(encoder.layer_dims, head, normalize=True), frozen=None)  # type: ignore[arg-type]
    groups = model.parameter_groups(hparams["encoder_lr"])
    epochs = EpochCounter(hparams["epochs"])
    checkpointer = Checkpointer(f"{folder}/save", {"model": model, "epochs": epochs})
    hparams = {**hparams, "output_folder": str(folder)}
    brain = brain_class({"model": model}, lambda _: hparams["opt_class"](groups), hparams, run_opts, checkpointer)
    brain.fit(epochs, train, None, None, hparams["train_loader"])
    brain.evaluate(test, test_loader_kwargs=hparams["test_loader"])
    return brain.decisions, costs(brain, encoder)


def all_folds(outcomes: Iterable[tuple[list[Decision], dict[str, Any]]]) -> tuple[list[Decision], dict[str, Any]]:
    """The decisions of all folds, and what they cost together.

    Hours and seconds add up; parameters and multiply-accumulates are those of one model, the first.
    """
    decisions, spent = zip(*outcomes, strict=True)
    total = {name: sum(fold[name] for fold in spent) for name in ("audio_hours", "wall_seconds")}
    return [decision for found in decisions for decision in found], {**spent[0], **total}
