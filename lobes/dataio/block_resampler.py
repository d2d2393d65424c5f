"""Change of sample rate block by block: what comes out, put together, is the whole recording's `resample`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lobes.errors import ConfigError

#: Zero crossings of the filter, and its cutoff as a share of the lower Nyquist frequency: those of `resample`.
ZERO_CROSSINGS, ROLLOFF = 32, 0.95
#: Outputs that one matrix product computes from one stretch of input, at least.
_PHASES = 32
#: Numbers in that matrix, at most; rates without a common divisor would need one of gigabytes.
_DENSE = 4_000_000
_ROWS = 4096


class BlockResampler:
    """Resamples a stream with the filter of `lobes.dataio.resample`, a windowed sinc, in constant memory.

    Output j is y_j = Σ_n x_n h(n - j·M) with M = from_rate / to_rate, h(u) = s sinc(s u) cos²(π s u / 2 Z) for
    |s u| < Z and s = ρ min(1, 1 / M): the sinc of cutoff ρ times the lower Nyquist frequency in a window of Z zero
    crossings (Smith, "Digital Audio Resampling", 2002); before and after the recording x is 0. The inputs that the
    next outputs still need are kept, so that there are no seams.

    Parameters
    ----------
    from_rate, to_rate : int
        Hz.

    Raises
    ------
    ConfigError
        A rate is not a positive whole number.

    Example
    -------
    >>> from lobes.dataio import resample
    >>> waveform, resampler = torch.randn(1000), BlockResampler(48000, 16000)
    >>> blocks = [resampler.feed(block) for block in waveform.split(300)] + [resampler.finish()]
    >>> torch.allclose(torch.cat(blocks), resample(waveform, 48000, 16000), atol=1e-5)
    True
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        for name, rate in (("from_rate", from_rate), ("to_rate", to_rate)):
            if not (isinstance(rate, int) and rate > 0):
                raise ConfigError(f"{name}: {rate!r} Hz, expected a whole number above 0")
        common = math.gcd(from_rate, to_rate)
        self._orig, self._new = from_rate // common, to_rate // common
        self._identity = from_rate == to_rate
        scale = ROLLOFF * min(1.0, self._new / self._orig)
        self._reach = 0 if self._identity else math.ceil(ZERO_CROSSINGS / scale)
        if not self._identity:
            self._kernel = _kernel(self._new, self._reach, scale)
            self._matrix = self._dense()
        self.reset()

    def reset(self) -> None:
        """Begin another recording."""
        self._pending = torch.zeros(self._reach)  # inputs still needed; the first are the silence before the recording
        self._start = -self._reach  # index of the first of them
        self._heard = self._given = 0

    def feed(self, samples: Tensor) -> Tensor:
        """Take samples (n,) and return those (m,) at the new rate that are now certain; either may be none."""
        self._heard += len(samples)
        if self._identity:
            return samples
        self._pending = torch.cat((self._pending, samples.to(torch.float32)))
        given = self._by_gather() if self._matrix is None else self._by_matrix(self._matrix)
        self._given += len(given)
        return given

    def place(self, heard: int) -> tuple[int, int]:
        """Tell where it stands after the first `heard` samples, in whatever pieces they were fed.

        Returns
        -------
        needed : int
            Index of the first of them that further outputs need; below 0, the silence before the recording.
        given : int
            How many samples have come out.
        """
        if self._identity:
            return heard, heard
        if self._matrix is None:
            given = max(self._ready(heard), 0)
            return given * self._orig // self._new - self._reach, given
        inputs, outputs = self._matrix.shape
        stride = self._stride(outputs)
        count = max((self._reach + heard - inputs) // stride + 1, 0)
        return count * stride - self._reach, count * outputs

    def resume(self, heard: int, history: Tensor) -> None:
        """Stand where it does after the first `heard` samples, of which `history` (n,) is the end, without the others.

        Parameters
        ----------
        heard : int
            Samples.
        history : Tensor
            From the first that `place` says is needed, or from the recording's beginning, up to `heard`.
        """
        self._heard = heard
        self._start, self._given = self.place(heard)
        silence = heard - self._start - len(history)
        self._pending = torch.cat((torch.zeros(silence), history.to(torch.float32)))

    def finish(self) -> Tensor:
        """End the recording: the samples that are left, so that there are ceil(n · to_rate / from_rate) in all."""
        if self._identity:
            self.reset()
            return torch.zeros(0)
        total, before = -(-self._heard * self._new // self._orig), self._given
        stretch = 0 if self._matrix is None else len(self._matrix)
        rest = self.feed(torch.zeros(2 * self._reach + 2 + stretch))[: max(total - before, 0)]
        self.reset()
        return rest

    def _dense(self) -> Tensor | None:
        """(inputs, outputs) of one stretch, after which the pattern of output positions repeats; None if too large."""
        repeats = -(-_PHASES // self._new)
        outputs, taps = self._new * repeats, self._kernel.shape[1]
        inputs = (outputs - 1) * self._orig // self._new + taps
        if outputs * inputs > _DENSE:
            return None
        matrix = torch.zeros(inputs, outputs)
        for output in range(outputs):
            first, phase = divmod(output * self._orig, self._new)
            matrix[first : first + taps, output] = self._kernel[phase]
        return matrix

    def _by_matrix(self, matrix: Tensor) -> Tensor:
        inputs, outputs = matrix.shape
        stride = self._stride(outputs)
        count = (len(self._pending) - inputs) // stride + 1
        if count <= 0:
            return torch.zeros(0)
        given = self._pending.unfold(0, inputs, stride)[:count] @ matrix
        self._drop(count * stride)
        return given.flatten()

    def _by_gather(self) -> Tensor:
        taps = self._kernel.shape[1]
        ready = self._ready(self._start + len(self._pending))
        parts = [torch.zeros(0)]
        for first in range(self._given, ready, _ROWS):
            output = np.arange(first, min(first + _ROWS, ready), dtype=np.int64)
            place, phase = np.divmod(output * self._orig, self._new)
            begin = torch.from_numpy(place - self._reach - self._start)
            inputs = self._pending.unfold(0, taps, 1).index_select(0, begin)
            filters = self._kernel.index_select(0, torch.from_numpy(phase))
            parts.append(torch.einsum("jt,jt->j", inputs, filters))
        self._drop(max(ready, self._given) * self._orig // self._new - self._reach - self._start)
        return torch.cat(parts)

    def _ready(self, heard: int) -> int:
        """Outputs of which all inputs are there: floor(j M) + reach + 1 is the index of the last one of output j."""
        return (heard - self._reach - 2) * self._new // self._orig + 1

    def _stride(self, outputs: int) -> int:
        """Inputs from one stretch of so many outputs to the next."""
        return outputs // self._new * self._orig

    def _drop(self, count: int) -> None:
        """Forget inputs that no further output needs."""
        count = min(max(count, 0), len(self._pending))
        self._pending = self._pending[count:].clone()
        self._start += count


def _kernel(phases: int, reach: int, scale: float) -> Tensor:
    """The filter h at the inputs around an output, for each of its positions p / phases between two inputs.

    Shape (phases, 2 · reach + 2): column t is the input at t - reach from the one before the output.
    """
    distance = np.arange(2 * reach + 2) - reach - np.arange(phases)[:, None] / phases
    scaled = np.clip(scale * distance, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(np.pi * scaled / (2 * ZERO_CROSSINGS)) ** 2
    return torch.from_numpy((scale * np.sinc(scaled) * window).astype(np.float32))
