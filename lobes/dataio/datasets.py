"""From a manifest to batches: datasets that survive bad files, and the collation that drops them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from torch import Tensor

from lobes.dataio.audio import AudioError, read_audio
from lobes.dataio.manifest import COLUMNS, Manifest, Row, read_manifest, write_manifest
from lobes.dataio.splits import draw
from lobes.errors import ConfigError, DataError

#: (waveform (samples,), sample rate in Hz, manifest row, epoch) -> waveform.
Transform = Callable[[Tensor, int, Row, int], Tensor]
#: Samples of silence of each item, at relative length 0, in a batch of which nothing could be read: some, for
#: a convolution to slide over.
_PLACEHOLDER_SAMPLES = 1600


class AudioDataset(DynamicItemDataset):
    """A `DynamicItemDataset` whose crops move from epoch to epoch; `audio_dataset` makes it.

    Attributes
    ----------
    manifest : Manifest
        Rows and sidecar.
    durations : list of float
        Seconds of each item as it is loaded, crops included: what a `GlobalBatchSampler` takes.
    """

    def __init__(self, manifest: Manifest, data: dict[str, dict[str, Any]], heard_columns: Sequence[str] = ()) -> None:
        super().__init__(data)
        self.manifest = manifest
        self.durations = [row["duration"] for row in data.values()]
        self._heard_columns = ("wav", "start", "stop", "channel", *heard_columns)
        # In shared memory, so that loader workers that live for many epochs see a new epoch too.
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the positions of crops are drawn for."""
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch[0])

    def fingerprints(self) -> dict[str, str]:
        """Of each id what its audio is made of, as its manifest has it: file, place, and what a transform reads.

        Two datasets that call different audio by one id give it different fingerprints; columns that are not heard,
        such as a text, do not count, nor does where the corpus lies.
        """
        found = {}
        for row in self.manifest.rows:
            what = "\t".join(f"{row.get(column)}" for column in self._heard_columns)
            found[row["id"]] = hashlib.sha256(what.encode()).hexdigest()[:16]
        return found

    def repeat(self, seconds: float) -> AudioDataset:
        """Let an epoch go through all items so many times that it has about so many seconds; at least once.

        So epochs of a small dataset are as long as those of a large one, and their batches as full.
        """
        times = max(1, round(seconds / max(sum(self.durations), 1e-9)))
        self.data_ids: list[str] = self.data_ids * times
        self.durations = self.durations * times
        return self


