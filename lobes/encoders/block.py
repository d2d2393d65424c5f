"""One layer of an encoder, in several layouts, over any token mixer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.convolution import MaskedConvolution
from lobes.mixers import Chunks, TokenMixer
from lobes.mixers.cgmlp import ConvolutionalGating


class Part(Protocol):
    """What stands in a residual branch: it has the methods of a `TokenMixer`."""

    def __call__(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """(B, T, D) to (B, T, D)."""

    def init_state(self, batch: int, left: int | None = None) -> Any:
        """State before the first chunk."""

    def step(self, x: Tensor, valid: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next chunk, and the new state."""

    def macs(self, n_frames: int) -> int:
        """Multiply-accumulates."""

    def state_floats(self) -> int:
        """Numbers of state per stream."""


class FeedForward(nn.Module):
    """Norm, linear, SiLU, linear: (B, T, D) -> (B, T, D), each frame for itself."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.project = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, valid: Tensor | None = None, chunks: Chunks | None = None) -> Tensor:
        """Apply it; to a frame nothing else matters."""
        return self.project(F.silu(self.expand(self.norm(x))))

    def init_state(self, batch: int, left: int | None = None) -> tuple[()]:
        """Nothing to keep."""
        return ()

    def step(self, x: Tensor, valid: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """As `forward`."""
        return self(x), ()

    def macs(self, n_frames: int) -> int:
        """2 T D · hidden."""
        return 2 * n_frames * self.expand.in_features * self.expand.out_features

    def state_floats(self) -> int:
        """None."""
        return 0


class Block(nn.Module, ABC):
    """What every layout is: residual branches, one after the other, each a scale times a part of what a norm gives.

    Attributes
    ----------
    mixer : TokenMixer
        The one that it was built over.
    after : nn.Module, optional
        What the output of each branch's part passes through, frame by frame: ``after(number of the branch, y)``. None
        but where `lobes.adapters` has put something here.

    Arguments
    ---------
    dim : int
        Width D.
    mixer : Callable[[int], TokenMixer]
        Constructor of the mixer, ``!name:lobes.mixers.SummaryMixing`` in a YAML.
    ffn_factor : float
        Hidden width of a feed-forward as a multiple of D; not used by a layout without one.
    kernel : int
        Frames of the convolution; not used by a layout without one.
    dropout : float
        Dropout of the end of every residual branch in training; none inside, where it would cost as much again.
    causal : bool
        Whether the convolution looks at the past only; the mixer's own option decides for the mixer.
    """

    mixer: TokenMixer
    after: nn.Module | None

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
        self.dim, self.dropout = dim, dropout
        self.register_module("after", None)
        self._build(mixer, round(dim * ffn_factor), kernel, causal)

    @abstractmethod
    def _build(self, mixer: Callable[[int], TokenMixer], hidden: int, kernel: int, causal: bool) -> None:
        """Make the parts, in the order in which they draw their weights; the mixer is kept as `mixer`."""

    @abstractmethod
    def branches(self) -> list[tuple[float, nn.Module | None, Any]]:
        """Scale, norm and `Part` of each residual branch, in order; a feed-forward has its norm inside."""

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)."""
        for number, (scale, norm, part) in enumerate(self.branches()):
            y = part(norm(x) if norm else x, valid, chunks)
            y = F.dropout(y if self.after is None else self.after(number, y), self.dropout, self.training)
            x = x + (y if scale == 1 else scale * y)
        return x

    @property
    def streamable(self) -> bool:
        """Whether `step` works."""
        return self.mixer.streamable

    @property
    def granularity(self) -> int:
        """The sizes of chunks are multiples of so many frames."""
        return self.mixer.block

    def init_state(self, batch: int, left: int | None = None) -> tuple[Any, ...]:
        """State before the first chunk of ``batch`` streams; see `TokenMixer.init_state`."""
        return tuple(part.init_state(batch, left) for _, _, part in self.branches())

    def step(self, x: Tensor, valid: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """The next chunk (B, t, D) of each stream, and the new state."""
        states = []
        for number, ((scale, norm, part), before) in enumerate(zip(self.branches(), state, strict=True)):
            y, new = part.step(norm(x) if norm else x, valid, before)
            y = y if self.after is None else self.after(number, y)
            x = x + (y if scale == 1 else scale * y)
            states.append(new)
        return x, tuple(states)

    def macs(self, n_frames: int) -> int:
        """For one utterance of ``n_frames`` frames."""
        return sum(part.macs(n_frames) for _, _, part in self.branches())

    def state_floats(self) -> int:
        """Numbers of state per stream."""
        return sum(part.state_floats() for _, _, part in self.branches())


class ConformerBlock(Block):
    """Half feed-forward, token mixer, masked convolution, half feed-forward (Gulati et al. 2020, "Conformer", eq. 1).

    Arguments as of `Block`.
    """

    def _build(self, mixer: Callable[[int], TokenMixer], hidden: int, kernel: int, causal: bool) -> None:
        self.ffn_in = FeedForward(self.dim, hidden)
        self.mixer_norm = nn.LayerNorm(self.dim)
        self.mixer = mixer(self.dim)
        self.convolution_norm = nn.LayerNorm(self.dim)
        self.convolution = MaskedConvolution(self.dim, kernel, causal)
        self.ffn_out = FeedForward(self.dim, hidden)

    def branches(self) -> list[tuple[float, nn.Module | None, Any]]:
        """See `Block.branches`."""
        return [
            (0.5, None, self.ffn_in),
            (1.0, self.mixer_norm, self.mixer),
            (1.0, self.convolution_norm, self.convolution),
            (0.5, None, self.ffn_out),
        ]


class PlainBlock(Block):
    """Token mixer, feed-forward: a pre-norm Transformer layer (Xiong et al. 2020, "On Layer Normalization", fig. 1).

    Arguments as of `Block`; there is no convolution.
    """

    def _build(self, mixer: Callable[[int], TokenMixer], hidden: int, kernel: int, causal: bool) -> None:
        self.mixer_norm = nn.LayerNorm(self.dim)
        self.mixer = mixer(self.dim)
        self.ffn = FeedForward(self.dim, hidden)

    def branches(self) -> list[tuple[float, nn.Module | None, Any]]:
        """See `Block.branches`."""
        return [(1.0, self.mixer_norm, self.mixer), (1.0, None, self.ffn)]


class MixerBlock(Block):
    """The token mixer alone on its residual: for mixers that are layers of their own, such as ConvNeXt.

    Arguments as of `Block`; there is no feed-forward and no convolution.
    """

    def _build(self, mixer: Callable[[int], TokenMixer], hidden: int, kernel: int, causal: bool) -> None:
        # No norm before it: a layer such as ConvNeXt's (Liu et al. 2022, fig. 4) norms itself, after its convolution.
        self.mixer = mixer(self.dim)

    def branches(self) -> list[tuple[float, nn.Module | None, Any]]:
        """See `Block.branches`."""
        return [(1.0, None, self.mixer)]


class ParallelMix(nn.Module):
    """A mixer and a convolutional gating side by side, merged by a linear map of both.

    Branchformer's merge by concatenation (Peng et al. 2022, "Branchformer", eq. 9), the map being written as two.
    """

    def __init__(self, mixer: TokenMixer, local: TokenMixer) -> None:
        super().__init__()
        self.local = local
        self.merge_mixer = nn.Linear(mixer.dim, mixer.dim)
        self.merge_local = nn.Linear(mixer.dim, mixer.dim, bias=False)
        # The block owns the mixer; here it is only called.
        self._mixer = [mixer]

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D), zero where not valid."""
        return self._merge(self._mixer[0](x, valid, chunks), self.local(x, valid, chunks), valid)

    def init_state(self, batch: int, left: int | None = None) -> tuple[Any, Any]:
        """Both states."""
        return self._mixer[0].init_state(batch, left), self.local.init_state(batch, left)

    def step(self, x: Tensor, valid: Tensor, state: tuple[Any, Any]) -> tuple[Tensor, tuple[Any, Any]]:
        """The next chunk, and the new states."""
        mixed, mixer_state = self._mixer[0].step(x, valid, state[0])
        local, local_state = self.local.step(x, valid, state[1])
        return self._merge(mixed, local, valid), (mixer_state, local_state)

    def macs(self, n_frames: int) -> int:
        """Of both, and 2 T D²."""
        return (
            self._mixer[0].macs(n_frames) + self.local.macs(n_frames) + 2 * n_frames * self.merge_mixer.in_features**2
        )

    def state_floats(self) -> int:
        """Of both."""
        return self._mixer[0].state_floats() + self.local.state_floats()

    def _merge(self, mixed: Tensor, local: Tensor, valid: Tensor) -> Tensor:
        return (self.merge_mixer(mixed) + self.merge_local(local)).masked_fill(~valid[..., None], 0.0)


class BranchformerBlock(Block):
    """Half feed-forward, mixer and convolutional gating in parallel, half feed-forward.

    The layout is that of E-Branchformer (Kim et al. 2023, fig. 1) with Branchformer's merge. ``kernel`` is that of the
    gating, whose hidden width is twice D.

    Arguments as of `Block`.
    """

    def _build(self, mixer: Callable[[int], TokenMixer], hidden: int, kernel: int, causal: bool) -> None:
        self.ffn_in = FeedForward(self.dim, hidden)
        self.mixer_norm = nn.LayerNorm(self.dim)
        self.mixer = mixer(self.dim)
        local = ConvolutionalGating(self.dim, expand=2, kernel=kernel, causal=causal)
        self.parallel = ParallelMix(self.mixer, local)
        self.ffn_out = FeedForward(self.dim, hidden)

    def branches(self) -> list[tuple[float, nn.Module | None, Any]]:
        """See `Block.branches`."""
        return [(0.5, None, self.ffn_in), (1.0, self.mixer_norm, self.parallel), (0.5, None, self.ffn_out)]
