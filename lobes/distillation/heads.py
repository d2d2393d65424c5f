"""From a student's frames to its teacher's, whatever the rates of the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lobes.errors import ConfigError

_SLACK = 1e-6


class LayerHeads(nn.Module):
    """One linear layer per target, from the student's width and frame rate to the teacher's.

    Where the teacher has a whole number of frames for each of the student's, a layer predicts all of them from that
    one; where the student has a whole number for each of the teacher's, their mean is read; otherwise frames are
    interpolated in time. What is padded is not read.

    Parameters
    ----------
    student_dim, teacher_dim : int
        Widths.
    n_targets : int
        Layers of the teacher.
    student_rate, teacher_rate : float
        Frames per second, Hz.

    Raises
    ------
    ConfigError
        A rate is not positive.

    Example
    -------
    >>> heads = LayerHeads(8, 16, n_targets=2, student_rate=25.0, teacher_rate=50.0)
    >>> frames, valid = heads([torch.randn(1, 10, 8)] * 2, torch.ones(1, 10, dtype=torch.bool))
    >>> [frame.shape for frame in frames], valid.shape
    ([torch.Size([1, 20, 16]), torch.Size([1, 20, 16])], torch.Size([1, 20]))
    """

    def __init__(
        self, student_dim: int, teacher_dim: int, n_targets: int, student_rate: float, teacher_rate: float
    ) -> None:
        super().__init__()
        if not (student_rate > 0 and teacher_rate > 0):
            raise ConfigError(f"LayerHeads: rates {student_rate}, {teacher_rate} Hz; expected positive ones")
        self.student_rate, self.teacher_rate = float(student_rate), float(teacher_rate)
        ratio = self.teacher_rate / self.student_rate
        self.expand = round(ratio) if abs(ratio - round(ratio)) < _SLACK and ratio > 1 else 1
        self.reduce = round(1 / ratio) if abs(1 / ratio - round(1 / ratio)) < _SLACK and ratio < 1 else 1
        self.interpolated = self.expand == self.reduce == 1 and abs(ratio - 1) >= _SLACK
        self.heads = nn.ModuleList(nn.Linear(student_dim, self.expand * teacher_dim) for _ in range(n_targets))

    def forward(self, layers: list[Tensor], valid: Tensor) -> tuple[list[Tensor], Tensor]:
        """Predictions of each target, at the teacher's rate.

        Parameters
        ----------
        layers : list of Tensor
            For each target the student's frames (B, T, D) that it is predicted from.
        valid : Tensor
            (B, T), bool.

        Returns
        -------
        tuple of list and Tensor
            Per target (B, T', teacher_dim), and their validity (B, T').
        """
        frames = [frame.masked_fill(~valid[..., None], 0.0) for frame in layers]
        if self.reduce > 1:
            frames, valid = reduced(frames, valid, self.reduce)
        elif self.interpolated:
            frames, valid = _interpolated(frames, valid, self.student_rate, self.teacher_rate)
        predicted = [head(frame) for head, frame in zip(self.heads, frames, strict=True)]
        if self.expand > 1:
            predicted = [p.unflatten(-1, (self.expand, -1)).flatten(1, 2) for p in predicted]
            valid = valid.repeat_interleave(self.expand, dim=1)
        return predicted, valid


def align(
    predicted: list[Tensor], ours: Tensor, targets: list[Tensor], theirs: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Cut predictions and targets to the frames that both have; and which of those are real in both.

    Encoders differ by a frame or two at the end of an utterance: some pad the last window, some leave it out.
    """
    n_frames = min(ours.shape[1], theirs.shape[1])
    valid = ours[:, :n_frames] & theirs[:, :n_frames]
    return [p[:, :n_frames] for p in predicted], [t[:, :n_frames] for t in targets], valid


def reduced(frames: list[Tensor], valid: Tensor, factor: int) -> tuple[list[Tensor], Tensor]:
    """Means of so many frames, of the real ones among them."""
    spare = -valid.shape[1] % factor
    valid = nn.functional.pad(valid, (0, spare)).unflatten(1, (-1, factor))
    count = valid.sum(2).clamp_min(1)[..., None]
    means = [nn.functional.pad(f, (0, 0, 0, spare)).unflatten(1, (-1, factor)).sum(2) / count for f in frames]
    return means, valid.any(2)


def _interpolated(
    frames: list[Tensor], valid: Tensor, student_rate: float, teacher_rate: float
) -> tuple[list[Tensor], Tensor]:
    """Linear interpolation at the middle of each of the teacher's frames, between real frames only."""
    lengths = valid.sum(1)
    n_frames = int(valid.shape[1] * teacher_rate / student_rate + _SLACK)
    place = (torch.arange(n_frames, device=valid.device) + 0.5) * (student_rate / teacher_rate) - 0.5
    place = torch.minimum(place.clamp_min(0.0)[None], (lengths[:, None] - 1).clamp_min(0).to(place))
    below = place.floor().long()
    above = torch.minimum(below + 1, (lengths[:, None] - 1).clamp_min(0))
    share = (place - below)[..., None]

    def at(frame: Tensor, index: Tensor) -> Tensor:
        return frame.gather(1, index[..., None].expand(-1, -1, frame.shape[2]))

    mixed = [at(f, below) * (1 - share).to(f) + at(f, above) * share.to(f) for f in frames]
    counts = (lengths * (teacher_rate / student_rate) + _SLACK).long()
    return mixed, torch.arange(n_frames, device=valid.device) < counts[:, None]
