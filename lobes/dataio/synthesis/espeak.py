"""A client for eSpeak NG, which runs in a process of its own (see `espeak_worker`)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from lobes.errors import DataError

PACKAGE = "espeakng_loader"
WORKER = Path(__file__).with_name("espeak_worker.py")
Result = TypeVar("Result")


class WorkerDied(Exception):
    """The eSpeak NG process ended, or was ended because it did not answer in time."""


class Espeak:
    """One eSpeak NG process, started at the first sentence.

    A sentence is a function of the arguments of `synthesise` alone. A process that crashes or hangs is started once
    more for the sentence at hand; a second failure is a `DataError`. Use it from one thread at a time.

    Parameters
    ----------
    timeout : float
        Seconds to wait for an answer before the process counts as hung.
    command : sequence of str, optional
        The program that speaks the protocol, by default our worker. It is run as a file rather than as a module, so
        that it need not import the rest of the package.

    Raises
    ------
    DataError
        From `synthesise`: eSpeak NG is not installed or cannot be loaded, refuses the voice, or failed twice.

    Examples
    --------
    >>> with Espeak() as espeak:  # doctest: +SKIP
    ...     pcm = espeak.synthesise("Bonjour.", voice="fr+f2")
    ...     seconds = len(pcm) / espeak.sample_rate
    """

    def __init__(self, timeout: float = 30.0, command: Sequence[str] | None = None) -> None:
        self.timeout = timeout
        self.command = list(command or (sys.executable, str(WORKER)))
        self._needs_package = command is None
        self._process: subprocess.Popen[bytes] | None = None
        self._resets = True
        self.sample_rate = 0
        self.version = ""

    def __enter__(self) -> Espeak:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def synthesise(
        self,
        text: str,
        voice: str = "fr",
        rate: int = 165,
        pitch: int = 50,
        pitch_range: int = 50,
        volume: int = 60,
        seed: int = 0,
    ) -> np.ndarray:
        """Speak one sentence.

        Parameters
        ----------
        text : str
            Punctuation shapes the intonation.
        voice : str
            An eSpeak NG voice, with a variant after `+`: `fr-be+m3`.
        rate : int
            Words per minute, 80 to 450.
        pitch, pitch_range : int
            0 to 100.
        volume : int
            100 is eSpeak NG's default, at which loud variants clip.
        seed : int
            Of the roughness and breath noises.

        Returns
        -------
        np.ndarray
            int16 samples (n,) at `self.sample_rate` Hz.
        """
        request = {"text": text, "voice": voice, "rate": rate, "pitch": pitch, "range": pitch_range}
        line = json.dumps({**request, "volume": volume, "seed": seed}).encode() + b"\n"
        return self._twice(lambda: self._ask(line), f"text={text!r}, voice={voice!r}")

    def start(self) -> None:
        """Start the process if none runs, and learn `version` and `sample_rate`."""
        self._twice(self._start, "start")

    def _twice(self, action: Callable[[], Result], what: str) -> Result:
        """Do something with the process; should that die, do it once more with a new one."""
        for last in (False, True):
            try:
                return action()
            except WorkerDied as death:
                self.close()
                if last:
                    raise DataError(
                        f"{what}: the eSpeak NG process {death}, twice; reinstall espeakng-loader"
                    ) from None
        raise AssertionError("the loop returns or raises")

    def _start(self) -> None:
        if self._process is not None:
            return
        if self._needs_package and importlib.util.find_spec(PACKAGE) is None:
            raise DataError(
                "espeakng-loader: not installed, but needed to generate speech with eSpeak NG (GPL-3, in a process of "
                "its own); run `pip install espeakng-loader`, or `pip install -e .[minifrench]` in a checkout"
            )
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        hello, _ = self._exchange(b"")
        if "error" in hello:
            self.close()
            raise DataError(f"espeakng-loader: cannot be loaded ({hello['error']}); reinstall espeakng-loader")
        self.version, self.sample_rate = hello["version"], hello["sample_rate"]
        self._resets = hello["resets"]

    def _ask(self, line: bytes) -> np.ndarray:
        self._start()
        answer, pcm = self._exchange(line)
        if not self._resets:
            self.close()
        if "error" in answer:
            raise DataError(f"eSpeak NG: {answer['error']}")
        return np.frombuffer(pcm, "<i2")

    def _exchange(self, line: bytes) -> tuple[dict, bytes]:
        """Write `line`, read one header line and the samples it announces; `WorkerDied` on a crash or a time-out."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        # Killing the process is what makes a blocked read return, on every platform.
        watchdog = threading.Timer(self.timeout, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            header = process.stdout.readline()
            answer = json.loads(header) if header.endswith(b"\n") else None
            wanted = 2 * answer.get("samples", 0) if answer else 0
            pcm = process.stdout.read(wanted)
            if answer is None or len(pcm) != wanted:
                raise WorkerDied("crashed or did not answer in time")
            return answer, pcm
        except (OSError, ValueError) as error:
            raise WorkerDied(f"failed ({error})") from None
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """End the process, if one runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # unsent bytes to a process that has ended
                    continue
