"""What pretraining recipes share: held-out records, checkpoints, and the encoder folder at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

from speechbrain import Stage

from lobes.dataio import AudioDataset
from lobes.distillation import DistillationObjective
from lobes.evaluation import masked_accuracy, write_result
from lobes.export import ModelCard, save_encoder
from lobes.objectives import ObjectiveOutput, SSLModel
from lobes.training.brain import Brain
from lobes.training.costs import costs

MASKED_ACCURACY = masked_accuracy


class PretrainingBrain(Brain):
    """A Brain whose module ``ssl`` is a `lobes.objectives.SSLModel`; a recipe adds forward and loss.

    It saves a checkpoint after each validation, and keeps per-utterance records of the latest one.
    """

    #: What the objective's ``items`` hold of each utterance, and the metric reads.
    counted: ClassVar[tuple[str, str]] = ("correct", "predictions")

    def record(self, output: ObjectiveOutput, batch: Any, stage: Stage) -> None:
        """Log a training batch's statistics; keep an evaluated batch's counts, utterance by utterance."""
        if stage == Stage.TRAIN:
            self.log_stats({**output.stats})
            return
        groups = getattr(batch, "group", batch.id)
        counts = [output.items[name].tolist() for name in self.counted]
        for name, group, *values in zip(batch.id, groups, *counts, strict=True):
            self.records.append({"id": name, "group": group, **dict(zip(self.counted, values, strict=True))})

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Begin a new list of records."""
        self.records: list[dict[str, Any]] = []

    def on_stage_end(self, stage: Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Collect the records of all processes; save after a validation."""
        self.records = self.gather(self.records)
        if stage == Stage.VALID and self.checkpointer is not None:
            self.checkpointer.save_and_keep_only(meta={"valid_loss": stage_loss, "epoch": epoch})


class FidelityBrain(PretrainingBrain):
    """The same for a student: `lobes.distillation` counts sums of squares, from which `lobes.evaluation.r2` is made.

    They are about the teacher's mean over what is evaluated (`DistillationObjective.measure_against`).
    """

    counted = ("residual", "total")

    def evaluate(self, test_set: AudioDataset, *args: Any, **options: Any) -> float:  # type: ignore[override]
        """See `Brain.evaluate`."""
        cast(DistillationObjective, self.unwrapped("ssl").objective).measure_against(test_set)
        return super().evaluate(test_set, *args, **options)


def save_pretrained(hparams: dict[str, Any], brain: PretrainingBrain, manifests: dict[str, Path]) -> dict[str, Any]:
    """Write ``encoder/`` and ``result.json`` into the output folder of a run that has just been evaluated.

    Arguments
    ---------
    hparams : dict
        With ``output_folder``, ``task``, ``name``, ``seed`` and ``data_name``.
    brain : PretrainingBrain
        After `evaluate`.
    manifests : dict
        Split -> CSV.

    Returns
    -------
    dict
        The result.
    """
    folder = Path(hparams["output_folder"])
    encoder = cast(SSLModel, brain.unwrapped("ssl")).encoder
    result = write_result(
        folder,
        task=hparams["task"],
        system=hparams["name"],
        metric=MASKED_ACCURACY,
        records=brain.records,
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **costs(brain, encoder),
    )
    text = (folder / "hyperparams.yaml").read_text(encoding="utf-8")
    save_encoder(encoder, folder / "encoder", text, card=ModelCard.of_run(result, manifests))
    return result
