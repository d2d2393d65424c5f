"""Linear attention: a kernel in place of the softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.running import cut, exact


class LinearAttentionState(NamedTuple):
    """What a stream keeps: the sums over its frames of keys times values and of keys, after the kernel's map."""

    products: Tensor  # (B, H, D/H, D/H)
    keys: Tensor  # (B, H, D/H)


class LinearAttention(TokenMixer):
    """Linear attention (Katharopoulos et al. 2020, "Transformers are RNNs", eq. 5-12) with the map elu + 1.

    y_t = φ(q_t) S / (φ(q_t) · z), with S = Σ φ(k_j) v_jᵀ and z = Σ φ(k_j) over the frames j that t sees. Cost grows
    with T, and a stream keeps D · D/H + D numbers. In the causal form and in short chunks the utterance is cut into
    segments: frames attend pair by pair within theirs, and to all before it by the sums, which only there are written
    down.

    There are no positions in it, for rotated keys could make the denominator vanish: give the encoder a convolution.

    Arguments
    ---------
    dim : int
        Width D.
    num_heads : int
        Heads H; a divisor of D.
    causal : bool
        See the past only.
    segment : int
        Frames of a segment, in chunks or in the causal form; it changes the speed and not the result.

    Example
    -------
    >>> mixer = LinearAttention(8, num_heads=2)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, num_heads: int = 4, causal: bool = False, segment: int = 64) -> None:
        super().__init__(dim)
        self._check_heads(num_heads)
        if segment < 1:
            raise ConfigError(f"LinearAttention: segment is {segment}; expected a positive number of frames")
        self.num_heads, self.causal, self.segment = num_heads, causal, segment
        # torch.export pins the number of segments: the step is exported instead.
        self.exportable = not causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Attend over what each frame sees. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        size = 1 if self.causal else chunks.size if chunks else None
        return self._mix(x, valid, size, self.init_state(len(x)))[0]

    def init_state(self, batch: int, left: int | None = None) -> LinearAttentionState:
        """No frame heard yet, for ``batch`` streams; see `TokenMixer.init_state`."""
        width, weight = self.dim // self.num_heads, self.out.weight
        products = weight.new_zeros(batch, self.num_heads, width, width, dtype=exact(weight.dtype))
        return LinearAttentionState(products, torch.zeros_like(products[..., 0]))

    def step(self, x: Tensor, valid: Tensor, state: LinearAttentionState) -> tuple[Tensor, LinearAttentionState]:
        """Attend from a chunk (B, t, D) to itself and all before; see `TokenMixer.step`."""
        return self._mix(x, valid, 1 if self.causal else None, state)

    def macs(self, n_frames: int) -> int:
        """4 T D² for the projections, 2 T D D/H + T D for the sums; in the causal form T is rounded up to whole
        segments, and 2 T D for each frame of a segment are added."""
        segment = self._segment(1, n_frames) if self.causal else 1
        filled = -(-n_frames // segment) * segment
        sums = filled * self.dim * (2 * self.dim // self.num_heads + 1)
        return 4 * n_frames * self.dim**2 + sums + (2 * filled * segment * self.dim if segment > 1 else 0)

    def state_floats(self) -> int:
        """A matrix and a vector for each head."""
        return self.dim * (self.dim // self.num_heads + 1)

    def _mix(
        self, x: Tensor, valid: Tensor, size: int | None, state: LinearAttentionState
    ) -> tuple[Tensor, LinearAttentionState]:
        """In chunks of ``size`` frames (None for one chunk of all), after what the state has heard."""
        n_frames = x.shape[1]
        if not n_frames:
            return x, state
        x = x.masked_fill(~valid[..., None], 0.0)
        query, key, value = self.qkv(x).to(exact(x.dtype)).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        query, key = F.elu(query) + 1, (F.elu(key) + 1).masked_fill(~valid[..., None, None], 0.0)
        segment = None if size is None else self._segment(size, n_frames)
        query, key, value = (cut(part, segment).transpose(2, 3) for part in (query, key, value))
        products = torch.cat((state.products[:, None], key.transpose(-1, -2) @ value), dim=1).cumsum(1)
        keys = torch.cat((state.keys[:, None], key.sum(3)), dim=1).cumsum(1)
        # A segment that is one chunk sees itself through the sums; one of several has them of what was before.
        seen = slice(1, None) if segment == size else slice(0, -1)
        y, total = query @ products[:, seen], query @ keys[:, seen, ..., None]
        if size is not None and segment != size:
            chunk = torch.arange(query.shape[3], device=x.device) // size
            weights = (query @ key.transpose(-1, -2)).masked_fill(chunk[:, None] < chunk, 0.0)
            y, total = y + weights @ value, total + weights.sum(-1, keepdim=True)
        # Keys that are all far below zero have almost no weight: then the mean is pulled to zero, not to infinity.
        y = (y / total.clamp_min(1e-6)).transpose(2, 3).flatten(3).flatten(1, 2)[:, :n_frames].to(x.dtype)
        y = self.out(y).masked_fill(~valid[..., None], 0.0)
        return y, LinearAttentionState(products[:, -1], keys[:, -1])

    def _segment(self, size: int, n_frames: int) -> int:
        """Frames of a segment: whole chunks, and no more than there are."""
        return size * min(-(-self.segment // size), -(-n_frames // size))
