"""The teacher's own task as the loss: predict its hidden units where speech is masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.distillation.codebook import Codebook
from lobes.distillation.heads import LayerHeads, align
from lobes.distillation.inputs import student_output
from lobes.distillation.losses import mse
from lobes.distillation.masking import Masks, fitted, masked, place_of_mask
from lobes.distillation.objectives import Distillation
from lobes.distillation.teacher import Targets, Teacher
from lobes.encoders import EncoderOutput
from lobes.errors import ConfigError
from lobes.objectives import ObjectiveOutput


class MaskedUnits(Distillation):
    """Predict, where it is masked, the unit that the teacher hears there (DiceHuBERT, Interspeech 2025).

    Units are k-means clusters of one of the teacher's layers, as HuBERT's own labels are, but of the finished teacher;
    the student is pretrained on them as if it were HuBERT's next iteration, at any width, mixer and frame rate. Heads
    for the teacher's layers are trained beside, at `regression`, and say how far the student is; no gradient of theirs
    reaches it. The teacher is heard whole, so that its targets can be kept. Out of training nothing is masked.

    Parameters
    ----------
    encoder, teacher, layers
        As for `Distillation`.
    unit_layer : int
        Which of the teacher's targets the units are of, by place: -1 is the last.
    n_units : int
        K.
    regression : float
        Weight of the heads' mean squared error.
    mask_probability, mask_span, seed
        As for `lobes.distillation.masking.Masks`.

    Raises
    ------
    ConfigError
        There is no such target, one rate is not a multiple of the other, or the student has no place for a mask.
    """

    centres: Tensor
    centre: Tensor
    deviation: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        teacher: Teacher,
        layers: Sequence[int] | None = None,
        unit_layer: int = -1,
        n_units: int = 256,
        regression: float = 1.0,
        mask_probability: float = 0.08,
        mask_span: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, teacher, layers, mse)
        n_targets = len(teacher.layers)
        if not -n_targets <= unit_layer < n_targets:
            raise ConfigError(f"MaskedUnits: unit_layer {unit_layer}; there are {n_targets} targets, the first is 0")
        place_of_mask(encoder)
        self.unit_layer, self.regression = unit_layer, regression
        self.masks = Masks(self.heads.student_rate, teacher.frame_rate, mask_probability, mask_span, seed)
        dim: int = encoder.layer_dims[-1]  # type: ignore[index, assignment]
        self.unit_head = LayerHeads(dim, n_units, 1, self.heads.student_rate, teacher.frame_rate)
        self.register_buffer("centres", torch.full((n_units, teacher.dim), float("nan")))
        self.register_buffer("centre", torch.zeros(teacher.dim))
        self.register_buffer("deviation", torch.ones(teacher.dim))

    def settle(self, heard: Iterable[Targets]) -> None:
        """Find the units, beside the teacher's mean."""
        kept: list[Tensor] = []

        def keep() -> Iterator[Targets]:
            for targets in heard:
                kept.append(targets.layers[self.unit_layer][targets.valid].float().cpu())
                yield targets

        super().settle(keep())
        book = Codebook.fit(torch.cat(kept), self.unit_layer, len(self.centres), seed=self.masks.seed)
        for name, values in (("centres", book.centres), ("centre", book.mean), ("deviation", book.deviation)):
            getattr(self, name).copy_(torch.from_numpy(values))

    def forward(self, encoder: nn.Module, batch: Any) -> ObjectiveOutput:
        """See `Objective.forward`; the loss is a mean over masked frames."""
        if not self.training:
            return super().forward(encoder, batch)
        targets = self.targets(batch)
        ours, theirs = self.masks.draw(batch, encoder)
        with masked(encoder, ours):
            output = student_output(encoder, batch)
        logits, valid = self.unit_head([output.layers[-1]], output.valid)
        logits, wanted, both = align(logits, valid, targets.layers, targets.valid)
        hidden = both & fitted(theirs, both.shape[1]).to(both.device)
        units = self.units(wanted[self.unit_layer][hidden])
        said = logits[0][hidden].float()
        loss = F.cross_entropy(said, units) if len(units) else said.sum()
        predicted, valid = self.predict(output)
        predicted, wanted, both = align(predicted, valid, targets.layers, targets.valid)
        read, _ = self.loss(predicted, wanted, both, output, targets)
        correct = (said.argmax(-1) == units).sum()
        stats = {"unit_loss": loss.detach(), "unit_accuracy": correct / hidden.sum().clamp_min(1)}
        return ObjectiveOutput(loss + self.regression * read, hidden.sum().float(), stats, {})

    def predict(self, output: EncoderOutput) -> tuple[list[Tensor], Tensor]:
        """From what the student has learned, without changing it."""
        return self.heads([output.layers[layer].detach() for layer in self.layers], output.valid)

    def units(self, frames: Tensor) -> Tensor:
        """The unit of each of the teacher's frames (N, D), (N,)."""
        x = (frames.float() - self.centre) / self.deviation
        # |x - c|² without its first term, which is the same for all centres.
        return (x @ self.centres.T - self.centres.square().sum(1) / 2).argmax(-1)
