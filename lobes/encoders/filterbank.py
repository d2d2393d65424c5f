"""The log-mel features that published models were trained on: Kaldi's, Whisper's and VGGish's, blind to padding."""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.lengths import absolute_lengths, frame_mask

WINDOW, HOP, FFT = 400, 160, 512  # samples at 16 kHz: 25 ms, 10 ms
SAMPLE_RATE = 16000


def mel_triangles(n_mels: int, low: float, high: float, n_fft: int = FFT, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Triangular filters that are straight on the mel scale, 1127 ln(1 + f / 700), as Kaldi and VGGish have them.

    Arguments
    ---------
    n_mels : int
        Filters F.
    low, high : float
        Hz; where the first begins and the last ends.
    n_fft : int
        Length of the Fourier transform.
    sample_rate : int
        Hz.

    Returns
    -------
    Tensor
        (n_fft / 2 + 1, F), float32, between 0 and 1.
    """
    first, last = (1127 * math.log1p(bound / 700) for bound in (low, high))
    # On the CPU, whatever device a model is built on: they are no weights that would be loaded later.
    edges = torch.linspace(first, last, n_mels + 2, dtype=torch.float64, device="cpu")
    hertz = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu") * sample_rate / n_fft
    bins = 1127 * torch.log1p(hertz / 700)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


class WindowedMel(nn.Module):
    """Log-mel features of whole windows of 25 ms every 10 ms, at 16 kHz: what does not fill a window is not seen.

    An utterance of S samples has floor((S - 400) / 160) + 1 frames, none if it has less than 400 samples.
    """

    mel_matrix: Tensor
    window_shape: Tensor
    sample_rate, frame_rate = SAMPLE_RATE, SAMPLE_RATE / HOP

    def __init__(self, mel_matrix: Tensor, window_shape: Tensor) -> None:
        super().__init__()
        self.n_mels = mel_matrix.shape[1]
        self.register_buffer("mel_matrix", mel_matrix, persistent=False)
        self.register_buffer("window_shape", window_shape, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a padded batch.

        Arguments
        ---------
        waveform : Tensor
            (B, S), float. Whatever stands in the padding is ignored, NaN included.
        lengths : Tensor
            (B,), relative to the longest.

        Returns
        -------
        tuple[Tensor, Tensor]
            Features (B, T, F), zero where not valid, and valid (B, T), bool.
        """
        samples = waveform.shape[1]
        n_samples = absolute_lengths(lengths, samples)
        valid = frame_mask(self.n_frames(n_samples), int(self.n_frames(torch.tensor(samples))))
        if valid.shape[1] == 0:
            return waveform.new_zeros(*valid.shape, self.n_mels), valid
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.to(self.mel_matrix.dtype).masked_fill(~frame_mask(n_samples, samples), 0.0)
            features = self.log_mel(waveform.unfold(1, WINDOW, HOP))
        return features.masked_fill(~valid[..., None], 0.0), valid

    def log_mel(self, frames: Tensor) -> Tensor:
        """(B, T, 400) samples to (B, T, F) features."""
        raise NotImplementedError

    def power(self, frames: Tensor) -> Tensor:
        """(B, T, 400) samples to the (B, T, 257) power spectrum under the window."""
        spectrum = torch.fft.rfft(frames * self.window_shape, FFT)
        return spectrum.real.square() + spectrum.imag.square()

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Frames of an utterance of that many samples."""
        return (torch.div(n_samples - WINDOW, HOP, rounding_mode="floor") + 1).clamp_min(0)

    def macs(self, n_frames: int) -> int:
        """The mel product, and the FFT as 2 N log2 N per frame."""
        return n_frames * (2 * FFT * int(math.log2(FFT)) + (FFT // 2 + 1) * self.n_mels)


class KaldiFilterbank(WindowedMel):
    """Kaldi's log-mel filterbank without dither and energy: Wav2Vec2-BERT's features, and AST's.

    Each frame loses its mean, is pre-emphasised (0.97) and windowed; the mel band is 20 Hz to half the rate; the log is
    natural, of power of at least float32's epsilon.

    Arguments
    ---------
    n_mels : int
        Filters F.
    window : str
        ``povey``, which is a Hann window to the power 0.85, or ``hanning``.
    scale : float
        What samples are multiplied with first: 32768 where a model was trained on integers.

    Example
    -------
    >>> features, valid = KaldiFilterbank()(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> features.shape, valid.sum(1)
    (torch.Size([2, 98, 80]), tensor([98, 48]))
    """

    def __init__(self, n_mels: int = 80, window: str = "povey", scale: float = 1.0) -> None:
        hann = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64)
        shape = (hann**0.85 if window == "povey" else hann).float()
        super().__init__(mel_triangles(n_mels, 20, SAMPLE_RATE / 2), shape)
        self.scale = scale

    def log_mel(self, frames: Tensor) -> Tensor:
        """See `WindowedMel.log_mel`."""
        # In double precision: without mean and pre-emphasised, the lowest bands have few digits of float32 left.
        frames = frames.double() * self.scale
        frames = frames - frames.mean(-1, keepdim=True)
        frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], -1)
        power = self.power(frames) @ self.mel_matrix.double()
        return power.clamp_min(torch.finfo(torch.float32).eps).log().to(self.mel_matrix.dtype)


class VGGishMel(WindowedMel):
    """VGGish's log-mel features (Hershey et al. 2017, section 3.1, and the model's published parameters).

    64 filters over 125 to 7500 Hz of the magnitude spectrum under a periodic Hann window, as log(mel + 0.01).
    """

    def __init__(self) -> None:
        super().__init__(mel_triangles(64, 125, 7500), torch.hann_window(WINDOW))

    def log_mel(self, frames: Tensor) -> Tensor:
        """See `WindowedMel.log_mel`."""
        # The derivative of a root is infinite at zero, and silence is zero.
        magnitude = self.power(frames).clamp_min(1e-20).sqrt()
        return (magnitude @ self.mel_matrix + 0.01).log()


class WhisperLogMel(nn.Module):
    """Whisper's log-mel features (Radford et al. 2022, section 2.2), of pieces of one fixed length.

    Windows of 25 ms are centred every 10 ms, the edges reflected; Slaney's mel filters; the decimal logarithm of power
    of at least 1e-10, of at least the piece's maximum less 8, is shifted and scaled to about -1 to 1.

    Arguments
    ---------
    n_mels : int
        Filters F: 80, or 128 in large-v3.
    """

    mel_matrix: Tensor
    window_shape: Tensor

    def __init__(self, n_mels: int = 80) -> None:
        super().__init__()
        slaney = torchaudio.functional.melscale_fbanks(
            WINDOW // 2 + 1, 0.0, 8000.0, n_mels, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("mel_matrix", slaney, persistent=False)
        self.register_buffer("window_shape", torch.hann_window(WINDOW), persistent=False)

    def forward(self, pieces: Tensor) -> Tensor:
        """(N, S), S a multiple of 160, to (N, F, S / 160)."""
        with torch.autocast(pieces.device.type, enabled=False):
            padded = F.pad(pieces.to(self.mel_matrix.dtype)[:, None], (WINDOW // 2, WINDOW // 2), mode="reflect")[:, 0]
            frames = padded.unfold(1, WINDOW, HOP)[:, :-1]
            spectrum = torch.fft.rfft(frames * self.window_shape)
            power = (spectrum.real.square() + spectrum.imag.square()) @ self.mel_matrix
            level = power.clamp_min(1e-10).log10()
            level = torch.maximum(level, level.amax((1, 2), keepdim=True) - 8.0)
            return ((level + 4.0) / 4.0).transpose(1, 2)

    def macs(self, n_frames: int) -> int:
        """The mel product, and the FFT as 2 N log2 N per frame."""
        return n_frames * (round(2 * WINDOW * math.log2(WINDOW)) + (WINDOW // 2 + 1) * self.mel_matrix.shape[1])
