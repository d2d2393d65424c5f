"""Log-mel features of a padded batch, frame by frame independent of the padding."""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.lengths import absolute_lengths, frame_mask
from lobes.encoders.normalisation import RunningStatistics, normalise_running, normalise_utterances
from lobes.errors import ConfigError


class LogMel(nn.Module):
    """Waveform to log-mel features.

    Frame t is computed from the ``window`` seconds that begin at t · ``hop`` seconds, and exists where that beginning
    lies inside the utterance; what a last window lacks is zeros. So an utterance of S samples has
    ceil(S / hop samples) frames, none of its audio is dropped, and no frame sees its neighbours in the batch.

    Arguments
    ---------
    sample_rate : int
        Hz.
    n_mels : int
        Mel bands F (HTK scale, triangular).
    window, hop : float
        Seconds.
    low, high : float
        Band in Hz; ``high`` 0 means half the sample rate.
    normalise : bool or str
        True for `normalise_utterances`, False for none, ``running`` for `normalise_running`, which streams.

    Example
    -------
    >>> features, valid = LogMel()(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> features.shape, valid.sum(1)
    (torch.Size([2, 100, 80]), tensor([100,  50]))
    """

    mel_matrix: Tensor
    window_shape: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 80,
        window: float = 0.025,
        hop: float = 0.010,
        low: float = 0.0,
        high: float = 0.0,
        normalise: bool | str = True,
    ) -> None:
        super().__init__()
        if normalise not in (True, False, "running"):
            raise ConfigError(f"LogMel: normalise is {normalise!r}; expected True, False or 'running'")
        high = high or sample_rate / 2
        if not 0 <= low < high <= sample_rate / 2:
            raise ConfigError(f"LogMel: band {low}-{high} Hz; expected 0 <= low < high <= {sample_rate / 2:g} Hz")
        self.sample_rate, self.n_mels, self.normalise = sample_rate, n_mels, normalise
        self.low, self.high = float(low), float(high)
        self.window_samples, self.hop_samples = round(window * sample_rate), round(hop * sample_rate)
        self.n_fft = 2 ** math.ceil(math.log2(self.window_samples))
        self.frame_rate = sample_rate / self.hop_samples
        mel = torchaudio.functional.melscale_fbanks(self.n_fft // 2 + 1, low, high, n_mels, sample_rate)
        self.register_buffer("mel_matrix", mel, persistent=False)
        self.register_buffer("window_shape", torch.hann_window(self.window_samples), persistent=False)

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
            Features (B, T, F), zero where not valid, and valid (B, T), bool, with T = ceil(S / hop).
        """
        features, valid = self.log_mel(waveform, lengths)
        return self.finish(features, valid), valid

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same before normalisation: natural logarithms of power, with no meaning where not valid."""
        samples = waveform.shape[1]
        n_samples = absolute_lengths(lengths, samples)
        n_frames, longest = self.n_frames(n_samples), (samples + self.hop_samples - 1) // self.hop_samples
        valid = frame_mask(n_frames, longest)
        if longest == 0:
            return waveform.new_zeros(len(waveform), 0, self.n_mels), valid
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.to(self.mel_matrix.dtype).masked_fill(~frame_mask(n_samples, samples), 0.0)
            waveform = F.pad(waveform, (0, (longest - 1) * self.hop_samples + self.n_fft - samples))
            return torch.log(self._power(waveform) @ self.mel_matrix + 1e-6), valid

    def finish(self, features: Tensor, valid: Tensor) -> Tensor:
        """From `log_mel` to what `forward` gives: normalised, and zero where not valid."""
        if self.normalise == "running":
            return normalise_running(features, valid, RunningStatistics.start(features))[0]
        if self.normalise:
            return normalise_utterances(features, valid)
        return features.masked_fill(~valid[..., None], 0.0)

    @property
    def streamable(self) -> bool:
        """Whether `step` works: not with the statistics of a whole utterance."""
        return self.normalise in (False, "running")

    def init_state(self, batch: int) -> RunningStatistics:
        """Statistics before the first frame of ``batch`` streams."""
        if not self.streamable:
            raise ConfigError(
                "LogMel: normalise is True, which needs the whole utterance, so it cannot stream; "
                "build it with normalise: running (or False)"
            )
        return RunningStatistics.start(self.mel_matrix.new_zeros(batch, 0, self.n_mels))

    def step(self, waveform: Tensor, valid: Tensor, state: RunningStatistics) -> tuple[Tensor, RunningStatistics]:
        """Features of the next t frames of each stream.

        Arguments
        ---------
        waveform : Tensor
            (B, (t - 1) · hop samples + window samples): their windows, zeros after a stream's end.
        valid : Tensor
            (B, t), bool.
        state : RunningStatistics
            Of the frames before.

        Returns
        -------
        tuple[Tensor, RunningStatistics]
            (B, t, F), zero where not valid, and the new state.
        """
        if valid.shape[1] == 0:
            return waveform.new_zeros(len(waveform), 0, self.n_mels), state
        waveform = F.pad(waveform, (0, self.n_fft - self.window_samples))
        features = torch.log(self._power(waveform) @ self.mel_matrix + 1e-6)
        if self.normalise == "running":
            return normalise_running(features, valid, state)
        return features.masked_fill(~valid[..., None], 0.0), state

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Frames of an utterance of that many samples."""
        return torch.div(n_samples + self.hop_samples - 1, self.hop_samples, rounding_mode="floor")

    def macs(self, n_frames: int) -> int:
        """The mel product, and the FFT as 2 N log2 N per frame."""
        fft = 2 * self.n_fft * int(math.log2(self.n_fft))
        return n_frames * (fft + (self.n_fft // 2 + 1) * self.n_mels)

    def _power(self, waveform: Tensor) -> Tensor:
        """(B, samples) to (B, T, n_fft / 2 + 1)."""
        frames = waveform.unfold(1, self.n_fft, self.hop_samples)
        window = F.pad(self.window_shape, (0, self.n_fft - self.window_samples))
        spectrum = torch.fft.rfft(frames * window)
        return spectrum.real.square() + spectrum.imag.square()
