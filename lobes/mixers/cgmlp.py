"""Convolutional gating MLP: a frame's channels gated by a convolution of its neighbours."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.convolution import DepthwiseConvolution


class ConvolutionalGating(TokenMixer):
    """cgMLP (Sakuma et al. 2022, "MLP-based architecture with variable length input for ASR", section 3): the local
    branch of Branchformer (Peng et al. 2022, section 3.3).

    (u, v) = GELU(Linear x), of ``expand`` · D / 2 channels each; y = Linear(u ⊙ conv(LayerNorm v)), conv depthwise over
    time. The convolution begins near zero with a bias of one, an open gate. It sees ``kernel`` frames and no more.

    In chunks the convolution of a frame sees the past and its chunk. A stream keeps the normalised frames before a
    chunk that it sees.

    Arguments
    ---------
    dim : int
        Width D.
    expand : float
        Width of u and v together as a multiple of D. Branchformer takes 6, which is 9 D² parameters; 4 is 6 D².
    kernel : int
        Frames of the convolution; odd unless causal.
    causal : bool
        See the past only.

    Example
    -------
    >>> import torch
    >>> mixer = ConvolutionalGating(8, kernel=3)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, expand: float = 4.0, kernel: int = 31, causal: bool = False) -> None:
        super().__init__(dim)
        self.causal, self.width = causal, round(expand * dim / 2)
        if self.width < 1:
            raise ConfigError(f"ConvolutionalGating: expand is {expand}; expected expand * dim >= 2, as 4.0 gives")
        # Two maps rather than one that is split: halves of a tensor are copied by what follows.
        self.expand = nn.Linear(dim, self.width)
        self.expand_gate = nn.Linear(dim, self.width)
        self.norm = nn.LayerNorm(self.width)
        self.convolution = DepthwiseConvolution(self.width, kernel, causal)
        nn.init.normal_(self.convolution.conv.weight, std=1e-6)
        nn.init.ones_(self.convolution.conv.bias)  # type: ignore[arg-type]
        self.project = nn.Linear(self.width, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Gate each frame by its neighbours. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        return self._gated(x, self.convolution(self._gate(x, valid), chunks), valid)

    def init_state(self, batch: int, left: int | None = None) -> Tensor:
        """Silence before ``batch`` streams; see `TokenMixer.init_state`."""
        return self.convolution.init_state(batch)

    def step(self, x: Tensor, valid: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Gate a chunk (B, t, D) by itself and the frames before it; see `TokenMixer.step`."""
        gate, state = self.convolution.step(self._gate(x, valid), state)
        return self._gated(x, gate, valid), state

    def macs(self, n_frames: int) -> int:
        """3 T D W for the linear maps and T W k for the convolution, W = ``expand`` · D / 2."""
        return 3 * n_frames * self.dim * self.width + self.convolution.macs(n_frames)

    def state_floats(self) -> int:
        """``kernel`` - 1 frames (``kernel`` // 2 unless causal) of the gate's width."""
        return self.convolution.past * self.width

    def _gate(self, x: Tensor, valid: Tensor) -> Tensor:
        # After the norm, whose bias is not zero at padded frames.
        return self.norm(F.gelu(self.expand_gate(x))).masked_fill_(~valid[..., None], 0.0)

    def _gated(self, x: Tensor, gate: Tensor, valid: Tensor) -> Tensor:
        return self.project(F.gelu(self.expand(x)) * gate).masked_fill_(~valid[..., None], 0.0)
