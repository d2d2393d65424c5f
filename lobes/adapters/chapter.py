"""Convolutional adapters in the front-end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.base import Adaptation
from lobes.adapters.houlsby import insert_bottlenecks, zero_initialised
from lobes.adapters.sites import Site, like, site_at, without_peft
from lobes.encoders import ConvolutionStem, absolute_lengths, frame_mask
from lobes.errors import ConfigError

#: Kernel, stride and padding over time.
Geometry = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CHAPTER(Adaptation):
    """Convolutional adapters after each convolution of the front-end, and bottlenecks in the layers.

    As in Chen et al. 2023 ("CHAPTER"): y + U φ(D y), where D is a convolution of ``kernel`` frames to ``channels``, φ =
    GELU, and U, of one frame, is zero at the start; in the layers it is `Houlsby`. The convolutions read zeros in place
    of padded frames, as they do beyond the end of a lone utterance. On HuBERT-base the defaults train 1.760 % (.490 %
    of it in the front-end); the paper states less than 5 % and no sizes that we could check, which these are not meant
    to reproduce.

    It is for speech models of Hugging Face and torchaudio, and for encoders of ours with a `ConvolutionStem`. It looks
    ahead: not for chunks.

    Arguments
    ---------
    channels : int
        Channels of the front-end's adapters.
    kernel : int
        Frames that they see, odd; in a stem of ours bands as well.
    bottleneck : int
        Channels of the bottlenecks in the layers.
    targets : list of str
        Where those are, as for `Houlsby`; empty for the front-end alone.
    """

    channels: int = 32
    kernel: int = 3
    bottleneck: int = 32
    targets: Sequence[str] = ("mixer", "ffn")

    def __post_init__(self) -> None:
        if self.channels < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(
                f"CHAPTER: channels is {self.channels} and kernel {self.kernel}; expected 1 or more, and an odd number"
            )

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        owner, convolutions = _front_end(anatomy)
        if self.targets:
            insert_bottlenecks(anatomy, name, "CHAPTER", self.targets, self.bottleneck)
        lengths = _lengths_of(anatomy, owner, convolutions[0][0])
        chain: list[Geometry] = []
        for layer, convolution, padding in convolutions:
            chain.append((convolution.kernel_size[0], convolution.stride[0], padding))
            # Not a child of the layer, which may be a Sequential that would call it.
            site, new = site_at(convolution, "convolution_site", AfterConvolution, lengths, tuple(chain))
            adapter = ConvolutionAdapter(type(convolution), convolution.out_channels, self.channels, self.kernel)
            site.adapters[name] = like(adapter, convolution.weight)
            if new:
                layer.register_forward_hook(site.hook)


class ConvolutionAdapter(nn.Module):
    """y + U GELU(D y): (B, C, T) or (B, C, T, bands) to the same.

    Arguments
    ---------
    kind : type
        ``nn.Conv1d`` or ``nn.Conv2d``.
    channels, hidden, kernel : int
        C, those between, and the width of D in every direction.
    """

    def __init__(self, kind: type[nn.Module], channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        build = nn.Conv2d if issubclass(kind, nn.Conv2d) else nn.Conv1d
        self.down = build(channels, hidden, kernel, padding=kernel // 2)
        self.up = zero_initialised(build(hidden, channels, 1))

    def forward(self, y: Tensor, real: Tensor | None) -> Tensor:
        """Adapt, reading zeros where not ``real`` (B, T)."""
        heard = y
        if real is not None:
            heard = y.masked_fill(~real.view(len(y), 1, -1, *[1] * (y.dim() - 3)), 0.0)
        return y + self.up(F.gelu(self.down(heard)))


class Lengths:
    """How many samples, or frames of features, of the clips in a front-end are real, noted on their way in."""

    def __init__(self) -> None:
        self.relative: Tensor | None = None
        self.given: Tensor | None = None
        self.shape: torch.Size | None = None
        self.counts: Tensor | None = None

    def note_batch(self, module: Any, args: Any, kwargs: Any) -> None:
        """On the way into an encoder of our contract: relative lengths, unless it cuts the padding off itself."""
        alike = getattr(module, "by_length", False)
        self.relative = None if alike else args[1] if len(args) > 1 else kwargs.get("lengths")

    def note_mask(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """On the way into a model of Hugging Face: its mask of samples; torchaudio's has lengths."""
        mask = args[1] if len(args) > 1 else kwargs.get("attention_mask", kwargs.get("lengths"))
        self.given = mask if mask is None or mask.dim() == 1 else mask.sum(-1)

    def note_waveform(self, layer: nn.Module, args: Any) -> None:
        """On the way into the first convolution: (B, 1, samples)."""
        shape = args[0].shape
        if self.given is not None:
            self.counts = self.given
        elif self.relative is not None:
            self.counts = absolute_lengths(self.relative, shape[-1])
        elif shape != self.shape:
            # Else a checkpoint computes it again for the backward pass, when the encoder has been left.
            self.counts = None
        self.shape = shape

    def note_valid(self, module: nn.Module, args: Any) -> None:
        """On the way into a stem of ours: features and their validity."""
        self.counts = args[1].sum(1)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """On the way out of an encoder."""
        self.relative = self.given = None


