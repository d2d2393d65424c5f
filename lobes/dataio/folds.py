"""Folds for cross-validation that keep what was recorded together on one side, and the one kind that does not.

Calls of one recording, session or recorder share its background, which names the individual or the class as well as the
call does: twelve gibbon females, one recording each, are told apart at 97 % by 3-8 kHz alone, where they do not call
(Stowell et al., "Automatic acoustic identification of individuals in multiple species", J. R. Soc. Interface 16, 2019,
on the remedies). So folds leave whole groups out; clips drawn at random have to be asked for by name.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

from lobes.dataio.manifest import Manifest, Row, read_manifest, validate_splits
from lobes.dataio.splits import draw, leave_one_group_out, write_part
from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

ONE_GROUP = "leave one group out"
GROUPS = "groups at random"
LEAKS = "clips at random (leaks)"


def make_folds(
    manifest_csv: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    split: str = ONE_GROUP,
    *,
    label: str | None = None,
    n_folds: int = 5,
    valid_parts: int = 0,
    together: str | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Path]]:
    """Write folds: `<save_folder>/<fold>/{train,valid,test}.csv`.

    Parameters
    ----------
    manifest_csv : path
        A manifest of all items.
    save_folder : path
        Where the folds go.
    split : str
        `leave one group out`, a fold per group; `groups at random`, whole groups in `n_folds` parts of about as many
        seconds; or `clips at random (leaks)`, as many published figures are made, where clips of one group are on both
        sides: its sidecars say `leaks: true`.
    label : str, optional
        What is to be told apart. Folds are then refused where each value of it occurs in one group only, so that
        nothing that was learnt could be tested; clips at random are drawn from each value alike.
    n_folds : int
        Parts, where there is not one for each group.
    valid_parts : int
        Parts (groups, where one is left out) to validate on, those that follow the held-out one; 0 for no `valid`.
    together : str, optional
        With clips at random: the label whose equal values stay together, such as the `call` of which there are two
        crops.
    seed : int
        Decides what is drawn.

    Returns
    -------
    dict
        Fold -> split -> CSV. A fold is called by its group, or by its number from 1.

    Raises
    ------
    ConfigError
        `split` is none of the three (clips at random without their name, for one), there is no such label, or fewer
        than two folds.
    DataError
        Too few groups, or no honest fold for `label`.
    """
    if split not in (ONE_GROUP, GROUPS, LEAKS):
        raise ConfigError(
            f"split is '{split}': expected '{ONE_GROUP}' or '{GROUPS}'. Clips at random are refused: those of one "
            f"recording would be on both sides, and its background would be scored; to show just that, pass '{LEAKS}'"
        )
    whole = read_manifest(manifest_csv)
    for field, name in (("label", label), ("together", together)):
        if name is not None and name not in whole.labels:
            raise ConfigError(f"{field} is '{name}': {manifest_csv} has {', '.join(whole.labels) or 'no labels'}")
    if label is not None and split != LEAKS:
        _check_honest(whole, label, manifest_csv)
    if split == ONE_GROUP:
        return leave_one_group_out(manifest_csv, save_folder, valid_groups=valid_parts)
    if n_folds < 2 + valid_parts:
        raise ConfigError(f"n_folds is {n_folds}: expected {2 + valid_parts} or more with valid_parts={valid_parts}")
    leaks = split == LEAKS
    part_of = _random_parts(whole.rows, n_folds, label, together, seed) if leaks else _group_parts(whole, n_folds, seed)
    folds = {}
    for number in range(n_folds):
        valid = {(number + 1 + i) % n_folds for i in range(valid_parts)}
        parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
        for row in whole.rows:
            part = part_of[row["id"]]
            parts["test" if part == number else "valid" if part in valid else "train"].append(row)
        parts = {name: rows for name, rows in parts.items() if rows}
        validate_splits(
            {name: Manifest(rows, {}, whole.roots) for name, rows in parts.items()}, allow_group_overlap=leaks
        )
        held_out = str(number + 1)
        folds[held_out] = {
            name: write_part(
                Path(save_folder) / held_out / f"{name}.csv",
                rows,
                whole,
                split=split,
                held_out=held_out,
                seed=seed,
                leaks=leaks,
            )
            for name, rows in parts.items()
        }
    return folds


def _check_honest(whole: Manifest, label: str, name: str | os.PathLike[str]) -> None:
    """Refuse a label whose values cannot be learnt in one group and tested in another."""
    groups: dict[str, set[str]] = defaultdict(set)
    for row in whole.rows:
        groups[row[label]].add(row["group"])
    alone = sorted(value for value, owners in groups.items() if len(owners) == 1)
    if len(alone) == len(groups):
        raise DataError(
            f"{name}: each {label} occurs in one group only, so that no fold can test what it learnt, and a group's "
            f"background cannot be told from its {label}: choose another label or corpus, or, to show the leak, pass "
            f"split='{LEAKS}'"
        )
    if alone:
        logger.warning("%s: %s %s occurs in one group only and cannot be tested", name, label, ", ".join(alone))


def _group_parts(whole: Manifest, n_folds: int, seed: int) -> dict[str, int]:
    """Id -> part: whole groups, the longest first, each to the part that has the fewest seconds so far."""
    if len(whole.groups) < n_folds:
        raise DataError(
            f"{len(whole.groups)} groups cannot make {n_folds} folds: pass n_folds={len(whole.groups)} or less"
        )
    seconds: Counter[str] = Counter()
    for row in whole.rows:
        seconds[row["group"]] += row["duration"]
    filled = [0.0] * n_folds
    part_of = {}
    for group in sorted(seconds, key=lambda group: (-seconds[group], draw(seed, group), group)):
        part_of[group] = min(range(n_folds), key=lambda part: filled[part])
        filled[part_of[group]] += seconds[group]
    return {row["id"]: part_of[row["group"]] for row in whole.rows}


def _random_parts(
    rows: Sequence[Row], n_folds: int, label: str | None, together: str | None, seed: int
) -> dict[str, int]:
    """Id -> part: clips, or what is to stay together, dealt out label by label in an order drawn from `seed`."""
    unit_of = {row["id"]: row[together] if together else row["id"] for row in rows}
    label_of: dict[Hashable, str] = {}
    for row in rows:
        label_of.setdefault(unit_of[row["id"]], row[label] if label else "")
    if len(label_of) < n_folds:
        raise DataError(f"{len(label_of)} clips cannot make {n_folds} folds: pass n_folds={len(label_of)} or less")
    order = sorted(label_of, key=lambda unit: (label_of[unit], draw(seed, unit)))
    part_of = {unit: number % n_folds for number, unit in enumerate(order)}
    return {row["id"]: part_of[unit_of[row["id"]]] for row in rows}
