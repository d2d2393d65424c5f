"""PoM, the polynomial mixer: each frame selects from the means of products of features."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.running import exact, last_sum, per_frame, running_sums


class PoMState(NamedTuple):
    """What a stream keeps: the sum of its frames' polynomials and their number."""

    total: Tensor  # (B, degree E)
    seen: Tensor  # (B, 1)


class PoM(TokenMixer):
    """Polynomial mixer (Picard and Dufour 2024, "PoM", arXiv 2411.12663): y_t = W_o (sigmoid(W_s x_t) * H).

    H is the mean over frames of [h_1 | h_1 h_2 | ... | h_1 ... h_degree], the products taken feature by feature, with
    h_i = gelu(W_i x). All maps have biases. Cost grows with T; a stream keeps degree * expand * D + 1 numbers.

    Arguments
    ---------
    dim : int
        Width D.
    degree : int
        Of the polynomial.
    expand : int
        Width E of each h_i as a multiple of D.
    causal : bool
        Take the mean over the past and the present frame instead of the whole utterance.

    Example
    -------
    >>> mixer = PoM(8)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, degree: int = 2, expand: int = 1, causal: bool = False) -> None:
        super().__init__(dim)
        for name, value in (("degree", degree), ("expand", expand)):
            if value < 1:
                raise ConfigError(f"PoM: {name} is {value}; expected 1 or more")
        self.degree, self.causal = degree, causal
        self.width = degree * expand * dim
        self.factors = nn.Linear(dim, self.width)
        self.select = nn.Linear(dim, self.width)
        self.out = nn.Linear(self.width, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Select from the mean of what each frame sees. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        if self.causal or chunks is not None:
            size = 1 if self.causal or chunks is None else chunks.size
            return self._running(x, valid, size, self.init_state(x.shape[0]))[0]
        # Sums over thousands of frames are kept in float32 at least, whatever autocast does.
        sums = [part.sum(1, keepdim=True, dtype=exact(x.dtype)) for part in self._polynomial(x, valid)]
        mean = torch.cat(sums, dim=-1) / valid.sum(1).clamp_min(1)[:, None, None]
        return self._selected(x, mean, valid)

    def init_state(self, batch: int, left: int | None = None) -> PoMState:
        """No frame heard yet, for ``batch`` streams; see `TokenMixer.init_state`."""
        weight = self.out.weight
        total = weight.new_zeros(batch, self.width, dtype=exact(weight.dtype))
        return PoMState(total, total.new_zeros(batch, 1))

    def step(self, x: Tensor, valid: Tensor, state: PoMState) -> tuple[Tensor, PoMState]:
        """Select for a chunk (B, t, D) from the running mean; see `TokenMixer.step`."""
        return self._running(x, valid, 1 if self.causal else max(x.shape[1], 1), state)

    def macs(self, n_frames: int) -> int:
        """T D · degree · E for each of the three maps."""
        return 3 * n_frames * self.dim * self.width

    def state_floats(self) -> int:
        """Sums and a count."""
        return self.width + 1

    def _polynomial(self, x: Tensor, valid: Tensor) -> list[Tensor]:
        """h_1, h_1 h_2, ... of each frame: (B, T, E) each, zero where not valid."""
        factors = F.gelu(self.factors(x)).masked_fill_(~valid[..., None], 0.0)
        return list(accumulate(factors.chunk(self.degree, dim=-1), torch.mul))

    def _running(self, x: Tensor, valid: Tensor, size: int, state: PoMState) -> tuple[Tensor, PoMState]:
        """Frames see the past and their chunk of that size."""
        starts = state.total.chunk(self.degree, dim=-1)
        parts = zip(self._polynomial(x, valid), starts, strict=True)
        totals = torch.cat([running_sums(part.to(start.dtype), size, start) for part, start in parts], dim=-1)
        seen = running_sums(valid[..., None].to(state.seen.dtype), size, state.seen)
        y = self._selected(x, per_frame(totals / seen.clamp_min(1), size, x.shape[1]), valid)
        return y, PoMState(last_sum(totals, state.total), last_sum(seen, state.seen))

    def _selected(self, x: Tensor, means: Tensor, valid: Tensor) -> Tensor:
        """Means (B, T, degree E), or (B, 1, degree E) for all frames."""
        gate = self.select(x).sigmoid_()
        y = self.out(gate * means.to(gate.dtype))
        return y.masked_fill_(~valid[..., None], 0.0)
