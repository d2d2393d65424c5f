"""State space duality (Mamba-2): a linear recurrence with an input-dependent decay, computed segment by segment."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.convolution import DepthwiseConvolution
from lobes.mixers.running import exact


class SSDState(NamedTuple):
    """What a stream keeps: the short convolution's past, and the state of the recurrence."""

    past: Tensor  # (B, kernel - 1, E + 2 N)
    memory: Tensor  # (B, N, E)


class SSD(TokenMixer):
    """The Mamba-2 layer (Dao & Gu 2024, "Transformers are SSMs", sections 6 and 7) in plain PyTorch.

    Each head h keeps a state S (N, P), which the present decays and adds to: S_t = a_t S_{t-1} + Δ_t B_t x_tᵀ and
    y_t = S_tᵀ C_t + D_h x_t, with a_t = exp(-exp(A_h) Δ_t) and Δ_t = softplus(Δ'_t + b_h). z, x, B, C and Δ' are one
    linear map of the input, B and C the same for all heads; x, B and C then pass a short causal convolution and SiLU.
    The output is Linear(RMSNorm(y ⊙ SiLU(z))).

    The recurrence runs segment by segment (section 6): within a segment as a masked product of its frames, between
    segments through the state, so the cost grows with T. Decays are sums of logarithms within one segment only, which
    float32 holds exactly enough for recordings of any length. Δ is zero at padded frames: they neither enter the state
    nor let it decay. It is causal and streams in chunks of any size. In the bidirectional form a second recurrence,
    with a convolution, decays and skips of its own, reads the utterance backwards, and their outputs are added; the
    linear maps are shared.

    Arguments
    ---------
    dim : int
        Width D.
    state : int
        Numbers N that a channel keeps.
    head_dim : int
        Channels P of a head, which decay together; a divisor of ``expand`` · D.
    expand : int
        Inner width E as a multiple of D.
    kernel : int
        Frames of the short convolution.
    segment : int
        Frames that are computed as one product. It changes speed and rounding, not the result.
    bidirectional : bool
        See the whole utterance; then it cannot stream.

    Example
    -------
    >>> mixer = SSD(8, state=4, head_dim=8)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True
    # torch.export pins the number of segments: their step is exported instead.
    exportable = False

    def __init__(
        self,
        dim: int,
        state: int = 64,
        head_dim: int = 64,
        expand: int = 2,
        kernel: int = 4,
        segment: int = 128,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(dim)
        width = expand * dim
        if min(state, head_dim, expand, segment) < 1:
            raise ConfigError(
                f"SSD: state {state}, head_dim {head_dim}, expand {expand}, segment {segment}; "
                "expected positive numbers"
            )
        if width % head_dim:
            raise ConfigError(f"SSD: head_dim {head_dim} does not divide expand * dim = {width}; change either")
        self.causal = self.streamable = not bidirectional
        self.bidirectional, self.segment = bidirectional, segment
        self.width, self.n_heads = width, width // head_dim
        self.n_convolved = width + 2 * state
        self.input = nn.Linear(dim, width + self.n_convolved + self.n_heads, bias=False)
        self.recurrence = Recurrence(self.n_heads, head_dim, state, kernel, segment)
        if bidirectional:
            self.backward_recurrence = Recurrence(self.n_heads, head_dim, state, kernel, segment)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.output = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Run the recurrence over each utterance. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        self._checked(chunks)
        gate, inner, steps = self._inputs(x, valid)
        parts, _ = self.recurrence(inner, steps, valid)
        if self.bidirectional:
            # Padding then comes first: it is zero to the convolution, and leaves the state at zero.
            backwards, _ = self.backward_recurrence(inner.flip(1), steps.flip(1), valid.flip(1))
            whole = torch.cat(backwards, dim=1).flip(1)
            parts = [y + other for y, other in zip(parts, whole.split(self.segment, dim=1), strict=True)]
        return self._output(parts, gate, valid)

    def init_state(self, batch: int, left: int | None = None) -> SSDState:
        """Silence before ``batch`` streams; see `TokenMixer.init_state`."""
        if self.bidirectional:
            raise ConfigError(self._cannot_stream())
        return self.recurrence.init_state(batch)

    def step(self, x: Tensor, valid: Tensor, state: SSDState) -> tuple[Tensor, SSDState]:
        """Continue the recurrence over a chunk (B, t, D); see `TokenMixer.step`."""
        if self.bidirectional:
            raise ConfigError(self._cannot_stream())
        gate, inner, steps = self._inputs(x, valid)
        parts, state = self.recurrence(inner, steps, valid, state)
        return self._output(parts, gate, valid), state

    def macs(self, n_frames: int) -> int:
        """T D (3 E + 2 N + H) for the linear maps, and `Recurrence.macs` once or twice."""
        linear = n_frames * self.dim * (2 * self.width + self.n_convolved + self.n_heads)
        return linear + (2 if self.bidirectional else 1) * self.recurrence.macs(n_frames)

    def state_floats(self) -> int:
        """N E of the recurrence and ``kernel`` - 1 frames of E + 2 N for the convolution."""
        if self.bidirectional:
            return 0
        return self.recurrence.state * self.width + self.recurrence.convolution.past * self.n_convolved

    def _inputs(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # The map has no bias: what is zero here is zero to the convolution.
        mapped = self.input(x.masked_fill(~valid[..., None], 0.0))
        gate, inner, steps = mapped.split((self.width, self.n_convolved, self.n_heads), dim=-1)
        return gate, inner, steps

    def _output(self, parts: list[Tensor], gate: Tensor, valid: Tensor) -> Tensor:
        gates = gate.split(self.segment, dim=1)
        # Autocast leaves y in float32 and makes the gates bfloat16.
        dtype = self.norm.weight.dtype
        gated = [self.norm((y * F.silu(g)).to(dtype)) for y, g in zip(parts, gates, strict=True)]
        return self.output(torch.cat(gated, dim=1)).masked_fill_(~valid[..., None], 0.0)


class Recurrence(nn.Module):
    """The short convolution and the recurrence of `SSD` in one direction.

    A and the bias of Δ begin as in Mamba-2: decays of 1 to 16 per unit of Δ, Δ between 0.001 and 0.1.

    Arguments
    ---------
    n_heads, head_dim : int
        H and P; E = H · P channels.
    state : int
        N.
    kernel : int
        Frames of the convolution.
    segment : int
        Frames that are computed as one product.
    """

    def __init__(self, n_heads: int, head_dim: int, state: int, kernel: int, segment: int) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.state, self.segment = n_heads, head_dim, state, segment
        self.convolution = DepthwiseConvolution(n_heads * head_dim + 2 * state, kernel, causal=True)
        self.log_rate = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        first = torch.empty(n_heads).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.step_bias = nn.Parameter(first + torch.log(-torch.expm1(-first)))  # the inverse of softplus
        self.skip = nn.Parameter(torch.ones(n_heads))

    def forward(
        self, inner: Tensor, steps: Tensor, valid: Tensor, state: SSDState | None = None
    ) -> tuple[list[Tensor], SSDState]:
        """Run over (a chunk of) utterances.

        Arguments
        ---------
        inner : Tensor
            (B, T, E + 2 N): x, B and C before the convolution, zero where not valid.
        steps : Tensor
            (B, T, H): Δ before its bias and softplus.
        valid : Tensor
            (B, T), bool.
        state : SSDState, optional
            Before the first frame; None for silence.

        Returns
        -------
        tuple[list[Tensor], SSDState]
            (B, q, E) of each segment, in float32 at least, and the state after the last frame.
        """
        past, memory = state or self.init_state(len(inner))
        if inner.shape[1] == 0:
            return [memory[:, :0]], SSDState(past, memory)
        steps = F.softplus(steps.to(memory.dtype) + self.step_bias).masked_fill(~valid[..., None], 0.0)
        outputs = []
        for segment, segment_steps in zip(inner.split(self.segment, 1), steps.split(self.segment, 1), strict=True):
            convolved, past = self.convolution.step(segment, past)
            y, memory = self._segment(F.silu(convolved).to(memory.dtype), segment_steps, memory)
            outputs.append(y)
        return outputs, SSDState(past, memory)

    def init_state(self, batch: int) -> SSDState:
        """Silence before ``batch`` streams."""
        past = self.convolution.init_state(batch)
        return SSDState(past, past.new_zeros(batch, self.state, self.n_heads * self.head_dim, dtype=exact(past.dtype)))

    def macs(self, n_frames: int) -> int:
        """T (E + 2 N) k for the convolution; q² (N + E) + 2 q N E for each segment of q frames."""
        width, total = self.n_heads * self.head_dim, self.convolution.macs(n_frames)
        for start in range(0, n_frames, self.segment):
            q = min(self.segment, n_frames - start)
            total += q * q * (self.state + width) + 2 * q * self.state * width
        return total

    def _segment(self, convolved: Tensor, steps: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, q, E + 2 N), (B, q, H), (B, N, E) -> (B, q, E), (B, N, E)."""
        heads = (self.n_heads, self.head_dim)
        x, b, c = convolved.split((memory.shape[-1], self.state, self.state), dim=-1)
        x = x.unflatten(-1, heads)
        # The logarithm of what is left, of what was there before the segment, after each of its frames.
        decays = (-self.log_rate.exp().to(steps.dtype) * steps).cumsum(1)
        # Frame i hears frame j <= i; where j > i the product is zero, and the clamp keeps the other factor finite.
        by_head = decays.transpose(1, 2).contiguous()
        heard = (by_head[..., :, None] - by_head[..., None, :]).clamp_max_(0.0).exp_()
        heard = heard * (c @ b.transpose(1, 2)).tril()[:, None]
        y = (heard @ (x * steps[..., None]).transpose(1, 2)).transpose(1, 2)
        y = torch.addcmul(y, x, self.skip.to(x.dtype)[:, None])
        y = torch.addcmul(y, (c @ memory).unflatten(-1, heads), decays.exp()[..., None])
        lasting = steps * (decays[:, -1:] - decays).exp()
        kept = memory.unflatten(-1, heads) * decays[:, -1:].exp()[..., None]
        return y.flatten(2), kept.flatten(2) + b.transpose(1, 2) @ (x * lasting[..., None]).flatten(2)
