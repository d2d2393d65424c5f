"""The encoder: features, stem, blocks, norm."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.block import Block, ConformerBlock
from lobes.encoders.features import LogMel
from lobes.encoders.layerwise import BlockWalk
from lobes.encoders.rate import RateBlock
from lobes.encoders.stem import Stem
from lobes.errors import ConfigError
from lobes.mixers import Chunks, TokenMixer, mixers_that


class EncoderOutput(NamedTuple):
    """What an encoder gives."""

    frames: Tensor
    """(B, T, D), the normalised last layer, zero where not valid."""
    valid: Tensor
    """(B, T), bool, true at real frames."""
    layers: list[Tensor]
    """(B, T, D) each: the stem's output, then each block's, zero where not valid."""

    def between(self, start: int, stop: int | None = None) -> EncoderOutput:
        """Of the frames from ``start`` to before ``stop`` alone."""
        part = slice(start, stop)
        return EncoderOutput(self.frames[:, part], self.valid[:, part], [layer[:, part] for layer in self.layers])


class EncoderState(NamedTuple):
    """What an encoder keeps of a stream, from the features on."""

    stem: Any
    blocks: tuple[Any, ...]


class Encoder(nn.Module):
    """Waveform to frames, through log-mel features, a subsampling stem and blocks over any token mixer.

    An utterance's output never depends on the batch that it is in: neither on its padding nor on its order. In chunks,
    an encoder of streamable mixers gives what `StreamingEncoder` gives.

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
        Constructor of the mixer (``!name:``, one instance per block), or a list of N constructors, which makes hybrids.
    block : Callable
        Layout of a layer: `ConformerBlock`, `PlainBlock`, `BranchformerBlock` or `MixerBlock`.
    rates : list of int, optional
        For each block, by how much its frame rate is lower than the stem's: [1, 2, 4, 2] is a temporal U-Net.
    ffn_factor : float
        Hidden width of the feed-forwards as a multiple of D.
    kernel : int
        Frames of the convolution of each block.
    dropout : float
        Dropout in training.
    causal : bool
        Whether the convolutions look at the past only; give the mixer its own ``causal`` option.

    Attributes
    ----------
    prompts : nn.Module, optional
        Gives frames (B, P, D) to put before those of the stem (B, T, D), real frames to every block; they are taken
        away at the end. None but where `lobes.adapters` has put something here.

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
        block: Callable[..., Block] = ConformerBlock,
        rates: Sequence[int] | None = None,
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
        self.prompts: nn.Module | None
        self.register_module("prompts", None)
        rates = [1] * depth if rates is None else list(rates)
        if len(rates) != depth or min(rates, default=1) < 1:
            raise ConfigError(
                f"Encoder: rates are {rates} for depth {depth}; expected one factor of 1 or more per layer"
            )
        built = [block(dim, m, ffn_factor, kernel, dropout, causal) for m in mixers]
        self.blocks = nn.ModuleList(
            RateBlock(layer, rate) if rate > 1 else layer for layer, rate in zip(built, rates, strict=True)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, waveform: Tensor, lengths: Tensor, chunks: Any = None) -> EncoderOutput:
        """Encode a padded batch.

        Arguments
        ---------
        waveform : Tensor
            (B, samples), at `sample_rate`.
        lengths : Tensor
            (B,), relative to the longest, as in SpeechBrain.
        chunks : Chunks or DynChunkTrainConfig, optional
            Ours, or SpeechBrain's: each frame sees its chunk and the past. The features see what their normalisation
            does, all of the utterance by default.

        Returns
        -------
        EncoderOutput

        Raises
        ------
        ConfigError
            If there are chunks, and a mixer cannot stream or the size is no multiple of `granularity`.
        """
        features, valid = self.features(waveform, lengths)
        return self.encode(features, valid, chunks)

    def encode(self, features: Tensor, valid: Tensor, chunks: Any = None) -> EncoderOutput:
        """From features (B, T', F) and their validity on; what a pretext task that masks features calls."""
        chunks = self.checked(chunks)
        x, valid, n_prompts = self._prompted(*self.stem(features, valid))
        output = self._through_blocks(x, valid, chunks)
        return output.between(n_prompts) if n_prompts else output

    def walk(self, waveform: Tensor, lengths: Tensor) -> BlockWalk:
        """Its blocks one by one, see `lobes.encoders.layerwise`; the frames of no layer are normalised."""
        x, valid, n_prompts = self._prompted(*self.stem(*self.features(waveform, lengths)))
        return BlockWalk(self, list(self.blocks), x, valid, n_prompts)

    def first_blocks(self, n_blocks: int) -> Encoder:
        """A copy with its first blocks only, see `lobes.encoders.layerwise`."""
        kept = copy.deepcopy(self)
        kept.blocks = kept.blocks[:n_blocks]
        return kept

    def _prompted(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, int]:
        """The stem's frames behind the prompts, and how many these are."""
        if self.prompts is None:
            return x, valid, 0
        prompts = self.prompts(x)
        n_prompts = prompts.shape[1]
        return torch.cat((prompts, x), dim=1), F.pad(valid, (n_prompts, 0), value=True), n_prompts

    def _through_blocks(self, x: Tensor, valid: Tensor, chunks: Chunks | None) -> EncoderOutput:
        padded = ~valid[..., None]
        layers = [x]
        for block in self.blocks:
            x = block(x, valid, chunks).masked_fill(padded, 0.0)
            layers.append(x)
        return EncoderOutput(self.norm(x).masked_fill(padded, 0.0), valid, layers)

    def init_state(self, batch: int, left: int | None = None) -> EncoderState:
        """State before the first chunk of ``batch`` streams.

        Arguments
        ---------
        batch : int
            Streams.
        left : int, optional
            As `lobes.mixers.Chunks`.
        """
        self.checked(Chunks(self.granularity))
        blocks = tuple(cast(Block, block).init_state(batch, left) for block in self.blocks)
        return EncoderState(self.stem.init_state(batch), blocks)

    def step(self, features: Tensor, valid: Tensor, state: EncoderState) -> tuple[EncoderOutput, EncoderState]:
        """Encode the next chunk of each stream, from features on; `StreamingEncoder` begins with audio.

        Arguments
        ---------
        features : Tensor
            (B, t · stem.factor, F); t is a multiple of `granularity`, but in the last chunk.
        valid : Tensor
            (B, t · stem.factor), bool; false after a stream's end.
        state : EncoderState
            After the chunk before.

        Returns
        -------
        tuple[EncoderOutput, EncoderState]
            Of t frames, and the new state.
        """
        x, valid, stem = self.stem.step(features, valid, state.stem)
        padded = ~valid[..., None]
        layers, states = [x], []
        for block, before in zip(self.blocks, state.blocks, strict=True):
            x, after = cast(Block, block).step(x, valid, before)
            x = x.masked_fill(padded, 0.0)
            layers.append(x)
            states.append(after)
        output = EncoderOutput(self.norm(x).masked_fill(padded, 0.0), valid, layers)
        return output, EncoderState(stem, tuple(states))

    def checked(self, chunks: Any) -> Chunks | None:
        """Chunks, ours or SpeechBrain's, once it is certain that every layer can work in them."""
        chunks = Chunks.of(chunks)
        if chunks is None:
            return None
        for number, block in enumerate(self.blocks):
            if not cast(Block, block).streamable:
                name = type(cast(Block, block).mixer).__name__
                can = ", ".join(mixers_that("streamable"))
                raise ConfigError(f"Encoder: mixer {name} of block {number} cannot stream; build it with one of {can}")
        if needs := self._needs_whole():
            raise ConfigError(f"Encoder: {needs}")
        if chunks.size < 1 or chunks.size % self.granularity:
            raise ConfigError(
                f"Encoder: chunks of {chunks.size} frames; expected a multiple of {self.granularity} "
                "(of its rates, and of the blocks of its mixers)"
            )
        return chunks

    @property
    def streamable(self) -> bool:
        """Whether it works in chunks; to stream from audio on, its features have to stream too."""
        return all(cast(Block, block).streamable for block in self.blocks) and not self._needs_whole()

    def _needs_whole(self) -> str:
        """Why something inside needs whole utterances, in its own words (``needs_whole``); empty if nothing does."""
        reasons = (getattr(module, "needs_whole", "") for module in self.modules())
        return next(filter(None, reasons), "")

    @property
    def granularity(self) -> int:
        """The sizes of chunks are multiples of so many frames."""
        return math.lcm(*(cast(Block, block).granularity for block in self.blocks))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.features.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second of the output, Hz."""
        return self.features.frame_rate / self.stem.factor

    @property
    def n_blocks(self) -> int:
        """How many blocks it has."""
        return len(self.blocks)

    @property
    def layer_dims(self) -> list[int]:
        """Width of each of the output's layers."""
        return [self.dim] * (len(self.blocks) + 1)

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """Multiply-accumulates for one utterance of that length, up to a block, or through all of them."""
        n_features = -(-round(seconds * self.sample_rate) // self.features.hop_samples)
        n_frames = -(-n_features // self.stem.factor)
        fixed = self.features.macs(n_features) + self.stem.macs(n_features)
        return fixed + sum(cast(Block, block).macs(n_frames) for block in self.blocks[:n_blocks])

    def state_floats(self) -> int:
        """Numbers that a stream keeps, from the features on (0 where it cannot stream)."""
        if not self.streamable:
            return 0
        return self.stem.state_floats() + sum(cast(Block, block).state_floats() for block in self.blocks)
