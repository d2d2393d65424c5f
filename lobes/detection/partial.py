"""The scores of a recording that a run is in the middle of: kept on disk, so that the next run goes on from there."""

from __future__ import annotations

import glob
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobes.dataio import Recording
from lobes.dataio.manifest import atomic_write
from lobes.detection.detector import Detector
from lobes.detection.scoring import score_recording

logger = logging.getLogger(__name__)

#: Frames that are read from the disk at once.
_PIECE = 1 << 14


class PartialScores:
    """The first scores of a recording, in two files.

    ``<file>.scores`` holds float32 rows, one per frame, and only ever grows. ``<file>.partial`` says how many of them
    count, their CRC-32, and what they depend on; it is replaced all at once when its rows are on the disk. Whatever a
    kill leaves is therefore the state of one moment: rows that are not counted yet are overwritten.

    Parameters
    ----------
    folder : Path
        Of the state of a run.
    file : str
        The recording, relative to the folder of recordings.
    stamp : mapping
        What the scores depend on; what is kept of another recording, model or option is ignored.
    n_events : int
        Columns.

    Attributes
    ----------
    known : int
        Frames that are kept.
    faults : list of (frame, count)
        Of the recording, as far as they were heard: `Recording.faults`.
    """

    def __init__(self, folder: Path, file: str, stamp: Mapping[str, Any], n_events: int) -> None:
        self.about, self.rows = _paths(folder, file)
        self.stamp, self.n_events = dict(stamp), n_events
        self.known, self._crc = 0, 0
        self.faults: list[tuple[int, int]] = []
        reason = self._read()
        if reason:
            logger.warning("%s: begun again, for what is kept of it %s", file, reason)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield what is kept, (n, events) each."""
        left = self.known
        if not left:
            return
        with self.rows.open("rb") as stream:
            while left:
                count = min(left, _PIECE)
                values = np.frombuffer(stream.read(count * self._width), dtype="<f4")
                yield values.reshape(count, self.n_events).astype(np.float32)
                left -= count

    def add(self, scores: NDArray[np.float32], faults: Sequence[tuple[int, int]]) -> None:
        """Keep the next frames too.

        Parameters
        ----------
        scores : array (n, events)
            They follow those that are known.
        faults : sequence of (frame, count)
            `Recording.faults` as far as it was read, which may be further.
        """
        values = scores.astype("<f4").tobytes()
        self.rows.parent.mkdir(parents=True, exist_ok=True)
        with self.rows.open("r+b" if self.known else "wb") as stream:
            stream.seek(self.known * self._width)
            stream.truncate()
            stream.write(values)
            stream.flush()
            os.fsync(stream.fileno())
        self.known, self.faults = self.known + len(scores), list(faults)
        self._crc = zlib.crc32(values, self._crc)
        about = {"stamp": self.stamp, "frames": self.known, "crc": self._crc, "faults": self.faults}
        atomic_write(self.about, json.dumps(about) + "\n")

    @property
    def _width(self) -> int:
        """Bytes of a row."""
        return 4 * self.n_events

    def _read(self) -> str:
        """Take up what is kept, or say why it cannot be; empty also where nothing is."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            if about["stamp"] != self.stamp:
                return "is of another file, model or option"
            known, faults = int(about["frames"]), [(int(frame), int(count)) for frame, count in about["faults"]]
            crc = 0
            with self.rows.open("rb") as stream:
                for start in range(0, known, _PIECE):
                    count = min(known - start, _PIECE)
                    data = stream.read(count * self._width)
                    if len(data) < count * self._width:
                        return "is truncated"
                    crc = zlib.crc32(data, crc)
            if crc != about["crc"]:
                return "is damaged"
        except FileNotFoundError:
            return "lacks its scores" if self.about.exists() else ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"cannot be read ({type(error).__name__})"
        self.known, self.faults, self._crc = known, faults, crc
        return ""


def scores_from(
    detector: Detector, recording: Recording, partial: PartialScores, batch_size: int, every: int
) -> Iterator[NDArray[np.float32]]:
    """Yield what `score_recording` does, to the last bit: first what is kept, then the rest, which is kept on the way.

    Parameters
    ----------
    detector, recording, batch_size
        As for `score_recording`.
    partial : PartialScores
        Of the same detector, recording and batch size.
    every : int
        Frames after which new ones are kept.
    """
    yield from partial.pieces()
    recording.faults = partial.faults
    new: list[NDArray[np.float32]] = []
    for piece in score_recording(detector, recording, batch_size, known=partial.known):
        # Written only when there are more, so that never all frames are known before the recording's end is.
        if sum(map(len, new)) >= every:
            partial.add(np.concatenate(new), recording.faults)
            new = []
        new.append(piece)
        yield piece


def remove_partial(folder: Path, file: str) -> None:
    """Remove what is kept of a recording that is done."""
    about, rows = _paths(folder, file)
    if rows.exists():
        for path in about.parent.glob(f".{glob.escape(about.name)}.*.tmp"):  # from a kill while it was written
            path.unlink(missing_ok=True)
        about.unlink(missing_ok=True)
        rows.unlink(missing_ok=True)


def _paths(folder: Path, file: str) -> tuple[Path, Path]:
    return folder / f"{file}.partial", folder / f"{file}.scores"
