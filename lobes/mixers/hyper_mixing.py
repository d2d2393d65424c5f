"""HyperMixing: a perceptron along time whose weights are made from the frames themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.running import exact, running_sums

# Numbers of the running sums in memory at once, per stream: as many as stay in a processor's cache.
WORKED_ON_AT_ONCE = 2**18


class HyperState(NamedTuple):
    """What a stream keeps: the sum W1^T X of its frames, and their number."""

    total: Tensor  # (B, H, k, D/H)
    seen: Tensor  # (B, 1)


class HyperMixing(TokenMixer):
    """Multi-head HyperMixing (Mai et al. 2023, "HyperConformer", arXiv 2305.18281): Y = LayerNorm(W2 gelu(W1^T X / T)).

    Each head has its own D/H features X, and makes the rows w1_t and w2_t of W1 and W2 (T, k) from its features of
    frame t, with a perceptron of one hidden layer each. Cost grows with T k D. Two things differ from the paper:

    - W1^T X is a mean over the frames seen, where theirs is a sum, which the GELU would take for louder the longer an
      utterance is;
    - no position embedding is added to what the perceptrons read: an encoder's convolution tells positions.

    A stream keeps k D + 1 numbers. The causal form has a GELU of k D numbers for each frame, where the others have one
    for each utterance or chunk: it is much slower. It works on a few frames at a time, and in training computes them
    again in the backward pass, so its memory stays modest.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads H.
    hidden : int
        Hidden units k of each head's perceptron along time.
    causal : bool
        See the past and the present frame only.
    tied : bool
        One perceptron makes both, W1 = W2.

    Example
    -------
    >>> mixer = HyperMixing(8, num_heads=2, hidden=4)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(
        self, dim: int, num_heads: int = 8, hidden: int = 128, causal: bool = False, tied: bool = False
    ) -> None:
        super().__init__(dim)
        self._check_heads(num_heads)
        if hidden < 1:
            raise ConfigError(f"HyperMixing: hidden is {hidden}; expected a positive number of units")
        self.num_heads, self.hidden, self.causal, self.tied = num_heads, hidden, causal, tied
        # The causal loop over groups of frames would be unrolled: its step is exported instead.
        self.exportable = not causal
        self.write = HeadMLP(num_heads, dim // num_heads, hidden)
        if not tied:
            self.read = HeadMLP(num_heads, dim // num_heads, hidden)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix what each frame sees. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        if self.causal or chunks is not None:
            size = 1 if self.causal or chunks is None else chunks.size
            return self._running(x, valid, size, self.init_state(x.shape[0]))[0]
        heads, write, read = self._hyper(x, valid)
        seen = valid.sum(1).clamp_min(1)[:, None, None]
        return self._joined(_retrieved(read, write.transpose(-1, -2) @ heads, seen), valid)

    def init_state(self, batch: int, left: int | None = None) -> HyperState:
        """No frame heard yet, for ``batch`` streams; see `TokenMixer.init_state`."""
        weight = self.norm.weight
        shape = (batch, self.num_heads, self.hidden, self.dim // self.num_heads)
        total = weight.new_zeros(shape, dtype=exact(weight.dtype))
        return HyperState(total, total.new_zeros(batch, 1))

    def step(self, x: Tensor, valid: Tensor, state: HyperState) -> tuple[Tensor, HyperState]:
        """Mix a chunk (B, t, D) with the running mean; see `TokenMixer.step`."""
        return self._running(x, valid, 1 if self.causal else max(x.shape[1], 1), state)

    def macs(self, n_frames: int) -> int:
        """T D (D/H + k) for each of the perceptrons that make W1 and W2, and T D k for each product with them."""
        hyper = (1 if self.tied else 2) * (self.dim // self.num_heads + self.hidden)
        return n_frames * self.dim * (hyper + 2 * self.hidden)

    def state_floats(self) -> int:
        """A sum and a count."""
        return self.hidden * self.dim + 1

    def _hyper(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """X (H, B, T, D/H), zero where not valid, W1 and W2 (H, B, T, k)."""
        split = x.unflatten(-1, (self.num_heads, self.dim // self.num_heads)).permute(2, 0, 1, 3)
        heads = split.clone(memory_format=torch.contiguous_format).masked_fill_(~valid[..., None], 0.0)
        write = self.write(heads)
        return heads, write, write if self.tied else self.read(heads)

    def _joined(self, y: Tensor, valid: Tensor) -> Tensor:
        return self.norm(y.permute(1, 2, 0, 3).flatten(2)).masked_fill_(~valid[..., None], 0.0)

    def _running(self, x: Tensor, valid: Tensor, size: int, state: HyperState) -> tuple[Tensor, HyperState]:
        """Frames see the past and their chunk of that size."""
        if x.shape[1] == 0:
            return torch.zeros_like(x), state
        hyper = self._hyper(x, valid)
        seen = running_sums(valid[..., None].to(state.seen.dtype), size, state.seen)
        n_chunks = max(1, WORKED_ON_AT_ONCE // (self.hidden * self.dim))
        mix: Callable[..., tuple[Tensor, Tensor]] = _mix_group
        if self.training:
            mix = partial(checkpoint, _mix_group, use_reentrant=False, preserve_rng_state=False)
        total, outputs = state.total.transpose(0, 1), []
        for first in range(0, seen.shape[1], n_chunks):
            frames = slice(first * size, (first + n_chunks) * size)
            group = (part[:, :, frames] for part in hyper)
            y, total = mix(*group, seen[:, first : first + n_chunks], size, total)
            outputs.append(y)
        return self._joined(torch.cat(outputs, dim=2), valid), HyperState(total.transpose(0, 1), seen[:, -1])


class HeadMLP(nn.Module):
    """A perceptron for each head, from d features over d hidden units to k: (H, B, T, d) to (H, B, T, k)."""

    def __init__(self, num_heads: int, dim: int, hidden: int) -> None:
        super().__init__()
        # Outputs as large as the features: their products with these are averaged over time, and end in a norm.
        bound = (3 / dim) ** 0.5
        self.first = nn.Parameter(torch.empty(num_heads, dim, dim).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.zeros(num_heads, 1, dim))
        self.second = nn.Parameter(torch.empty(num_heads, dim, hidden).uniform_(-bound, bound))
        self.second_bias = nn.Parameter(torch.zeros(num_heads, 1, hidden))

    def forward(self, heads: Tensor) -> Tensor:
        """(H, B, T, d) to (H, B, T, k)."""
        inner = F.gelu(torch.baddbmm(self.first_bias, heads.flatten(1, 2), self.first))
        return torch.baddbmm(self.second_bias, inner, self.second).unflatten(1, heads.shape[1:3])


def _mix_group(
    heads: Tensor, write: Tensor, read: Tensor, seen: Tensor, size: int, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Mix a few chunks: their output (H, B, t, d), and W1^T X (H, B, k, d) of all up to their end."""
    n_frames, n_chunks = heads.shape[2], seen.shape[1]
    missing = n_chunks * size - n_frames
    if missing:
        heads, write, read = (F.pad(part, (0, 0, 0, missing)) for part in (heads, write, read))
    heads, write, read = (part.unflatten(2, (n_chunks, size)) for part in (heads, write, read))
    sums = (write.transpose(-1, -2) @ heads).to(total.dtype).cumsum(2) + total[:, :, None]
    y = _retrieved(read, sums, seen.clamp_min(1)[..., None])
    return y.flatten(2, 3)[:, :, :n_frames], sums[:, :, -1]


def _retrieved(read: Tensor, sums: Tensor, seen: Tensor) -> Tensor:
    """W2 gelu(W1^T X / n): (..., t, k), (..., k, d) -> (..., t, d)."""
    # The number of frames is divided by in float32: in bfloat16 there is no 257.
    means = sums.to(exact(sums.dtype)) / seen
    return read @ F.gelu(means).to(read.dtype)
