"""From a synthesiser's samples to a plausible recording: resampling, silence around, level and background noise."""

from __future__ import annotations

from functools import cache
from math import gcd

import numpy as np

PEAK = 0.95
# Of the resampling filter: the pass band reaches 0.93 of the lower Nyquist frequency, the stop band lies below -70 dB.
ROLL_OFF = 0.93
ZERO_CROSSINGS = 24
KAISER_BETA = 7.0


def to_recording(
    pcm: np.ndarray,
    source_rate: int,
    rng: np.random.Generator,
    sample_rate: int = 16000,
    level_db: tuple[float, float] = (-32.0, -18.0),
    snr_db: tuple[float, float] = (15.0, 45.0),
    margin: tuple[float, float] = (0.05, 0.30),
) -> np.ndarray:
    """Turn synthesised speech into a 16-bit recording with a channel of its own.

    Parameters
    ----------
    pcm : np.ndarray
        int16 samples (n,) at `source_rate` Hz.
    source_rate, sample_rate : int
        Hz.
    rng : np.random.Generator
        Decides level, noise and margins; equal generators give equal bytes.
    level_db : tuple of float
        Range of the root-mean-square level, in dB below full scale. Lowered where the peak would pass 0.95.
    snr_db : tuple of float
        Range of the signal-to-noise ratio in dB over the whole recording. The noise is Gaussian through a two-tap
        filter, so that its spectrum falls or rises.
    margin : tuple of float
        Range of the silence before and after, in seconds.

    Returns
    -------
    np.ndarray
        int16 samples (m,) at `sample_rate` Hz.
    """
    before, after = (int(round(uniform(rng, *margin) * sample_rate)) for _ in range(2))
    speech = np.pad(resample(pcm.astype(np.float64) / 32768.0, source_rate, sample_rate), (before, after))
    speech *= 10 ** (uniform(rng, *level_db) / 20) / max(_rms(speech), 1e-9)
    noise = rng.standard_normal(len(speech) + 1)
    noise = noise[1:] + uniform(rng, -0.9, 0.9) * noise[:-1]
    noise *= _rms(speech) / _rms(noise) * 10 ** (-uniform(rng, *snr_db) / 20)
    mixture = speech + noise
    mixture *= min(1.0, PEAK / max(float(np.abs(mixture).max()), 1e-9))
    return np.rint(mixture * 32767.0).astype("<i2")


def resample(signal: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """Resample (n,) float64 by windowed-sinc polyphase filtering (Smith, Digital Audio Resampling, eq. 5).

    In double precision and in a fixed order, so that the result, once rounded to 16 bits, is the same for any number
    of threads. (`scipy.signal` would do as well, but takes seconds to import.)

    Returns
    -------
    np.ndarray
        float64 samples (ceil(n * sample_rate / source_rate),).
    """
    if source_rate == sample_rate:
        return signal
    up, down = (rate // gcd(source_rate, sample_rate) for rate in (sample_rate, source_rate))
    first, taps = _filter_bank(up, down)
    width = taps.shape[1]
    length = -(-len(signal) * up // down)
    count = -(-length // up)  # outputs of each phase
    after = max(0, down * count + width - len(signal))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(signal, (width, after)), width)
    output = np.empty(count * up)
    for phase in range(up):
        output[phase::up] = windows[width + first[phase] :: down][:count] @ taps[phase]
    return output[:length]


@cache
def _filter_bank(up: int, down: int) -> tuple[list[int], np.ndarray]:
    """For each phase of the output: the first input sample it reads, relative to its period's, and its filter taps."""
    cutoff = ROLL_OFF * min(1.0, up / down)
    reach = ZERO_CROSSINGS / cutoff  # input samples to either side
    time = np.arange(up) * down / up
    first = np.floor(time - reach).astype(int)
    lag = first[:, None] + np.arange(int(2 * reach) + 2) - time[:, None]
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (lag / reach) ** 2, 0, None))) / np.i0(KAISER_BETA)
    taps = cutoff * np.sinc(cutoff * lag) * window * (np.abs(lag) <= reach)
    return first.tolist(), taps / taps.sum(axis=1, keepdims=True)


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from [low, high), from one `rng.random()`."""
    return low + (high - low) * float(rng.random())


def _rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal))))
