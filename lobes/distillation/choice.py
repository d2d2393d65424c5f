"""From a manifest to a smaller one: hear the pool once, ask whether it differs from the target, choose from it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from lobes.dataio import audio_dataset, read_manifest
from lobes.dataio.datasets import Transform
from lobes.dataio.splits import write_part
from lobes.distillation.pool import describe, fit_codebook
from lobes.distillation.teacher import Teacher
from lobes.selection import (
    Filter,
    Pool,
    Selection,
    Shift,
    Strategy,
    read_pool,
    select,
    shift_test,
    with_scores,
    write_pool,
)


class Choice(NamedTuple):
    """What was chosen, and why."""

    path: Path
    """A manifest; what `Selection.provenance` says is in its sidecar."""
    selection: Selection
    shift: Shift
    """Whether pool and target differ, so that choosing by the target is warranted."""


def choose_clips(
    manifests: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    encoder: nn.Module,
    strategy: Strategy,
    share: float,
    *,
    layer: int,
    n_units: int = 48,
    transform: Transform | None = None,
    filters: Sequence[Filter] = (),
    cap: float | None = None,
    scores: str | os.PathLike[str] | None = None,
    heard: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> Choice:
    """Choose from the manifest `train` what resembles the manifest `target`, or by whatever the strategy goes by.

    Parameters
    ----------
    manifests : mapping
        `train`, the pool, and `target`.
    path : path
        The CSV to write. Beside it, as `<name>.parquet`, what was heard of the pool.
    encoder : nn.Module
        Whose layer units and embeddings are of, such as the teacher's.
    strategy, filters, cap, seed
        As for `lobes.selection.select`.
    share : float
        Budget, of the pool's seconds, 0 to 1.
    layer, n_units
        As for `fit_codebook`.
    transform : Transform, optional
        What `audio_dataset` does to waveforms.
    scores : path, optional
        A CSV with the column `id` and others of numbers: further columns of the pool for `ByColumn` and `InRange`.
    heard : path, optional
        A folder that keeps what was heard of pool and target, for other choices from them by the same encoder.
    device : str
        Where the encoder runs.
    log : callable
        Gets the advice of the shift test, before it is chosen.

    Raises
    ------
    ConfigError, DataError
        As `select` and `fit_codebook` have it; nothing is written then.
    """
    pool, target = _hear(manifests, encoder, layer, n_units, transform, heard, device)
    pool = pool if scores is None else with_scores(pool, scores)
    shift = shift_test(pool, target, seed=seed)
    log(shift.advice)
    started = time.process_time()
    seconds = share * pool.total_seconds
    found = select(pool, target, seconds, strategy, filters=filters, cap=cap, seed=seed)
    found.provenance.update(cpu_seconds=time.process_time() - started, shift=shift._asdict())
    whole = read_manifest(manifests["train"])
    rows = {row["id"]: row for row in whole.rows}
    written = write_part(path, [rows[name] for name in found.pool.ids], whole, selection=found.provenance)
    write_pool(pool, Path(path).with_suffix(".parquet"))
    return Choice(written, found, shift)


def _hear(
    manifests: Mapping[str, str | os.PathLike[str]],
    encoder: nn.Module,
    layer: int,
    n_units: int,
    transform: Transform | None,
    folder: str | os.PathLike[str] | None,
    device: str,
) -> tuple[Pool, Pool]:
    """Pool and target, from the folder where they have been heard already."""
    names = ("train", "target")
    key = hashlib.sha256(f"{Teacher(encoder, [layer]).fingerprint()} {n_units} {transform!r}".encode())
    for name in names:
        key.update(Path(manifests[name]).read_bytes())
    kept = [Path(folder) / f"{name}-{key.hexdigest()[:16]}.parquet" for name in names] if folder else []
    if kept and all(path.is_file() for path in kept):
        pool, target = map(read_pool, kept)
        return pool, target
    rate: int = encoder.sample_rate  # type: ignore[assignment]
    clips = [audio_dataset(manifests[name], rate, ("id", "sig"), transform=transform) for name in names]
    codebook = fit_codebook(clips[0], encoder, layer, n_units, device=device)
    pool, target = (describe(part, encoder, codebook, device=device) for part in clips)
    for part, path in zip((pool, target), kept, strict=False):
        write_pool(part, path)
    return pool, target
