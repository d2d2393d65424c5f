"""The mean of several checkpoints' weights, which translates and transcribes better than any one of them."""

from __future__ import annotations

import torch
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.checkpoints import Checkpoint
from speechbrain.utils.logger import get_logger
from torch import Tensor

from lobes.errors import CheckpointError, ConfigError
from lobes.training.checkpointer import Checkpointer

logger = get_logger(__name__)


def average_checkpoints(
    checkpointer: Checkpointer,
    name: str,
    count: int = 10,
    min_key: str | None = None,
    max_key: str | None = None,
) -> dict[str, Tensor]:
    """Return the arithmetic mean of a module's weights over checkpoints (Junczys-Dowmunt et al., WMT 2016).

    Floating-point entries, buffers included, are averaged in float64; whole numbers and truth values (the batches that
    a normalisation has seen) are those of the first checkpoint in order. The average of one checkpoint is itself.

    Parameters
    ----------
    checkpointer : Checkpointer
        Whose folder is read; it must have been told to keep that many.
    name : str
        The recoverable, such as `model`.
    count : int
        How many are averaged; where there are fewer, all of them, with a warning.
    min_key, max_key : str, optional
        Take those in which this entry of the meta file is lowest, or highest; by default the last ones. Checkpoints
        from within an epoch are left out.

    Returns
    -------
    dict
        Name -> tensor, for `load_state_dict`.

    Raises
    ------
    ConfigError
        `count` is below 1.
    CheckpointError
        There is no checkpoint with `name`, one cannot be read, or they are of different architectures.
    """
    if count < 1:
        raise ConfigError(f"count is {count}: expected the number of checkpoints to average, 1 or more")

    def whole(checkpoint: Checkpoint) -> bool:
        return INTRA_EPOCH_CKPT_FLAG not in checkpoint.meta and name in checkpoint.paramfiles

    found = checkpointer.find_checkpoints(min_key=min_key, max_key=max_key, ckpt_predicate=whole)[:count]
    if not found:
        raise CheckpointError(
            f"{checkpointer.checkpoints_dir} has no checkpoint of '{name}' after an epoch: train before averaging"
        )
    if len(found) < count:
        logger.warning(f"averaging {len(found)} checkpoints, not {count}: there are no more")
    first = _read(found[0], name)
    sums = {key: value.double() for key, value in first.items() if value.is_floating_point()}
    for checkpoint in found[1:]:
        state = _read(checkpoint, name)
        if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in first.items()}:
            raise CheckpointError(
                f"checkpoints {found[0].path} and {checkpoint.path} are of different architectures: "
                "give each run an output_folder of its own"
            )
        for key, total in sums.items():
            total += state[key]
    return {key: (sums[key] / len(found)).to(value.dtype) if key in sums else value for key, value in first.items()}


def _read(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    path = checkpoint.paramfiles[name]
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read ({reason}): remove its folder to average the others") from error
