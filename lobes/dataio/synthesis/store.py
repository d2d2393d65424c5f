"""A folder of generated utterances that grows as more of them are asked for."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import wave
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lobes.dataio.manifest import atomic_write
from lobes.dataio.synthesis.espeak import Espeak
from lobes.dataio.synthesis.utterances import SAMPLE_RATE, Utterance, plan_utterance, record
from lobes.dataio.synthesis.voices import Speaker
from lobes.errors import DataError

_SOURCES = "channel espeak espeak_worker french_grammar french_lexicon french_numbers french_text utterances voices"
_WAV_HEADER_BYTES = 44


def sources_digest() -> str:
    """Digest of the programs that decide what an utterance sounds like: when one changes, old audio is not reused."""
    digest = hashlib.sha256()
    for name in _SOURCES.split():
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


@dataclass
class SpeechStore:
    """The utterances of one corpus, made when first asked for and kept as WAV files.

    A file is complete or absent, so work that was interrupted continues where it stopped, and two processes may fill
    the same folder at once. The folder's name holds a digest of everything that the audio depends on; how much of it
    there is, is not part of that.

    Parameters
    ----------
    parent : Path
        Folder in which the corpus gets one of its own.
    seed : int
        Seed of the corpus.
    cast : sequence of Speaker
        Its speakers.
    snr_db : tuple of float
        Range of signal-to-noise ratios in dB.

    Raises
    ------
    DataError
        On use: eSpeak NG is needed but missing, or another version than the one that the folder began with; the
        folder cannot be written.
    """

    parent: Path
    seed: int
    cast: Sequence[Speaker]
    snr_db: tuple[float, float]
    _espeaks: list[Espeak] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.options = {
            "seed": self.seed,
            "n_speakers": len(self.cast),
            "snr_db": list(self.snr_db),
            "sources": sources_digest(),
        }
        name = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()[:10]
        self.folder = Path(self.parent) / f"minifrench-{name}"

    def path(self, utterance: Utterance) -> Path:
        """File of an utterance."""
        return self.folder / utterance.speaker.name / f"{utterance.id}.wav"

    def utterances(self, indices: Iterable[int], n_jobs: int) -> Generator[tuple[Utterance, float], None, None]:
        """Yield utterances and their durations in seconds, in the order of `indices`, making those that are missing.

        Some more of `indices` than were consumed may be made. Each of the `n_jobs` threads drives an eSpeak NG process.
        """
        own = threading.local()
        pending: deque[Future[tuple[Utterance, float]]] = deque()
        pool = ThreadPoolExecutor(n_jobs)
        try:
            for index in indices:
                pending.append(pool.submit(self._ensure, index, own))
                if len(pending) >= 4 * n_jobs:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            while self._espeaks:
                self._espeaks.pop().close()

    def _ensure(self, index: int, own: threading.local) -> tuple[Utterance, float]:
        utterance = plan_utterance(index, self.seed, self.cast)
        path = self.path(utterance)
        try:
            if not (path.is_file() and path.stat().st_size > _WAV_HEADER_BYTES):
                write_wav(path, record(utterance, self._espeak(own), self.seed, self.snr_db))
            samples = (path.stat().st_size - _WAV_HEADER_BYTES) // 2
        except OSError as error:
            raise DataError(f"data_folder={self.parent}: {error}; choose a folder with room to write in") from error
        return utterance, samples / SAMPLE_RATE

    def _espeak(self, own: threading.local) -> Espeak:
        """This thread's eSpeak NG, started and checked the first time."""
        if not hasattr(own, "espeak"):
            espeak = Espeak()
            espeak.start()
            with self._lock:
                self._espeaks.append(espeak)
                self._check_version(espeak.version)
            own.espeak = espeak
        return own.espeak

    def _check_version(self, version: str) -> None:
        """Keep utterances of two versions of eSpeak NG out of one folder."""
        path = self.folder / "generator.json"
        if not path.is_file():
            atomic_write(path, json.dumps({**self.options, "espeak_ng": version}, indent=1) + "\n")
        made_with = json.loads(path.read_text(encoding="utf-8"))["espeak_ng"]
        if made_with != version:
            raise DataError(
                f"{self.folder}: begun with eSpeak NG {made_with}, but {version} is installed; delete the folder, or "
                "install the version of espeakng-loader that it was begun with"
            )


def take_seconds(clips: Iterator[tuple[Utterance, float]], seconds: float) -> Iterator[tuple[Utterance, float]]:
    """The first clips whose total duration comes nearest to `seconds`."""
    total = 0.0
    for utterance, duration in clips:
        if total + duration - seconds > seconds - total:
            return
        total += duration
        yield utterance, duration
        if total >= seconds:
            return


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write int16 samples (n,) at 16 kHz as a WAV file, all at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with closing(wave.open(str(partial), "wb")) as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.astype("<i2").tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
