"""SummaryMixing: each frame beside one mean of all frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.running import exact, last_sum, per_frame, running_sums

FORMS = ("full", "merged", "lite")


class SummaryState(NamedTuple):
    """What a stream keeps: the sum of its frames' summaries and their number."""

    total: Tensor  # (B, D)
    seen: Tensor  # (B, 1)


class SummaryMixing(TokenMixer):
    """SummaryMixing (Parcollet et al. 2023, "SummaryMixing", eq. 1-2): y_t = c([f(x_t), mean_t' s(x_t')]).

    c is a linear map and a GELU. The half of it that reads the mean is a layer of its own: it works once per utterance
    (or chunk) instead of once per frame, and int8 export can quantise it. Cost grows with T, and a stream keeps D + 1
    numbers. The forms:

    - ``full``: f and s are two layers each; 6 D² parameters.
    - ``merged``: f and s are one linear map and a GELU each, which can be computed as one; 4 D², as many as attention.
    - ``lite``: no f and no c, y_t = mean s(x); 2 D². All frames of an utterance (or chunk) get the same, so it needs
      a local branch beside it, such as a convolution.

    Arguments
    ---------
    dim : int
        Width D.
    causal : bool
        Take the mean over the past and the present frame instead of the whole utterance.
    form : str
        ``full``, ``merged`` or ``lite``.

    Example
    -------
    >>> mixer = SummaryMixing(8)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, causal: bool = False, form: str = "merged") -> None:
        super().__init__(dim)
        if form not in FORMS:
            raise ConfigError(f"SummaryMixing: form is '{form}'; expected one of {', '.join(FORMS)}")
        self.causal, self.form = causal, form
        if form != "lite":
            self.local = nn.Linear(dim, dim) if form == "merged" else _two_layers(dim)
        self.summary = nn.Linear(dim, dim) if form == "merged" else _two_layers(dim)
        if form != "lite":
            self.combine_local = nn.Linear(dim, dim)
            self.combine_summary = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix each frame with the mean of what it sees. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        summaries, counted = self._summaries(x, valid)
        if self.causal or chunks is not None:
            size = 1 if self.causal or chunks is None else chunks.size
            means = running_sums(summaries, size) / running_sums(counted, size).clamp_min(1)
            return self._combine(x, means, size, valid)
        mean = summaries.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp_min(1)
        return self._combine(x, mean, 0, valid)

    def init_state(self, batch: int, left: int | None = None) -> SummaryState:
        """No frame heard yet, for ``batch`` streams; see `TokenMixer.init_state`."""
        weight = next(self.parameters())
        total = torch.zeros(batch, self.dim, device=weight.device, dtype=exact(weight.dtype))
        return SummaryState(total, total.new_zeros(batch, 1))

    def step(self, x: Tensor, valid: Tensor, state: SummaryState) -> tuple[Tensor, SummaryState]:
        """Mix a chunk (B, t, D) with the running mean; see `TokenMixer.step`."""
        size = 1 if self.causal else max(x.shape[1], 1)
        summaries, counted = self._summaries(x, valid)
        totals, seen = running_sums(summaries, size, state.total), running_sums(counted, size, state.seen)
        y = self._combine(x, totals / seen.clamp_min(1), size, valid)
        return y, SummaryState(last_sum(totals, state.total), last_sum(seen, state.seen))

    def macs(self, n_frames: int) -> int:
        """T D² for each linear map, but D² for the one that reads the mean (T D² in the causal form)."""
        per_frame = {"full": 5, "merged": 3, "lite": 2}[self.form] * n_frames
        means = 0 if self.form == "lite" else n_frames if self.causal else 1
        return (per_frame + means) * self.dim**2

    def state_floats(self) -> int:
        """A sum and a count."""
        return self.dim + 1

    def _summaries(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        # Sums over thousands of frames are kept in float32 at least, whatever autocast does.
        summaries = F.gelu(self.summary(x)).to(exact(x.dtype)).masked_fill(~valid[..., None], 0.0)
        return summaries, valid[..., None].to(summaries.dtype)

    def _combine(self, x: Tensor, means: Tensor, size: int, valid: Tensor) -> Tensor:
        """Means (B, chunks, D), of chunks of that many frames; size 0 for one mean (B, 1, D) of all."""
        means = means.to(x.dtype)
        if self.form != "lite":
            means = self.combine_summary(means)
        means = per_frame(means, size, x.shape[1]) if size else means
        if self.form == "lite":
            y = means.expand(-1, x.shape[1], -1)
        else:
            y = F.gelu(self.combine_local(F.gelu(self.local(x))) + means)
        return y.masked_fill(~valid[..., None], 0.0)


def _two_layers(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
