"""Cheap signs of the health of a pretraining, without labels."""

from __future__ import annotations

import torch
from torch import Tensor


def perplexity(codes: Tensor, codebook_size: int) -> Tensor:
    """How many codes are in use: the exponential of the entropy of their frequencies, from 1 to ``codebook_size``.

    Arguments
    ---------
    codes : Tensor
        (N,), int64.
    codebook_size : int
        Codes V.

    Returns
    -------
    Tensor
        (), float32.

    Example
    -------
    >>> round(perplexity(torch.tensor([0, 1, 2, 3]), 8).item(), 3)
    4.0
    """
    if codes.numel() == 0:
        return torch.zeros((), device=codes.device)
    share = torch.bincount(codes, minlength=codebook_size).float() / codes.numel()
    return torch.exp(-torch.special.xlogy(share, share).sum())
