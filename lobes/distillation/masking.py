"""Hiding what a student hears: the same stretches of time in two encoders of different rates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lobes.distillation.inputs import seconds_heard
from lobes.encoders import Encoder
from lobes.errors import ConfigError
from lobes.objectives import span_mask, utterance_generator

#: Of a frame: less than a sample is, and more than what rounding adds to a whole number.
_SLACK = 1e-6


class Masks:
    """Spans of the student's frames, and of the teacher's, drawn anew for each utterance and step.

    Parameters
    ----------
    student_rate, teacher_rate : float
        Frames per second, Hz, one a multiple of the other.
    probability : float
        That a frame, of the lower of the two rates, begins a span.
    span : int
        Its frames.
    seed : int
        Of the draws.

    Raises
    ------
    ConfigError
        One rate is not a multiple of the other, or a number is out of its range.
    """

    def __init__(self, student_rate: float, teacher_rate: float, probability: float, span: int, seed: int) -> None:
        self.low = min(student_rate, teacher_rate)
        ratios = [rate / self.low for rate in (student_rate, teacher_rate)]
        self.ratios = [round(ratio) for ratio in ratios]
        if any(abs(ratio - whole) > 1e-6 for ratio, whole in zip(ratios, self.ratios, strict=True)):
            raise ConfigError(
                f"masks: frames at {student_rate:g} and {teacher_rate:g} Hz; expected one rate to be a multiple of the "
                "other"
            )
        if not 0 < probability <= 1 or span < 1:
            raise ConfigError(
                f"masks: mask_probability {probability}, mask_span {span}; expected (0, 1] and at least 1"
            )
        self.probability, self.span, self.seed = probability, span, seed

    def draw(self, batch: Any, student: nn.Module) -> tuple[Tensor, Tensor]:
        """Masked frames of the student (B, T) and of the teacher (B, T'), of the batch's ids, lengths and step.

        They are the same whether the batch has audio or the student's features.
        """
        frames = torch.ceil(seconds_heard(student, batch) * self.low - _SLACK).long()
        mask = torch.zeros(len(frames), int(frames.max()), dtype=torch.bool)
        for row, (name, count) in enumerate(zip(batch.id, frames.tolist(), strict=True)):
            generator = utterance_generator(self.seed, name, getattr(batch, "step", 0))
            mask[row, :count] = span_mask(count, self.probability, self.span, generator)
        ours, theirs = (mask.repeat_interleave(ratio, dim=1).to(frames.device) for ratio in self.ratios)
        return ours, theirs


@contextlib.contextmanager
def masked(encoder: nn.Module, mask: Tensor) -> Iterator[None]:
    """While it lasts, masked frames of what an encoder's blocks read are zero.

    Parameters
    ----------
    encoder : nn.Module
        One of ours, or a `HuggingFaceEncoder` with a feature projection.
    mask : Tensor
        (B, T), bool, at its frame rate; frames beyond are not masked.

    Raises
    ------
    ConfigError
        It is another, that has no place for a mask.
    """
    place = place_of_mask(encoder)

    def hide(_: nn.Module, __: Any, output: Any) -> Any:
        frames, *rest = output if isinstance(output, tuple) else (output,)
        frames = frames.masked_fill(fitted(mask, frames.shape[1]).to(frames.device)[..., None], 0.0)
        return (frames, *rest) if isinstance(output, tuple) else frames

    hook = place.register_forward_hook(hide)
    try:
        yield
    finally:
        hook.remove()


def fitted(mask: Tensor, n_frames: int) -> Tensor:
    """A mask (B, T) cut, or filled up with False, to so many frames."""
    mask = mask[:, :n_frames]
    return torch.nn.functional.pad(mask, (0, n_frames - mask.shape[1]))


def place_of_mask(encoder: nn.Module) -> nn.Module:
    """The module whose output is masked: what the blocks read."""
    if isinstance(encoder, Encoder):
        return encoder.stem
    projection = getattr(getattr(encoder, "model", None), "feature_projection", None)
    if projection is None:
        raise ConfigError(f"masks: {type(encoder).__name__} has no place for a mask; use Distillation")
    return projection
