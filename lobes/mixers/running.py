"""Running sums over chunks: what mixers of constant state have in common."""

from __future__ import annotations

from typing import NamedTuple

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


def cut(values: Tensor, size: int | None, fill: float = 0.0) -> Tensor:
    """Cut into chunks, the last filled up: (B, T, ...) to (B, ceil(T / size), size, ...); size None for one of all.

    Example
    -------
    >>> cut(torch.ones(1, 3), size=2)
    tensor([[[1., 1.],
             [1., 0.]]])
    """
    if size is None:
        return values[:, None]
    missing = -values.shape[1] % size
    if missing:
        values = F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing), value=fill)
    return values.unflatten(1, (-1, size))


class SoftmaxSums(NamedTuple):
    """What a softmax over time keeps of the frames heard so far, per slot (a head, or one of its memory vectors).

    Scores are taken less their maximum, so that no exponential overflows, and sums of different maxima are put on the
    greater of the two when they are added: the softmax is exact however long the stream.
    """

    values: Tensor  # (..., d): sum of exp(score - maximum) value
    weights: Tensor  # (...): sum of exp(score - maximum)
    maximum: Tensor  # (...): the lowest number there is where nothing was heard

    @classmethod
    def none(cls, like: Tensor) -> SoftmaxSums:
        """Nothing heard yet, for values shaped, typed and placed as ``like`` (..., d)."""
        return cls(torch.zeros_like(like), torch.zeros_like(like[..., 0]), torch.full_like(like[..., 0], lowest(like)))

    def mean(self) -> Tensor:
        """The softmax-weighted mean of the values, (..., d); zero where nothing was heard."""
        # The frame of the maximum has weight 1: only a sum of nothing is below that.
        return self.values / self.weights.clamp_min(1)[..., None]

    def plus(self, other: SoftmaxSums) -> SoftmaxSums:
        """The sums over the frames of both."""
        maximum = torch.maximum(self.maximum, other.maximum)
        mine, theirs = torch.exp(self.maximum - maximum), torch.exp(other.maximum - maximum)
        values = mine[..., None] * self.values + theirs[..., None] * other.values
        return SoftmaxSums(values, mine * self.weights + theirs * other.weights, maximum)

    def last(self) -> SoftmaxSums:
        """Those of the last chunk, where axis 1 is chunks."""
        return SoftmaxSums(*(part[:, -1] for part in self))

    def at(self, chunks: slice) -> SoftmaxSums:
        """Those of some chunks, where axis 1 is chunks."""
        return SoftmaxSums(*(part[:, chunks] for part in self))

    def then(self, later: SoftmaxSums) -> SoftmaxSums:
        """These chunks followed by the others, where axis 1 is chunks."""
        return SoftmaxSums(*(torch.cat(pair, dim=1) for pair in zip(self, later, strict=True)))


def softmax_sums(scores: Tensor, values: Tensor) -> SoftmaxSums:
    """Sums over the frames of each chunk, for a softmax over time.

    Arguments
    ---------
    scores : Tensor
        (B, n, s, H, p): n chunks of s >= 1 frames, H heads, p slots; minus infinity at padded frames.
    values : Tensor
        (B, n, s, H, d), finite at padded frames.

    Returns
    -------
    SoftmaxSums
        Values (B, n, H, p, d).

    Example
    -------
    >>> values = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1)
    >>> softmax_sums(torch.zeros(1, 1, 2, 1, 1), values).mean().item()
    2.0
    """
    # Sums, weights and maximum are only ever used together, where the maximum cancels: it needs no gradient.
    maximum = scores.detach().amax(2).clamp_min(lowest(scores))
    weights = torch.exp(scores - maximum[:, :, None])
    return SoftmaxSums(torch.einsum("bnshp,bnshd->bnhpd", weights, values), weights.sum(2), maximum)


def running_softmax(sums: SoftmaxSums, start: SoftmaxSums) -> SoftmaxSums:
    """Sums of all before each chunk, and of all at last, from those of each chunk alone.

    Arguments
    ---------
    sums : SoftmaxSums
        Values (B, n, ..., d), of n chunks.
    start : SoftmaxSums
        Values (B, ..., d), of what was before the first.

    Returns
    -------
    SoftmaxSums
        Values (B, n + 1, ..., d), the first of them ``start``.

    Example
    -------
    >>> values = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1, 1)
    >>> sums = softmax_sums(torch.zeros(1, 3, 1, 1, 1), values)
    >>> running_softmax(sums, SoftmaxSums.none(sums.values[:, 0])).mean().flatten()
    tensor([0.0000, 1.0000, 1.5000, 3.0000])
    """
    return _running(SoftmaxSums(*(part[:, None] for part in start)).then(sums))


def _running(sums: SoftmaxSums) -> SoftmaxSums:
    # Pairs of chunks are added first, and the running sums of the pairs found in the same way: logarithmic depth,
    # linear cost, and no chunk has a share in the rounding of one before it.
    count = sums.weights.shape[1]
    if count < 2:
        return sums
    even, odd = sums.at(slice(0, None, 2)), sums.at(slice(1, None, 2))
    pairs = count // 2
    to_odd = _running(even.at(slice(0, pairs)).plus(odd))
    to_even = even.at(slice(0, 1)).then(to_odd.at(slice(0, (count - 1) // 2)).plus(even.at(slice(1, None))))
    both = SoftmaxSums(
        *(torch.stack((e[:, :pairs], o), dim=2).flatten(1, 2) for e, o in zip(to_even, to_odd, strict=True))
    )
    return both.then(to_even.at(slice(pairs, None))) if count % 2 else both


def lowest(like: Tensor) -> float:
    """The lowest number of a tensor's type: a maximum of nothing that, unlike minus infinity, can be subtracted."""
    return torch.finfo(like.dtype).min


def exact(dtype: torch.dtype) -> torch.dtype:
    """The type for sums over thousands of frames: float32 at least, whatever the model's own."""
    return torch.promote_types(dtype, torch.float32)