def audio_dataset(
    manifest: str | os.PathLike[str] | Manifest,
    sample_rate: int = 16000,
    keys: Sequence[str] = ("id", "sig"),
    *,
    labels: Mapping[str, tuple[str, Callable[[str], Any]]] | None = None,
    max_seconds: float | None = None,
    transform: Transform | None = None,
    seed: int = 0,
    data_root: str | os.PathLike[str] | Mapping[str, str] | None = None,
) -> AudioDataset:
    """Make a dataset that yields waveforms and labels.

    Parameters
    ----------
    manifest : path or Manifest
        As `read_manifest` takes.
    sample_rate : int
        Hz of the waveforms.
    keys : sequence of str
        What an item holds: `id`, `sig` (float32, (samples,)), columns of the manifest, or names in `labels`.
        `duration` (seconds, crops included) is always added.
        Where `sig` is among them, `skip_reason` is added: empty, or why `sig` has no samples.
    labels : mapping
        Name -> (column, function): `{"tokens": ("text", tokenizer.encode)}`. A list of whole numbers becomes
        a long tensor (n,), which `collate` pads; a single one is stacked to a long tensor (B,).
    max_seconds : float, optional
        Longer clips are cropped to this length. The position of the crop is a pure function of (seed, id,
        epoch), so that it depends neither on workers nor on where a run was resumed.
    transform : callable, optional
        (waveform (samples,), sample rate in Hz, the manifest's row, epoch) -> waveform, after cropping: a `BandStop` or
        a `BackgroundSwap`. An `AudioError` in it is reported as the file's own would be. Its attribute `columns`, if it
        has one, says what it reads of the row; else it is taken to read all. One that makes something else of a clip in
        each epoch has an attribute `varies`, True: nothing that was computed of it once may be kept.
    seed : int
        For the crops.
    data_root : path or mapping, optional
        Where the audio is, if not where the sidecar says.

    Returns
    -------
    AudioDataset
        Never raises for a bad file: `sig` then has 0 samples.

    Raises
    ------
    DataError
        A bad manifest, a column that it does not have, or, while loading, a label that cannot be encoded.
    ConfigError
        `max_seconds` is not positive.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise ConfigError(f"max_seconds is {max_seconds}: expected a positive number of seconds, or null")
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest, data_root)
    elif data_root is not None:
        raise ConfigError("data_root goes with the path of a manifest: give it to read_manifest instead")
    data = {
        row["id"]: {
            **{key: value for key, value in row.items() if key != "id"},
            "wav": str(manifest.audio_path(row)),
            "duration": row["duration"] if max_seconds is None else min(row["duration"], max_seconds),
        }
        for row in manifest.rows
    }
    dataset = AudioDataset(manifest, data, () if transform is None else _read_by(transform, manifest))
    labels = dict(labels or {})
    _check_keys(keys, labels, manifest)
    rows = {row["id"]: row for row in manifest.rows}
    apply = partial(_apply, transform=transform, rows=rows) if transform is not None else None
    load = partial(
        _load, sample_rate=sample_rate, max_seconds=max_seconds, apply=apply, seed=seed, epoch=dataset._epoch
    )
    dataset.add_dynamic_item(load, ["id", "wav", "start", "stop", "channel"], ["sig", "skip_reason"])
    for name, (column, encode) in labels.items():
        dataset.add_dynamic_item(partial(_encode, name=name, encode=encode), ["id", column], name)
    with_reason = ["skip_reason"] if "sig" in keys and "skip_reason" not in keys else []
    length = ["duration"] if "duration" not in keys else []
    dataset.set_output_keys([*keys, *length, *with_reason])
    return dataset


def collate(items: Sequence[Mapping[str, Any]], padding: Mapping[str, float] | None = None) -> PaddedBatch:
    """Pad items to a batch, without those whose audio could not be read.

    Parameters
    ----------
    items : sequence of dict
        From `audio_dataset`.
    padding : mapping, optional
        Key -> padding value, 0 by default.

    Returns
    -------
    PaddedBatch
        `batch.sig` is (data (B, samples), lengths (B,)), lengths relative to the longest. `batch.skipped`
        lists (id, reason) of what was dropped. If nothing could be read, all items are kept, as silence of
        relative length 0, so that a process of a distributed run still has a batch to go through the step
        with; then `batch.placeholder` is True, and `lobes.training.Brain` counts it for nothing.
    """
    readable = [item for item in items if "sig" not in item or len(item["sig"])]
    skipped = [
        (str(item.get("id", "?")), item.get("skip_reason") or "holds no samples")
        for item in items
        if "sig" in item and not len(item["sig"])
    ]
    kept = [{key: value for key, value in item.items() if key != "skip_reason"} for item in readable or items]
    values = {key: {"value": value} for key, value in (padding or {}).items()}
    batch = PaddedBatch(kept, padding_func=_pad_right, per_key_padding_kwargs=values)
    if not readable:
        batch.sig = PaddedData(torch.zeros(len(kept), _PLACEHOLDER_SAMPLES), torch.zeros(len(kept)))
    batch.skipped, batch.placeholder = skipped, not readable
    return batch


def merge_manifests(manifests: Mapping[str, str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Write one manifest over several corpora, each with its own data root, to pretrain on all of them.

    Ids and groups are prefixed with the corpus; `corpus` becomes a label, and labels that all of them have
    are kept.

    Parameters
    ----------
    manifests : mapping
        Name of the corpus (letters, digits, _) -> its manifest.
    path : path
        The CSV to write.

    Returns
    -------
    Path
        The CSV.

    Raises
    ------
    DataError
        No manifest is given, or one of them is bad.
    ConfigError
        A name has other characters.
    """
    if not manifests:
        raise DataError(f"nothing to merge into {path}: give at least one manifest")
    bad = [name for name in manifests if not (name.isascii() and name.isidentifier())]
    if bad:
        raise ConfigError(f"corpus name '{bad[0]}' cannot be used: expected letters, digits and _")
    parts = {name: read_manifest(csv) for name, csv in manifests.items()}
    common = set.intersection(*(set(part.labels) for part in parts.values())) - {"corpus"}
    rows, roots = [], {}
    for name, part in parts.items():
        # `$data_root/x` of the corpus abc becomes `$abc/x`; a merged one keeps its variables: `$abc.fsdd/x`.
        rename = {variable: name if variable == "data_root" else f"{name}.{variable}" for variable in part.roots}
        roots.update({rename[variable]: folder for variable, folder in part.roots.items()})
        for row in part.rows:
            kept = {key: row[key] for key in row if key in common or key == "id" or key in COLUMNS}
            variable, slash, rest = row["wav"].partition("/")
            variable = f"${rename[variable[1:]]}" if variable[1:] in rename else variable
            rows.append(
                {
                    **kept,
                    "id": f"{name}/{row['id']}",
                    "wav": f"{variable}{slash}{rest}",
                    "group": f"{name}/{row['group']}",
                    "corpus": name,
                }
            )
    metas = [part.meta for part in parts.values()]
    return write_manifest(
        path,
        rows,
        data_root=roots,
        source="; ".join(dict.fromkeys(str(meta.get("source", "unknown")) for meta in metas)),
        licence="; ".join(dict.fromkeys(str(meta.get("licence", "unknown")) for meta in metas)),
        generated=any(meta.get("generated", False) for meta in metas),
        options={"merged": {name: part.checksum for name, part in parts.items()}},
    )


