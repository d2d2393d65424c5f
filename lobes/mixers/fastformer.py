"""Fastformer: additive attention, one global query and one global key."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.running import SoftmaxSums, cut, exact, running_softmax, softmax_sums


class FastformerState(NamedTuple):
    """What a stream keeps of its two softmaxes over time; values (B, H, 1, D/H)."""

    queries: SoftmaxSums
    keys: SoftmaxSums


class Fastformer(TokenMixer):
    """Additive attention (Wu et al. 2021, "Fastformer", eq. 1-4), each head for itself.

    A softmax over time of learned scores pools the queries into one global query, which multiplies each key; another
    pools the products p_j into one global key, which multiplies each value: y_t = W (global key * v_t) + q_t. Cost
    grows with T. There are no positions in it: give the encoder a convolution.

    In chunks both pools run over what a frame sees, that is to the end of its chunk. There p_j is made with the global
    query of frame j's own chunk, not of the chunk that looks back on it, so that the products are final once made and
    can be summed: a stream keeps 2 D + 4 H numbers. The causal form is that of chunks of one frame. The whole
    utterance is one chunk, where this is the paper's form.

    The paper saves parameters by sharing the queries' weights with the values, and between layers; here each has its
    own.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads H; a divisor of D.
    causal : bool
        See the past only.

    Example
    -------
    >>> mixer = Fastformer(8, num_heads=2)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, num_heads: int = 4, causal: bool = False) -> None:
        super().__init__(dim)
        self._check_heads(num_heads)
        self.num_heads, self.causal = num_heads, causal
        # The running softmax pairs chunks, whose number torch.export pins: the step is exported instead.
        self.exportable = not causal
        self.qkv = nn.Linear(dim, 3 * dim)
        width = dim // num_heads
        self.query_weight = nn.Parameter(torch.randn(num_heads, width) * width**-0.5)
        self.key_weight = nn.Parameter(torch.randn(num_heads, width) * width**-0.5)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix each frame with the pooled queries and keys of what it sees. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        size = 1 if self.causal else chunks.size if chunks else None
        return self._mix(x, valid, size, self.init_state(len(x)))[0]

    def init_state(self, batch: int, left: int | None = None) -> FastformerState:
        """No frame heard yet, for ``batch`` streams; see `TokenMixer.init_state`."""
        weight = self.out.weight
        shape = (batch, self.num_heads, 1, self.dim // self.num_heads)
        empty = weight.new_zeros(shape, dtype=exact(weight.dtype))
        return FastformerState(SoftmaxSums.none(empty), SoftmaxSums.none(empty))

    def step(self, x: Tensor, valid: Tensor, state: FastformerState) -> tuple[Tensor, FastformerState]:
        """Mix a chunk (B, t, D) with the running pools; see `TokenMixer.step`."""
        return self._mix(x, valid, 1 if self.causal else None, state)

    def macs(self, n_frames: int) -> int:
        """4 T D² for the linear maps, 2 T D for the pools (none of single frames)."""
        return n_frames * self.dim * (4 * self.dim + (0 if self.causal else 2))

    def state_floats(self) -> int:
        """Of each pool a vector, and the weight and maximum of each head."""
        return 2 * (self.dim + 2 * self.num_heads)

    def _mix(
        self, x: Tensor, valid: Tensor, size: int | None, state: FastformerState
    ) -> tuple[Tensor, FastformerState]:
        """In chunks of ``size`` frames (None for one chunk of all), after what the state has heard."""
        n_frames = x.shape[1]
        if not n_frames:
            return x, state
        x = x.masked_fill(~valid[..., None], 0.0)
        query, key, value = (
            cut(part, size).unflatten(-1, (self.num_heads, -1)) for part in self.qkv(x).chunk(3, dim=-1)
        )
        known = cut(valid, size)

        pooled = self._pool(query, self.query_weight, known)
        queries = running_softmax(pooled, state.queries)
        global_query = queries.at(slice(1, None)).mean()

        weight = self.key_weight * global_query.to(x.dtype).transpose(2, 3)
        pooled = self._pool(key, weight, known)
        # A pool of the products is the pool of the keys times the global query, which is one for the chunk.
        keys = running_softmax(pooled._replace(values=pooled.values * global_query), state.keys)
        global_key = keys.at(slice(1, None)).mean().to(x.dtype).transpose(2, 3)

        mixed, query = ((part.flatten(3).flatten(1, 2)[:, :n_frames]) for part in (global_key * value, query))
        y = (self.out(mixed) + query).masked_fill(~valid[..., None], 0.0)
        return y, FastformerState(queries.last(), keys.last())

    def _pool(self, values: Tensor, weight: Tensor, known: Tensor) -> SoftmaxSums:
        """Softmax sums of each chunk: (B, n, s, H, d), (..., H, d), (B, n, s) -> values (B, n, H, 1, d)."""
        scores = (values * weight).sum(-1, dtype=exact(values.dtype)) * values.shape[-1] ** -0.5
        scores = scores.masked_fill(~known[..., None], -torch.inf)
        return softmax_sums(scores[..., None], values.to(scores.dtype))
