"""Several corpora as one, to pretrain on all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lobes.dataio.datasets import merge_manifests
from lobes.errors import ConfigError


def prepare_mix(
    save_folder: str | os.PathLike[str], corpora: Mapping[str, Callable[..., dict[str, Path]] | None]
) -> dict[str, Path]:
    """Prepare each corpus, then write `train.csv` and `valid.csv` over all of them.

    A corpus that has only the split `all` is trained on whole. Test splits are left alone, so that what is
    pretrained on the mix has never heard them.

    Parameters
    ----------
    save_folder : path
        Where the manifests go; those of each corpus in a sub-folder of its name.
    corpora : mapping
        Name (letters, digits, _) -> what prepares it, ``!name:lobes.dataio.corpora.prepare_fsdd`` in a YAML; None for
        one that a file's base has and this mix does not.

    Returns
    -------
    dict
        `train` -> CSV, and `valid` -> CSV.

    Raises
    ------
    ConfigError
        No corpus is given, or none has a valid split.
    DataError
        A corpus could not be prepared.
    """
    save_folder = Path(save_folder)
    prepared = {name: prepare(save_folder=save_folder / name) for name, prepare in corpora.items() if prepare}
    train = {name: parts.get("train") or parts["all"] for name, parts in prepared.items()}
    valid = {name: parts["valid"] for name, parts in prepared.items() if "valid" in parts}
    if not valid:
        raise ConfigError(f"corpora {sorted(corpora)}: none has a valid split; add one that has, or its valid_share")
    return {
        "train": merge_manifests(train, save_folder / "train.csv"),
        "valid": merge_manifests(valid, save_folder / "valid.csv"),
    }
