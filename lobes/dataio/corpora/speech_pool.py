"""Speech among other sounds as a pool to select from: what a crawl of unlabelled audio is, in small."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lobes.dataio.corpora.common import one_of
from lobes.dataio.datasets import merge_manifests
from lobes.dataio.manifest import Row, read_manifest
from lobes.dataio.splits import draw, split_by_group, write_part
from lobes.errors import DataError

SITUATIONS = ("mixed", "speech")


def prepare_speech_pool(
    save_folder: str | os.PathLike[str],
    speech: Callable[..., dict[str, Path]],
    others: Mapping[str, Callable[..., dict[str, Path]] | None],
    *,
    situation: str = "mixed",
    target_share: float = 0.4,
    n_target: int = 25,
    seed: int = 0,
) -> dict[str, Path]:
    """Write `train.csv`, the pool; `target.csv`; `valid.csv`, all that the target is drawn from; and `test.csv`.

    The pool is the speech's `train` and, where `mixed`, all clips of other corpora, that are something else. Target and
    test are the speech's `test`, of different speakers. The label `corpus` says where a clip is from.

    Parameters
    ----------
    save_folder : path
        Where the manifests go; those of each corpus in a sub-folder of its name.
    speech : callable
        What prepares it, ``!name:lobes.dataio.corpora.prepare_librispeech`` in a YAML, with splits `train` and `test`.
    others : mapping
        Name -> what prepares it; of its splits `all`, or else `train`, is taken. None for one that is left out.
    situation : str
        `mixed`, or `speech`: a control, in which pool and target are alike.
    target_share : float
        Of the seconds of `test`, in whole speakers, what the target is drawn from.
    n_target : int
        Clips of the target.
    seed : int
        Of the draw of the target's clips; which speakers they are of does not depend on it.

    Returns
    -------
    dict
        `{"train": path, "target": path, "valid": path, "test": path}`.

    Raises
    ------
    ConfigError
        There is no such situation.
    DataError
        A corpus could not be prepared, or has no such split.
    """
    one_of("situation", situation, SITUATIONS)
    save_folder = Path(save_folder)
    parts = speech(save_folder=save_folder / "speech")
    missing = [name for name in ("train", "test") if name not in parts]
    if missing:
        raise DataError(f"speech has no split {missing[0]}: it has {', '.join(parts)}; choose subsets for both")
    pool = {"speech": parts["train"]}
    if situation == "mixed":
        for name, prepare in others.items():
            if prepare is not None:
                found = prepare(save_folder=save_folder / name)
                pool[name] = found.get("all") or found["train"]
    test = read_manifest(merge_manifests({"speech": parts["test"]}, save_folder / "speech" / "held_out.csv"))
    sides: dict[str, list[Row]] = split_by_group(test.rows, {"valid": target_share}, rest="test")
    sides["target"] = sorted(sides["valid"], key=lambda row: draw(seed, "target", row["id"]))[:n_target]
    written = {
        name: write_part(save_folder / f"{name}.csv", rows, test, situation=situation, seed=seed)
        for name, rows in sides.items()
    }
    return {"train": merge_manifests(pool, save_folder / "train.csv"), **written}
