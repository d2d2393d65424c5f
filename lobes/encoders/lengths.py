"""Lengths of padded batches: SpeechBrain's relative ones, absolute ones, and masks of real frames."""

from __future__ import annotations

import torch
from torch import Tensor


def absolute_lengths(lengths: Tensor, longest: int) -> Tensor:
    """Samples or frames of each utterance from its length relative to the longest.

    Arguments
    ---------
    lengths : Tensor
        (B,), float in [0, 1], as SpeechBrain's batches give it.
    longest : int
        Padded length T.

    Returns
    -------
    Tensor
        (B,), int64.

    Example
    -------
    >>> absolute_lengths(torch.tensor([1.0, 0.5, 0.0]), 10)
    tensor([10,  5,  0])
    """
    return (lengths.double() * longest).round().long().clamp(0, longest)


def relative_lengths(lengths: Tensor, longest: int) -> Tensor:
    """The inverse of `absolute_lengths`: (B,) int64 to (B,) float32."""
    return lengths.float() / max(longest, 1)


def frame_mask(lengths: Tensor, longest: int) -> Tensor:
    """True at the real frames.

    Arguments
    ---------
    lengths : Tensor
        (B,), int64, frames of each utterance.
    longest : int
        Padded length T.

    Returns
    -------
    Tensor
        (B, T), bool.

    Example
    -------
    >>> frame_mask(torch.tensor([2, 0]), 3)
    tensor([[ True,  True, False],
            [False, False, False]])
    """
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
