"""Faster inference with an encoder that is there: fewer samples, fewer blocks, or only as many blocks as it takes.

S. Zaiem, R. Algayres, T. Parcollet, S. Essid and M. Ravanelli, "Fine-tuning strategies for faster inference using
speech self-supervised models: a comparative study", ICASSP SASB 2023: there, a learned convolution that halves what
WavLM reads costs half of a point of word error rate and saves half of the processor's time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.encoder import Encoder, EncoderOutput
from lobes.encoders.lengths import absolute_lengths, frame_mask, relative_lengths
from lobes.errors import ConfigError

WAYS = ("signal", "average", "convolution")


class Downsampled(nn.Module):
    """An encoder that reads fewer samples than there are, and so makes fewer frames of them, at less cost.

    To be fine-tuned, or distilled into: what it reads sounds faster and higher than what it was trained on.

    Arguments
    ---------
    encoder : nn.Module
        Keeps the Encoder contract.
    factor : int
        How many fewer samples.
    way : str
        ``signal``, one of so many, without aliasing; ``average``, their mean; or ``convolution``, learned, which begins
        as their mean.
    kernel : int
        Samples that the convolution reads at each step, at least ``factor``.

    Raises
    ------
    ConfigError
        If the factor, the way or the kernel is impossible.

    Example
    -------
    >>> from lobes.encoders import LogMel, LogMelEncoder
    >>> encoder = Downsampled(LogMelEncoder(LogMel()), factor=2)
    >>> encoder.sample_rate, encoder.frame_rate
    (16000, 50.0)
    >>> encoder(torch.randn(1, 16000), torch.ones(1)).frames.shape
    torch.Size([1, 50, 80])
    """

    def __init__(self, encoder: Any, factor: int = 2, way: str = "signal", kernel: int = 160) -> None:
        super().__init__()
        if factor < 1 or factor != int(factor):
            raise ConfigError(f"Downsampled: factor is {factor}; expected a whole number from 1 on")
        if way not in WAYS:
            raise ConfigError(f"Downsampled: way is '{way}'; expected one of {', '.join(WAYS)}")
        if way == "convolution" and kernel < factor:
            raise ConfigError(f"Downsampled: kernel is {kernel}; expected at least the factor, {factor}")
        self.encoder, self.factor, self.way = encoder, int(factor), way
        self.sample_rate, self.dim, self.layer_dims = encoder.sample_rate, encoder.dim, encoder.layer_dims
        self.convolution = nn.Conv1d(1, 1, kernel, self.factor, bias=False) if way == "convolution" else None
        if self.convolution is not None:
            with torch.no_grad():
                self.convolution.weight.zero_()
                self.convolution.weight[0, 0, : self.factor] = 1.0 / self.factor

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """Encode a padded batch: (B, samples) at `sample_rate`, and relative lengths (B,)."""
        n_samples = absolute_lengths(lengths, waveform.shape[1])
        waveform = waveform.masked_fill(~frame_mask(n_samples, waveform.shape[1]), 0.0)
        fewer = torch.div(n_samples + self.factor - 1, self.factor, rounding_mode="floor")
        read = self._read(waveform)
        read = read.masked_fill(~frame_mask(fewer, read.shape[1]), 0.0)
        return self.encoder(read, relative_lengths(fewer, read.shape[1]))

    def _read(self, waveform: Tensor) -> Tensor:
        """(B, S) to (B, ⌈S / factor⌉)."""
        count = -(-waveform.shape[1] // self.factor)
        if self.way == "signal":
            from torchaudio.functional import resample

            return resample(waveform, self.factor, 1)[:, :count]
        kernel = self.factor if self.convolution is None else self.convolution.kernel_size[0]
        padded = F.pad(waveform, (0, (count - 1) * self.factor + kernel - waveform.shape[1]))[:, None]
        read = F.avg_pool1d(padded, self.factor) if self.convolution is None else self.convolution(padded)
        return read[:, 0]

    @property
    def frame_rate(self) -> float:
        """Frames per second of the audio, Hz."""
        return self.encoder.frame_rate / self.factor

    def macs(self, seconds: float) -> int:
        """Multiply-accumulates for one utterance of that length."""
        taps = 0 if self.convolution is None else self.convolution.kernel_size[0]
        return self.encoder.macs(seconds / self.factor) + round(seconds * self.sample_rate / self.factor) * taps


def first_blocks(encoder: Encoder, n_blocks: int) -> Encoder:
    """A copy of one of our encoders with its first blocks only; `lobes.distillation.first_layers` is for others.

    Raises
    ------
    ConfigError
        If it has not so many, or is no stack of blocks.
    """
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"first_blocks: encoder is a {type(encoder).__name__}; expected lobes.encoders.Encoder")
    if not 1 <= n_blocks <= len(encoder.blocks):
        raise ConfigError(f"first_blocks: n_blocks is {n_blocks}; expected 1 to {len(encoder.blocks)}")
    kept = copy.deepcopy(encoder)
    kept.blocks = kept.blocks[:n_blocks]
    return kept


class Exit(NamedTuple):
    """Where each utterance left an encoder."""

    logits: Tensor
    """(B, C), of the head at which it left."""
    layer: Tensor
    """(B,), int64: that layer; 0 is what the first block reads."""


class EarlyExit(nn.Module):
    """A head on each layer; an utterance leaves at the first that is sure of it, and what follows is not computed.

    Arguments
    ---------
    encoder : Encoder
        One of ours.
    heads : sequence of nn.Module
        One for each layer, `head(frames (B, T, D), valid (B, T))` giving (B, C), such as `lobes.probes.LinearHead`.
    threshold : float
        Probability of the likeliest class at which an utterance leaves; above 1, none leaves before the last.

    Raises
    ------
    ConfigError
        If there is not a head for each layer, or the encoder is no stack of blocks.
    """

    def __init__(self, encoder: Encoder, heads: Sequence[nn.Module], threshold: float = 0.9) -> None:
        super().__init__()
        if not isinstance(encoder, Encoder):
            raise ConfigError(f"EarlyExit: encoder is a {type(encoder).__name__}; expected lobes.encoders.Encoder")
        if len(heads) != len(encoder.blocks) + 1:
            raise ConfigError(f"EarlyExit: {len(heads)} heads for {len(encoder.blocks) + 1} layers; give one for each")
        self.encoder, self.heads, self.threshold = encoder, nn.ModuleList(heads), threshold

    def forward(self, waveform: Tensor, lengths: Tensor) -> Exit:
        """Logits and layers of a padded batch; each block computes only the utterances that are still there."""
        features, valid = self.encoder.features(waveform, lengths)
        x, valid = self.encoder.stem(features, valid)
        logits: Tensor | None = None
        layer = torch.zeros(len(x), dtype=torch.long, device=x.device)
        there = torch.arange(len(x), device=x.device)
        for number, head in enumerate(self.heads):
            if number:
                x = self.encoder.blocks[number - 1](x, valid, None).masked_fill(~valid[..., None], 0.0)
            found = head(x, valid)
            if logits is None:
                logits = found.new_zeros(len(layer), found.shape[1])
            sure = found.softmax(-1).amax(-1) >= self.threshold
            if number == len(self.heads) - 1:
                sure = torch.ones_like(sure)
            logits[there[sure]], layer[there[sure]] = found[sure], number
            if bool(sure.all()):
                break
            x, valid, there = x[~sure], valid[~sure], there[~sure]
        assert logits is not None
        return Exit(logits, layer)

    def logits(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Those of all heads, to train them together: per layer (B, C)."""
        output = self.encoder(waveform, lengths)
        return [head(layer, output.valid) for head, layer in zip(self.heads, output.layers, strict=True)]

    def macs(self, seconds: float, layer: int) -> int:
        """Multiply-accumulates of the encoder for an utterance of that length that leaves at a layer."""
        return self.encoder.macs(seconds, layer)
