"""Fitting calls that are too high or too low to an encoder's band, with every event where it was in time.

`python tools/band_report.py` says which factor a corpus needs. Audio of the rate that these encoders ask for is read,
resampled without aliasing, by whatever reads for an encoder (`lobes.dataio.read_audio`, `audio_dataset`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lobes.encoders.layerwise import Around
from lobes.encoders.lengths import absolute_lengths, relative_lengths
from lobes.errors import ConfigError


class _Fitted(Around):
    """An encoder that hears audio of ``factor`` times its own rate."""

    def __init__(self, encoder: Any, factor: float) -> None:
        super().__init__()
        rate = factor * encoder.sample_rate
        if factor <= 0 or rate != round(rate):
            raise ConfigError(
                f"{type(self).__name__}: factor is {factor}, for audio of {rate:g} Hz; "
                f"expected a positive factor of {encoder.sample_rate} Hz that gives a whole number"
            )
        self.encoder, self.factor = encoder, factor
        self.sample_rate, self.dim = round(rate), encoder.dim


class TimeExpansion(_Fitted):
    """An encoder that hears audio slowed down: ``factor`` times as long, each frequency divided by it.

    Nothing is computed for it: audio at ``factor`` times the encoder's rate is taken for audio at its rate, as bat
    detectors do. With a factor of 5 an encoder of 16 kHz takes audio of 80 kHz, a whistle of 20 kHz is one of 4 kHz to
    it, and its frames come 5 times as often, in the audio's own time: an event at t seconds is at frame t ·
    `frame_rate` as ever, up to the end of the file. It costs ``factor`` times as much per second of audio. A factor
    below 1 speeds up and raises calls that are too low, and is the cheaper for it.

    Arguments
    ---------
    encoder : nn.Module
        Keeps the Encoder contract.
    factor : float
        How much slower; ``factor`` · ``encoder.sample_rate`` is a whole number.

    Raises
    ------
    ConfigError
        If it is not, or not positive.

    Example
    -------
    >>> from lobes.encoders import LogMel, LogMelEncoder
    >>> encoder = TimeExpansion(LogMelEncoder(LogMel()), factor=5)
    >>> encoder.sample_rate, encoder.frame_rate
    (80000, 500.0)
    >>> encoder(torch.randn(1, 80000), torch.ones(1)).frames.shape
    torch.Size([1, 500, 80])
    """

    @property
    def frame_rate(self) -> float:
        """Frames per second of the audio, Hz."""
        return self.factor * self.encoder.frame_rate

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """Multiply-accumulates for one utterance of that length, up to a block, or through all of them."""
        return self.inner_macs(self.factor * seconds, n_blocks)


class PitchShift(_Fitted):
    """An encoder that hears audio shifted in pitch: each frequency divided by ``factor``, the time as it is.

    Audio at ``factor`` times the encoder's rate is taken for audio at its rate, as by `TimeExpansion`, and shortened to
    its own duration by a phase vocoder (Flanagan & Golden 1966; Laroche & Dolson 1999, section II): it costs no more
    than unshifted audio, and has the encoder's own frames per second. The price is that a phase vocoder smears clicks,
    and that calls closer to each other than ``window`` seconds run together: prefer `TimeExpansion` for short ones.

    Arguments
    ---------
    encoder : nn.Module
        Keeps the Encoder contract.
    factor : float
        How much lower; 2 is an octave. ``factor`` · ``encoder.sample_rate`` is a whole number.
    window : float
        Seconds of the vocoder's windows, at the encoder's rate; it moves by a quarter of one.

    Raises
    ------
    ConfigError
        If the factor is not as it should be.

    Example
    -------
    >>> from lobes.encoders import LogMel, LogMelEncoder
    >>> encoder = PitchShift(LogMelEncoder(LogMel()), factor=5)
    >>> encoder.sample_rate, encoder.frame_rate
    (80000, 100.0)
    >>> encoder(torch.randn(1, 80000), torch.ones(1)).frames.shape
    torch.Size([1, 100, 80])
    """

    window_shape: Tensor

    def __init__(self, encoder: Any, factor: float, window: float = 0.032) -> None:
        super().__init__(encoder, factor)
        hop = max(1, round(window * encoder.sample_rate / 4))
        self.register_buffer("window_shape", torch.hann_window(4 * hop), persistent=False)

    def heard(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `Around.heard`."""
        n_samples = absolute_lengths(lengths, waveform.shape[1])
        longest = math.ceil(waveform.shape[1] / self.factor)
        shifted = waveform.new_zeros(len(waveform), longest)
        n_shifted = torch.ceil(n_samples / self.factor).long()
        # One by one for each length, so that no window reaches into the padding.
        for length in n_samples[n_samples > 0].unique().tolist():
            rows = (n_samples == length).nonzero()[:, 0]
            part = shift_pitch(waveform[rows, :length], self.factor, self.window_shape)
            shifted[rows, : part.shape[1]] = part
        return shifted, relative_lengths(n_shifted, longest)

    @property
    def frame_rate(self) -> float:
        """Frames per second of the audio, Hz."""
        return self.encoder.frame_rate

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """See `TimeExpansion.macs`; Fourier transforms are 2 N log2 N."""
        n_fft = len(self.window_shape)
        n_windows = math.ceil(seconds * self.encoder.sample_rate * (1 + self.factor) * 4 / n_fft)
        return self.inner_macs(seconds, n_blocks) + n_windows * round(2 * n_fft * math.log2(n_fft))


def shift_pitch(waveform: Tensor, factor: float, window: Tensor) -> Tensor:
    """Keep a waveform's duration while its rate falls by a factor, and its frequencies with it.

    Arguments
    ---------
    waveform : Tensor
        (B, S), at ``factor`` times the rate of what is given; S > 0.
    factor : float
        How much lower.
    window : Tensor
        (N,), of the Fourier transforms, which move by N / 4.

    Returns
    -------
    Tensor
        (B, ceil(S / factor)).
    """
    n_fft, samples = len(window), math.ceil(waveform.shape[1] / factor)
    hop = n_fft // 4
    padded = F.pad(waveform.to(window.dtype), (0, n_fft + hop))
    spectrum = torch.stft(padded, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    # Frame j of the result is at frame j · factor of the input.
    n_frames = samples // hop + 3
    at = (torch.arange(n_frames, device=waveform.device) * factor).clamp_max(spectrum.shape[2] - 2)
    first, between = at.long(), (at % 1).to(window.dtype)
    here, there = spectrum[..., first], spectrum[..., first + 1]
    size = (1 - between) * here.abs() + between * there.abs()
    # How far each bin's phase goes in one hop: what its frequency says, and what is measured beyond that. Sums over
    # long recordings are too long for float32.
    expected = 2 * math.pi * hop / n_fft * torch.arange(n_fft // 2 + 1, device=waveform.device).double()[:, None]
    beyond = (there.angle().double() - here.angle().double()) - expected
    advance = expected + beyond - 2 * math.pi * torch.round(beyond / (2 * math.pi))
    turned = F.pad(advance.cumsum(-1), (1, -1)) + here[..., :1].angle().double()
    phase = (turned % (2 * math.pi)).to(window.dtype)
    shifted = torch.istft(torch.polar(size, phase), n_fft, hop, window=window, length=samples)
    return shifted.to(waveform.dtype)
