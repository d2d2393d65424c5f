"""Log-mel features and MFCC behind the encoder's contract: the controls that every trained encoder has to beat."""

from __future__ import annotations

import torchaudio
from torch import Tensor, nn

from lobes.encoders.encoder import EncoderOutput
from lobes.encoders.features import LogMel
from lobes.encoders.stem import stack_frames
from lobes.errors import ConfigError


class LogMelEncoder(nn.Module):
    """No weights: frames are ``factor`` stacked frames of log-mel features, and the only layer.

    Arguments
    ---------
    features : LogMel
        Waveform to features.
    factor : int
        Frames stacked into one.
    n_mfcc : int
        0 for log-mel features; else mel-frequency cepstral coefficients (S. Davis and P. Mermelstein, 1980), the first
        ``n_mfcc`` of each frame's orthonormal DCT-II. Common are 13 to 20, of features that are not normalised: the
        mean of an utterance is then its loudness and the colour of its sound.

    Raises
    ------
    ConfigError
        If there are fewer mel bands than coefficients.

    Example
    -------
    >>> import torch
    >>> mfcc = LogMelEncoder(LogMel(n_mels=40, normalise=False), n_mfcc=13)
    >>> mfcc(torch.randn(1, 16000), torch.ones(1)).frames.shape
    torch.Size([1, 100, 13])
    """

    dct: Tensor | None

    def __init__(self, features: LogMel, factor: int = 1, n_mfcc: int = 0) -> None:
        super().__init__()
        if not 0 <= n_mfcc <= features.n_mels:
            raise ConfigError(f"LogMelEncoder: n_mfcc is {n_mfcc}; expected 0 to {features.n_mels} (n_mels)")
        self.features, self.factor, self.n_mfcc = features, factor, n_mfcc
        self.dim = (n_mfcc or features.n_mels) * factor
        dct = torchaudio.functional.create_dct(n_mfcc, features.n_mels, "ortho") if n_mfcc else None
        self.register_buffer("dct", dct, persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """As `Encoder.forward`."""
        features, valid = self.features(waveform, lengths)
        if self.dct is not None:
            features = features @ self.dct.to(features.dtype)
        frames, valid = stack_frames(features, valid, self.factor)
        return EncoderOutput(frames, valid, [frames])

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.features.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second, Hz."""
        return self.features.frame_rate / self.factor

    @property
    def layer_dims(self) -> list[int]:
        """Width of the one layer."""
        return [self.dim]

    def macs(self, seconds: float) -> int:
        """Multiply-accumulates for one utterance of that length."""
        n_frames = -(-round(seconds * self.sample_rate) // self.features.hop_samples)
        return self.features.macs(n_frames) + n_frames * self.features.n_mels * self.n_mfcc
