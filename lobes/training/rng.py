"""States of all random number generators, saved with a checkpoint so that a resumed run draws what it would have."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.logger import get_logger

from lobes.training.parallel import gather, rank, world_size

logger = get_logger(__name__)

State = dict[str, Any]


def get_state(cuda: bool = False) -> State:
    """States of Python's, NumPy's and torch's global generators, as plain values and tensors.

    Parameters
    ----------
    cuda : bool
        Also the generator of the current CUDA device.
    """
    version, words, gauss = random.getstate()
    twister: Any = np.random.get_state(legacy=False)
    key = torch.from_numpy(twister["state"]["key"].astype(np.int64))
    state: State = {
        "python": [version, list(words), gauss],
        "numpy": [key, int(twister["state"]["pos"]), int(twister["has_gauss"]), float(twister["gauss"])],
        "torch": torch.get_rng_state(),
    }
    if cuda:
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_state(state: State) -> None:
    """Put back what `get_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    key, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_cpu(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generator from a few non-negative integers."""
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.default_generator.manual_seed(int(words[2]))


@contextmanager
def isolated(*numbers: int, cuda: bool = False) -> Iterator[None]:
    """Seed the generators from `numbers` for a `with` block, and put their states back after it.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with isolated(1, 2):
    ...     x = torch.rand(1)
    >>> bool((before == torch.get_rng_state()).all())
    True
    """
    state = get_state(cuda)
    seed_cpu(*numbers)
    if cuda:
        torch.cuda.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
    try:
        yield
    finally:
        set_state(state)


@functools.partial(register_checkpoint_hooks, save_on_main_only=False)
class RandomState:
    """Recoverable that saves the generators' states of every process.

    Loading does not yet change anything: a `DataLoader` and the hooks at the start of a stage may draw numbers
    between loading and the first batch. The training loop calls `restore` where the saved run stood.

    Parameters
    ----------
    cuda : bool
        Whether the run uses a CUDA device.
    """

    def __init__(self, cuda: bool = False) -> None:
        self.cuda = cuda
        self._pending: State | None = None
        self._mid_epoch = False

    def restore(self, mid_epoch: bool) -> None:
        """Set the generators to what was loaded, if that was saved in the middle of an epoch (or was not).

        Parameters
        ----------
        mid_epoch : bool
            Where the caller stands: True after the data loader began an epoch, False before the epoch.
        """
        if self._pending is not None and self._mid_epoch == mid_epoch:
            set_state(self._pending)
            self._pending = None

    def forget(self) -> None:
        """Drop what was loaded; for evaluation, which loads a checkpoint only for its weights."""
        self._pending = None

    @mark_as_saver
    def _save(self, path: Path) -> None:
        states = gather([get_state(self.cuda)])
        if rank() == 0:
            torch.save(states, path)

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        states = torch.load(path, map_location="cpu", weights_only=True)
        if len(states) != world_size():
            logger.warning(
                f"the checkpoint was saved by {len(states)} processes and is resumed by {world_size()}: "
                "random numbers will differ from those of an uninterrupted run"
            )
        self._pending = states[rank()] if rank() < len(states) else None
        self._mid_epoch = not end_of_epoch
