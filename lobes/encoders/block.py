"""One layer of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.convolution import MaskedConvolution
from lobes.mixers import TokenMixer


class FeedForward(nn.Module):
    """Norm, linear, SiLU, linear: (B, T, D) -> (B, T, D), each frame for itself."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.project = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.project(F.silu(self.expand(self.norm(x))))

    def macs(self, n_frames: int) -> int:
        """2 T D · hidden."""
        return 2 * n_frames * self.expand.in_features * self.expand.out_features


class BlockState(NamedTuple):
    """What a block keeps of a stream."""

    mixer: object
    convolution: Tensor


class Block(nn.Module):
    """Half feed-forward, token mixer, masked convolution, half feed-forward, each on a residual (Gulati et al. 2020).

    Arguments
    ---------
    dim : int
        Width D.
    mixer : Callable[[int], TokenMixer]
        Constructor of the mixer, ``!name:lobes.mixers.SummaryMixing`` in a YAML.
    ffn_factor : float
        Hidden width of each feed-forward as a multiple of D.
    kernel : int
        Frames of the convolution.
    dropout : float
        Dropout of the end of every residual branch in training; none inside, where it would cost as much again.
    causal : bool
        Whether the convolution looks at the past only; the mixer's own option decides for the mixer.
    """

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], TokenMixer],
        ffn_factor: float = 4.0,
        kernel: int = 15,
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.ffn_in = FeedForward(dim, round(dim * ffn_factor))
        self.mixer_norm = nn.LayerNorm(dim)
        self.mixer = mixer(dim)
        self.convolution_norm = nn.LayerNorm(dim)
        self.convolution = MaskedConvolution(dim, kernel, causal)
        self.ffn_out = FeedForward(dim, round(dim * ffn_factor))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)."""
        x = x + 0.5 * self._drop(self.ffn_in(x))
        x = x + self._drop(self.mixer(self.mixer_norm(x), valid))
        x = x + self._drop(self.convolution(self.convolution_norm(x), valid))
        return x + 0.5 * self._drop(self.ffn_out(x))

    @property
    def streamable(self) -> bool:
        """Whether `step` works."""
        return self.mixer.streamable and self.convolution.causal

    def init_state(self, batch: int) -> BlockState:
        """State before the first chunk."""
        return BlockState(self.mixer.init_state(batch), self.convolution.init_state(batch))

    def step(self, x: Tensor, valid: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """The next chunk (B, t, D) of each stream, and the new state."""
        x = x + 0.5 * self.ffn_in(x)
        mixed, mixer = self.mixer.step(self.mixer_norm(x), valid, state.mixer)
        x = x + mixed
        convolved, convolution = self.convolution.step(self.convolution_norm(x), valid, state.convolution)
        x = x + convolved
        return x + 0.5 * self.ffn_out(x), BlockState(mixer, convolution)

    def macs(self, n_frames: int) -> int:
        """For one utterance of ``n_frames`` frames."""
        parts = (self.ffn_in, self.mixer, self.convolution, self.ffn_out)
        return sum(part.macs(n_frames) for part in parts)

    def state_floats(self) -> int:
        """Numbers of state per stream."""
        return self.mixer.state_floats() + self.convolution.state_floats()

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
