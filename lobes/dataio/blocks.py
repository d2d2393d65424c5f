"""Recordings of any length in constant memory: in blocks at one rate, and cut into overlapping windows."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lobes.dataio.audio import MP3_SLACK, AudioError, AudioInfo, Opened, resample, short_reason, truncation
from lobes.dataio.block_resampler import BlockResampler
from lobes.errors import ConfigError

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Frames decoded and resampled at once. Always the same, so that the size of the blocks handed out changes no bit.
_CHUNK = 1 << 16
#: Encodings besides PCM in which each sample stands for itself, so that reading can begin at any of them.
_EXACT = ("FLOAT", "DOUBLE", "ULAW", "ALAW")


class Recording:
    """A recording of any length, sample rate, format and number of channels, as mono blocks at one rate.

    What can be read is given and the rest reported, in `problems`: a file that ends before its header says so, or that
    is damaged from some point on, is read up to there; samples that are NaN or infinite become silence.

    Parameters
    ----------
    path : path
        WAV, FLAC, OGG, MP3 or whatever else libsndfile reads.
    sample_rate : int, optional
        Rate in Hz to resample to, without aliasing (`BlockResampler`); None keeps the file's own.
    channel : int, optional
        Channel from 0; the mean of all channels by default.

    Attributes
    ----------
    info : AudioInfo
        Frames, rate (Hz) and channels according to the header.
    sample_rate : int
        Hz, of the blocks.
    problems : list of str
        What was wrong with the file, as far as it has been read.
    seconds : float
        How much was decoded so far.
    faults : list of (frame, count)
        How many samples were NaN or infinite in what is decoded at once from that frame of the file on, so far.

    Raises
    ------
    AudioError
        The file is missing, a folder, empty or no audio, or has no such channel. While reading: nothing of it could
        be decoded.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = getfixture("tmp_path") / "night.wav"
    >>> soundfile.write(path, np.zeros((8000 * 5, 2)), 8000)
    >>> recording = Recording(path, 16000)
    >>> [len(block) for block in recording.blocks(seconds=2.0)], recording.problems
    ([32000, 32000, 16000], [])
    """

    def __init__(
        self, path: str | os.PathLike[str], sample_rate: int | None = 16000, channel: int | None = None
    ) -> None:
        self.path = Path(path)
        with Opened(path, complete=False) as file:
            self.info = AudioInfo(file.frames, file.samplerate, file.channels)
        if channel is not None and not 0 <= channel < self.info.channels:
            raise AudioError(path, f"has no channel {channel + 1}: it has {self.info.channels}, counted from 1")
        self.channel = channel
        self.sample_rate = sample_rate or self.info.sample_rate
        self.problems: list[str] = []
        self.seconds = 0.0
        self.faults: list[tuple[int, int]] = []

    def blocks(self, seconds: float = 60.0, first: int = 0) -> Iterator[Tensor]:
        """Yield the recording, (samples,) float32; all blocks but the last are equally long.

        Put together they are `resample` of the whole file, within 1e-5, and the same to the last bit whatever the
        length of the blocks, and wherever they begin.

        Parameters
        ----------
        seconds : float
            Of a block.
        first : int
            Sample of `sample_rate` to begin with. What comes before is not read, unless it is coded with loss (MP3,
            Ogg): a decoder that is put into such a file may be off, so that it is decoded from its beginning and passed
            over. Samples that were NaN or infinite there are reported too: to go on in another run, set the `faults`
            of the run before.
        """
        size = max(1, round(seconds * self.sample_rate))
        ready: list[Tensor] = []
        count = 0
        for piece in self._pieces(first):
            ready.append(piece)
            count += len(piece)
            if count >= size:
                joined = torch.cat(ready)
                whole = count - count % size
                yield from joined[:whole].split(size)
                ready, count = [joined[whole:].clone()], count - whole
        if count:
            yield torch.cat(ready)

    def _pieces(self, first: int) -> Iterator[Tensor]:
        """Mono, resampled, as decoded."""
        resampler = BlockResampler(self.info.sample_rate, self.sample_rate)
        # A place where decoding goes on in any run, so that no bit changes, and by which `first` has not come out yet.
        found = first * self.info.sample_rate // self.sample_rate // _CHUNK * _CHUNK
        needed, given = resampler.place(found)
        self.problems, self.seconds = [], 0.0
        self.faults = [(frame, count) for frame, count in self.faults if frame < found]
        with Opened(self.path, complete=False) as file:
            if found:
                resampler.resume(found, self._history(file, max(needed, 0), found))
            left = first - given
            for samples in self._decoded(file):
                mono, faults = _mono(samples, self.channel)
                if faults:
                    self.faults.append((found, faults))
                found += len(samples)
                self.seconds = found / self.info.sample_rate
                piece = resampler.feed(mono)
                yield piece[left:]
                left = max(left - len(piece), 0)
            yield resampler.finish()[left:]
            self._check(file, found)

    def _history(self, file: soundfile.SoundFile, begin: int, end: int) -> Tensor:
        """Frames from `begin` to `end`, mono; what is decoded next comes after them."""
        if self._seeks(begin):
            file.seek(begin)
            return _mono(file.read(end - begin, dtype="float32", always_2d=True), self.channel)[0]
        logger.info("%s (%s) has no exact places: decoded again from its beginning", self.path, file.subtype)
        kept, place = [torch.zeros(0)], 0
        for samples in self._decoded(file):
            place += len(samples)
            if place > begin:
                kept.append(_mono(samples, self.channel)[0][-(place - begin) :])
            if place >= end:
                break
        return torch.cat(kept)

    def _seeks(self, frame: int) -> bool:
        """Whether the file can be entered at a frame exactly; damage may be in the way."""
        try:
            with Opened(self.path, complete=False) as file:
                exact = file.subtype.startswith("PCM") or file.subtype in _EXACT
                return exact and file.seek(frame) == frame and len(file.read(1)) == 1
        except AudioError:
            return False

    def _decoded(self, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        """Frames (n, channels), float32, up to the end or the first damage."""
        import soundfile

        samples = np.empty((_CHUNK, file.channels), dtype=np.float32)
        while True:
            before = file.tell()
            try:
                read = len(file.read(out=samples))
            except (soundfile.SoundFileError, OSError) as error:
                # What came before the damage has been decoded into the buffer.
                read = max(file.tell() - before, 0)
                place = (before + read) / file.samplerate
                self.problems.append(f"is damaged at {place:.3f} s ({short_reason(error)}): not read from there on")
                yield samples[:read]
                return
            if read == 0:
                return
            yield samples[:read]

    def _check(self, file: soundfile.SoundFile, found: int) -> None:
        """Report what was less than the header promised."""
        slack = MP3_SLACK if file.subtype.startswith("MPEG") else 0
        reason = truncation(file)
        if not reason and not self.problems and found < file.frames - slack:
            promised = file.frames / file.samplerate
            reason = f"is truncated: {self.seconds:.3f} of {promised:.3f} s could be decoded"
        if reason:
            self.problems.append(reason)
        bad = sum(count for _, count in self.faults)
        if bad:
            self.problems.append(f"holds {bad} NaN or infinite samples, read as silence")
        if not found:
            raise AudioError(self.path, "; ".join(self.problems) or "holds no samples")
        for problem in self.problems:
            logger.warning("%s %s", self.path, problem)


def read_part(
    path: str | os.PathLike[str],
    start: float,
    stop: float,
    sample_rate: int | None = 16000,
    channel: int | None = None,
) -> Tensor:
    """Read a part of a recording to look at or listen to, also of one that is truncated.

    As `read_audio`, but what the file does not hold is left out rather than refused, in an MP3 of any length too, where
    the place may be some milliseconds off.

    Returns
    -------
    Tensor
        Float32 samples, (samples,): fewer than asked for where the file ends.

    Raises
    ------
    AudioError
        Nothing of it could be decoded.
    """
    with Opened(path, complete=False) as file:
        rate = file.samplerate
        first = min(max(round(start * rate), 0), file.frames)
        file.seek(first)
        samples = file.read(max(round(stop * rate) - first, 0), dtype="float32", always_2d=True)
    if not len(samples):
        raise AudioError(path, f"holds nothing between {start:g} and {stop:g} s")
    waveform, _ = _mono(samples, channel)
    return waveform if sample_rate in (None, rate) else resample(waveform, rate, sample_rate)


def _mono(samples: np.ndarray, channel: int | None) -> tuple[Tensor, int]:
    """One channel of frames (n, channels), or their mean, (n,); and how many of it were no numbers and are zero now."""
    n_channels = samples.shape[1]
    if channel is None and n_channels > 1:
        # As a product, which is several times as fast as a mean over so short an axis.
        mono = samples @ np.full(n_channels, 1 / n_channels, dtype=np.float32)
    else:
        mono = samples[:, channel or 0].copy()
    finite = np.isfinite(mono)
    faults = len(mono) - int(np.count_nonzero(finite))
    if faults:
        mono[~finite] = 0.0
    return torch.from_numpy(mono), faults


class WindowBatch(NamedTuple):
    """Windows of one recording, in order."""

    audio: Tensor
    """(B, samples), float32; zeros behind the end of the recording."""
    samples: Tensor
    """(B,), int64: how many of them are real."""
    first: int
    """Number of the first window, from 0: window k begins at sample k · hop."""


def window_batches(
    blocks: Iterable[Tensor], window: int, hop: int, batch_size: int, first: int = 0
) -> Iterator[WindowBatch]:
    """Cut a recording into overlapping windows, across the borders of its blocks.

    Window k begins at sample k · hop. The last is the first one that reaches the recording's end; what it lacks is
    zeros, so that nothing at the end is lost. A recording shorter than a window is one window.

    Parameters
    ----------
    blocks : iterable of Tensor
        (samples,) each, as `Recording.blocks` gives them; their lengths change nothing.
    window, hop : int
        Samples, 1 <= hop <= window.
    batch_size : int
        Windows that are yielded at once; the last time perhaps fewer.
    first : int
        Number of the window that `blocks` begin with.

    Raises
    ------
    ConfigError
        Sizes are impossible.

    Example
    -------
    >>> [batch] = window_batches([torch.arange(3.0), torch.arange(3.0, 7.0)], window=4, hop=2, batch_size=8)
    >>> batch.audio.tolist(), batch.samples.tolist()
    ([[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], [4.0, 5.0, 6.0, 0.0]], [4, 4, 3])
    """
    if not 1 <= hop <= window or batch_size < 1:
        raise ConfigError(
            f"window {window}, hop {hop}, batch_size {batch_size}: expected 1 <= hop <= window and a batch of 1 or more"
        )
    enough = (batch_size - 1) * hop + window
    pending: list[Tensor] = []
    count = 0
    for block in blocks:
        pending.append(block)
        count += len(block)
        if count < enough:
            continue
        joined = torch.cat(pending)
        while len(joined) >= enough:
            audio = joined.unfold(0, window, hop)[:batch_size].clone()
            yield WindowBatch(audio, torch.full((batch_size,), window), first)
            first += batch_size
            joined = joined[batch_size * hop :]
        pending, count = [joined.clone()], len(joined)
    # Windows overlap: what is pending may have been given already, as the end of the window before.
    overlap = window - hop if first else 0
    if count > overlap:
        n_windows = 1 + max(0, -(-(count - window) // hop))
        rest = torch.cat(pending)
        samples = (count - torch.arange(n_windows) * hop).clamp(max=window)
        rest = torch.nn.functional.pad(rest, (0, (n_windows - 1) * hop + window - count))
        yield WindowBatch(rest.unfold(0, window, hop).clone(), samples, first)


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the items while a thread prepares the next ones, `depth` at most: reading while a model computes.

    An error in the thread is raised here, in its place. Leaving the loop early ends the thread.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, item: T | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stop.is_set():
                    return
        except BaseException as error:
            put("error", error)
        put("end", None)

    thread = threading.Thread(target=work, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "item":
                yield item  # type: ignore[misc]
            elif kind == "error":
                raise item  # type: ignore[misc]
            else:
                return
    finally:
        stop.set()
        thread.join()
