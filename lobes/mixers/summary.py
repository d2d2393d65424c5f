"""SummaryMixing: each frame beside one mean of all frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.mixers.base import TokenMixer


class SummaryState(NamedTuple):
    """What a stream keeps: the sum of its frames' summaries and their number."""

    total: Tensor  # (B, D)
    seen: Tensor  # (B, 1)


class SummaryMixing(TokenMixer):
    """SummaryMixing (Parcollet et al. 2023, "SummaryMixing", eq. 1-2): y_t = c([f(x_t), mean_t' s(x_t')]).

    f and s are a linear map and a GELU, c is a linear map of both halves and a GELU. The half of c that reads the
    mean is a layer of its own: it works once per utterance instead of once per frame, and int8 export can quantise
    it. 4 D² parameters, as many as attention; cost grows with T, and a stream keeps D + 1 numbers.

    Arguments
    ---------
    dim : int
        Width D.
    causal : bool
        Take the mean over the past and the present frame instead of the whole utterance.

    Example
    -------
    >>> mixer = SummaryMixing(8)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, causal: bool = False) -> None:
        super().__init__(dim)
        self.causal = self.streamable = causal
        self.local = nn.Linear(dim, dim)
        self.summary = nn.Linear(dim, dim)
        self.combine_local = nn.Linear(dim, dim)
        self.combine_summary = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Mix each frame with the mean of its utterance. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        summaries, counted = self._summaries(x, valid)
        if self.causal:
            mean = summaries.cumsum(1) / counted.cumsum(1).clamp_min(1)
        else:
            mean = summaries.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp_min(1)
        return self._combine(x, mean, valid)

    def init_state(self, batch: int) -> SummaryState:
        """No frame heard yet, for ``batch`` streams."""
        if not self.streamable:
            return super().init_state(batch)
        total = self.local.weight.new_zeros(batch, self.dim)
        return SummaryState(total, total.new_zeros(batch, 1))

    def step(self, x: Tensor, valid: Tensor, state: SummaryState) -> tuple[Tensor, SummaryState]:
        """Mix a chunk (B, t, D) with the running mean; see `TokenMixer.step`."""
        if not self.streamable:
            return super().step(x, valid, state)
        summaries, counted = self._summaries(x, valid)
        total = state.total[:, None] + summaries.cumsum(1)
        count = state.seen[:, None] + counted.cumsum(1)
        y = self._combine(x, total / count.clamp_min(1), valid)
        return y, SummaryState(state.total + summaries.sum(1), state.seen + counted.sum(1))

    def macs(self, n_frames: int) -> int:
        """3 T D², and D² for the mean (T D² in the causal form)."""
        return (3 * n_frames + (n_frames if self.causal else 1)) * self.dim**2

    def state_floats(self) -> int:
        """A sum and a count."""
        return self.dim + 1 if self.streamable else 0

    def _summaries(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        # Sums over thousands of frames are kept in float32 at least, whatever autocast does.
        exact = torch.promote_types(x.dtype, torch.float32)
        summaries = F.gelu(self.summary(x)).to(exact).masked_fill(~valid[..., None], 0.0)
        return summaries, valid[..., None].to(exact)

    def _combine(self, x: Tensor, mean: Tensor, valid: Tensor) -> Tensor:
        local = self.combine_local(F.gelu(self.local(x)))
        y = F.gelu(local + self.combine_summary(mean.to(x.dtype)))
        return y.masked_fill(~valid[..., None], 0.0)
