"""eSpeak NG behind a pipe: `python -m lobes.dataio.synthesis.espeak_worker`.

eSpeak NG is licensed under the GPL-3; this program, which alone loads it, runs in a process of its own. It uses the
standard library and `espeakng-loader` only, so that it starts at once.

Protocol
--------
On start it writes one JSON line: `{"version", "sample_rate", "resets"}`, or `{"error"}` and exits. Then each request,
one JSON line `{"text", "voice", "rate", "pitch", "range", "volume", "seed"}`, is answered by one JSON line
`{"samples": n}` followed by n little-endian int16 samples, or by `{"error"}`. It ends with its standard input.

eSpeak NG carries state (wave phase, flutter, echo) from one sentence to the next. To make a sentence depend on its
request alone, the library is unloaded and loaded afresh before each one, which takes a millisecond. `resets` says
whether that works here; where it does not, the caller starts a process per sentence.
"""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
import signal
import sys
from typing import BinaryIO

# Constants of espeak-ng/speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Engine:
    """The eSpeak NG library, loaded afresh for every sentence."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library_path = espeakng_loader.get_library_path()
        self.data_path = os.fsencode(espeakng_loader.get_data_path())
        self._pcm = bytearray()
        self._callback = CALLBACK(self._receive)  # kept: the library holds only a bare pointer to it
        self._used = False
        self._load()
        self.library.espeak_Info.restype = ctypes.c_char_p
        self.version = self.library.espeak_Info(None).decode().split()[0]

    def _receive(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, 2 * count)
        return 0

    def _load(self) -> None:
        self.library = ctypes.CDLL(self.library_path)
        self.sample_rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, self.data_path, INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise OSError(f"espeak_Initialize failed on {self.data_path.decode()}")
        self.library.espeak_SetSynthCallback(self._callback)

    def _reload(self) -> None:
        self.library.espeak_Terminate()
        unload = getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")
        unload(self.library._handle)
        self._load()

    def speak(self, text: str, voice: str, seed: int = 0, **parameters: int) -> bytes:
        """Native-endian int16 samples of one sentence; ValueError where eSpeak NG refuses the voice or the text."""
        if self._used:
            self._reload()
        self._used = True
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"voice={voice!r}: eSpeak NG has no such voice")
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        for name, value in parameters.items():
            self.library.espeak_SetParameter(PARAMETERS[name], int(value), 0)
        self._pcm.clear()
        data = text.encode() + b"\0"
        if self.library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, CHARS_UTF8, None, None) != 0:
            raise ValueError(f"text={text!r}: eSpeak NG could not speak it")
        self.library.espeak_Synchronize()
        return bytes(self._pcm)

    def resets(self) -> bool:
        """Whether a sentence sounds the same after another one as it did first."""
        first = self.speak("un deux", "fr+m1")
        self.speak("trois quatre cinq", "fr+f2")
        return self.speak("un deux", "fr+m1") == first


def claim_stdout() -> BinaryIO:
    """The standard output for the protocol alone; whatever the library prints goes to standard error."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(pipe.fileno(), os.O_BINARY)
    return pipe


def _answer(engine: Engine, line: bytes, pipe: BinaryIO) -> None:
    try:
        pcm = engine.speak(**json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        _send(pipe, error=str(error))
        return
    if sys.byteorder == "big":
        swapped = bytearray(pcm)
        swapped[0::2], swapped[1::2] = pcm[1::2], pcm[0::2]
        pcm = bytes(swapped)
    _send(pipe, pcm, samples=len(pcm) // 2)


def _send(pipe: BinaryIO, pcm: bytes = b"", **header: object) -> None:
    pipe.write(json.dumps(header).encode() + b"\n" + pcm)
    pipe.flush()


def main() -> int:
    """Serve requests until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who then closes our input
    pipe = claim_stdout()
    try:
        engine = Engine()
        _send(pipe, version=engine.version, sample_rate=engine.sample_rate, resets=engine.resets())
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        _send(pipe, error=f"{type(error).__name__}: {error}")
        return 1
    for line in sys.stdin.buffer:
        _answer(engine, line, pipe)
    return 0


if __name__ == "__main__":
    sys.exit(main())
