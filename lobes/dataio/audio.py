"""Reading audio files of any rate and format: mono float32 at the rate asked for, or one clear error."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lobes.dataio.block_resampler import ROLLOFF, ZERO_CROSSINGS, BlockResampler
from lobes.errors import DataError

if TYPE_CHECKING:
    import soundfile
    from torch import Tensor

#: What `stop` may exceed the end of a file by: manifests round seconds.
_SLACK_SECONDS = 2e-3
#: An MP3 header may announce up to two MPEG frames (of 1152 samples) that the decoder never returns.
MP3_SLACK = 2 * 1152
#: A WAV or AIFF chunk whose header promises more bytes than the file holds, as libsndfile reports it.
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
#: The same for the whole of a file of the two formats for more than 4 GB, in which libsndfile says it only there.
_SHORT_FILE = re.compile(r"^\s*(?:Riff size|riff)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
#: Sizes from here on are what programs write that stream a WAV and do not know its length.
_STREAMED_SIZE = 0x7FFFFF00
_BLOCK_FRAMES = 1 << 20
#: Numbers in the filter bank of torchaudio's resampler, at most.
_LARGEST_KERNEL = 4_000_000


class AudioError(DataError):
    """An audio file cannot be used.

    Attributes
    ----------
    path : str
        The file.
    reason : str
        What is wrong with it, without the path, on one line.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = str(path)
        self.reason = " ".join(str(reason).split())
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is pickled with its message as the only argument, which would not fit __init__.
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class AudioInfo:
    """Size of an audio file: frames (samples per channel), sample rate in Hz, number of channels."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def audio_info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header of an audio file.

    Parameters
    ----------
    path : path
        WAV, FLAC, OGG, MP3 or whatever else libsndfile reads.

    Returns
    -------
    AudioInfo
        `frames`, `sample_rate` (Hz), `channels` and `duration` (s).

    Raises
    ------
    AudioError
        The file is missing, a folder, empty, truncated or no audio.
    """
    with Opened(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def read_audio(
    path: str | os.PathLike[str],
    sample_rate: int | None = 16000,
    start: float | None = None,
    stop: float | None = None,
    channel: int | None = None,
) -> Tensor:
    """Read an audio file, or a part of it, as mono.

    Only the part asked for is decoded (except in MP3, where libsndfile cannot seek to a sample).

    Parameters
    ----------
    path : path
        WAV, FLAC, OGG, MP3 or whatever else libsndfile reads.
    sample_rate : int, optional
        Rate in Hz to resample to, without aliasing; None keeps the file's own.
    start, stop : float, optional
        Seconds from the beginning of the file; the whole file by default.
    channel : int, optional
        Channel from 0; the mean of all channels by default.

    Returns
    -------
    Tensor
        Float32 samples, shape (samples,), finite, in [-1, 1] for integer formats. Silence is allowed.

    Raises
    ------
    AudioError
        The file is missing, a folder, empty, truncated or no audio, holds NaN or infinite samples, or has no
        such range or channel.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> path = getfixture("tmp_path") / "tone.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> read_audio(path).shape
    torch.Size([16000])
    >>> read_audio(path, start=0.25, stop=0.5, channel=1).shape
    torch.Size([4000])
    """
    with Opened(path) as file:
        first, frames = _frame_range(file, path, start, stop)
        if channel is not None and not 0 <= channel < file.channels:
            raise AudioError(path, f"has no channel {channel + 1}: it has {file.channels}, counted from 1")
        samples = _decode(file, path, first, frames)
        native = file.samplerate
    if not np.isfinite(samples).all():
        raise AudioError(path, "holds NaN or infinite samples")
    mono = samples.mean(axis=1) if channel is None else np.ascontiguousarray(samples[:, channel])
    waveform = torch.from_numpy(mono)
    return waveform if sample_rate in (None, native) else resample(waveform, native, sample_rate)


def check_audio(path: str | os.PathLike[str]) -> AudioInfo:
    """Decode an audio file from end to end, in blocks, and return its size.

    Raises
    ------
    AudioError
        As `read_audio`, for any part of the file.
    """
    with Opened(path) as file:
        expected = file.frames
        found = 0
        for block in _blocks(file):
            found += len(block)
            if not np.isfinite(block).all():
                raise AudioError(path, "holds NaN or infinite samples")
        _check_complete(file, path, expected, found)
        return AudioInfo(found, file.samplerate, file.channels)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate of `waveform` (..., samples) from `from_rate` to `to_rate`, both in Hz.

    A windowed sinc filter (Smith, "Digital Audio Resampling", 2002) of 32 zero crossings removes what lies
    above the new Nyquist frequency; its kernels are kept from call to call.

    Returns
    -------
    Tensor
        Shape (..., ceil(samples * to_rate / from_rate)).
    """
    if from_rate == to_rate:
        return waveform
    common = math.gcd(from_rate, to_rate)
    if (from_rate // common) * (to_rate // common) > _LARGEST_KERNEL:
        # Rates without a common divisor: torchaudio's filter bank, one kernel per phase, would take gigabytes.
        rows = [_resampled_alone(row, from_rate, to_rate) for row in waveform.reshape(-1, waveform.shape[-1])]
        return torch.stack(rows).reshape(*waveform.shape[:-1], -1)
    return _resampler(from_rate, to_rate)(waveform)


def _resampled_alone(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    resampler = BlockResampler(from_rate, to_rate)
    return torch.cat([resampler.feed(waveform), resampler.finish()])


@lru_cache(maxsize=64)
def _resampler(from_rate: int, to_rate: int) -> torch.nn.Module:
    import torchaudio

    # Left to itself, torchaudio computes the filter's phases in float32: an error of 1e-4 at 11025 or 22050 Hz.
    resampler = torchaudio.transforms.Resample(
        from_rate, to_rate, lowpass_filter_width=ZERO_CROSSINGS, rolloff=ROLLOFF, dtype=torch.float64
    )
    return resampler.float()


class Opened:
    """Context manager: a `soundfile.SoundFile`, of which every failure is an AudioError.

    Parameters
    ----------
    path : path
        The file.
    complete : bool
        Refuse a file whose header promises more than is there; False leaves that to the caller (see `truncation`).
    """

    def __init__(self, path: str | os.PathLike[str], complete: bool = True) -> None:
        self.path, self.complete = path, complete

    def __enter__(self) -> soundfile.SoundFile:
        import soundfile

        path = Path(self.path)
        try:
            if path.is_dir():
                raise AudioError(path, "is a folder, not an audio file")
            if path.stat().st_size == 0:
                raise AudioError(path, "is empty (0 bytes)")
        except OSError as error:
            raise AudioError(path, f"cannot be opened: {error.strerror or error}") from error
        try:
            self.file = soundfile.SoundFile(str(path))
        except (soundfile.SoundFileError, OSError, TypeError) as error:
            raise AudioError(path, f"is not readable audio ({short_reason(error)})") from error
        try:
            self._check_header()
        except AudioError:
            self.file.close()
            raise
        return self.file

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        import soundfile

        self.file.close()
        if isinstance(error, (soundfile.SoundFileError, OSError)):
            raise AudioError(self.path, f"is damaged ({short_reason(error)})") from error

    def _check_header(self) -> None:
        if self.file.frames <= 0 or self.file.samplerate <= 0:
            raise AudioError(self.path, "holds no samples")
        reason = truncation(self.file) if self.complete else ""
        if reason:
            raise AudioError(self.path, reason)


_CHUNKED = ("WAV", "WAVEX", "AIFF")
_LARGE = ("RF64", "W64")


def truncation(file: soundfile.SoundFile) -> str:
    """Return what a WAV, RF64, W64 or AIFF header promises beyond the end of the file, in words; empty if nothing."""
    chunk = _SHORT_CHUNK.search(file.extra_info) if file.format in _CHUNKED else None
    if chunk and int(chunk[2]) < int(chunk[1]) < _STREAMED_SIZE:
        return f"is truncated: {chunk[2]} of {chunk[1]} bytes of samples are there"
    whole = _SHORT_FILE.search(file.extra_info) if file.format in _LARGE else None
    if whole and int(whole[2]) < int(whole[1]):
        return f"is truncated: {whole[2]} of {whole[1]} bytes are there"
    return ""


def short_reason(error: BaseException) -> str:
    """Return libsndfile's own words, without the path that `AudioError` names already."""
    text = str(getattr(error, "error_string", "") or error)
    return text.removeprefix("Error : ").rstrip(".") or type(error).__name__


def _frame_range(
    file: soundfile.SoundFile, path: str | os.PathLike[str], start: float | None, stop: float | None
) -> tuple[int, int]:
    """Return the first frame and the number of frames of [start, stop) seconds."""
    begin = 0.0 if start is None else float(start)
    length = file.frames / file.samplerate
    end = length if stop is None else float(stop)
    if not (0 <= begin < end and math.isfinite(end)):
        raise AudioError(path, f"range {begin:g}-{end:g} s is impossible: expected 0 <= start < stop")
    if end > length + _SLACK_SECONDS:
        raise AudioError(path, f"range {begin:g}-{end:g} s ends after the file, which holds {length:.3f} s")
    first = round(begin * file.samplerate)
    frames = min(round(end * file.samplerate), file.frames) - first
    if frames <= 0:
        raise AudioError(path, f"range {begin:g}-{end:g} s holds no sample at {file.samplerate} Hz")
    return first, frames


def _decode(file: soundfile.SoundFile, path: str | os.PathLike[str], first: int, frames: int) -> np.ndarray:
    """Decode `frames` frames from `first` on: float32 of shape (frames, channels)."""
    if file.format == "MP3" or file.subtype.startswith("MPEG"):
        samples = file.read(first + frames, dtype="float32", always_2d=True)[first:]
    else:
        file.seek(first)
        samples = file.read(frames, dtype="float32", always_2d=True)
    _check_complete(file, path, frames, len(samples))
    return samples


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield block


def _check_complete(file: soundfile.SoundFile, path: str | os.PathLike[str], expected: int, found: int) -> None:
    slack = MP3_SLACK if file.subtype.startswith("MPEG") else 0
    if found == 0 or found < expected - slack:
        rate = file.samplerate
        raise AudioError(path, f"is truncated: {found / rate:.3f} of {expected / rate:.3f} s could be decoded")
