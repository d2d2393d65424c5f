"""Splits that keep every group (speaker, individual, recorder) on one side."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lobes.dataio.manifest import Manifest, Row, read_manifest, validate_splits, write_manifest
from lobes.errors import ConfigError, DataError


def draw(*parts: object) -> float:
    """Return a number in [0, 1) that is a pure function of `parts`, the same on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_by_group(
    rows: Sequence[Row], shares: Mapping[str, float], *, rest: str = "train", seed: int = 0
) -> dict[str, list[Row]]:
    """Give whole groups, in an order drawn from `seed`, to splits of given shares of the seconds.

    Parameters
    ----------
    rows : sequence of dict
        Manifest rows.
    shares : mapping
        Split -> share of the seconds, such as `{"valid": 0.1, "test": 0.1}`. A share of 0 makes no such
        split.
    rest : str
        The split that gets all other groups.
    seed : int
        Decides which groups go where.

    Returns
    -------
    dict
        Split -> rows in their order, with `rest` first. Every split has at least one group; a group that
        would take a split far above its share is left to the next one.

    Raises
    ------
    ConfigError
        The shares are negative or leave nothing.
    DataError
        Fewer groups than splits.

    Examples
    --------
    >>> rows = [{"id": str(i), "group": f"speaker{i % 10}", "duration": 1.0} for i in range(100)]
    >>> {name: len(part) for name, part in split_by_group(rows, {"valid": 0.2, "test": 0.1}).items()}
    {'train': 70, 'valid': 20, 'test': 10}
    """
    shares = {name: share for name, share in shares.items() if share != 0}
    if min(shares.values(), default=0) < 0 or sum(shares.values()) >= 1:
        raise ConfigError(f"split shares are {shares}: expected positive numbers with a sum below 1")
    seconds: dict[str, float] = defaultdict(float)
    for row in rows:
        seconds[row["group"]] += row["duration"]
    if len(seconds) < len(shares) + 1:
        raise DataError(
            f"{len(seconds)} groups ({', '.join(sorted(seconds)[:3])}) cannot make {len(shares) + 1} splits: "
            "choose a finer group, or fewer splits"
        )
    order = sorted(seconds, key=lambda group: (draw(seed, group), group))
    total = sum(seconds.values())
    split_of: dict[str, str] = {}
    for name, share in shares.items():
        free = [group for group in order if group not in split_of]
        spare = len(shares) - len(set(split_of.values()))  # this split and the later ones, one group each
        taken = 0.0
        for group in free[: len(free) - spare]:
            if taken + seconds[group] / 2 < share * total:
                split_of[group] = name
                taken += seconds[group]
        if taken == 0:
            split_of[min(free, key=lambda group: seconds[group])] = name
    return {name: [row for row in rows if split_of.get(row["group"], rest) == name] for name in (rest, *shares)}


def leave_one_group_out(
    manifest_csv: str | os.PathLike[str], save_folder: str | os.PathLike[str], *, valid_groups: int = 1
) -> dict[str, dict[str, Path]]:
    """Write one fold per group: `<save_folder>/<group>/{train,valid,test}.csv`.

    Parameters
    ----------
    manifest_csv : path
        A manifest of all items.
    save_folder : path
        Where the folds go.
    valid_groups : int
        Groups to validate on, those that follow the held-out group in sorted order, cyclically; 0 for no
        `valid`.

    Returns
    -------
    dict
        Held-out group -> split -> CSV.

    Raises
    ------
    DataError
        Fewer than `valid_groups` + 2 groups.
    """
    whole = read_manifest(manifest_csv)
    groups = whole.groups
    if len(groups) < valid_groups + 2:
        raise DataError(
            f"{manifest_csv} has {len(groups)} groups: leaving one out needs at least {valid_groups + 2} "
            f"with valid_groups={valid_groups}"
        )
    folds = {}
    for number, held_out in enumerate(groups):
        valid = [groups[(number + 1 + i) % len(groups)] for i in range(valid_groups)]
        parts = {
            "train": [row for row in whole.rows if row["group"] != held_out and row["group"] not in valid],
            "valid": [row for row in whole.rows if row["group"] in valid],
            "test": [row for row in whole.rows if row["group"] == held_out],
        }
        parts = {name: rows for name, rows in parts.items() if rows}
        validate_splits({name: Manifest(rows, {}, whole.roots) for name, rows in parts.items()})
        folds[held_out] = {
            name: write_part(Path(save_folder) / held_out / f"{name}.csv", rows, whole, held_out=held_out)
            for name, rows in parts.items()
        }
    return folds


def write_part(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    whole: Manifest,
    *,
    skipped: Sequence[tuple[str, str]] = (),
    **options: object,
) -> Path:
    """Write some rows of a manifest as one of its own, with the whole's source, licence and options."""
    return write_manifest(
        path,
        rows,
        data_root=whole.roots,
        source=whole.meta.get("source", "unknown"),
        licence=whole.meta.get("licence", "unknown"),
        generated=whole.meta.get("generated", False),
        options={**whole.meta.get("options", {}), **options},
        skipped=skipped,
    )