def _pad_right(tensors: Sequence[Tensor], value: float = 0) -> tuple[Tensor, Tensor]:
    """Pad to the longest; unlike SpeechBrain's own, also where all tensors are empty (a text without tokens)."""
    lengths = torch.tensor([float(len(tensor)) for tensor in tensors])
    padded = torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True, padding_value=value)
    return padded, lengths / lengths.max().clamp(min=1)


def _check_keys(
    keys: Sequence[str], labels: Mapping[str, tuple[str, Callable[[str], Any]]], manifest: Manifest
) -> None:
    columns = [*manifest.rows[0], "sig", "skip_reason"]
    for name, (column, _) in labels.items():
        if column not in columns:
            raise DataError(f"label '{name}' needs the column '{column}': the manifest has {', '.join(columns[:-2])}")
        if name in columns:
            raise ConfigError(f"label '{name}' is already a column of the manifest: choose another name")
    unknown = [key for key in keys if key not in columns and key not in labels]
    if unknown:
        raise DataError(f"key '{unknown[0]}' is unknown: expected one of {', '.join([*columns, *labels])}")


def _read_by(transform: Transform, manifest: Manifest) -> tuple[str, ...]:
    return tuple(getattr(transform, "columns", sorted(manifest.rows[0])))


def _load(
    id: str,
    wav: str,
    start: float,
    stop: float,
    channel: int | None,
    *,
    sample_rate: int,
    max_seconds: float | None,
    apply: Callable[[Tensor, int, str, int], Tensor] | None,
    seed: int,
    epoch: Tensor,
) -> tuple[Tensor, str]:
    """Return `sig` and `skip_reason`."""
    if max_seconds is not None and stop - start > max_seconds:
        start += draw(seed, int(epoch[0]), id) * (stop - start - max_seconds)
        stop = start + max_seconds
    try:
        waveform = read_audio(wav, sample_rate, start, stop, channel)
        return waveform if apply is None else apply(waveform, sample_rate, id, int(epoch[0])), ""
    except AudioError as error:
        return torch.zeros(0), str(error)


def _apply(
    waveform: Tensor, sample_rate: int, id: str, epoch: int, *, transform: Transform, rows: Mapping[str, Row]
) -> Tensor:
    return transform(waveform, sample_rate, rows[id], epoch)


def _encode(id: str, value: str, *, name: str, encode: Callable[[str], Any]) -> Any:
    try:
        encoded = encode(value)
    except Exception as error:
        raise DataError(f"{id}: {name} cannot be made of '{value}': {error}") from error
    return torch.tensor(encoded, dtype=torch.long) if isinstance(encoded, (list, tuple)) else encoded
