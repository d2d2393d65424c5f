"""From a manifest to a smaller one: hear the pool once, ask whether it differs from the target, choose from it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from lobes.dataio import audio_dataset, read_manifest
from lobes.dataio.datasets import Transform
from lobes.dataio.manifest import atomic_write
from lobes.dataio.splits import write_part
from lobes.distillation.pool import describe, fit_codebook
from lobes.distillation.teacher import Teacher
from lobes.errors import ConfigError, DataError
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
    shift: Shift | None
    """Whether pool and target differ, so that choosing by the target is warranted; None where that cannot be told."""


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
    cap_by: str = "group",
    scores: str | os.PathLike[str] | None = None,
    heard: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> Choice:
    """Choose from the manifest `train` what resembles the manifest `target`, or by whatever the strategy goes by.

    The sidecar of what is chosen says from what it was chosen, by what, what that cost (`hearing_cpu_seconds` for
    hearing pool and target, whenever that was; `cpu_seconds` for ranking), and what the shift test found.

    Parameters
    ----------
    manifests : mapping
        `train`, the pool, and `target`, which strategies that ask for none can do without.
    path : path
        The CSV to write. Beside it, as `<name>.parquet`, what was heard of the pool.
    encoder : nn.Module
        Whose layer units and embeddings are of, such as the teacher's.
    strategy, filters, cap, cap_by, seed
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
    if strategy.needs_target and "target" not in manifests:
        raise ConfigError(
            f"{type(strategy).__name__} needs a target, and the manifests are {', '.join(sorted(manifests))}: choose "
            "by a strategy that needs none, or let `prepare` make the manifest `target`"
        )
    teacher = Teacher(encoder, [layer])
    heard_of, cost = _hear(manifests, teacher, n_units, transform, heard, device)
    pool, target = heard_of["train"], heard_of.get("target")
    pool = pool if scores is None else with_scores(pool, scores)
    shift = _tested(pool, target, seed, log)
    started = time.process_time()
    seconds = share * pool.total_seconds
    found = select(pool, target, seconds, strategy, filters=filters, cap=cap, cap_by=cap_by, seed=seed)
    found.provenance.update(
        cpu_seconds=time.process_time() - started,
        hearing_cpu_seconds=cost,
        shift=None if shift is None else shift._asdict(),
        encoder=teacher.fingerprint(),
        layer=layer,
        n_units=n_units,
        scores=None if scores is None else hashlib.sha256(Path(scores).read_bytes()).hexdigest(),
    )
    whole = read_manifest(manifests["train"])
    rows = {row["id"]: row for row in whole.rows}
    written = write_part(path, [rows[name] for name in found.pool.ids], whole, selection=found.provenance)
    write_pool(pool, Path(path).with_suffix(".parquet"))
    return Choice(written, found, shift)


def _tested(pool: Pool, target: Pool | None, seed: int, log: Callable[[str], None]) -> Shift | None:
    """What the shift test says, or None with a line that says why it says nothing."""
    if target is None:
        return None
    try:
        shift = shift_test(pool, target, seed=seed)
    except DataError as error:
        log(f"whether pool and target differ cannot be told: {error}")
        return None
    log(shift.advice)
    return shift


def _hear(
    manifests: Mapping[str, str | os.PathLike[str]],
    teacher: Teacher,
    n_units: int,
    transform: Transform | None,
    folder: str | os.PathLike[str] | None,
    device: str,
) -> tuple[dict[str, Pool], float]:
    """Pool and target, from the folder where they have been heard already, and the CPU seconds that hearing took."""
    names = [name for name in ("train", "target") if name in manifests]
    key = hashlib.sha256(f"{teacher.fingerprint()} {n_units} {transform!r}".encode())
    for name in names:
        key.update(Path(manifests[name]).read_bytes())
    stem = key.hexdigest()[:16]
    kept = {name: Path(folder) / f"{name}-{stem}.parquet" for name in names} if folder else {}
    price = Path(folder) / f"{stem}.json" if folder else None
    if price is not None and price.is_file():  # it is written last
        return {name: read_pool(path) for name, path in kept.items()}, json.loads(price.read_text())["cpu_seconds"]
    started = time.process_time()
    encoder, layer = teacher.encoder, teacher.layers[0]
    rate: int = encoder.sample_rate  # type: ignore[assignment]
    clips = {name: audio_dataset(manifests[name], rate, ("id", "sig"), transform=transform) for name in names}
    codebook = fit_codebook(clips["train"], encoder, layer, n_units, device=device)
    found = {name: describe(part, encoder, codebook, device=device) for name, part in clips.items()}
    cost = time.process_time() - started
    for name, path in kept.items():
        write_pool(found[name], path)
    if price is not None:
        atomic_write(price, json.dumps({"cpu_seconds": cost}) + "\n")
    return found, cost
