"""ConvNeXt over time: a depthwise convolution and a wide pointwise network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers.base import Chunks, TokenMixer
from lobes.mixers.convolution import DepthwiseConvolution
from lobes.mixers.running import exact, last_sum, per_frame, running_sums


class ConvNeXtState(NamedTuple):
    """What a stream keeps: the last frames, and the sum of squares of each hidden channel (version 2)."""

    past: Tensor  # (B, past, D)
    energy: Tensor  # (B, H), H = 0 in version 1


class ConvNeXt(TokenMixer):
    """The ConvNeXt block over time, without its residual, which is the encoder's.

    Depthwise convolution, LayerNorm, Linear to H = ``expand`` · D, GELU, in version 2 a global response normalisation
    (`GlobalResponseNorm`), Linear to D, in version 1 a scale of each channel (Liu et al. 2022, "A ConvNet for the
    2020s", figure 4; Woo et al. 2023, "ConvNeXt V2", section 3). That scale begins at 0.1, as Touvron et al. 2021
    ("Going deeper with Image Transformers", section 2) have it for up to 18 layers: from the 1e-6 of the paper a
    shallow network is slow to start. Version 1 sees ``kernel`` frames, version 2 through its norm all of them.

    In chunks the convolution of a frame sees the past and its chunk. A stream keeps the frames before a chunk that its
    convolution sees, and in version 2 a sum of squares per hidden channel.

    Arguments
    ---------
    dim : int
        Width D.
    kernel : int
        Frames of the convolution; odd unless causal.
    expand : float
        Hidden width H as a multiple of D.
    version : int
        1 or 2.
    causal : bool
        See the past only.

    Example
    -------
    >>> mixer = ConvNeXt(8, kernel=3)
    >>> mixer(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool)).shape
    torch.Size([1, 5, 8])
    """

    streamable = True

    def __init__(self, dim: int, kernel: int = 7, expand: float = 4.0, version: int = 2, causal: bool = False) -> None:
        super().__init__(dim)
        hidden = round(expand * dim)
        if version not in (1, 2):
            raise ConfigError(f"ConvNeXt: version is {version}; expected 1 (layer scale) or 2 (response norm)")
        if hidden < 1:
            raise ConfigError(f"ConvNeXt: expand is {expand}; expected a hidden width of at least 1, as 4.0 gives")
        self.version, self.causal, self.hidden = version, causal, hidden
        self.convolution = DepthwiseConvolution(dim, kernel, causal)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, hidden)
        if version == 2:
            self.response = GlobalResponseNorm(hidden)
        else:
            self.scale = nn.Parameter(torch.full((dim,), 0.1))
        self.project = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix each frame with its neighbours. Shapes: (B, T, D), (B, T) -> (B, T, D)."""
        chunks = self._checked(chunks)
        x = self.convolution(x.masked_fill(~valid[..., None], 0.0), chunks)
        hidden = self._hidden(x)
        if self.version == 2 and (self.causal or chunks is not None):
            size = 1 if self.causal or chunks is None else chunks.size
            hidden, _ = self.response.running(hidden, valid, size, self._no_energy(len(x)))
        elif self.version == 2:
            hidden = self.response(hidden, valid)
        return self._output(hidden, valid)

    def init_state(self, batch: int, left: int | None = None) -> ConvNeXtState:
        """Silence before ``batch`` streams; see `TokenMixer.init_state`."""
        return ConvNeXtState(self.convolution.init_state(batch), self._no_energy(batch))

    def step(self, x: Tensor, valid: Tensor, state: ConvNeXtState) -> tuple[Tensor, ConvNeXtState]:
        """Mix a chunk (B, t, D) with the frames before it; see `TokenMixer.step`."""
        x, past = self.convolution.step(x.masked_fill(~valid[..., None], 0.0), state.past)
        hidden, energy = self._hidden(x), state.energy
        if self.version == 2:
            hidden, energy = self.response.running(hidden, valid, 1 if self.causal else x.shape[1], energy)
        return self._output(hidden, valid), ConvNeXtState(past, energy)

    def macs(self, n_frames: int) -> int:
        """T D k for the convolution, 2 T D H for the linear maps."""
        return self.convolution.macs(n_frames) + 2 * n_frames * self.dim * self.hidden

    def state_floats(self) -> int:
        """``kernel`` - 1 frames (``kernel`` // 2 unless causal); in version 2, H sums."""
        return self.convolution.past * self.dim + (self.hidden if self.version == 2 else 0)

    def _hidden(self, x: Tensor) -> Tensor:
        return F.gelu(self.expand(self.norm(x)))

    def _no_energy(self, batch: int) -> Tensor:
        width = self.hidden if self.version == 2 else 0
        weight = self.project.weight
        return torch.zeros(batch, width, device=weight.device, dtype=exact(weight.dtype))

    def _output(self, hidden: Tensor, valid: Tensor) -> Tensor:
        y = self.project(hidden)
        return (y if self.version == 2 else y * self.scale).masked_fill_(~valid[..., None], 0.0)


class GlobalResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023, "ConvNeXt V2", eq. 1-3) over an utterance's real frames.

    h · (1 + γ n) + β, where n_c = ‖h_c‖ / mean_c ‖h_c‖ and ‖h_c‖ is the norm over time of a channel: channels that are
    strong in an utterance become stronger. γ and β begin at zero, which is the identity.

    Arguments
    ---------
    width : int
        Channels H.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """(B, T, H), (B, T) -> (B, T, H), with the norms of whole utterances."""
        energy = self._squares(hidden, valid).sum(1, keepdim=True)
        return torch.addcmul(self.bias, hidden, self._factors(energy).to(hidden.dtype))

    def running(self, hidden: Tensor, valid: Tensor, size: int, energy: Tensor) -> tuple[Tensor, Tensor]:
        """With the norms of all up to the end of each chunk of ``size`` frames, after ``energy`` (B, H).

        Returns
        -------
        tuple[Tensor, Tensor]
            (B, T, H), and the energy after the last frame.
        """
        n_frames = hidden.shape[1]
        size = max(min(size, n_frames), 1)
        energies = running_sums(self._squares(hidden, valid), size, energy)
        factors = per_frame(self._factors(energies).to(hidden.dtype), size, n_frames)
        return torch.addcmul(self.bias, hidden, factors), last_sum(energies, energy)

    def _squares(self, hidden: Tensor, valid: Tensor) -> Tensor:
        # Sums over thousands of frames are kept in float32 at least, whatever autocast does.
        squares = hidden.to(exact(hidden.dtype)).square()
        # The product is cheaper than masked_fill, and safe: hidden is finite where the convolution read zeros.
        return squares.mul_(valid[..., None])

    def _factors(self, energy: Tensor) -> Tensor:
        # The slope of a root is infinite at zero, where an utterance without frames is.
        norms = energy.clamp_min(1e-30).sqrt()
        return 1 + self.weight * norms / (norms.mean(-1, keepdim=True) + 1e-6)
