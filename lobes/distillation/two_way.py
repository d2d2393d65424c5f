"""Masked distillation in two ways: hidden frames are learned from the whole, the others from what is heard."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lobes.distillation.heads import align
from lobes.distillation.losses import l1_cosine
from lobes.distillation.objectives import Distillation
from lobes.distillation.teacher import Teacher
from lobes.encoders import Encoder, absolute_lengths
from lobes.errors import ConfigError
from lobes.objectives import ObjectiveOutput, span_mask, utterance_generator


class MaskedTwoWay(Distillation):
    """The student hears masked audio (MaskHuBERT, of Jang et al., "Recycle-and-Distill", Interspeech 2023).

    In masked frames it learns what the teacher makes of the whole utterance; in the others, what the teacher makes of
    the masked one, for there it cannot know more. The teacher is heard twice, and its targets cannot be kept: masks
    change in every step. Out of training nothing is masked, and fidelity is that of `Distillation`. A masked frame is
    zero here, where the paper has a learned vector.

    Parameters
    ----------
    encoder, teacher, layers, distance, weights
        As for `Distillation`. Masks are of features in our encoders, and of what the transformer reads in others.
    mask_probability : float
        That a frame, of the lower of the two rates, begins a masked span.
    mask_span : int
        Frames of a span.
    seed : int
        Of the masks.

    Raises
    ------
    ConfigError
        One rate is not a multiple of the other, or an encoder has no place for a mask.
    """

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
        if self.heads.interpolated:
            raise ConfigError(
                f"MaskedTwoWay: frames at {self.heads.student_rate:g} and {self.heads.teacher_rate:g} Hz; expected one "
                "rate to be a multiple of the other"
            )
        if not 0 < mask_probability <= 1 or mask_span < 1:
            raise ConfigError(
                f"MaskedTwoWay: mask_probability {mask_probability}, mask_span {mask_span}; expected (0, 1] and "
                "at least 1"
            )
        for part in (encoder, teacher.encoder):
            _kind(part)
        self.mask_probability, self.mask_span, self.seed = mask_probability, mask_span, seed

    def forward(self, encoder: nn.Module, batch: Any) -> ObjectiveOutput:
        """See `Objective.forward`."""
        if not self.training:
            return super().forward(encoder, batch)
        waveform, lengths = batch.sig
        ours, theirs = self.masks(batch)
        whole = self.targets(batch)
        with masked(self.teacher.encoder, theirs):
            disturbed = self.teacher(waveform.to(self.mean.device), lengths.to(self.mean.device))
        with masked(encoder, ours):
            output = encoder(waveform, lengths)
        predicted, valid = self.predict(output)
        predicted, wanted, both = align(predicted, valid, whole.layers, whole.valid)
        _, heard, _ = align(predicted, both, disturbed.layers, disturbed.valid)
        hidden = theirs[:, : both.shape[1]].to(both.device)
        hidden = torch.nn.functional.pad(hidden, (0, both.shape[1] - hidden.shape[1]))
        parts = [both & hidden, both & ~hidden]
        terms = [
            weight * (self.distance(p, t, parts[0]) * parts[0].sum() + self.distance(p, h, parts[1]) * parts[1].sum())
            for weight, p, t, h in zip(self.weights, predicted, wanted, heard, strict=True)
        ]
        loss = torch.stack(terms).sum() / both.sum().clamp_min(1)
        stats = {"masked_share": parts[0].sum() / both.sum().clamp_min(1)}
        return ObjectiveOutput(loss, both.sum().float(), stats, {})

    def masks(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Masked frames of the student and of the teacher, (B, T) each: the same stretches of time."""
        low = min(self.heads.student_rate, self.heads.teacher_rate)
        waveform, lengths = batch.sig
        samples = absolute_lengths(lengths, waveform.shape[1])
        frames = torch.ceil(samples.double() / self.teacher.sample_rate * low).long()
        mask = torch.zeros(len(samples), int(frames.max()), dtype=torch.bool)
        for row, (name, count) in enumerate(zip(batch.id, frames.tolist(), strict=True)):
            generator = utterance_generator(self.seed, name, getattr(batch, "step", 0))
            mask[row, :count] = span_mask(count, self.mask_probability, self.mask_span, generator)
        ratios = [round(rate / low) for rate in (self.heads.student_rate, self.heads.teacher_rate)]
        return tuple(mask.repeat_interleave(ratio, dim=1).to(waveform.device) for ratio in ratios)  # type: ignore[return-value]


@contextlib.contextmanager
def masked(encoder: nn.Module, mask: Tensor) -> Iterator[None]:
    """While it lasts, masked frames of what an encoder's blocks read are zero.

    Parameters
    ----------
    encoder : nn.Module
        One of ours, or a `HuggingFaceEncoder` with a feature projection.
    mask : Tensor
        (B, T), bool, at its frame rate; frames beyond are not masked.
    """
    place = encoder.stem if _kind(encoder) == "ours" else encoder.model.feature_projection  # type: ignore[union-attr]

    def hide(_: nn.Module, __: Any, output: Any) -> Any:
        frames, *rest = output if isinstance(output, tuple) else (output,)
        here = mask[:, : frames.shape[1]].to(frames.device)
        here = torch.nn.functional.pad(here, (0, frames.shape[1] - here.shape[1]))
        frames = frames.masked_fill(here[..., None], 0.0)
        return (frames, *rest) if isinstance(output, tuple) else frames

    hook = place.register_forward_hook(hide)  # type: ignore[union-attr]
    try:
        yield
    finally:
        hook.remove()


def _kind(encoder: nn.Module) -> str:
    if isinstance(encoder, Encoder):
        return "ours"
    if hasattr(getattr(encoder, "model", None), "feature_projection"):
        return "upstream"
    raise ConfigError(f"MaskedTwoWay: {type(encoder).__name__} has no place for a mask; use Distillation")
