"""Cheap signs of the health of a pretraining, without labels."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(embeddings: Tensor) -> Tensor:
    """RankMe (Garrido et al. 2023, eq. 1): the exponential of the entropy of the normalised singular values.

    Between 1 (all embeddings on one line: collapsed) and min(N, D).

    Arguments
    ---------
    embeddings : Tensor
        (N, D).

    Returns
    -------
    Tensor
        ().

    Example
    -------
    >>> round(effective_rank(torch.eye(4)).item(), 3)
    4.0
    """
    if embeddings.shape[0] == 0:
        return embeddings.new_zeros(())
    values = torch.linalg.svdvals(embeddings.double())
    share = values / values.sum().clamp_min(1e-12) + 1e-12
    return torch.exp(-(share * share.log()).sum()).to(embeddings.dtype)


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
