"""Spoken digits as a pool to select from: takes 10 and up; nearer takes are the target, and the test.

Three situations. In A the target is one speaker, of whom there are a few unlabelled takes, and the pool has all six: a
shift. In B three quarters of the pool are corrupted, and the target is clean, of all speakers. In C nothing differs.
"""

from __future__ import annotations

import os
from pathlib import Path

from lobes.dataio.corpora.common import one_of
from lobes.dataio.corpora.fsdd import prepare_fsdd
from lobes.dataio.corruption import KINDS
from lobes.dataio.manifest import Row, read_manifest
from lobes.dataio.splits import draw, write_part
from lobes.errors import ConfigError, DataError

SITUATIONS = ("A", "B", "C")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
#: Takes below the first are the test, below the second the target's.
TEST_TAKES, TARGET_TAKES = 5, 10


def prepare_fsdd_pool(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    situation: str = "A",
    speaker: str | None = None,
    n_target: int | None = None,
    corrupted: float = 0.75,
    max_takes: int | None = None,
    seed: int = 0,
) -> dict[str, Path]:
    """Write `train.csv`, the pool; `target.csv`; `valid.csv`, all that the target is drawn from; and `test.csv`.

    Labels are those of `prepare_fsdd`, and `corruption` (see `lobes.dataio.corruption.Corrupted`).

    Parameters
    ----------
    data_folder : path, optional
        As for `prepare_fsdd`.
    save_folder : path
        Where the manifests go.
    situation : str
        `A`, `B` or `C`.
    speaker : str, optional
        Whose takes are target and test; all by default. `A` needs one.
    n_target : int, optional
        Clips of the target, drawn from takes 5 to 9; 25 of one speaker, 50 of all by default.
    corrupted : float
        Share of the pool, in `B`.
    max_takes : int, optional
        Only takes below this number are in the pool, for quick runs.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        `{"train": path, "target": path, "valid": path, "test": path}`.

    Raises
    ------
    ConfigError
        There is no such situation or speaker, or `A` has none.
    DataError
        The corpus is missing, or has too few takes.
    """
    one_of("situation", situation, SITUATIONS)
    if situation == "A" and speaker is None:
        raise ConfigError("speaker is null: situation A needs one, whose takes are the target")
    save_folder = Path(save_folder)
    whole = read_manifest(prepare_fsdd(data_folder, save_folder / "fsdd", max_takes=max_takes)["all"])
    if speaker is not None:
        one_of("speaker", speaker, whole.groups)
    share = corrupted if situation == "B" else 0.0
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for row in whole.rows:
        take, spoken = int(row["take"]), row["speaker"]
        part = "test" if take < TEST_TAKES else "valid" if take < TARGET_TAKES else "train"
        kind = "none"
        if part == "train" and draw(seed, "corrupted", row["id"]) < share:
            kind = KINDS[1 + int(draw(seed, "kind", row["id"]) * (len(KINDS) - 1))]
        if part == "train" or speaker in (None, spoken):
            # Takes of a speaker are alike: intervals of a test are clustered by both.
            group = spoken if part == "train" else f"{spoken}-{take}"
            parts[part].append({**row, "group": group, "corruption": kind})
    missing = [name for name, rows in parts.items() if not rows]
    if missing:
        raise DataError(f"{missing[0]} is empty: the corpus has too few takes; expected 11 or more of each digit")
    count = n_target or (25 if speaker is not None else 50)
    drawn = sorted(parts["valid"], key=lambda row: draw(seed, "target", row["id"]))[:count]
    parts["target"] = drawn
    return {
        name: write_part(save_folder / f"{name}.csv", rows, whole, situation=situation, speaker=speaker, seed=seed)
        for name, rows in parts.items()
    }
