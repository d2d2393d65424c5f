"""A corpus that has only the split `all`, divided by groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lobes.dataio.manifest import read_manifest
from lobes.dataio.splits import split_by_group, write_part
from lobes.errors import DataError


def prepare_held_out(
    save_folder: str | os.PathLike[str],
    corpus: Callable[..., dict[str, Path]],
    held_out: Sequence[str] | str | None = (),
    valid_share: float = 0.1,
    seed: int = 0,
) -> dict[str, Path]:
    """Write `train.csv` and `valid.csv` of a corpus that has only the split `all`, but for the groups held out.

    Parameters
    ----------
    save_folder : path
        Where they go; those of the whole corpus in `whole/`.
    corpus : callable
        What prepares it, ``!name:lobes.dataio.corpora.prepare_danum_clips`` in a YAML.
    held_out : sequence of str
        Groups (recorders, speakers) that are in neither; one or more names, separated by commas if in one string. With
        none (None, or an empty string), what is pretrained has heard the clips that it will be tested on, if not their
        labels (transductive).
    valid_share : float
        Share of the seconds, in whole groups, to validate on.
    seed : int
        Decides which groups those are.

    Returns
    -------
    dict
        `{"train": path, "valid": path}`.

    Raises
    ------
    DataError
        The corpus has no such group, or too few are left.
    """
    whole = read_manifest(corpus(save_folder=Path(save_folder) / "whole")["all"])
    names = [name for name in held_out.split(",") if name] if isinstance(held_out, str) else list(held_out or ())
    unknown = sorted(set(names) - set(whole.groups))
    if unknown:
        raise DataError(f"held_out names '{unknown[0]}': expected groups of the corpus, {', '.join(whole.groups)}")
    rows = [row for row in whole.rows if row["group"] not in names]
    parts = split_by_group(rows, {"valid": valid_share}, seed=seed)
    return {
        name: write_part(Path(save_folder) / f"{name}.csv", part, whole, held_out=names) for name, part in parts.items()
    }


def prepare_parts(
    save_folder: str | os.PathLike[str],
    corpus: Callable[..., dict[str, Path]],
    shares: Mapping[str, float],
    seed: int = 0,
) -> dict[str, Path]:
    """Write `train.csv` and a split for each share of a corpus that has only the split `all`, in whole groups.

    Parameters
    ----------
    save_folder, corpus
        As for `prepare_held_out`.
    shares : mapping
        Split -> share of the seconds, such as `{"valid": 0.2, "test": 0.2}`.
    seed : int
        Decides which groups those are.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    ConfigError
        The shares are negative or leave nothing to train on.
    DataError
        Fewer groups than splits.
    """
    whole = read_manifest(corpus(save_folder=Path(save_folder) / "whole")["all"])
    parts = split_by_group(whole.rows, shares, seed=seed)
    return {
        name: write_part(Path(save_folder) / f"{name}.csv", part, whole, shares=dict(shares), seed=seed)
        for name, part in parts.items()
    }
