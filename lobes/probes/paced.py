"""An encoder whose frames come at the pace of ratings, however long the recording."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lobes.encoders import EncoderOutput, absolute_lengths, frame_mask, relative_lengths
from lobes.errors import ConfigError

#: What a quotient of two times may be off by, before it counts as another step.
_ROUNDING = 1e-6


class PacedEncoder(nn.Module):
    """An encoder with one frame for each period of a recording, heard in pieces.

    A step is the mean of the encoder's frames in its period, those in two periods shared by their overlap; a step with
    no frame of its own has the last one before it. So whatever the encoder's rate, there is one prediction for each
    rating, and features that are kept are as few. Recordings of many minutes are cut into pieces of whole periods that
    the encoder hears one by one, since attention over all of them would not fit; their steps are joined again, so that
    a head reads the whole recording.

    Keeps the Encoder contract.

    Arguments
    ---------
    encoder : nn.Module
        Keeps the Encoder contract.
    period : float, optional
        Seconds; by default the encoder's own, one step for each frame.
    piece_seconds : float, optional
        Longest piece; by default whole recordings.

    Raises
    ------
    ConfigError
        A number is not positive.
    """

    def __init__(self, encoder: Any, period: float | None = None, piece_seconds: float | None = None) -> None:
        super().__init__()
        for name, value in (("period", period), ("piece_seconds", piece_seconds)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}: expected a positive number of seconds, or null")
        self.encoder = encoder
        self.period = float(period) if period else 1.0 / float(self.encoder.frame_rate)
        self.piece_steps = max(1, round(piece_seconds / self.period)) if piece_seconds else None
        # Part of what features depend on, for those who keep them.
        self.register_buffer("timing", torch.tensor([self.period, float(self.piece_steps or 0)]))

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.encoder.sample_rate

    @property
    def frame_rate(self) -> float:
        """Steps per second, Hz."""
        return 1.0 / self.period

    @property
    def dim(self) -> int:
        """Width of the output."""
        return self.encoder.dim

    @property
    def layer_dims(self) -> list[int]:
        """Width of each layer."""
        return list(self.encoder.layer_dims)

    def macs(self, seconds: float) -> int:
        """Multiply-accumulates for one recording of that length; those of the means are left out."""
        if self.piece_steps is None:
            return self.encoder.macs(seconds)
        piece = self.piece_steps * self.period
        whole, rest = divmod(seconds, piece)
        return int(whole) * self.encoder.macs(piece) + (self.encoder.macs(rest) if rest > _ROUNDING else 0)

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """As `Encoder.forward`; ``frames`` are the encoder's output, paced as its layers are."""
        n_samples = absolute_lengths(lengths, waveform.shape[1])
        hop = self.period * self.sample_rate
        n_steps = torch.ceil(n_samples.double() / hop - _ROUNDING).long().clamp(min=0)
        total = max(1, int(n_steps.max()))
        per_piece = self.piece_steps or total
        parts: list[list[Tensor]] = []
        for first in range(0, total, per_piece):
            steps = min(per_piece, total - first)
            start, stop = round(first * hop), min(round((first + steps) * hop), waveform.shape[1])
            own = (n_samples - start).clamp(0, stop - start)
            parts.append(self._piece(waveform[:, start:stop], own, (n_steps - first).clamp(0, steps), steps))
        valid, frames, *layers = (torch.cat(kind, dim=1) for kind in zip(*parts, strict=True))
        return EncoderOutput(frames, valid, layers)

    def _piece(self, waveform: Tensor, n_samples: Tensor, n_steps: Tensor, steps: int) -> list[Tensor]:
        """Validity (B, S) of a piece's steps, its output and its layers (B, S, D)."""
        heard = torch.nonzero((n_samples > 0) & (n_steps > 0)).flatten()
        if not len(heard):
            nothing = [waveform.new_zeros(len(waveform), steps, dim) for dim in (self.dim, *self.layer_dims)]
            return [torch.zeros_like(nothing[0][..., 0], dtype=torch.bool), *nothing]
        output = self.encoder(waveform[heard], relative_lengths(n_samples[heard], waveform.shape[1]))
        # A rest too short for the encoder to make a frame of has no steps.
        valid = frame_mask(n_steps[heard] * output.valid.any(1), steps)
        kinds = (output.frames, *output.layers)
        paced = [pace(x, output.valid, self.encoder.frame_rate, self.period, steps) for x in kinds]
        paced = [x.masked_fill(~valid.unsqueeze(-1), 0.0) for x in paced]
        if len(heard) == len(waveform):
            return [valid, *paced]
        rows = [x.new_zeros(len(waveform), *x.shape[1:]).index_copy(0, heard, x) for x in (valid.long(), *paced)]
        return [rows[0].bool(), *rows[1:]]


def pace(x: Tensor, valid: Tensor, frame_rate: float, period: float, steps: int) -> Tensor:
    """Mean of the frames in each period, weighted by how much of a frame lies in it.

    Arguments
    ---------
    x : Tensor
        (B, T, D); what stands in padded frames is not read.
    valid : Tensor
        (B, T), bool; real frames come first.
    frame_rate : float
        Hz; frame t lasts from t / frame_rate to (t + 1) / frame_rate.
    period : float
        Seconds; step s lasts from s * period to (s + 1) * period.
    steps : int
        How many, S.

    Returns
    -------
    Tensor
        (B, S, D); a step after the last frame has that frame, and where there is none it is 0.

    Example
    -------
    >>> frames = torch.tensor([[[0.0], [1.0], [4.0], [5.0], [99.0]]])
    >>> pace(frames, torch.tensor([[True, True, True, True, False]]), 10.0, 0.2, 3).flatten().tolist()
    [0.5, 4.5, 5.0]
    """
    batch, n_frames, _ = x.shape
    if n_frames == 0:
        return x.new_zeros(batch, steps, x.shape[2])
    x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
    # In units of frames, in float64: many minutes of them are counted.
    edges = torch.arange(steps + 1, device=x.device, dtype=torch.float64) * period * frame_rate
    frame = torch.arange(n_frames, device=x.device, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], frame + 1) - torch.maximum(edges[:-1, None], frame)
    overlap = overlap.clamp(min=0.0)
    overlap = torch.where(overlap < _ROUNDING, 0.0, overlap).to(x.dtype)
    weights = overlap * valid.unsqueeze(1)
    heard = weights.sum(2, keepdim=True)
    mean = weights @ x / heard.clamp(min=torch.finfo(x.dtype).tiny)
    last = (valid.sum(1) - 1).clamp(min=0)
    held = x[torch.arange(batch, device=x.device), last].unsqueeze(1)
    return torch.where(heard > 0, mean, held)
