"""Masked distillation in two ways: hidden frames are learned from the whole, the others from what is heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lobes.distillation.heads import align
from lobes.distillation.losses import l1_cosine
from lobes.distillation.masking import Masks, fitted, masked, place_of_mask
from lobes.distillation.objectives import Distillation
from lobes.distillation.teacher import Teacher
from lobes.errors import ConfigError
from lobes.objectives import ObjectiveOutput


class MaskedTwoWay(Distillation):
    """The student hears masked audio (MaskHuBERT, of Jang et al., "Recycle-and-Distill", Interspeech 2023).

    In masked frames it learns what the teacher makes of the whole utterance; in the others, what the teacher makes of
    the masked one, for there it cannot know more. The teacher is heard twice, and what it makes of masked audio cannot
    be kept: masks change in every step, so that batches have to hold audio. Out of training nothing is masked, and
    fidelity is that of `Distillation`. A masked frame is zero here, where the paper has a learned vector.

    Parameters
    ----------
    encoder, teacher, layers, distance, weights
        As for `Distillation`. Masks are of features in our encoders, and of what the transformer reads in others.
    mask_probability, mask_span, seed
        As for `lobes.distillation.masking.Masks`.

    Raises
    ------
    ConfigError
        One rate is not a multiple of the other, or an encoder has no place for a mask.
    """

    needs_audio = True

    def __init__(
        self,
        encoder: nn.Module,
        teacher: Teacher,
        layers: Sequence[int] | None = None,
        distance: Callable[[Tensor, Tensor, Tensor], Tensor] = l1_cosine,
        weights: Sequence[float] | None = None,
        mask_probability: float = 0.08,
        mask_span: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, teacher, layers, distance, weights)
        self.masks = Masks(self.heads.student_rate, teacher.frame_rate, mask_probability, mask_span, seed)
        for part in (encoder, teacher.encoder):
            place_of_mask(part)

    def forward(self, encoder: nn.Module, batch: Any) -> ObjectiveOutput:
        """See `Objective.forward`."""
        if not self.training:
            return super().forward(encoder, batch)
        if not hasattr(batch, "sig"):
            raise ConfigError(
                "MaskedTwoWay: the batch holds no audio, which the teacher hears anew in each step; "
                "give the TargetCache no inputs (--cache_inputs False)"
            )
        waveform, lengths = batch.sig
        ours, theirs = self.masks.draw(batch, encoder)
        whole = self.targets(batch)
        with masked(self.teacher.encoder, theirs):
            disturbed = self.teacher(waveform.to(self.mean.device), lengths.to(self.mean.device))
        with masked(encoder, ours):
            output = encoder(waveform, lengths)
        predicted, valid = self.predict(output)
        predicted, wanted, both = align(predicted, valid, whole.layers, whole.valid)
        _, heard, _ = align(predicted, both, disturbed.layers, disturbed.valid)
        hidden = fitted(theirs, both.shape[1]).to(both.device)
        parts = [both & hidden, both & ~hidden]
        terms = [
            weight * (self.distance(p, t, parts[0]) * parts[0].sum() + self.distance(p, h, parts[1]) * parts[1].sum())
            for weight, p, t, h in zip(self.weights, predicted, wanted, heard, strict=True)
        ]
        loss = torch.stack(terms).sum() / both.sum().clamp_min(1)
        stats = {"masked_share": parts[0].sum() / both.sum().clamp_min(1)}
        return ObjectiveOutput(loss, both.sum().float(), stats, {})
