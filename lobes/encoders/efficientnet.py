"""EfficientNetV2 on log-mel pictures: an encoder of convolutions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.encoder import EncoderOutput
from lobes.encoders.features import LogMel
from lobes.errors import ConfigError
from lobes.mixers import Chunks


class Stage(NamedTuple):
    """Blocks of one shape, one after the other."""

    block: str
    """``fused`` for `FusedMBConv`, ``mbconv`` for `MBConv`."""
    channels: int
    """Channels of its output."""
    depth: int
    """Blocks."""
    expand: int
    """Hidden channels of a block as a multiple of its input's."""
    stride: int = 2
    """Over mel bands, of its first block."""


TINY = (
    Stage("fused", 32, 2, 2),
    Stage("fused", 48, 2, 4),
    Stage("mbconv", 96, 3, 4),
    Stage("mbconv", 144, 4, 4, stride=1),
)


class EfficientNetV2(nn.Module):
    """Waveform to frames by the blocks of EfficientNetV2 (Tan & Le 2021, "EfficientNetV2", figure 2 and table 4).

    Log-mel features are a picture of time by bands. The stem strides both; the stages stride bands alone, so that all
    layers have one frame rate. Fused-MBConv comes first and MBConv with squeeze-and-excitation later, as in the paper.
    Three things differ from it. A LayerNorm over the channels of each position stands for batch norms, since an
    utterance's output must not depend on its batch; padding is zero before every convolution over time, and squeezing
    is over real frames only. Each stage's picture is read frame by frame by a linear map onto one sum of width D: the
    layers are that sum after each stage, all of the same width, and the last, normalised, is the output.

    Squeezing sees the whole utterance: it cannot stream.

    Arguments
    ---------
    features : LogMel
        Waveform to features.
    dim : int
        Width D of the output.
    stages : list of Stage or dict
        The stages; a dict has `Stage`'s fields.
    factor : int
        Subsampling of the stem, in time and in bands, a power of two.
    stem_channels : int
        Channels of the stem.

    Example
    -------
    >>> encoder = EfficientNetV2(LogMel(n_mels=40), dim=16)
    >>> output = encoder(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> output.frames.shape, output.valid.sum(1), len(output.layers)
    (torch.Size([2, 25, 16]), tensor([25, 13]), 4)
    """

    streamable = False
    granularity = 1

    def __init__(
        self,
        features: LogMel,
        dim: int = 144,
        stages: Sequence[Stage | Mapping[str, Any]] = TINY,
        factor: int = 4,
        stem_channels: int = 24,
    ) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        self.stem = PictureStem(features.n_mels, stem_channels, factor)
        self.stages, self.readouts = nn.ModuleList(), nn.ModuleList()
        channels, bands = stem_channels, self.stem.bands
        for number, given in enumerate(stages):
            spec = _checked_stage(given, number)
            block = FusedMBConv if spec.block == "fused" else MBConv
            stage = nn.ModuleList()
            for i in range(spec.depth):
                stage.append(block(channels, spec.channels, spec.expand, 1 if i else spec.stride))
                channels = spec.channels
            bands = -(-bands // spec.stride)
            self.stages.append(stage)
            self.readouts.append(nn.Linear(bands * channels, dim))
        if not len(self.stages):
            raise ConfigError("EfficientNetV2: stages is empty; expected at least one, such as those of TINY")
        self.norm = nn.LayerNorm(dim)

    def forward(self, waveform: Tensor, lengths: Tensor, chunks: Any = None) -> EncoderOutput:
        """As `Encoder.forward`: (B, samples) and relative lengths (B,), without chunks."""
        features, valid = self.features(waveform, lengths)
        return self.encode(features, valid, chunks)

    def encode(self, features: Tensor, valid: Tensor, chunks: Any = None) -> EncoderOutput:
        """From features (B, T', F) and their validity on; see `Encoder.encode`."""
        self.checked(chunks)
        picture, valid = self.stem(features, valid)
        frames, layers = features.new_zeros(*valid.shape, self.dim), []
        for stage, readout in zip(self.stages, self.readouts, strict=True):
            for block in cast(Any, stage):
                picture = block(picture, valid) if valid.shape[1] else block.empty(picture)
            frames = frames + readout(picture.flatten(2))
            layers.append(frames.masked_fill(~valid[..., None], 0.0))
        return EncoderOutput(self.norm(frames).masked_fill(~valid[..., None], 0.0), valid, layers)

    def checked(self, chunks: Any) -> Chunks | None:
        """None; an error if there are chunks."""
        if chunks is not None:
            raise ConfigError("EfficientNetV2: it cannot work in chunks; expected none, or an Encoder of causal mixers")
        return None

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
        return [self.dim] * len(self.stages)

    def macs(self, seconds: float) -> int:
        """Multiply-accumulates for one utterance of that length."""
        n_features = -(-round(seconds * self.sample_rate) // self.features.hop_samples)
        n_frames, bands = -(-n_features // self.stem.factor), self.stem.bands
        total = self.features.macs(n_features) + self.stem.macs(n_features)
        for stage, readout in zip(self.stages, self.readouts, strict=True):
            for block in cast(Any, stage):
                total += block.macs(n_frames, bands)
                bands = -(-bands // block.stride)
            total += n_frames * cast(Any, readout).in_features * self.dim
        return total

    def state_floats(self) -> int:
        """It keeps no state."""
        return 0


class PictureStem(nn.Module):
    """Convolutions of stride 2 over time and bands: features (B, T, F) to a picture (B, T / factor, bands, C).

    Arguments
    ---------
    n_features : int
        Mel bands F.
    channels : int
        Channels C.
    factor : int
        Subsampling, a power of two.

    Example
    -------
    >>> picture, valid = PictureStem(80, 8, 4)(torch.randn(1, 9, 80), torch.ones(1, 9, dtype=torch.bool))
    >>> picture.shape, valid.shape
    (torch.Size([1, 3, 20, 8]), torch.Size([1, 3]))
    """

    def __init__(self, n_features: int, channels: int, factor: int) -> None:
        super().__init__()
        n_layers = factor.bit_length() - 1
        if factor < 2 or factor != 2**n_layers:
            raise ConfigError(f"EfficientNetV2: factor is {factor}; expected a power of two such as 4 or 8")
        if channels < 1:
            raise ConfigError(f"EfficientNetV2: stem_channels is {channels}; expected a positive number")
        self.n_features, self.channels, self.factor = n_features, channels, factor
        self.bands = -(-n_features // factor)
        self.layers = nn.ModuleList(Convolution(channels if i else 1, channels, (2, 2)) for i in range(n_layers))

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, F), (B, T) -> (B, ceil(T / factor), bands, C), and its validity."""
        picture = features.masked_fill(~valid[..., None], 0.0)[..., None]
        if features.shape[1] == 0:
            return picture.new_zeros(len(features), 0, self.bands, self.channels), valid
        for layer in self.layers:
            picture, valid = layer(picture, valid), valid[:, ::2]
        return picture, valid

    def macs(self, n_frames: int) -> int:
        """Multiply-accumulates for ``n_frames`` feature frames."""
        total, frames, bands = 0, n_frames, self.n_features
        for layer in cast(Any, self.layers):
            frames, bands = -(-frames // 2), -(-bands // 2)
            total += frames * bands * layer.weights_per_output
        return total


class Convolution(nn.Module):
    """3 x 3 convolution, LayerNorm over channels, SiLU; reads zeros where frames are not valid.

    Arguments
    ---------
    channels, out : int
        Channels of its input and output.
    stride : tuple of int
        Over time and bands.
    groups : int
        As for ``nn.Conv2d``; as many as there are channels for a depthwise one.
    """

    def __init__(self, channels: int, out: int, stride: tuple[int, int], groups: int = 1) -> None:
        super().__init__()
        # The norm takes its bias's place.
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, groups=groups, bias=False)
        self.conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.norm = nn.LayerNorm(out)
        self.weights_per_output = 9 * channels * out // groups

    def forward(self, picture: Tensor, valid: Tensor) -> Tensor:
        """(B, T, bands, C), (B, T) -> (B, ceil(T / stride), ceil(bands / stride), out)."""
        picture = picture.masked_fill(~valid[..., None, None], 0.0)
        # Channels are last in memory for the norms and the linear maps, and the convolution takes them as they are.
        return F.silu(self.norm(self.conv(picture.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))


class FusedMBConv(nn.Module):
    """3 x 3 convolution to ``expand`` · C channels, linear map, norm, around it a residual where shapes allow.

    Arguments
    ---------
    channels, out : int
        Channels C of its input, and of its output.
    expand : int
        Hidden channels as a multiple of C.
    stride : int
        Over bands.
    """

    def __init__(self, channels: int, out: int, expand: int, stride: int) -> None:
        super().__init__()
        self.stride, self.residual = stride, stride == 1 and channels == out
        self.convolution = Convolution(channels, channels * expand, (1, stride))
        self.project = nn.Linear(channels * expand, out, bias=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, picture: Tensor, valid: Tensor) -> Tensor:
        """(B, T, bands, C), (B, T) -> (B, T, ceil(bands / stride), out)."""
        y = self.norm(self.project(self.convolution(picture, valid)))
        return picture + y if self.residual else y

    def empty(self, picture: Tensor) -> Tensor:
        """What `forward` gives for no frames, which PyTorch's convolutions refuse."""
        bands = -(-picture.shape[2] // self.stride)
        return picture.new_zeros(len(picture), 0, bands, self.project.out_features)

    def macs(self, n_frames: int, bands: int) -> int:
        """For one utterance."""
        weights = self.convolution.weights_per_output + self.project.in_features * self.project.out_features
        return n_frames * -(-bands // self.stride) * weights


class MBConv(FusedMBConv):
    """Linear map to ``expand`` · C channels, depthwise 3 x 3 convolution, squeeze-and-excitation, linear map, norm.

    Squeeze-and-excitation (Hu et al. 2018, "Squeeze-and-Excitation Networks", eq. 2-4) scales each hidden channel by a
    function of the means of all over the utterance's real frames and their bands; its width is C / 4.

    Arguments
    ---------
    channels, out, expand, stride : int
        As for `FusedMBConv`.
    """

    def __init__(self, channels: int, out: int, expand: int, stride: int) -> None:
        super().__init__(channels, out, expand, stride)
        hidden = channels * expand
        self.expand = nn.Linear(channels, hidden, bias=False)
        self.expand_norm = nn.LayerNorm(hidden)
        self.convolution = Convolution(hidden, hidden, (1, stride), groups=hidden)
        self.squeeze = nn.Linear(hidden, max(channels // 4, 1))
        self.excite = nn.Linear(self.squeeze.out_features, hidden)

    def forward(self, picture: Tensor, valid: Tensor) -> Tensor:
        """As `FusedMBConv.forward`."""
        hidden = self.convolution(F.silu(self.expand_norm(self.expand(picture))), valid)
        y = self.norm(self.project(hidden * self._excitation(hidden, valid)))
        return picture + y if self.residual else y

    def macs(self, n_frames: int, bands: int) -> int:
        """For one utterance."""
        wide = n_frames * bands * self.expand.in_features * self.expand.out_features
        return wide + super().macs(n_frames, bands) + 2 * self.squeeze.in_features * self.squeeze.out_features

    def _excitation(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """(B, T, bands, H) -> (B, 1, 1, H)."""
        # Sums over thousands of frames are kept in float32 at least, whatever autocast does.
        exact = torch.promote_types(hidden.dtype, torch.float32)
        means = hidden.mean(2, dtype=exact).masked_fill(~valid[..., None], 0.0).sum(1)
        means = means / valid.sum(1, keepdim=True).clamp_min(1)
        return self.excite(F.silu(self.squeeze(means.to(hidden.dtype)))).sigmoid()[:, None, None]


def _checked_stage(given: Stage | Mapping[str, Any], number: int) -> Stage:
    try:
        stage = Stage(**given) if isinstance(given, Mapping) else Stage(*given)
    except TypeError as error:
        raise ConfigError(f"EfficientNetV2: stage {number} is {given}; expected {', '.join(Stage._fields)}") from error
    if stage.block not in ("fused", "mbconv"):
        raise ConfigError(f"EfficientNetV2: block of stage {number} is '{stage.block}'; expected fused or mbconv")
    if min(stage[1:]) < 1:
        raise ConfigError(f"EfficientNetV2: stage {number} is {stage}; expected positive numbers")
    return stage
