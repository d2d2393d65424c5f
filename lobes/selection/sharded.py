"""Scores of pools too large for one process: shard by shard, in parallel, and resumed where they were stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from lobes.errors import ConfigError, DataError
from lobes.selection.base import described
from lobes.selection.language_models import ContrastiveLM, ContrastiveModels
from lobes.selection.pool import UNITS, Pool, concatenate, pool_files, read_pool, write_pool

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
SCORE = "score"


def score_shards(
    pool: str | os.PathLike[str],
    target: Pool,
    out: str | os.PathLike[str],
    strategy: ContrastiveLM | None = None,
    *,
    general: int = 100_000,
    part: tuple[int, int] = (0, 1),
    n_jobs: int = 1,
    seed: int = 0,
) -> Path:
    """Score each shard of a pool by two language models; shards that are scored already are left alone.

    Parameters
    ----------
    pool : path
        Folder of Parquet files with `units`, as `write_pool` writes them.
    target : Pool
        With units of the same codebook.
    out : path
        Folder of the scores: a file for each shard, with `id`, `seconds`, `group` and `score`.
    strategy : ContrastiveLM, optional
        Its options; `pool_share` counts within `general`.
    general : int
        Utterances, drawn from all shards alike, that the pool's model is counted on, at most.
    part : tuple of int
        (index, count): of several processes, each scores its own shards; ``(rank, world size)`` of a torchrun, or the
        task of a SLURM array.
    n_jobs : int
        Processes of this one (joblib's).
    seed : int
        Of the draw.

    Returns
    -------
    Path
        `out`, for `read_pool(out, columns=["score"])`, and `ByColumn("score")`.

    Raises
    ------
    ConfigError
        `part` is impossible, or units are of another codebook.
    DataError
        The folder holds scores of another pool, target, strategy or seed; nothing is overwritten.
    """
    from joblib import Parallel, delayed

    strategy = strategy or ContrastiveLM()
    index, count = part
    if not 0 <= index < count:
        raise ConfigError(f"part is {part}: expected an index from 0 to below the count")
    files, out = pool_files(pool), Path(out)
    settings = {"strategy": described(strategy), "target": target.checksum, "general": general, "seed": seed}
    settings["shards"] = [[file.name, _checksum(file)] for file in files]
    _claim(out, settings)
    left = [file for file in files[index::count] if not (out / file.name).is_file()]
    logger.info("%d of %d shards are to be scored", len(left), len(files[index::count]))
    if left:
        models = strategy.models(_drawn(files, general, seed), target, seed)
        Parallel(n_jobs=min(n_jobs, len(left)))(delayed(_score)(models, file, out / file.name) for file in left)
    return out


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Write down what the scores in a folder are of, or refuse a folder of others."""
    path = out / SETTINGS
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if known.get(name) != value]
        if other:
            raise DataError(
                f"{out}: holds scores of another {', '.join(other)}; nothing was overwritten: give another folder, or "
                "delete it"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{SETTINGS}.{os.getpid()}"
    temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _drawn(files: list[Path], general: int, seed: int) -> Pool:
    """As many utterances of each shard, drawn at random."""
    each = max(1, general // len(files))
    parts = []
    for number, file in enumerate(files):
        shard = read_pool(file, [UNITS])
        chosen = np.random.default_rng([seed, number]).permutation(len(shard))[:each]
        parts.append(shard.take(np.sort(chosen)))
    return concatenate(parts)


def _score(models: ContrastiveModels, file: Path, out: Path) -> None:
    shard = read_pool(file, [UNITS])
    write_pool(Pool(shard.ids, shard.seconds, shard.groups, columns={SCORE: models.scores(shard)}), out)
