"""Log-mel features behind the encoder's contract: the control that every trained encoder has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from lobes.encoders.encoder import EncoderOutput
from lobes.encoders.features import LogMel
from lobes.encoders.stem import stack_frames


class LogMelEncoder(nn.Module):
    """No weights: frames are ``factor`` stacked frames of log-mel features, and the only layer.

    Arguments
    ---------
    features : LogMel
        Waveform to features.
    factor : int
        Frames stacked into one.
    """

    def __init__(self, features: LogMel, factor: int = 1) -> None:
        super().__init__()
        self.features, self.factor = features, factor
        self.dim = features.n_mels * factor

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """As `Encoder.forward`."""
        features, valid = self.features(waveform, lengths)
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
        return self.features.macs(-(-round(seconds * self.sample_rate) // self.features.hop_samples))
