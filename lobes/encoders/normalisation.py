"""Normalisation of log-mel features: of whole utterances, and running along with a stream."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# What is assumed before anything was heard, from speech corpora of several rooms and levels: natural logarithms of
# power, and their deviation over bands and time.
PRIOR_MEAN, PRIOR_DEVIATION, PRIOR_FRAMES = -5.0, 3.0, 100.0


def normalise_utterances(features: Tensor, valid: Tensor, floor: float = 1e-3) -> Tensor:
    """Zero mean of each feature, and unit deviation over all of them, over each utterance's real frames.

    The means take away the recording's channel, the one deviation its dynamic range. A deviation for each band would
    also raise bands in which nothing happens but noise, and short words suffer most from it.

    Arguments
    ---------
    features : Tensor
        (B, T, F).
    valid : Tensor
        (B, T), bool.
    floor : float
        Added to the deviation, so that silence stays finite.

    Returns
    -------
    Tensor
        (B, T, F), zero where not valid.
    """
    padded = ~valid[..., None]
    count = valid.sum(1)[:, None, None].clamp_min(1)
    mean = features.masked_fill(padded, 0.0).sum(1, keepdim=True) / count
    centred = (features - mean).masked_fill(padded, 0.0)
    deviation = (centred.square().mean(2, keepdim=True).sum(1, keepdim=True) / count).sqrt()
    return centred / (deviation + floor)


class RunningStatistics(NamedTuple):
    """Sums over the frames of a stream, in float64: after hours of audio a frame still counts."""

    total: Tensor  # (B, F), of the features
    squares: Tensor  # (B, 1), of the squared distances from the mean, averaged over features
    seen: Tensor  # (B, 1), frames

    @classmethod
    def start(cls, features: Tensor) -> RunningStatistics:
        """Before the first frame of streams like ``features`` (B, T, F): a second of the prior."""
        batch, _, width = features.shape
        seen = features.new_full((batch, 1), PRIOR_FRAMES, dtype=torch.float64)
        total = features.new_full((batch, width), PRIOR_MEAN * PRIOR_FRAMES, dtype=torch.float64)
        return cls(total, seen * PRIOR_DEVIATION**2, seen.clone())


def normalise_running(
    features: Tensor, valid: Tensor, state: RunningStatistics, floor: float = 1e-3
) -> tuple[Tensor, RunningStatistics]:
    """As `normalise_utterances`, with the statistics of the frames heard so far, the present one among them.

    Arguments
    ---------
    features : Tensor
        (B, T, F).
    valid : Tensor
        (B, T), bool.
    state : RunningStatistics
        Of the frames before.
    floor : float
        Added to the deviation.

    Returns
    -------
    tuple[Tensor, RunningStatistics]
        (B, T, F), zero where not valid, and the state after the last frame. A frame's output depends on no later
        frame: in pieces it is the same as in one.
    """
    padded = ~valid[..., None]
    exact = features.double().masked_fill(padded, 0.0)
    seen = state.seen[:, None] + valid[..., None].double().cumsum(1)
    total = state.total[:, None] + exact.cumsum(1)
    centred = (exact - total / seen).masked_fill(padded, 0.0)
    squares = state.squares[:, None] + centred.square().mean(2, keepdim=True).cumsum(1)
    normalised = centred / ((squares / seen).sqrt() + floor)
    if features.shape[1]:
        state = RunningStatistics(total[:, -1], squares[:, -1], seen[:, -1])
    return normalised.to(features.dtype), state
