"""The bar that a run over recordings shows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray


class Progress:
    """A bar over all audio to be gone through, with its speed.

    Parameters
    ----------
    total : float
        Seconds of all recordings that are not done.
    kept : float
        Seconds of them that an earlier run has gone through: where the bar begins.
    n_files : int
        Recordings that are not done.

    Attributes
    ----------
    seconds : float
        Gone through by this run.
    """

    def __init__(self, total: float, kept: float, n_files: int) -> None:
        from tqdm import tqdm

        self.seconds, self._started, self._number, self._n_files = 0.0, time.perf_counter(), 0, n_files
        self._left = 0.0
        layout = "{desc} {percentage:3.0f}%|{bar}| {n:.2f}/{total:.2f} h [{elapsed}<{remaining}{postfix}]"
        hours = total / 3600
        disable = None if hours else True
        self.bar = tqdm(total=hours, initial=kept / 3600, bar_format=layout, disable=disable, leave=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._advance(self._left)
        self.bar.close()

    def begin(self, file: str, seconds: float) -> None:
        """The next file, of which so much is left; of the one before, what nobody could read is passed over."""
        self._advance(self._left)
        self._left = max(seconds, 0.0)
        self._number += 1
        self.bar.set_description_str(f"{self._number}/{self._n_files} {file[-32:]}", refresh=False)

    def over(self, scores: Iterable[NDArray[Any]], frame_rate: float, kept: float) -> Iterator[NDArray[Any]]:
        """Pass scores on, and count the time that they are of, but for the first `kept` seconds."""
        for piece in scores:
            yield piece
            seconds = len(piece) / frame_rate
            old = min(kept, seconds)
            kept -= old
            self.seconds += seconds - old
            speed = self.seconds / max(time.perf_counter() - self._started, 1e-9)
            self.bar.set_postfix_str(f"{speed:.0f}x real time", refresh=False)
            new = min(seconds - old, self._left)
            self._advance(new)
            self._left -= new

    def _advance(self, seconds: float) -> None:
        self.bar.update(seconds / 3600)
