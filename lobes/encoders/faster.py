"""Faster inference with an encoder that is there: fewer samples, fewer blocks, or only as many blocks as it takes.

S. Zaiem, R. Algayres, T. Parcollet, S. Essid and M. Ravanelli, "Fine-tuning strategies for faster inference using
speech self-supervised models: a comparative study", ICASSP SASB 2023: there, a learned convolution that halves what
WavLM reads costs half of a point of word error rate and saves half of the processor's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.layerwise import Around, check_hooks, layered
from lobes.encoders.lengths import absolute_lengths, frame_mask, relative_lengths
from lobes.errors import ConfigError

WAYS = ("signal", "average", "convolution")


class Downsampled(Around):
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
        self.sample_rate, self.dim = encoder.sample_rate, encoder.dim
        self.convolution = nn.Conv1d(1, 1, kernel, self.factor, bias=False) if way == "convolution" else None
        if self.convolution is not None:
            with torch.no_grad():
                self.convolution.weight.zero_()
                self.convolution.weight[0, 0, : self.factor] = 1.0 / self.factor

    def heard(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Around.heard`."""
        n_samples = absolute_lengths(lengths, waveform.shape[1])
        waveform = waveform.masked_fill(~frame_mask(n_samples, waveform.shape[1]), 0.0)
        fewer = torch.div(n_samples + self.factor - 1, self.factor, rounding_mode="floor")
        read = self._read(waveform)
        read = read.masked_fill(~frame_mask(fewer, read.shape[1]), 0.0)
        return read, relative_lengths(fewer, read.shape[1])

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

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """Multiply-accumulates for one utterance of that length, up to a block, or through all of them."""
        taps = 0 if self.convolution is None else self.convolution.kernel_size[0]
        read = round(seconds * self.sample_rate / self.factor)
        return self.inner_macs(seconds / self.factor, n_blocks) + read * taps


def first_blocks(encoder: Any, n_blocks: int) -> Any:
    """A copy of an encoder with its first blocks only, on the same device, as trainable as it is.

    Its layers are the first of the encoder's, but for what the last block gives to Whisper: Transformers normalises a
    model's last layer there. Its ``hparams_text``, where it has one, is that of the copy. To make a student of a
    teacher, `lobes.distillation.first_layers` makes all of it trainable too.

    Arguments
    ---------
    encoder : nn.Module
        A stack of blocks (`lobes.encoders.layerwise`): ours, of Hugging Face, pruned or not, of torchaudio.
    n_blocks : int
        How many, from 1 on.

    Raises
    ------
    ConfigError
        If it has not so many, or is no stack of blocks.

    Example
    -------
    >>> from lobes.encoders import HuggingFaceEncoder
    >>> tiny = {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    ...         "intermediate_size": 32, "conv_dim": [8] * 7}
    >>> len(first_blocks(HuggingFaceEncoder(tiny), 2)(torch.randn(1, 16000), torch.ones(1)).layers)
    3
    """
    depth = layered(encoder, "first_blocks").n_blocks
    if not 1 <= n_blocks <= depth:
        raise ConfigError(f"first_blocks: n_blocks is {n_blocks}; expected 1 to {depth}")
    return encoder.first_blocks(n_blocks)


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
    encoder : nn.Module
        A stack of blocks (`lobes.encoders.layerwise`): ours, of Hugging Face, pruned or not, of torchaudio.
    heads : sequence of nn.Module
        One for each layer, `head(frames (B, T, D), valid (B, T))` giving (B, C), such as `lobes.probes.LinearHead`.
    threshold : float
        Probability of the likeliest class at which an utterance leaves; above 1, none leaves before the last.

    Raises
    ------
    ConfigError
        If there is not a head for each layer, or the encoder is no stack of blocks.
    """

    def __init__(self, encoder: Any, heads: Sequence[nn.Module], threshold: float = 0.9) -> None:
        super().__init__()
        n_layers = layered(encoder, "EarlyExit").n_blocks + 1
        if len(heads) != n_layers:
            raise ConfigError(f"EarlyExit: {len(heads)} heads for {n_layers} layers; give one for each")
        self.encoder, self.heads, self.threshold = encoder, nn.ModuleList(heads), threshold

    def forward(self, waveform: Tensor, lengths: Tensor) -> Exit:
        """Logits and layers of a padded batch; each block computes only the utterances that are still there.

        Raises
        ------
        ConfigError
            If an adaptation hooks into the encoder's call.
        """
        check_hooks(self.encoder, "EarlyExit")
        walk = self.encoder.walk(waveform, lengths)
        logits: Tensor | None = None
        layer = torch.zeros(len(waveform), dtype=torch.long, device=waveform.device)
        there = torch.arange(len(waveform), device=waveform.device)
        for number, head in enumerate(self.heads):
            if number:
                walk.step()
            found = head(walk.frames, walk.valid)
            if logits is None:
                logits = found.new_zeros(len(layer), found.shape[1])
            sure = found.softmax(-1).amax(-1) >= self.threshold
            if number == len(self.heads) - 1:
                sure = torch.ones_like(sure)
            logits[there[sure]], layer[there[sure]] = found[sure], number
            walk.keep(~sure)
            there = there[~sure]
            if not len(there):
                break
        assert logits is not None
        return Exit(logits, layer)

    def logits(self, waveform: Tensor, lengths: Tensor) -> list[Tensor]:
        """Those of all heads, to train them together: per layer (B, C)."""
        output = self.encoder(waveform, lengths)
        return [head(layer, output.valid) for head, layer in zip(self.heads, output.layers, strict=True)]

    def macs(self, seconds: float, layer: int) -> int:
        """Multiply-accumulates of the encoder for an utterance of that length that leaves at a layer."""
        return self.encoder.macs(seconds, layer)
