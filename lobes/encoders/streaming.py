"""Encoding audio as it arrives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lobes.encoders.encoder import Encoder
from lobes.errors import ConfigError


class StreamingEncoder:
    """Takes audio in pieces of any size and gives the frames of each chunk as soon as its audio is there.

    What it gives is what ``encoder(waveform, lengths, chunks)`` gives for the whole recording. It keeps a constant
    amount of memory: less than a chunk of audio, the running statistics of the features, and the state of each layer.

    Arguments
    ---------
    encoder : Encoder
        Of streamable mixers and features (``normalise: running`` or ``False``). Put into evaluation mode.
    chunks : Chunks or DynChunkTrainConfig
        How many frames make a chunk, and how far attention looks back. The algorithmic latency is a chunk, and what
        the last feature window reaches beyond it (15 ms by default).

    Example
    -------
    >>> from lobes.encoders import Encoder, LogMel, StackingStem
    >>> from lobes.mixers import Chunks, SummaryMixing
    >>> encoder = Encoder(LogMel(normalise="running"), StackingStem(80, 16), 16, 2, SummaryMixing)
    >>> stream = StreamingEncoder(encoder, Chunks(8))
    >>> [len(stream.feed(torch.randn(4000))) for _ in range(3)], len(stream.finish())
    ([0, 8, 8], 3)
    """

    def __init__(self, encoder: Encoder, chunks: Any) -> None:
        checked = encoder.checked(chunks)
        if checked is None:
            raise ConfigError("StreamingEncoder: chunks is None; expected Chunks(size), in frames")
        self.encoder, self.chunks = encoder.eval(), checked
        self._hop = encoder.features.hop_samples
        self._frames = checked.size * encoder.stem.factor  # feature frames of a chunk
        self.reset()

    def reset(self) -> None:
        """Begin a new recording."""
        self._statistics = self.encoder.features.init_state(1)
        self._state = self.encoder.init_state(1, self.chunks.left)
        self._pending = torch.zeros(0, device=self.encoder.norm.weight.device)
        self.seconds = 0.0

    @torch.no_grad()
    def feed(self, samples: Tensor) -> Tensor:
        """Take more audio.

        Arguments
        ---------
        samples : Tensor
            (S,), float, any number of them, none included, at the encoder's sample rate.

        Returns
        -------
        Tensor
            (T, D), the frames that could be computed: as many whole chunks as there is audio for.
        """
        if samples.dim() != 1:
            raise ConfigError(f"StreamingEncoder: samples have shape {tuple(samples.shape)}; expected one channel (S,)")
        self.seconds += len(samples) / self.encoder.sample_rate
        self._pending = torch.cat((self._pending, samples.to(self._pending)))
        outputs = []
        while len(self._pending) >= self._reach(self._frames):
            outputs.append(self._step(self._frames))
        return self._joined(outputs)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the recording: the frames (T, D) of the audio that is left. The encoder then expects a new recording."""
        outputs = []
        n_frames = -(-len(self._pending) // self._hop)
        if n_frames:
            self._pending = F.pad(self._pending, (0, self._reach(n_frames) - len(self._pending)))
        while n_frames:
            outputs.append(self._step(min(n_frames, self._frames)))
            n_frames -= min(n_frames, self._frames)
        self.reset()
        return self._joined(outputs)

    def _reach(self, n_frames: int) -> int:
        """Samples that so many feature frames are computed from."""
        return (n_frames - 1) * self._hop + self.encoder.features.window_samples

    def _step(self, n_frames: int) -> Tensor:
        valid = torch.ones(1, n_frames, dtype=torch.bool, device=self._pending.device)
        audio = self._pending[None, : self._reach(n_frames)]
        features, self._statistics = self.encoder.features.step(audio, valid, self._statistics)
        output, self._state = self.encoder.step(features, valid, self._state)
        self._pending = self._pending[n_frames * self._hop :].clone()
        return output.frames[0]

    def _joined(self, outputs: list[Tensor]) -> Tensor:
        return torch.cat(outputs) if outputs else self._pending.new_zeros(0, self.encoder.dim)