class AfterConvolution(Site):
    """An adapter after a convolution of the front-end, hung on its layer as a hook.

    Arguments
    ---------
    lengths : Lengths
        Of the batch that is encoded; without any, all of it is real.
    chain : tuple of Geometry
        The convolutions up to here.
    """

    def __init__(self, lengths: Lengths, chain: tuple[Geometry, ...]) -> None:
        super().__init__()
        self.lengths, self.chain = lengths, chain

    @property
    def needs_whole(self) -> str:
        """Why chunks are refused."""
        return "CHAPTER sees frames to come; expected no chunks, or Houlsby" if self.working is not None else ""

    def hook(self, layer: nn.Module, args: Any, output: Any) -> Any:
        """The layer's output, adapted; torchaudio's has lengths beside it."""
        if self.working is None:
            return None
        heard = output[0] if isinstance(output, tuple) else output
        counts, n_frames = self.lengths.counts, heard.shape[2]
        if counts is not None:
            for kernel, stride, padding in self.chain:
                counts = torch.div(counts + 2 * padding - kernel, stride, rounding_mode="floor") + 1
        told = self.working(heard, None if counts is None else frame_mask(counts.clamp(0, n_frames), n_frames))
        return (told, *output[1:]) if isinstance(output, tuple) else told


def _front_end(anatomy: Anatomy) -> tuple[nn.Module, list[tuple[nn.Module, Any, int]]]:
    """What holds the convolutions; and of each its layer, itself, and its padding over time."""
    for module in anatomy.root.modules():
        if isinstance(module, ConvolutionStem):
            return module, _with_convolutions(module.layers, "0", padding=1)
        layers = getattr(module, "conv_layers", None)
        if anatomy.foreign and isinstance(layers, nn.ModuleList) and all(hasattr(la, "conv") for la in layers):
            return module, _with_convolutions(layers, "conv", padding=0)
    raise ConfigError(
        f"CHAPTER: {type(anatomy.root).__name__} has no convolutional front-end; expected an Encoder with a "
        "ConvolutionStem, or a speech model of Hugging Face or torchaudio such as HubertModel or Wav2Vec2Model"
    )


def _with_convolutions(layers: Any, name: str, padding: int) -> list[tuple[nn.Module, Any, int]]:
    return [(layer, without_peft(layer.get_submodule(name)), padding) for layer in layers]


def _lengths_of(anatomy: Anatomy, owner: Any, first: nn.Module) -> Lengths:
    """The front-end's noted lengths, with the hooks that note them hung up once."""
    if "noted_lengths" in vars(owner):
        return owner.noted_lengths
    lengths = owner.noted_lengths = Lengths()
    if not anatomy.foreign:
        owner.register_forward_pre_hook(lengths.note_valid)
        return lengths
    first.register_forward_pre_hook(lengths.note_waveform)
    anatomy.root.register_forward_pre_hook(lengths.note_mask, with_kwargs=True)
    anatomy.root.register_forward_hook(lengths.leave, always_call=True)
    if anatomy.encoder is not anatomy.root:
        # What holds the model is called with the model's own rate, whatever is around both.
        holder = anatomy.parent_of(anatomy.root)
        holder.register_forward_pre_hook(lengths.note_batch, with_kwargs=True)
        holder.register_forward_hook(lengths.leave, always_call=True)
    return lengths
