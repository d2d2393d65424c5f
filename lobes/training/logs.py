"""The files that a run fills as it goes: the loss of every step, and the items that could not be used."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable
from pathlib import Path

from speechbrain.utils.logger import get_logger

from lobes.training.parallel import gather, rank

logger = get_logger(__name__)

_IMPORTED = time.monotonic()


class TrainLog:
    """`train_log.csv`: one row per optimizer step, each step exactly once, however often the run was interrupted.

    Rows are on disk (in the system's cache) before the checkpoint of their step is, so that after a crash the rows up
    to the checkpoint are all there. Numbers are written so that they read back as the same float.

    Parameters
    ----------
    path : Path
        The file.
    last_step : int
        Rows of later steps are removed: the run goes on after this step. 0 starts anew.
    """

    def __init__(self, path: Path, last_step: int = 0) -> None:
        self.path = Path(path)
        self._rows = self._read(last_step) if last_step > 0 else []
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()

    def write(self, row: dict[str, float]) -> None:
        """Append a row; a key not seen before becomes a new column."""
        new = [key for key in row if key not in self._columns]
        if new:
            self._rows = self._read(None) if self._columns else []
            self._columns += new
            self._rewrite()
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _read(self, last_step: int | None) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["step"].isdigit() and None not in row.values()]
        return [row for row in rows if last_step is None or int(row["step"]) <= last_step]

    def _rewrite(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with open(partial, "w", newline="", encoding="utf-8") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns, restval="")
                writer.writeheader()
                writer.writerows(self._rows)
        os.replace(partial, self.path)
        self._rows = []


class SkippedLog:
    """`skipped.csv`: the items that could not be used, each once, with the reason.

    Parameters
    ----------
    path : Path, optional
        The file; it appears with the first skipped item and is added to by a resumed run. None only counts.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = Path(path) if path is not None else None
        self._new: dict[str, str] = {}
        self._known: dict[str, str] = {}
        if self.path is not None and self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                self._known = {row["id"]: row["reason"] for row in csv.DictReader(file)}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, items: Iterable[tuple[str, str]]) -> None:
        """Note (id, reason) of items that a batch had to do without."""
        for item, reason in items:
            if item not in self._known:
                self._new[item] = reason

    def write(self) -> None:
        """Collect the new items of all processes and append them to the file. Every process must call this."""
        new = {item: reason for item, reason in gather(self._new).items() if item not in self._known}
        self._new = {}
        if not new:
            return
        if self.path is not None and rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            first = not self.path.exists()
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if first:
                    writer.writerow(["id", "reason"])
                writer.writerows(sorted(new.items()))
        self._known.update(new)

    def summarise(self) -> None:
        """Log how many items were skipped, if any were."""
        if self._known:
            item, reason = next(iter(self._known.items()))
            where = f"; all of them are in {self.path}" if self.path is not None else ""
            logger.warning(f"{len(self)} items were skipped, such as {item} ({reason}){where}")


def seconds_since_start() -> float:
    """Seconds since this program was started; where the system does not tell, since this module was imported."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - started
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED
