"""Is it the call or its background that is recognised? Waveforms and manifests without calls, and swapped backgrounds.

A score on background alone (the band beside the call's, or the audio beside it in time) should be at chance; what lies
above is leakage. And a result that holds when the background of another recording is mixed in does not rest on its own:
D. Stowell, T. Petrusková, M. Šálek and P. Linhart, "Automatic acoustic identification of individuals in multiple
species: improving identification across recording conditions", J. R. Soc. Interface 16, 2019, who also train with such
mixtures. `BandOnly`, `BandStop`, `CallBandStop` and `BackgroundSwap` are transforms
for `audio_dataset`.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from lobes.dataio.audio import AudioError, audio_info, read_audio
from lobes.dataio.manifest import Manifest, Row, read_manifest
from lobes.dataio.splits import draw, write_part
from lobes.errors import ConfigError, DataError

#: Width of a filter's edges, in Hz: half a cosine, so that a band's edge does not ring for long.
_EDGE_HERTZ = 20.0
_SILENCE = 1e-12


class BandOnly:
    """Keep one band of a waveform, such as one where no animal calls.

    The filter has no phase: a product in the frequency domain, 1 from `low_hz` to `high_hz` and 0 from 20 Hz beyond.

    Parameters
    ----------
    low_hz, high_hz : float
        The band; None for no limit on that side.

    Raises
    ------
    ConfigError
        The band is empty; later, it lies above half the sample rate.

    Examples
    --------
    >>> time = torch.arange(16000) / 16000
    >>> low, high = torch.sin(6.2832 * 200 * time), torch.sin(6.2832 * 1000 * time)
    >>> bool((BandOnly(high_hz=300)(low + high, 16000) - low).abs().max() < 0.01)
    True
    """

    def __init__(self, low_hz: float | None = None, high_hz: float | None = None) -> None:
        self.low_hz, self.high_hz = _band(low_hz, high_hz)

    def __call__(self, waveform: Tensor, sample_rate: int, row: Row | None = None, epoch: int = 0) -> Tensor:
        """Return the band of a waveform (samples,) of `sample_rate` Hz, as long as it was."""
        if not self.low_hz < sample_rate / 2:
            raise ConfigError(
                f"low_hz is {self.low_hz:g}: a waveform of {sample_rate} Hz holds nothing above {sample_rate / 2:g} Hz"
            )
        return _scaled(waveform, self._gain(len(waveform), sample_rate))

    def _gain(self, samples: int, sample_rate: int) -> Tensor:
        """Gain of each frequency of the discrete Fourier transform: 1 in the band."""
        hertz = torch.fft.rfftfreq(max(samples, 1), 1 / sample_rate)
        outside = torch.maximum(self.low_hz - hertz, hertz - self.high_hz).clamp(0, _EDGE_HERTZ)
        return (1 + torch.cos(math.pi * outside / _EDGE_HERTZ)) / 2


class BandStop(BandOnly):
    """Remove one band of a waveform, such as that of the call, and keep the rest; otherwise as `BandOnly`."""

    def __call__(self, waveform: Tensor, sample_rate: int, row: Row | None = None, epoch: int = 0) -> Tensor:
        """Return what is beside the band in a waveform (samples,) of `sample_rate` Hz, as long as it was."""
        return _scaled(waveform, 1 - self._gain(len(waveform), sample_rate))


class CallBandStop:
    """Remove from each waveform the band that its call was annotated with: `low_hz` and `high_hz` of its row.

    Parameters
    ----------
    low_hz, high_hz : float
        The band of calls that were annotated without one, which none is by default.

    Raises
    ------
    DataError
        In use: a row has no band, and no default is given.
    """

    def __init__(self, low_hz: float | None = None, high_hz: float | None = None) -> None:
        self.default = None if low_hz is None and high_hz is None else BandStop(low_hz, high_hz)

    def __call__(self, waveform: Tensor, sample_rate: int, row: Row, epoch: int = 0) -> Tensor:
        """Return what is beside the call's band in a waveform (samples,), as long as it was."""
        low, high = (row.get(name) or None for name in ("low_hz", "high_hz"))
        if low is None or high is None:
            if self.default is None:
                raise DataError(f"{row['id']} has no low_hz and high_hz: give CallBandStop a band for such calls")
            return self.default(waveform, sample_rate)
        return BandStop(float(low), float(high))(waveform, sample_rate)


