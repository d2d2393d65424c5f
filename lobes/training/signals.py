"""Stopping a run from outside: the signals that clusters and people send, and the exit codes they are answered with."""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from types import FrameType
from typing import Any

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

#: The run saved a checkpoint because it was told to stop: run the same command again and it goes on.
EXIT_REQUEUE = 85
#: The run was interrupted with Ctrl-C (128 + SIGINT, as shells have it).
EXIT_INTERRUPTED = 130
#: The run was told to stop and had no checkpointer to save with (128 + SIGTERM).
EXIT_TERMINATED = 143
#: The run met an error that is the user's to mend.
EXIT_ERROR = 2


def _signals(*names: str) -> list[int]:
    """Numbers of those signals that this operating system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


#: SLURM sends SIGUSR1 where ``--signal`` asks for it, and SIGTERM on preemption and at the time limit.
REQUEUE_SIGNALS = _signals("SIGTERM", "SIGUSR1")


class Requeue(SystemExit):
    """Leaves the program with `EXIT_REQUEUE`: it was stopped from outside and can be started again."""

    def __init__(self) -> None:
        super().__init__(EXIT_REQUEUE)


class _Handlers(ABC):
    """Install signal handlers for a `with` block and put the earlier ones back; only the main thread may do so."""

    def __init__(self, signals: list[int]) -> None:
        self._numbers = signals
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Any:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._earlier[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        while self._earlier:
            number, handler = self._earlier.popitem()
            signal.signal(number, handler)

    @abstractmethod
    def _handle(self, number: int, frame: FrameType | None) -> None:
        """React to a signal."""


class StopSignals(_Handlers):
    """Remember SIGTERM, SIGUSR1 and SIGINT inside a `with` block, so that training can stop at a good moment.

    A second Ctrl-C is not remembered but raises `KeyboardInterrupt` at once, for people in a hurry.

    Examples
    --------
    >>> with StopSignals() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print(stop.requeue, stop.interrupt)
    True False
    """

    def __init__(self) -> None:
        super().__init__([*REQUEUE_SIGNALS, signal.SIGINT])
        self.requeue = False
        self.interrupt = False

    def __enter__(self) -> StopSignals:
        self.requeue = self.interrupt = False
        return super().__enter__()

    @property
    def received(self) -> bool:
        """Whether any of the signals came."""
        return self.requeue or self.interrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            self.requeue = True
        elif self.interrupt:
            raise KeyboardInterrupt
        else:
            self.interrupt = True
            logger.warning("stopping after this step; press Ctrl-C again to stop at once, without a checkpoint")


def shield_worker() -> None:
    """Let a data loader's worker process outlive a signal that is sent to all processes of a job.

    Otherwise the workers die first, and their death is an error in the process that was about to save. SIGTERM from
    the parent itself still ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in REQUEUE_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class RequeueAtOnce(_Handlers):
    """Inside the `with` block SIGTERM and SIGUSR1 raise `Requeue`; for the parts of a run that have nothing to save."""

    def __init__(self) -> None:
        super().__init__(REQUEUE_SIGNALS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        raise Requeue
