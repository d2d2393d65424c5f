"""What is heard of an utterance's quality without a label: its signal-to-noise ratio, and how much of it is sound."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.errors import ConfigError

#: dB: what `wada_snr` can say.
LOWEST, HIGHEST = -10.0, 60.0
#: Shape of the gamma distribution that amplitudes of clean speech have (Kim & Stern 2008).
_SHAPE = 0.4
_WINDOW, _HOP = 0.025, 0.010  # seconds


def wada_snr(waveform: ArrayLike) -> float:
    """Signal-to-noise ratio by the distribution of amplitudes, dB.

    C. Kim and R. M. Stern, "Robust signal-to-noise ratio estimation based on waveform amplitude distribution analysis",
    Interspeech 2008: amplitudes of speech are gamma-distributed, of noise normal; the mean of the logarithm below the
    logarithm of the mean tells how much there is of either. Meant for speech in steady noise; what is neither, such as
    a tone, gets a number too.

    Parameters
    ----------
    waveform : array (samples,)

    Returns
    -------
    float
        From -10, below which amplitudes tell nothing, to 60; nan of what has no sound, such as zeros only.

    Example
    -------
    >>> noise = np.random.default_rng(0).standard_normal(16000)
    >>> wada_snr(noise) < -5
    True
    """
    x = np.asarray(waveform, dtype=np.float64).reshape(-1)
    x = np.abs(x - x.mean()) if len(x) else x
    x = x[x > 0]  # digital silence is no noise
    if not len(x):
        return float("nan")
    statistic = np.log(x.mean()) - np.log(x).mean()
    levels, expected = _expected()
    return float(np.interp(statistic, expected, levels))


def active_share(waveform: ArrayLike, sample_rate: int, range_db: float = 30.0, floor_db: float = -60.0) -> float:
    """Share of frames in which something sounds, 0 to 1.

    Frames of 25 ms, every 10 ms, whose level is within `range_db` of the loud ones (their 95th percentile), and above
    `floor_db` of full scale. It tells sound from pauses, and not speech from other sounds.

    Parameters
    ----------
    waveform : array (samples,)
        Full scale is 1.
    sample_rate : int
        Hz.
    range_db, floor_db : float
        dB.

    Raises
    ------
    ConfigError
        `range_db` is not positive.
    """
    if not range_db > 0:
        raise ConfigError(f"active_share: range_db is {range_db}; expected a positive number of dB")
    x = np.asarray(waveform, dtype=np.float64).reshape(-1)
    window, hop = round(_WINDOW * sample_rate), round(_HOP * sample_rate)
    if not len(x):
        return 0.0
    x = np.pad(x, (0, max(0, window - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop]
    levels = 10 * np.log10(np.maximum(np.square(frames).mean(axis=1), 1e-20))
    return float((levels > max(np.percentile(levels, 95) - range_db, floor_db)).mean())


@cache
def _expected() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The statistic at each level, rising: of quantiles of speech, with either sign, plus quantiles of noise."""
    from scipy import stats

    speech = stats.gamma.ppf((np.arange(3000) + 0.5) / 3000, _SHAPE)
    speech /= np.sqrt(np.square(speech).mean())
    noise = stats.norm.ppf((np.arange(600) + 0.5) / 600)
    levels = np.arange(LOWEST, HIGHEST + 0.5, 1.0)
    found = []
    for level in levels:
        # Noise is as often of one sign as of the other, so speech need not be.
        x = np.abs(speech[:, None] + 10 ** (-level / 20) * noise)
        found.append(np.log(x.mean()) - np.log(np.maximum(x, 1e-12)).mean())
    return levels, np.maximum.accumulate(np.array(found))
