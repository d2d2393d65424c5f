"""The encoder: features, stem, blocks, norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from lobes.encoders.block import Block
from lobes.encoders.features import LogMel
from lobes.encoders.stem import Stem
from lobes.errors import ConfigError
from lobes.mixers import TokenMixer


class EncoderOutput(NamedTuple):
    """What an encoder gives."""

    frames: Tensor
    """(B, T, D), the normalised last layer, zero where not valid."""
    valid: Tensor
    """(B, T), bool, true at real frames."""
    layers: list[Tensor]
    """(B, T, D) each: the stem's output, then each block's, zero where not valid."""


class Encoder(nn.Module):
    """Waveform to frames, through log-mel features, a subsampling stem and blocks over any token mixer.

    An utterance's output never depends on the batch that it is in: neither on its padding nor on its order.

    Arguments
    ---------
    features : LogMel
        Waveform to features.
    stem : Stem
        Features to frames of width ``dim`` (`StackingStem` or `ConvolutionStem`).
    dim : int
        Width D.
    depth : int
        Number of blocks N.
    mixer : Callable or list of Callable
        Constructor of the mixer (``!name:``, one instance per block), or a list of N constructors.
    ffn_factor : float
        Hidden width of the feed-forwards as a multiple of D.
    kernel : int
        Frames of the convolution of each block.
    dropout : float
        Dropout in training.
    causal : bool
        Whether the convolutions look at the past only; give the mixer its own ``causal`` option.

    Example
    -------
    >>> import torch
    >>> from lobes.encoders import LogMel, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 2, SummaryMixing)
    >>> output = encoder(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> output.frames.shape, output.valid.sum(1), len(output.layers)
    (torch.Size([2, 25, 16]), tensor([25, 13]), 3)
    """

    def __init__(
        self,
        features: LogMel,
        stem: Stem,
        dim: int,
        depth: int,
        mixer: Callable[[int], TokenMixer] | Sequence[Callable[[int], TokenMixer]],
        ffn_factor: float = 4.0,
        kernel: int = 15,
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        mixers: list[Callable[[int], TokenMixer]] = [mixer] * depth if callable(mixer) else list(mixer)
        if len(mixers) != depth:
            raise ConfigError(f"Encoder: {len(mixers)} mixers for depth {depth}; give one, or one per layer")
        if stem.n_features != features.n_mels or stem.dim != dim:
            raise ConfigError(
                f"Encoder: the stem maps {stem.n_features} features to width {stem.dim}; "
                f"expected {features.n_mels} (features.n_mels) to {dim} (dim)"
            )
        self.features, self.stem, self.dim = features, stem, dim
        self.blocks = nn.ModuleList(Block(dim, m, ffn_factor, kernel, dropout, causal) for m in mixers)
        self.norm = nn.LayerNorm(dim)

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """Encode a padded batch.

        Arguments
        ---------
        waveform : Tensor
            (B, samples), at `sample_rate`.
        lengths : Tensor
            (B,), relative to the longest, as in SpeechBrain.

        Returns
        -------
        EncoderOutput
        """
        return self.encode(*self.features(waveform, lengths))

    def encode(self, features: Tensor, valid: Tensor) -> EncoderOutput:
        """From features (B, T', F) and their validity on; what a pretext task that masks features calls."""
        x, valid = self.stem(features, valid)
        padded = ~valid[..., None]
        layers = [x]
        for block in self.blocks:
            x = block(x, valid).masked_fill(padded, 0.0)
            layers.append(x)
        return EncoderOutput(self.norm(x).masked_fill(padded, 0.0), valid, layers)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.features.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second of the output, Hz."""
        return self.features.frame_rate / self.stem.factor

    @property
    def layer_dims(self) -> list[int]:
        """Width of each of the output's layers."""
        return [self.dim] * (len(self.blocks) + 1)

    def macs(self, seconds: float) -> int:
        """Multiply-accumulates for one utterance of that length."""
        n_features = -(-round(seconds * self.sample_rate) // self.features.hop_samples)
        n_frames = -(-n_features // self.stem.factor)
        fixed = self.features.macs(n_features) + self.stem.macs(n_features)
        return fixed + sum(cast(Block, block).macs(n_frames) for block in self.blocks)