class BackgroundSwap:
    """Mix the background of another recording into a waveform.

    Which one is a pure function of (seed, id, epoch). As a test, it is to be of another group and of another label too
    (`differs=("group", "individual")`): a classifier that follows the background is then led astray. As an augmentation
    of training data, it takes away what the background has to tell.

    Parameters
    ----------
    backgrounds : path or Manifest
        Background audio: what `beside_calls` writes, clips of noise, or the calls' own clips with a `filter`.
    differs : str or sequence of str
        Columns in which the background's row differs from the waveform's.
    filter : callable, optional
        A transform for `audio_dataset`, (waveform, sample rate, row, epoch) -> waveform, on the background and with the
        background's own row: `BandStop(400, 1800)` takes its call away, `CallBandStop` the band it is annotated with.
    snr_db : float, optional
        Level of the waveform above the background, in dB over the whole clip; by default both are added as recorded.
    seed : int
        Decides which background goes where.

    Raises
    ------
    DataError
        The manifest has no such column; later, no background differs.
    """

    varies: ClassVar[bool] = True  # from epoch to epoch

    def __init__(
        self,
        backgrounds: str | os.PathLike[str] | Manifest,
        *,
        differs: str | Sequence[str] = "group",
        filter: Callable[[Tensor, int, Row, int], Tensor] | None = None,
        snr_db: float | None = None,
        seed: int = 0,
    ) -> None:
        self.manifest = backgrounds if isinstance(backgrounds, Manifest) else read_manifest(backgrounds)
        self.differs = (differs,) if isinstance(differs, str) else tuple(differs)
        self.filter, self.snr_db, self.seed = filter, snr_db, seed
        missing = [name for name in self.differs if name not in ("group", *self.manifest.labels)]
        if missing:
            raise DataError(
                f"differs names '{missing[0]}': the backgrounds have group, {', '.join(self.manifest.labels)}"
            )
        self._rows: dict[tuple[str, ...], list[Row]] = defaultdict(list)
        for row in self.manifest.rows:
            self._rows[tuple(row[name] for name in self.differs)].append(row)

    def __call__(self, waveform: Tensor, sample_rate: int, row: Row, epoch: int = 0) -> Tensor:
        """Return the mixture (samples,) for a waveform of a manifest's row.

        Raises
        ------
        AudioError
            The background cannot be read or, with `snr_db`, there is only silence; `audio_dataset` then skips the item.
        """
        chosen = self.choose(row, epoch)
        path = self.manifest.audio_path(chosen)
        background = read_audio(path, sample_rate, chosen["start"], chosen["stop"], chosen["channel"])
        if self.filter is not None:
            background = self.filter(background, sample_rate, chosen, epoch)
        try:
            return mix(waveform, background, self.snr_db, offset=draw(self.seed, "offset", row["id"], epoch))
        except DataError as error:
            raise AudioError(path, f"is no background for {row['id']}: {error}") from error

    def choose(self, row: Row, epoch: int = 0) -> Row:
        """Return the background's row for a waveform's row."""
        try:
            wanted = [row[name] for name in self.differs]
        except KeyError as error:
            raise DataError(f"differs names '{error.args[0]}', which {row['id']} does not have") from error
        others = [rows for key, rows in self._rows.items() if not any(map(str.__eq__, key, wanted))]
        count = sum(map(len, others))
        if not count:
            raise DataError(f"no background differs from {row['id']} in {', '.join(self.differs)}: give more of them")
        place = int(draw(self.seed, row["id"], epoch) * count)
        for rows in others:
            if place < len(rows):
                break
            place -= len(rows)
        return rows[place]


