"""Running sums over chunks: what mixers of constant state have in common."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def running_sums(values: Tensor, size: int, start: Tensor | None = None) -> Tensor:
    """Sums of everything up to the end of each chunk.

    Chunks are summed first and their sums accumulated, in the order in which a stream does it: linear cost, and the
    rounding of a stream.

    Arguments
    ---------
    values : Tensor
        (B, T, ...), zero at padded frames.
    size : int
        Frames of a chunk; the last may be shorter.
    start : Tensor, optional
        (B, ...), the sum before the first frame.

    Returns
    -------
    Tensor
        (B, ceil(T / size), ...).

    Example
    -------
    >>> running_sums(torch.ones(1, 5, 1), size=2)[0, :, 0]
    tensor([2., 4., 5.])
    """
    if size > 1:
        missing = -values.shape[1] % size
        values = F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing)).unflatten(1, (-1, size)).sum(2)
    sums = values.cumsum(1)
    return sums if start is None else sums + start[:, None]


def last_sum(sums: Tensor, start: Tensor) -> Tensor:
    """The sum after the last chunk, which is ``start`` (B, ...) where there was none."""
    return torch.cat((start[:, None], sums), dim=1)[:, -1]


def per_frame(values: Tensor, size: int, n_frames: int) -> Tensor:
    """Give each frame the value of its chunk: (B, ceil(T / size), ...) to (B, T, ...).

    Example
    -------
    >>> per_frame(torch.tensor([[[1.0], [2.0]]]), size=3, n_frames=5)[0, :, 0]
    tensor([1., 1., 1., 2., 2.])
    """
    if size == 1:
        return values
    spread = values[:, :, None].expand(-1, -1, size, *values.shape[2:])
    return spread.flatten(1, 2)[:, :n_frames]
