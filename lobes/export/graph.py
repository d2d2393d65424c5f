"""What is traced for export: an encoder from the waveform on, or its step from a chunk on."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders import EncoderOutput, LogMel, frame_mask
from lobes.encoders.normalisation import RunningStatistics, normalise_running


class GraphFeatures(nn.Module):
    """What `LogMel` computes, in operations that runtimes have and with lengths in samples.

    Windows are cut by joining hops, which works for any length. The Fourier transform is a product with cosines and
    sines: runtimes have no fast transform of real numbers (that of ONNX Runtime takes three times as long). A power
    spectrum does not depend on where time begins, so the middle c of the window is taken as zero: then the real part
    needs x[c + m] + x[c - m] alone, the imaginary part their difference, and both have half the terms.

    Arguments
    ---------
    features : LogMel
        What it has to agree with.

    Example
    -------
    >>> features, waveform = LogMel(), torch.randn(1, 4000)
    >>> ours, valid = GraphFeatures(features)(waveform, torch.tensor([4000]))
    >>> theirs, _ = features(waveform, torch.ones(1))
    >>> bool((ours - theirs).abs().max() < 1e-4)
    True
    """

    cosines: Tensor
    sines: Tensor
    mel: Tensor
    window: Tensor

    def __init__(self, features: LogMel) -> None:
        super().__init__()
        self.features = features
        self.centre = features.window_samples // 2
        heard = features.mel_matrix.any(1)  # the bins that a band reads
        bins, reach = torch.arange(len(heard))[heard], torch.arange(self.centre + 1)
        angles = (bins[:, None] * reach % features.n_fft).double() * (2 * math.pi / features.n_fft)
        cosines = angles.cos()
        cosines[:, 0] = 0.5  # the middle stands in both halves
        self.register_buffer("cosines", cosines.float().T.contiguous(), persistent=False)
        self.register_buffer("sines", angles.sin().float().T.contiguous(), persistent=False)
        self.register_buffer("mel", features.mel_matrix[heard].clone(), persistent=False)
        window = F.pad(features.window_shape, (0, 2 * self.centre + 1 - features.window_samples))
        self.register_buffer("window", window, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S) and lengths (B,) in samples -> features (B, T, F) and valid (B, T)."""
        samples = waveform.shape[1]
        lengths = lengths.clamp(0, samples)
        n_frames = (samples + self.features.hop_samples - 1) // self.features.hop_samples
        valid = frame_mask(self.features.n_frames(lengths), n_frames)
        features = self._log_mel(waveform.masked_fill(~frame_mask(lengths, samples), 0.0), n_frames)
        return self.features.finish(features, valid), valid

    def step(self, waveform: Tensor, valid: Tensor, state: RunningStatistics) -> tuple[Tensor, RunningStatistics]:
        """As `LogMel.step`."""
        features = self._log_mel(waveform, valid.shape[1])
        if self.features.normalise == "running":
            return normalise_running(features, valid, state)
        return features.masked_fill(~valid[..., None], 0.0), state

    def _log_mel(self, waveform: Tensor, n_frames: int) -> Tensor:
        hop, width = self.features.hop_samples, len(self.window)
        hops = -(-width // hop)
        waveform = F.pad(waveform, (0, (n_frames + hops - 1) * hop - waveform.shape[1])).unflatten(1, (-1, hop))
        frames = torch.cat([waveform[:, i : i + n_frames] for i in range(hops)], dim=-1)[..., :width] * self.window
        after, before = frames[..., self.centre :], frames[..., : self.centre + 1].flip(-1)
        power = ((after + before) @ self.cosines).square() + ((after - before) @ self.sines).square()
        return torch.log(power @ self.mel + 1e-6)


class WholeGraph(nn.Module):
    """Waveform (B, S) and lengths (B,) in samples to frames, valid and, where asked for, the layers.

    Arguments
    ---------
    encoder : nn.Module
        With ``features``, a `LogMel`; it is copied.
    layers : bool
        Whether to give the layers too.

    Example
    -------
    >>> from lobes.encoders import LogMelEncoder
    >>> frames, valid = WholeGraph(LogMelEncoder(LogMel()), layers=False)(torch.zeros(1, 320), torch.tensor([320]))
    >>> frames.shape, valid.shape
    (torch.Size([1, 2, 80]), torch.Size([1, 2]))
    """

    def __init__(self, encoder: nn.Module, layers: bool) -> None:
        super().__init__()
        self.encoder, self.layers = prepared(encoder), layers
        self.encoder.features = GraphFeatures(self.encoder.features)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """The outputs as a flat tuple."""
        output = self.encoder(waveform, lengths)
        return output.frames, output.valid, *(output.layers if self.layers else ())


class StepGraph(nn.Module):
    """A chunk and the tensors of the state to frames, valid and the tensors of the next state.

    Arguments
    ---------
    encoder : nn.Module
        An `Encoder` that streams; it is copied.
    left : int or None
        As `lobes.mixers.Chunks`.
    audio : bool
        Whether a chunk is audio, the state then containing that of the features, or features.

    Example
    -------
    >>> from lobes.encoders import Encoder, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> graph = StepGraph(Encoder(LogMel(), StackingStem(80, 16), 16, 1, SummaryMixing), left=None, audio=False)
    >>> chunk, valid = torch.zeros(1, 8, 80), torch.ones(1, 8, dtype=torch.bool)
    >>> frames, valid, *state = graph(chunk, valid, *flattened(graph.init_state(1)))
    >>> frames.shape, [part.shape for part in state]
    (torch.Size([1, 2, 16]), [torch.Size([1, 16]), torch.Size([1, 1]), torch.Size([1, 7, 16])])
    """

    def __init__(self, encoder: nn.Module, left: int | None, audio: bool) -> None:
        super().__init__()
        self.encoder, self.left, self.audio = prepared(encoder), left, audio
        self.features = GraphFeatures(self.encoder.features)
        self.template = self.init_state(1)

    def init_state(self, batch: int) -> Any:
        """State of ``batch`` streams before the first chunk: of the features, where they are inside, and the rest."""
        features = self.encoder.features
        # Features that are not normalised have nothing to remember, but those that do not stream have to say so.
        statistics = features.init_state(batch) if self.audio and features.normalise else ()
        return statistics, self.encoder.init_state(batch, self.left)

    def forward(self, x: Tensor, valid: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The outputs as a flat tuple."""
        statistics, inner = unflattened(self.template, iter(state))
        if self.audio:
            x, statistics = self.features.step(x, valid, statistics)
        output, inner = self.encoder.step(x, valid, inner)
        return output.frames, output.valid, *flattened((statistics, inner))

    def reference(self, x: Tensor, valid: Tensor, state: Any) -> tuple[EncoderOutput, Any]:
        """The same through the encoder's own features, and with the state as it is."""
        statistics, inner = state
        if self.audio:
            x, statistics = self.encoder.features.step(x, valid, statistics)
        output, inner = self.encoder.step(x, valid, inner)
        return output, (statistics, inner)


def prepared(encoder: nn.Module) -> Any:
    """A copy in float32 on the CPU, in evaluation mode and without gradients."""
    return copy.deepcopy(encoder).cpu().float().eval().requires_grad_(False)


def flattened(state: Any) -> list[Tensor]:
    """The tensors of nested tuples, in order.

    Example
    -------
    >>> flattened((torch.zeros(1), (), (torch.ones(1),)))
    [tensor([0.]), tensor([1.])]
    """
    if isinstance(state, Tensor):
        return [state]
    return [tensor for part in state for tensor in flattened(part)]


def unflattened(template: Any, tensors: Iterator[Tensor]) -> Any:
    """The inverse of `flattened`, given a state of the same structure."""
    if isinstance(template, Tensor):
        return next(tensors)
    parts = [unflattened(part, tensors) for part in template]
    return type(template)(*parts) if hasattr(template, "_fields") else tuple(parts)
