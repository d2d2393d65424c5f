"""What a student hears of a batch: its audio, or features that its front-end made of it once (`TargetCache`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lobes.encoders import EncoderOutput, LogMel, absolute_lengths, frame_mask


def front_end(student: nn.Module) -> LogMel | None:
    """The front-end whose features can stand in for audio, or None where the student has no such.

    It has no weights and draws nothing, so that an utterance has the same features in each epoch, and the student goes
    on from them by its ``encode``: `Encoder` and `EfficientNetV2` do, models that read the waveform do not.
    """
    features = getattr(student, "features", None)
    # A class derived from it may do what is to be done anew in each step, such as dither.
    return features if type(features) is LogMel and callable(getattr(student, "encode", None)) else None


def student_output(student: nn.Module, batch: Any) -> EncoderOutput:
    """What a student makes of a batch, of its features where the dataset has put them there, or else of its audio."""
    if not hasattr(batch, "features"):
        return student(*batch.sig)
    features, lengths = batch.features
    valid = frame_mask(absolute_lengths(lengths, features.shape[1]), features.shape[1])
    return student.encode(features.float(), valid)  # type: ignore[operator]


def seconds_heard(student: nn.Module, batch: Any) -> Tensor:
    """How long each utterance of a batch is, (B,), float64, s: of features, to the next of their frames."""
    if hasattr(batch, "features"):
        values, lengths = batch.features
        rate: float = student.features.frame_rate  # type: ignore[union-attr, assignment]
    else:
        values, lengths = batch.sig
        rate = student.sample_rate  # type: ignore[assignment]
    return absolute_lengths(lengths, values.shape[1]).to(torch.float64) / rate
