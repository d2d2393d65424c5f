"""A teacher's targets, computed once: shards by utterance, that students are trained on, with inputs beside them."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lobes.dataio import AudioDataset, GlobalBatchSampler, collate
from lobes.dataio.manifest import atomic_write
from lobes.distillation.teacher import Teacher
from lobes.encoders import LogMel, LogMelEncoder, frame_mask
from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
#: Bytes of a value; int8 has a scale of 2 bytes more for each frame of each layer.
PRECISIONS = {"float32": 4, "float16": 2, "int8": 1}
GIB = 2**30
_OPEN_SHARDS = 32
_STALE = 3600.0  # seconds after which values without an index are taken to be left over


class TargetCache:
    """A folder with a teacher's layers for each utterance.

    Every process writes shards of its own (``<rank>-<random>.npy`` with an index beside it, which comes last and makes
    it count), so that a killed extraction loses at most the shard at hand and goes on with what is missing, and runs
    that share the folder never touch each other's. Frames are those that are real; utterances are heard from end
    to end, without crops. Targets are known by the utterance's id and by what its audio is made of
    (`AudioDataset.fingerprints`): where two corpora call different audio by one id, each keeps its own.

    With `inputs`, the features that a student begins with are kept too, so that training reads no audio. They lie in a
    folder of their own for each front-end, `inputs/<fingerprint>`, so that different students share the targets, and a
    cache that was begun without them is completed.

    Parameters
    ----------
    folder : path
        Made if need be.
    teacher : Teacher
        Whose targets are kept here.
    precision : str
        `float32`, `float16`, or `int8` with one scale per frame and layer, of targets alone: inputs are then float16.
    preprocessing : str
        Whatever else the targets depend on, in words; part of the key.
    inputs : LogMel, optional
        A student's front-end (`lobes.distillation.front_end`), whose features are to be kept.

    Raises
    ------
    ConfigError
        There is no such precision.
    DataError
        The folder holds targets of another teacher, layer, precision or preprocessing: nothing is overwritten.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        teacher: Teacher,
        precision: str = "float16",
        preprocessing: str = "",
        inputs: LogMel | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is '{precision}': expected one of {', '.join(PRECISIONS)}")
        self.folder, self.teacher, self.precision = Path(folder), teacher, precision
        self.settings = {
            "format": 2,
            "teacher": teacher.fingerprint(),
            "layers": teacher.layers,
            "dim": teacher.dim,
            "frame_rate": teacher.frame_rate,
            "sample_rate": teacher.sample_rate,
            "precision": precision,
            "preprocessing": preprocessing,
        }
        self._claim()
        self.inputs: TargetCache | None = None
        if inputs is not None:
            features = Teacher(LogMelEncoder(copy.deepcopy(inputs)), [0])  # its one layer
            where = self.folder / "inputs" / features.fingerprint()[:16]
            self.inputs = TargetCache(where, features, "float16" if precision == "int8" else precision, preprocessing)
        self._where: dict[str, dict[str, tuple[str, int, int]]] = {}
        self._shards: OrderedDict[str, list[NDArray[Any]]] = OrderedDict()
        self.refresh()

    def __len__(self) -> int:
        return sum(map(len, self._where.values()))

    def has(self, name: str, fingerprint: str) -> bool:
        """Whether there are targets of an utterance, of that audio, and inputs if they are kept."""
        inputs = self.inputs is None or self.inputs.has(name, fingerprint)
        return inputs and fingerprint in self._where.get(name, ())

    def refresh(self) -> None:
        """Look again for what other processes have written."""
        self._where = {}
        for path in sorted(self.folder.glob("*.json")):
            if path.name != SETTINGS:
                for name, fingerprint, first, count in json.loads(path.read_text(encoding="utf-8")):
                    self._where.setdefault(name, {})[fingerprint] = (path.stem, first, count)
        if self.inputs is not None:
            self.inputs.refresh()

    def expected_gib(self, seconds: float) -> float:
        """How much targets of so many seconds of audio take, and inputs if they are kept, GiB."""
        frames = seconds * self.teacher.frame_rate * len(self.teacher.layers)
        values = self.teacher.dim * PRECISIONS[self.precision]
        inputs = 0.0 if self.inputs is None else self.inputs.expected_gib(seconds)
        return frames * (values + (2 if self.precision == "int8" else 0)) / GIB + inputs

    def read(self, name: str, fingerprint: str) -> Tensor:
        """Targets of an utterance, (T, layers, D), float32 or float16; from int8, float32.

        Raises
        ------
        DataError
            It has none.
        """
        if fingerprint not in self._where.get(name, ()):
            raise DataError(f"{self.folder}: holds no targets of '{name}'; extract them first")
        shard, first, count = self._where[name][fingerprint]
        if shard not in self._shards:
            parts = [shard, f"{shard}.scale"] if self.precision == "int8" else [shard]
            self._shards[shard] = [np.load(self.folder / f"{part}.npy", mmap_mode="r") for part in parts]
            while len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(shard)
        values, *scale = (np.array(part[first : first + count]) for part in self._shards[shard])
        if not scale:
            return torch.from_numpy(values)
        return torch.from_numpy(values).float() * torch.from_numpy(scale[0]).float()[..., None]

    def attach(self, dataset: AudioDataset, key: str = "targets", drop: Sequence[str] = ()) -> AudioDataset:
        """Give the items of a dataset their targets (T, layers, D), and leave out those that have none.

        Where inputs are kept, items have them as ``features`` (T', F), and no ``sig``: no audio is read any more.

        Parameters
        ----------
        dataset : AudioDataset
            Changed in place.
        key : str
            What the items call them.
        drop : sequence of str
            Keys that the items then do without, such as ``sig``, which need not be read any more.

        Raises
        ------
        DataError
            None of its utterances has targets, or it crops them: targets are of whole utterances.
        """
        known = dataset.fingerprints()
        kept = [self.has(name, known[name]) for name in dataset.data_ids]
        if not any(kept):
            raise DataError(f"{self.folder}: holds targets of none of {len(kept)} utterances; extract them first")
        whole = [dataset.data[name]["stop"] - dataset.data[name]["start"] for name in dataset.data_ids]
        if any(length - seconds > 1e-3 for length, seconds in zip(whole, dataset.durations, strict=True)):
            raise DataError(
                f"{self.folder}: holds targets of whole utterances, but the dataset crops them; give it no "
                "max_seconds, and cut long recordings in the manifest"
            )
        left_out = len(kept) - sum(kept)
        if left_out:
            logger.warning("%d of %d utterances have no targets and are left out", left_out, len(kept))
        dataset.durations = [s for s, keep in zip(dataset.durations, kept, strict=True) if keep]
        dataset.data_ids = [name for name, keep in zip(dataset.data_ids, kept, strict=True) if keep]
        dataset.add_dynamic_item(partial(self._read_one_of, known), ["id"], [key])
        own = [key]
        if self.inputs is not None:
            dataset.add_dynamic_item(partial(self.inputs._read_first_of, known), ["id"], ["features"])
            own, drop = [key, "features"], [*drop, "sig"]
        reads = [] if "sig" in drop else ["skip_reason"]
        keys = [name for name in dataset.pipeline.output_mapping if name not in (*own, *drop, "skip_reason")]
        dataset.set_output_keys([*keys, *own, *reads])
        return dataset

    def extract(
        self,
        dataset: AudioDataset,
        device: str | torch.device = "cpu",
        *,
        part: tuple[int, int] = (0, 1),
        batch_seconds: float = 60.0,
        shard_gib: float = 0.25,
        max_gib: float = 20.0,
        progress: bool = True,
    ) -> int:
        """Compute what is missing of a dataset's targets and inputs, with the size of all said beforehand.

        Parameters
        ----------
        dataset : AudioDataset
            From `lobes.dataio.audio_dataset`, at the teacher's sample rate, with ``id`` and ``sig``, without crops.
        device : str or torch.device
            Where the teacher runs.
        part : tuple of int
            (index, count): of several processes each computes its own; ``(rank, world size)`` of a torchrun.
        batch_seconds : float
            Padded audio that is heard at once.
        shard_gib : float
            Size of a shard, GiB.
        max_gib : float
            Most that all targets and inputs of the dataset may take, GiB.
        progress : bool
            Show a bar.

        Returns
        -------
        int
            To how many utterances something was added.

        Raises
        ------
        ConfigError
            They would take more than `max_gib`.
        """
        size = self.expected_gib(sum(dataset.durations))
        what = "targets" if self.inputs is None else "targets and inputs"
        logger.info("%s of %d utterances take %.3f GiB as %s", what, len(dataset), size, self.precision)
        if size > max_gib:
            raise ConfigError(
                f"{what} would take {size:.2g} GiB, max_gib is {max_gib:g}: choose fewer layers or utterances, int8, "
                "or allow more"
            )
        added = self._complete(dataset, device, part, batch_seconds, shard_gib, "targets" if progress else "")
        if self.inputs is None:
            return added
        options = (device, part, batch_seconds, shard_gib, "inputs" if progress else "")
        return max(added, self.inputs._complete(dataset, *options))

    def _complete(
        self,
        dataset: AudioDataset,
        device: str | torch.device,
        part: tuple[int, int],
        batch_seconds: float,
        shard_gib: float,
        bar_name: str,
    ) -> int:
        """Hear what is missing here, as `extract` does, with a bar if it has a name; return how many were added."""
        from tqdm import tqdm

        self._remove_leftovers()
        known = dataset.fingerprints()
        # By their place among all, so that the parts fit each other whenever each process begins.
        mine = range(part[0], len(dataset.data_ids), part[1])
        ids = dataset.data_ids
        missing = [i for i in mine if known[ids[i]] not in self._where.get(ids[i], ())]
        if not missing:
            return 0
        sampler = GlobalBatchSampler([dataset.durations[i] for i in missing], batch_seconds, shuffle=False)
        subset: Any = torch.utils.data.Subset(dataset, missing)
        loader: Iterable[Any] = torch.utils.data.DataLoader(subset, batch_sampler=sampler, collate_fn=collate)
        bar = tqdm(loader, total=len(sampler), desc=bar_name, disable=not bar_name, leave=False)
        shards = _gathered(self._heard(bar, device), shard_gib * GIB)
        added = sum(self._write(found, known, part[0]) for found in shards)
        self.refresh()
        return added

    def _heard(self, batches: Iterable[Any], device: str | torch.device) -> Iterator[tuple[str, NDArray[Any]]]:
        self.teacher.to(device)
        for batch in batches:
            skipped = {name for name, _ in batch.skipped}
            waveform, lengths = batch.sig
            targets = self.teacher(waveform.to(device), lengths.to(device))
            counts = targets.valid.sum(1).tolist()
            assert bool((targets.valid == frame_mask(targets.valid.sum(1), targets.valid.shape[1])).all())
            for row, (name, count) in enumerate(zip(batch.id, counts, strict=True)):
                if name not in skipped and count:
                    values = torch.stack([layer[row, :count] for layer in targets.layers], dim=1).cpu()
                    if self.precision != "float32" and values.abs().max() > np.finfo(np.float16).max:
                        raise DataError(f"targets of {name} reach {values.abs().max():g}, which float16 cannot hold")
                    yield name, values.numpy().astype(np.float16 if self.precision == "float16" else np.float32)

    def _read_one_of(self, known: Mapping[str, str], name: str) -> Tensor:
        return self.read(name, known[name])

    def _read_first_of(self, known: Mapping[str, str], name: str) -> Tensor:
        return self.read(name, known[name])[:, 0]

    def _write(self, found: list[tuple[str, NDArray[Any]]], known: Mapping[str, str], rank: int) -> int:
        """Write a shard: its values first, its index last."""
        shard = f"{rank:04d}-{uuid.uuid4().hex[:12]}"
        values = np.concatenate([part for _, part in found])
        if self.precision == "int8":
            scale = np.maximum(np.abs(values).max(-1) / 127, 1e-8).astype(np.float16)
            scale = np.maximum(scale, np.finfo(np.float16).smallest_subnormal)
            values = np.clip(np.rint(values / scale[..., None].astype(np.float32)), -127, 127).astype(np.int8)
            self._save(f"{shard}.scale", scale)
        self._save(shard, values)
        ends = np.cumsum([len(part) for _, part in found]).tolist()
        index = [[name, known[name], end - len(part), len(part)] for (name, part), end in zip(found, ends, strict=True)]
        atomic_write(self.folder / f"{shard}.json", json.dumps(index))
        return len(found)

    def _save(self, name: str, values: NDArray[Any]) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}.npy"
        np.save(temporary, values)
        os.replace(temporary, self.folder / f"{name}.npy")

    def _remove_leftovers(self) -> None:
        """Of a killed run: values without an index, which nobody is writing any more."""
        for path in self.folder.glob("*.npy"):
            index = self.folder / f"{path.name.lstrip('.').split('.')[0]}.json"
            with suppress(FileNotFoundError):  # another process may have been faster
                if not index.is_file() and time.time() - path.stat().st_mtime > _STALE:
                    path.unlink()

    def _claim(self) -> None:
        path = self.folder / SETTINGS
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name, value in self.settings.items() if known.get(name) != value]
            if other:
                raise DataError(
                    f"{self.folder}: holds targets of another {', '.join(other)}; nothing was overwritten: give "
                    "another folder, or delete it"
                )
            return
        if any(self.folder.glob("*.npy")):
            raise DataError(f"{self.folder}: holds .npy files and no {SETTINGS}; give another folder")
        atomic_write(path, json.dumps(self.settings, indent=1) + "\n")


def _gathered(found: Iterable[tuple[str, NDArray[Any]]], most: float) -> Iterator[list[tuple[str, NDArray[Any]]]]:
    """Utterances, as many as fill a shard."""
    shard: list[tuple[str, NDArray[Any]]] = []
    size = 0
    for name, values in found:
        shard.append((name, values))
        size += values.nbytes
        if size >= most:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard
