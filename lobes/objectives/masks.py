"""Masks of one utterance at a time."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def utterance_generator(seed: int, utterance: str, step: int) -> torch.Generator:
    """A CPU random generator that depends on these three alone.

    Example
    -------
    >>> [torch.rand(1, generator=utterance_generator(0, "a", 5)).item() for _ in range(2)]  # doctest: +ELLIPSIS
    [0..., 0...]
    """
    digest = hashlib.blake2b(f"{seed}\0{utterance}\0{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def span_mask(n_frames: int, probability: float, span: int, generator: torch.Generator) -> Tensor:
    """Masked spans of one utterance.

    Each frame begins a span with that probability; spans may overlap, and the last is cut at the end. So a share of
    about 1 - (1 - probability)^span is masked, whatever the utterance's length. At least one frame is masked, and of
    two or more at least one is not.

    Arguments
    ---------
    n_frames : int
        Length T of the utterance.
    probability : float
        That a frame begins a span.
    span : int
        Frames.
    generator : torch.Generator
        Where the draws come from.

    Returns
    -------
    Tensor
        (T,), bool.

    Example
    -------
    >>> span_mask(10_000, 0.1, 5, utterance_generator(0, "a", 0)).float().mean()  # 1 - 0.9 ** 5 = 0.41
    tensor(0.4209)
    """
    draws = torch.rand(n_frames, generator=generator)
    starts = draws < probability
    if n_frames and not starts.any():
        starts[draws.argmin()] = True
    mask = starts.clone()
    for shift in range(1, min(span, n_frames)):
        mask[shift:] |= starts[:-shift]
    if n_frames > 1 and mask.all():
        mask[draws.argmax()] = False
    return mask
