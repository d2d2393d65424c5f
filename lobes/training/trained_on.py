"""What a run is trained and validated on, noted beside its checkpoints: it is not gone on with on anything else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from speechbrain.dataio.dataloader import LoopedLoader
from torch.utils.data import DataLoader

from lobes.dataio import AudioDataset, Manifest
from lobes.dataio.manifest import Row, atomic_write
from lobes.errors import ConfigError
from lobes.training.loaders import SeededItems

#: The note, in the folder of the checkpoints.
NOTE = "trained_on.json"


def check_data(checkpointer: Any, **sets: Any) -> None:
    """Refuse to go on with a run on other data; note what it is on where nothing has been noted yet. On one process.

    What counts are the rows of the manifests, in any order, without their files: where a corpus lies may change. Splits
    and columns that only one of the two knows do not count, nor do datasets of other kinds.

    Parameters
    ----------
    checkpointer : Checkpointer or None
        Whose folder holds the run, or one fold of it, and the note.
    **sets : AudioDataset, or DataLoader of one
        ``train`` and ``valid``; others, and None, are passed over.

    Raises
    ------
    ConfigError
        There are checkpoints of a run on other clips, or on clips with other labels.
    """
    if checkpointer is None:
        return
    manifests = {split: _manifest(data) for split, data in sets.items()}
    now = {split: contents(manifest) for split, manifest in manifests.items() if manifest is not None}
    folder = Path(checkpointer.checkpoints_dir)
    # A note without a checkpoint is of a run of which nothing is left.
    known = _read(folder / NOTE) if any(folder.glob("CKPT+*")) else {}
    for split, found in now.items():
        before = known.get(split, found)
        differs = _difference(before, found)
        if differs:
            raise ConfigError(
                f"{folder}: holds checkpoints of a run on other data: its {split} set has {differs}; "
                "give another --output_folder or --name, or delete it, or give the data that it was begun with"
            )
        now[split] = {**found, "columns": {**before["columns"], **found["columns"]}}
    if {**known, **now} != known:
        atomic_write(folder / NOTE, json.dumps({**known, **now}, indent=1) + "\n")


def contents(manifest: Manifest) -> dict[str, Any]:
    """What a manifest holds: its clips, their hours, and the SHA-256 of each column but `wav`, clip by clip.

    Examples
    --------
    >>> row = {"id": "a", "wav": "/here/a.wav", "duration": 1.0, "emotion": "joy"}
    >>> one, other = contents(Manifest([row])), contents(Manifest([{**row, "wav": "/there/a.wav", "emotion": "fear"}]))
    >>> [column for column in one["columns"] if one["columns"][column] != other["columns"][column]]
    ['emotion']
    """
    columns = [column for column in manifest.rows[0] if column != "wav"] if manifest.rows else []
    checksums = {column: _checksum(manifest.rows, column) for column in columns}
    return {"items": len(manifest), "hours": round(manifest.hours, 6), "columns": checksums}


def _checksum(rows: list[Row], column: str) -> str:
    lines = sorted(json.dumps([row["id"], _plain(row[column])]) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _plain(value: Any) -> str:
    """Seconds as a manifest's file has them, so that reading it back changes nothing."""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _difference(known: dict[str, Any], now: dict[str, Any]) -> str:
    """In words, or nothing."""
    columns = [name for name, checksum in known["columns"].items() if now["columns"].get(name, checksum) != checksum]
    sizes = [f"{of['items']} clips ({of['hours']:.4g} h)" for of in (known, now)]
    if "id" in columns:
        return f"{sizes[0]}, not {sizes[1]}" if sizes[0] != sizes[1] else f"{sizes[0]}, but not these"
    return f"other values of {', '.join(columns)}" if columns else ""


def _manifest(data: Any) -> Manifest | None:
    """Of a dataset, or of the dataset in a loader; None where it is of another kind."""
    while isinstance(data, LoopedLoader | DataLoader | SeededItems):
        data = data.loader if isinstance(data, LoopedLoader) else data.dataset
    return data.manifest if isinstance(data, AudioDataset) else None


def _read(path: Path) -> dict[str, Any]:
    """The note; nothing where a run is older than notes are."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
