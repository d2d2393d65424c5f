"""A piece of work is one process's: a claim is a file beside it, and outlives neither its process nor its heartbeat."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

#: The exit code of a process that finds that another has taken its work over (`EX_TEMPFAIL` of BSD's sysexits).
EXIT_LOST = 75
#: Seconds after which a claim that cannot be read is taken for one whose process ended while it wrote it.
_UNREADABLE = 60.0


class Claim:
    """The right to do a piece of work, as long as a file says so.

    The file is made with ``O_EXCL``, so that one of several processes gets it, on this host or on others that share the
    folder, and holds host, process and time. Its process touches it every `beat` seconds. It is stale, and taken over,
    when its process is gone (on this host), or when it has not been touched for `stale` seconds. Taking over is under a
    lock (``flock``), which ends with its process.

    A process that was suspended for longer than `stale`, and whose claim was taken over, ends itself with `EXIT_LOST`
    at its next beat.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    stale : float
        Seconds.
    beat : float
        Seconds; 0 does not touch it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "claim.json"
    >>> with Claim(path) as claim:
    ...     claim.held, Claim(path).take()
    (True, False)
    >>> path.exists()
    False
    """

    def __init__(self, path: Path, stale: float = 1800.0, beat: float = 30.0) -> None:
        self.path = Path(path)
        self.stale = stale
        self.beat = beat
        self.held = False
        self._token = uuid.uuid4().hex
        self._over = threading.Event()

    def take(self) -> bool:
        """Try to get the work; return whether it is this process's."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.held = self._create() or (self._is_stale() and self._take_over())
        if self.held and self.beat > 0:
            threading.Thread(target=self._touch, name=f"claim {self.path}", daemon=True).start()
        return self.held

    def release(self) -> None:
        """Give the work up, done or not."""
        self._over.set()
        if self.held and self._read().get("token") == self._token:
            self.path.unlink(missing_ok=True)
        self.held = False

    def live(self) -> bool:
        """Whether a process has it that has not fallen silent."""
        return self.path.exists() and not self._is_stale()

    def holder(self) -> str:
        """Who has it, in words; empty if no one."""
        known = self._read()
        if not known:
            return "someone" if self.path.exists() else ""
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(known["time"]))
        return f"process {known['pid']} on {known['host']} since {since} UTC"

    def __enter__(self) -> Claim:
        self.take()
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _content(self) -> bytes:
        pid = os.getpid()
        known = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "time": time.time()}
        return json.dumps({**known, "token": self._token}).encode()

    def _create(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self._content())
        finally:
            os.close(descriptor)
        return True

    def _read(self) -> dict[str, Any]:
        """What the file says; nothing if it is not there or not (yet) whole."""
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) and {"host", "pid", "time", "token"} <= set(known) else {}

    def _is_stale(self) -> bool:
        known = self._read()
        try:
            age = time.time() - self.path.stat().st_mtime
        except OSError:
            return False  # given up this moment: who asks next can have it
        if not known:
            return age > _UNREADABLE
        if known["host"] == socket.gethostname():
            # A number is given again to other processes: the time at which it started tells them apart.
            if not _alive(known["pid"]) or _started(known["pid"]) != known.get("started"):
                return True
        return age > self.stale

    def _take_over(self) -> bool:
        """Put this process's claim in place of a stale one, unless another does so first."""
        with open(self.path.with_name(f"{self.path.name}.lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._is_stale():
                return False
            logger.info(f"{self.path}: taken over from {self.holder()}, which is gone")
            partial = self.path.with_name(f"{self.path.name}.{self._token}")
            partial.write_bytes(self._content())
            os.replace(partial, self.path)
        return True

    def _touch(self) -> None:
        while not self._over.wait(self.beat):
            known = self._read()
            if known and known["token"] != self._token:
                print(f"error: {self.path}: was taken over by {self.holder()}; this process stops", file=sys.stderr)
                os._exit(EXIT_LOST)
            try:
                os.utime(self.path)
            except OSError as error:
                logger.warning(f"{self.path} cannot be touched: {error}")


def _alive(pid: int) -> bool:
    """Whether a process of this host runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat(pid)[:1] != ["Z"]


def _started(pid: int) -> str:
    """When a process of this host started, in the system's ticks; empty where the system does not tell."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def _stat(pid: int) -> list[str]:
    """Fields of Linux's /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
