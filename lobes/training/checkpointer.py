"""Checkpoints that are never half written, can always be read back, and say what does not fit."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from speechbrain.utils import checkpoints as sb_checkpoints
from speechbrain.utils.checkpoints import Checkpoint, ckpt_recency
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger
from torch import Tensor

from lobes.errors import CheckpointError

logger = get_logger(__name__)

#: A directory of this name is on its way in or out and is not a checkpoint.
STAGING_PREFIX = ".staging+"
_DAMAGED = (EOFError, OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, yaml.YAMLError)


class _DamagedError(Exception):
    """A file of a checkpoint is missing or cannot be read."""


def plain(value: Any) -> Any:
    """Turn numbers of NumPy and torch, tuples and paths into what `yaml.safe_load` can read back.

    Examples
    --------
    >>> plain({"loss": torch.tensor(0.5), "shape": (1, np.int64(2)), "path": Path("a")})
    {'loss': 0.5, 'shape': [1, 2], 'path': 'a'}
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


class Checkpointer(sb_checkpoints.Checkpointer):
    """SpeechBrain's checkpointer, with the same files, that survives crashes and explains misfits.

    - A checkpoint is written under another name, synchronised to the disk and renamed last, and is renamed before
      it is deleted: ``kill -9`` at any moment leaves only whole checkpoints.
    - Meta entries become plain numbers, strings and lists, so that the meta file can be read back.
    - `recover_if_possible` passes over a damaged checkpoint, with a warning, to the next best.
    - A checkpoint of another architecture is a `CheckpointError` of one line.
    - Tensors are loaded with ``weights_only``: loading runs no code from the file.

    Takes the arguments of `speechbrain.utils.checkpoints.Checkpointer`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpointer = Checkpointer(folder, {"model": torch.nn.Linear(1, 1)})
    ...     saved = checkpointer.save_checkpoint(meta={"loss": torch.tensor(0.5)})
    ...     checkpointer.recover_if_possible(min_key="loss").meta["loss"]
    0.5
    """

    def save_checkpoint(
        self,
        meta: Mapping[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Save every recoverable; a checkpoint of the same name is replaced. See SpeechBrain's method.

        Raises
        ------
        CheckpointError
            The disk is full or the folder cannot be written to; the checkpoints before stay as they were.
        """
        if if_main_process():
            self._remove_leftovers()
        ddp_barrier()
        try:
            staged = super().save_checkpoint(plain(meta or {}), end_of_epoch, name, logging.DEBUG)
            final = self._publish(staged)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint in {self.checkpoints_dir} could not be written: {error}; mend that and run again"
            ) from error
        ddp_barrier()
        if final is not None:
            logger.log(verbosity, f"saved checkpoint {final.path}")
        return final

    def save_and_keep_only(
        self,
        meta: Mapping[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        num_to_keep: int = 1,
        keep_recent: bool = True,
        importance_keys: Any = (),
        max_keys: Any = (),
        min_keys: Any = (),
        ckpt_predicate: Any = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Save, then delete the least important checkpoints. See SpeechBrain's method."""
        # SpeechBrain appends to the list that it is given, which by default is one list for all calls.
        super().save_and_keep_only(
            meta or {},
            end_of_epoch,
            name,
            num_to_keep,
            keep_recent,
            list(importance_keys),
            list(max_keys),
            list(min_keys),
            ckpt_predicate,
            verbosity,
        )

    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Any = None,
        max_keys: Any = None,
        importance_keys: Any = (ckpt_recency,),
        ckpt_predicate: Any = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Delete the least important checkpoints. See SpeechBrain's method.

        Raises
        ------
        ValueError
            `num_to_keep` is negative.
        """
        if num_to_keep < 0:
            raise ValueError(f"num_to_keep is {num_to_keep}: expected 0 or more")
        orders: list[dict[str, Any]] = [{"min_key": key} for key in min_keys or ()]
        orders += [{"max_key": key} for key in max_keys or ()]
        orders += [{"importance_key": key} for key in importance_keys]
        ddp_barrier()  # another process may still be reading what process 0 would delete
        if if_main_process():
            ranked = [self.find_checkpoints(**order, ckpt_predicate=ckpt_predicate) for order in orders]
            kept = {checkpoint for found in ranked for checkpoint in found[:num_to_keep]}
            for checkpoint in {checkpoint for found in ranked for checkpoint in found} - kept:
                _remove(checkpoint.path)
                logger.log(verbosity, f"deleted checkpoint {checkpoint.path}")
        ddp_barrier()

    def recover_if_possible(
        self, importance_key: Any = None, max_key: Any = None, min_key: Any = None, ckpt_predicate: Any = None
    ) -> Checkpoint | None:
        """Load the best readable checkpoint; None where there is none at all. See SpeechBrain's method.

        Raises
        ------
        CheckpointError
            A checkpoint does not fit the model, or there are checkpoints and all of them are damaged.
        """
        found = self.find_checkpoints(importance_key, max_key, min_key, ckpt_predicate)
        reason = ""
        for checkpoint in found:
            try:
                self.load_checkpoint(checkpoint)
                return checkpoint
            except _DamagedError as error:
                reason = str(error)
                logger.warning(f"checkpoint {checkpoint.path} is damaged ({reason}): trying the one before")
        if not found and self._list_checkpoint_dirs() and not self.list_checkpoints():
            reason = "damaged meta file"
        if reason:
            raise CheckpointError(
                f"no checkpoint in {self.checkpoints_dir} can be read (the last one tried: {reason}): "
                "remove that folder to start anew"
            )
        logger.info(f"no checkpoint in {self.checkpoints_dir}: starting anew")
        return None

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Load every recoverable from one checkpoint. See SpeechBrain's method."""
        logger.info(f"loading checkpoint {checkpoint.path}")
        end_of_epoch = checkpoint.meta["end-of-epoch"]
        for name, recoverable in self.recoverables.items():
            path = checkpoint.paramfiles.get(name)
            if path is None:
                self._check_may_lack(name, checkpoint)
                continue
            try:
                self._load(name, recoverable, path, end_of_epoch)
            except _DAMAGED as error:
                first_line = (str(error).splitlines() or [type(error).__name__])[0]
                if isinstance(error, pickle.UnpicklingError):  # whose text suggests to run what is in the file
                    first_line = "not a file of tensors alone, so nothing of it was loaded"
                raise _DamagedError(f"{path.name}: {first_line}") from error

    def _check_may_lack(self, name: str, checkpoint: Checkpoint) -> None:
        if self.allow_partial_load:
            return
        if self.optional_recoverables.get(name) or "dataloader" in name:
            logger.warning(f"checkpoint {checkpoint.path} has no '{name}': it starts anew")
            return
        raise _DamagedError(f"{name}.ckpt is missing")

    def _load(self, name: str, recoverable: Any, path: Path, end_of_epoch: bool) -> None:
        hook = self.custom_load_hooks.get(name)
        if hook is None:
            hook = sb_checkpoints.get_default_hook(recoverable, sb_checkpoints.DEFAULT_LOAD_HOOKS)
        if hook is None:
            raise TypeError(f"recoverable '{name}' is a {type(recoverable)}, for which there is no load hook")
        if hook is not sb_checkpoints.torch_recovery:
            hook(recoverable, path, end_of_epoch)
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(recoverable, torch.nn.Module):
            state = sb_checkpoints.hook_on_loading_state_dict_checkpoint(state)
        try:
            recoverable.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"checkpoint {path.parent}: '{name}' does not fit: {_misfit(recoverable, state, error)}; "
                "use the hyperparameters that it was trained with, or another output_folder"
            ) from error

    def _new_checkpoint_dirpath(self) -> Path:
        return _staged(super()._new_checkpoint_dirpath())

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        return _staged(super()._custom_checkpoint_dirpath(name))

    def _publish(self, staged: Checkpoint | None) -> Checkpoint | None:
        """Give a written checkpoint its name; on processes other than 0 there is nothing to do."""
        if staged is None:
            return None
        for file in [*staged.path.iterdir(), staged.path]:
            _synchronise(file)
        final = staged.path.with_name(staged.path.name.removeprefix(STAGING_PREFIX))
        replaced = final.with_name(final.name + "+replaced")
        if final.exists():
            # Until the new one has the name, the old one remains a checkpoint under another name.
            final.rename(replaced)
        staged.path.rename(final)
        if replaced.exists():
            _remove(replaced)
        _synchronise(self.checkpoints_dir)
        paramfiles = {name: final / path.name for name, path in staged.paramfiles.items()}
        return Checkpoint(final, staged.meta, paramfiles)

    def _remove_leftovers(self) -> None:
        for folder in self.checkpoints_dir.glob(STAGING_PREFIX + "*"):
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _construct_checkpoint_objects(checkpoint_dirs: list[Path]) -> list[Checkpoint]:
        found = []
        for folder in checkpoint_dirs:
            try:
                (checkpoint,) = sb_checkpoints.Checkpointer._construct_checkpoint_objects([folder])
                if not {"unixtime", "end-of-epoch"} <= set(checkpoint.meta):
                    raise ValueError("its entries are missing")
                found.append(checkpoint)
            except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
                reason = str(error).splitlines()[0]
                logger.warning(f"checkpoint {folder} has a damaged meta file ({reason}) and is left out")
        return found


def _staged(path: Path) -> Path:
    return path.with_name(STAGING_PREFIX + path.name)


def _remove(folder: Path) -> None:
    """Delete a checkpoint so that it is at no moment there in part."""
    leaving = _staged(folder)
    folder.rename(leaving)
    shutil.rmtree(leaving)


def _synchronise(path: Path) -> None:
    """Ask the system to write a file or a directory to the disk now."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _misfit(recoverable: Any, state: Mapping[str, Any], error: Exception) -> str:
    """Name the first parameter that differs, with both shapes."""
    if isinstance(recoverable, torch.nn.Module):
        own = recoverable.state_dict()
        for key in dict.fromkeys([*own, *state]):
            here, there = _shape(own.get(key)), _shape(state.get(key))
            if here != there:
                return f"parameter '{key}' is {there} in the checkpoint and {here} in this model"
    return str(error).splitlines()[0]


def _shape(value: Any) -> str:
    if value is None:
        return "absent"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
