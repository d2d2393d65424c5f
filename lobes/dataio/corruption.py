"""Audio as a crawl of the web has it: noise, music played backwards, no speech at all; the same at every reading."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lobes.dataio.manifest import Row
from lobes.dataio.splits import draw
from lobes.errors import DataError

#: What a row's `corruption` may say.
KINDS = ("none", "white", "brown", "reversed", "noise")


@dataclass(frozen=True)
class Corrupted:
    """A transform for `audio_dataset`: makes of each waveform what its row's `corruption` says.

    `white` and `brown` noise are added at a signal-to-noise ratio drawn from `snr_db`, `reversed` plays backwards, and
    `noise` is a swell of white noise alone. All is a pure function of `seed` and the row's id.

    Parameters
    ----------
    snr_db : tuple of float
        Lowest and highest, dB.
    seed : int
        Of the draws.
    """

    columns: ClassVar[tuple[str, ...]] = ("corruption",)
    snr_db: tuple[float, float] = (-5.0, 5.0)
    seed: int = 0

    def __call__(self, waveform: Tensor, sample_rate: int, row: Row, epoch: int = 0) -> Tensor:
        """Return the waveform (samples,), corrupted.

        Raises
        ------
        DataError
            The row says nothing, or something else than `KINDS`.
        """
        kind = row.get("corruption")
        if kind not in KINDS:
            raise DataError(f"{row['id']}: corruption is {kind!r}; expected one of {', '.join(KINDS)}")
        if kind == "none" or not len(waveform):
            return waveform
        if kind == "reversed":
            return waveform.flip(0)
        noise = self._noise(row["id"], len(waveform), kind)
        level = float(waveform.square().mean().sqrt())
        if kind == "noise":
            return level * noise * torch.hann_window(len(waveform), periodic=False)
        low, high = self.snr_db
        snr = low + draw(self.seed, "snr", row["id"]) * (high - low)
        return waveform + level * 10 ** (-snr / 20) * noise

    def _noise(self, name: str, samples: int, kind: str) -> Tensor:
        """Of unit deviation."""
        random = np.random.default_rng(int(draw(self.seed, "noise", name) * 2**53))
        noise = random.standard_normal(samples)
        if kind == "brown":
            noise = np.cumsum(noise)
            noise -= noise.mean()
        return torch.from_numpy((noise / max(float(noise.std()), math.ulp(1.0))).astype(np.float32))
