"""In which band the energy of each class of sounds lies, and how much of it a model of some sample rate can see."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lobes.dataio.audio import AudioError, audio_info, read_audio
from lobes.dataio.manifest import Manifest
from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

STEP = 25.0  # Hz, of the spectra
BLOCK_SECONDS = 60.0
QUIET, SURE, SMOOTH = 0.2, 1.25, 5
TARGET = 0.9
#: A resampler's slope begins here, as a share of half the rate.
PASSED = 0.95
FACTORS = (0.125, 0.2, 0.25, 0.5, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20)


@dataclass(frozen=True)
class Sound:
    """A part of a recording, of one class; the whole file where start and stop (seconds) are None."""

    path: str | os.PathLike[str]
    label: str
    start: float | None = None
    stop: float | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Band:
    """Where the energy of a class lies.

    Attributes
    ----------
    label : str
        The class.
    sounds : int
        How many were heard.
    seconds : float
        How long they are together.
    low, middle, high : float
        Hz below which 5 %, half and 95 % of the energy lie, to 25 Hz; each sound counts alike.
    limit : float
        Half the highest sample rate of its files, Hz: what they hold at all.
    seen : float
        Share of the energy that the model sees, between its lowest band and 95 % of half its rate: what the slope of
        resampling leaves.
    below : float
        Share below the model's lowest band.
    factor : float
        Recommended for `lobes.encoders.TimeExpansion`; 1 is none.
    seen_then : float
        Share that the model sees with that factor.
    """

    label: str
    sounds: int
    seconds: float
    low: float
    middle: float
    high: float
    limit: float
    seen: float
    below: float
    factor: float
    seen_then: float


@dataclass(frozen=True)
class BandReport:
    """`Band` of each class, by name and last of all together, and (file, reason) of what was left out."""

    bands: list[Band]
    sample_rate: int
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """The report as a Markdown table."""
        rate = f"{self.sample_rate / 1000:g} kHz"
        titles = ["class", "sounds", "minutes", "5 %", "50 %", "95 % (Hz)", "files to (Hz)", f"seen at {rate}"]
        titles += ["below", "factor", "seen with it"]
        rows = [titles, ["---", *["---:"] * (len(titles) - 1)]]
        for band in self.bands:
            hertz = [f"{value:.0f}" for value in (band.low, band.middle, band.high, band.limit)]
            shares = [f"{band.seen:.1%}", f"{band.below:.1%}", f"{band.factor:g}", f"{band.seen_then:.1%}"]
            rows.append([band.label, str(band.sounds), f"{band.seconds / 60:.1f}", *hertz, *shares])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def band_report(
    sounds: Iterable[Sound], sample_rate: int = 16000, lowest: float = 0.0, *, background: bool = True
) -> BandReport:
    """Measure the bands of classes of sounds, at the rates of their files.

    The spectrum of a sound is the mean of the power of windows of about 40 ms, scaled to a sum of 1, so that loud
    recordings count no more than others. A file that cannot be read is left out and named.

    The factor is the one nearest to no change with which the model sees at least 90 % of the energy, or else the one
    with which it sees most. What lies above the files' own limit is not known, and not counted.

    Parameters
    ----------
    sounds : iterable of Sound
        From `sounds_of_manifest`, `sounds_of_annotations` or `sounds_of_files`.
    sample_rate : int
        Hz, of the model.
    lowest : float
        Hz, where the model's lowest mel filter begins; 0 for models of waveforms.
    background : bool
        Whether what is steady through a sound is taken off: from each frequency, 1.25 times the mean of the noise
        whose power exceeds what 80 % of the windows exceed (it is exponentially distributed over windows). A call that
        lasts all through its sound without a change of pitch is steady too.

    Returns
    -------
    BandReport

    Raises
    ------
    DataError
        No sound could be read.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> path = getfixture("tmp_path") / "bat.wav"
    >>> t = np.arange(96000) / 96000
    >>> soundfile.write(path, 0.1 * np.sin(2 * np.pi * 20000 * t) * (t > 0.5), 96000)
    >>> band, _ = band_report([Sound(path, "bat")]).bands
    >>> band.middle, round(band.seen, 3), band.factor, round(band.seen_then, 3)
    (20000.0, 0.0, 3, 1.0)
    """
    if not 0 <= lowest < sample_rate / 2:
        raise ConfigError(f"band_report: lowest is {lowest} Hz; expected 0 or more, below {sample_rate / 2:g} Hz")
    heard: dict[str, _Heard] = {}
    together = _Heard()
    skipped: list[tuple[str, str]] = []
    for sound in sounds:
        try:
            spectrum, seconds, limit = _measured(sound, background)
        except AudioError as error:
            skipped.append((error.path, error.reason))
            logger.warning("left out: %s", error)
            continue
        for part in (heard.setdefault(sound.label, _Heard()), together):
            part.add(spectrum, seconds, limit)
    if not heard:
        first = f" (first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise DataError(f"band_report: no sound could be read of {len(skipped)}{first}; expected audio files")
    rows = [*sorted(heard.items()), ("all", together)]
    return BandReport([part.band(label, sample_rate, lowest) for label, part in rows], sample_rate, skipped)


def sounds_of_manifest(manifest: Manifest, label: str = "") -> list[Sound]:
    """The rows of a manifest, of the classes that a label's column says (all of one class if empty).

    Raises
    ------
    DataError
        There is no such column.
    """
    if label and label not in (*manifest.labels, "group"):
        raise DataError(f"label is '{label}'; expected one of {', '.join((*manifest.labels, 'group'))}")
    return [
        Sound(manifest.audio_path(row), row[label] if label else "sounds", row["start"], row["stop"], row["channel"])
        for row in manifest.rows
    ]


def sounds_of_annotations(annotations: Iterable[Any]) -> list[Sound]:
    """Annotations of recordings: whatever has `file`, `start`, `end` (s), `label` and `channel`."""
    return [Sound(a.file, a.label, a.start, a.end, a.channel) for a in annotations]


def sounds_of_files(paths: Sequence[str | os.PathLike[str]]) -> list[Sound]:
    """Whole files, of the class that their folder is called by."""
    return [Sound(path, Path(path).resolve().parent.name) for path in paths]


def _measured(sound: Sound, background: bool) -> tuple[np.ndarray, float, float]:
    """Share of the energy in each 25 Hz, seconds, and Hz up to which the file holds any."""
    rate = audio_info(sound.path).sample_rate
    n_fft = 2 ** math.ceil(math.log2(rate / STEP))
    bins = (np.arange(n_fft // 2 + 1) * rate / n_fft / STEP).round().astype(int)
    window = np.hanning(n_fft)
    energy, samples = np.zeros(n_fft // 2 + 1), 0
    for block in _blocks(sound):
        samples += len(block)
        padded = np.pad(block, (0, max(0, n_fft - len(block))))
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 2]
        power = np.abs(np.fft.rfft(frames * window)) ** 2
        mean = power.mean(0)
        if background:
            mean = np.maximum(mean - SURE * _steady(power), 0.0)
        energy += mean * len(frames)
    energy[0] = 0.0  # an offset of the recorder
    if not energy.sum() > 0:
        raise AudioError(sound.path, "holds nothing above its background")
    return np.bincount(bins, energy / energy.sum()), samples / rate, rate / 2


def _blocks(sound: Sound) -> Iterator[np.ndarray]:
    """Samples of a sound, a minute at a time."""
    start = sound.start or 0.0
    stop = audio_info(sound.path).duration if sound.stop is None else sound.stop
    n_blocks = max(1, math.ceil((stop - start) / BLOCK_SECONDS - 0.05))
    edges = np.linspace(start, stop, n_blocks + 1)
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        yield read_audio(sound.path, None, float(begin), float(end), sound.channel).numpy()


def _steady(power: np.ndarray) -> np.ndarray:
    """Mean power of what is steady, from power of (windows, frequencies)."""
    # The quantile q of an exponential distribution is -ln(1 - q) times its mean.
    floor = np.quantile(power, QUIET, axis=0) / -math.log(1 - QUIET)
    # Noise is surer from several frequencies, a hum from its own.
    return np.maximum(floor, np.convolve(floor, np.full(SMOOTH, 1 / SMOOTH), "same"))


class _Heard:
    """The sounds of a class so far."""

    def __init__(self) -> None:
        self.spectrum, self.count, self.seconds, self.limit = np.zeros(1), 0, 0.0, 0.0

    def add(self, spectrum: np.ndarray, seconds: float, limit: float) -> None:
        """One more, whose spectrum sums to 1; those of other rates end elsewhere."""
        longest = max(len(self.spectrum), len(spectrum))
        before, more = (np.pad(part, (0, longest - len(part))) for part in (self.spectrum, spectrum))
        self.spectrum = before + more
        self.count, self.seconds, self.limit = self.count + 1, self.seconds + seconds, max(self.limit, limit)

    def band(self, label: str, sample_rate: int, lowest: float) -> Band:
        """What `Band` says of them."""
        share = self.spectrum / self.spectrum.sum()
        hertz = np.arange(len(share)) * STEP
        low, middle, high = (float(hertz[np.searchsorted(share.cumsum(), q)]) for q in (0.05, 0.5, 0.95))

        def seen(factor: float) -> float:
            inside = (hertz >= lowest * factor) & (hertz <= PASSED * sample_rate / 2 * factor)
            return float(share[inside].sum())

        possible = [factor for factor in FACTORS if factor * sample_rate % 1 == 0]
        enough = [factor for factor in possible if seen(factor) >= TARGET]
        factor = min(enough, key=lambda f: abs(math.log(f))) if enough else max(possible, key=seen)
        below = float(share[hertz < lowest].sum())
        sizes = (self.count, self.seconds, low, middle, high, self.limit)
        return Band(label, *sizes, seen(1), below, factor, seen(factor))