def mix(foreground: Tensor, background: Tensor, snr_db: float | None = None, *, offset: float = 0.0) -> Tensor:
    """Add a background to a foreground, as long as the foreground is.

    Parameters
    ----------
    foreground, background : Tensor
        Shapes (samples,) and (other samples,), of one rate. A background that is too short is repeated.
    snr_db : float, optional
        10 log10 of the ratio of their mean squares, which the background is scaled to; None adds it as it is.
    offset : float
        Where in the background to begin, as a fraction from 0 to 1 of what there is to choose from.

    Returns
    -------
    Tensor
        Shape (samples,). Not limited to [-1, 1].

    Raises
    ------
    DataError
        With `snr_db`: one of the two is silent, or the background is empty.

    Examples
    --------
    >>> call, noise = torch.ones(8), torch.tensor([1.0, -1.0])
    >>> float((mix(call, noise, 20.0) - call).abs().mean())
    0.1...
    """
    samples = len(foreground)
    if samples == 0 or len(background) == 0:
        raise DataError(f"a foreground of {samples} and a background of {len(background)} samples cannot be mixed")
    spare = len(background) - samples
    begin = int(offset * (spare + 1 if spare > 0 else len(background)))
    taken = (
        background[begin : begin + samples]
        if spare > 0
        else background.roll(-begin).repeat(-(-samples // len(background)))
    )
    taken = taken[:samples]
    if snr_db is not None:
        powers = [float(part.double().square().mean()) for part in (foreground, taken)]
        if min(powers) < _SILENCE:
            raise DataError(
                f"snr_db is {snr_db:g}, but the {'foreground' if powers[0] < _SILENCE else 'background'} is silent"
            )
        taken = taken * math.sqrt(powers[0] / powers[1] * 10 ** (-snr_db / 10))
    return foreground + taken


def beside_calls(
    manifest_csv: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    gap: float = 0.25,
    max_distance: float = 60.0,
    min_seconds: float = 0.1,
) -> Path:
    """Write a manifest of the audio just beside each call of long recordings: same ids, labels and groups, no call.

    Whatever is trained and tested on it in place of the calls is a background-only score. Each row becomes the stretch
    nearest to it, before or after, that is free of every row of the manifest in that file, as long as the call or as
    long as the free stretch is.

    Parameters
    ----------
    manifest_csv : path
        Calls, as parts (`start`, `stop`) of long recordings. All calls should be among them, whatever their label.
    path : path
        The CSV to write.
    gap : float
        Seconds to keep between a call and what counts as background.
    max_distance : float
        Seconds between the two, at most.
    min_seconds : float
        Shorter stretches are not taken.

    Returns
    -------
    Path
        The CSV. Rows without background beside them are named in its sidecar under `skipped`.

    Raises
    ------
    DataError
        No call has any background beside it.
    """
    whole = read_manifest(manifest_csv)
    busy: dict[Path, list[tuple[float, float]]] = defaultdict(list)
    for row in whole.rows:
        busy[whole.audio_path(row)].append((row["start"] - gap, row["stop"] + gap))
    free = {file: _free(ranges, _seconds(file), min_seconds) for file, ranges in busy.items()}
    rows, skipped = [], []
    for row in whole.rows:
        found = _nearest(free[whole.audio_path(row)], row["start"], row["stop"], gap, max_distance)
        if found is None:
            skipped.append((row["id"], f"has no {min_seconds:g} s of background within {max_distance:g} s"))
        else:
            start, stop = (round(value, 6) for value in found)
            rows.append({**row, "start": start, "stop": stop, "duration": round(stop - start, 6)})
    if not rows:
        raise DataError(
            f"{manifest_csv}: no call has background beside it. Clips cut to their calls have none: use BandStop"
        )
    options = {"beside_calls": True, "gap": gap, "max_distance": max_distance, "min_seconds": min_seconds}
    return write_part(path, rows, whole, skipped=skipped, **options)


def _band(low_hz: float | None, high_hz: float | None) -> tuple[float, float]:
    low, high = 0.0 if low_hz is None else float(low_hz), math.inf if high_hz is None else float(high_hz)
    if not 0 <= low < high:
        raise ConfigError(f"the band is {low_hz}-{high_hz} Hz: expected 0 <= low_hz < high_hz")
    return low, high


def _scaled(waveform: Tensor, gain: Tensor) -> Tensor:
    """Multiply the discrete Fourier transform of a waveform."""
    if len(waveform) == 0:
        return waveform
    return torch.fft.irfft(torch.fft.rfft(waveform) * gain.to(waveform), n=len(waveform))


def _seconds(file: Path) -> float:
    try:
        return audio_info(file).duration
    except AudioError:
        return 0.0  # no background, then; whoever reads the call itself says why


def _free(ranges: Sequence[tuple[float, float]], seconds: float, shortest: float) -> list[tuple[float, float]]:
    """Return the stretches of [0, seconds] that no range covers, in order."""
    free = []
    end = 0.0
    for start, stop in [*sorted(ranges), (seconds, seconds)]:
        if min(start, seconds) - end >= shortest:
            free.append((end, min(start, seconds)))
        end = max(end, stop)
    return free


def _nearest(
    free: Sequence[tuple[float, float]], start: float, stop: float, gap: float, max_distance: float
) -> tuple[float, float] | None:
    """Return the nearest free stretch to a call, no longer than the call."""
    length = stop - start
    place = bisect_left(free, (start, start))
    candidates = [(max(begin, end - length), end) for begin, end in free[max(place - 1, 0) : place]]
    candidates += [(begin, min(end, begin + length)) for begin, end in free[place : place + 1]]
    distance = {c: max(c[0] - stop, start - c[1]) for c in candidates}
    near = [c for c in candidates if distance[c] <= max(max_distance, gap)]
    return min(near, key=lambda c: distance[c], default=None)
