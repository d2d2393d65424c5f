"""From audio to a pool: discrete units and an embedding of each utterance, by a layer of an encoder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lobes.dataio import AudioDataset, GlobalBatchSampler, collate
from lobes.errors import ConfigError, DataError
from lobes.selection import Pool, Units


@dataclass(frozen=True)
class Codebook:
    """Discrete units of a layer: the nearest of K centres, in standardised frames.

    Parameters
    ----------
    layer : int
        Of the encoder that it was fitted on.
    centres : array (K, D)
    mean, deviation : array (D,)
        Of the frames.
    """

    layer: int
    centres: NDArray[np.float32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def units(self, frames: Tensor) -> NDArray[np.int64]:
        """The unit of each frame (T, D), (T,)."""
        x = (frames.float().cpu() - torch.from_numpy(self.mean)) / torch.from_numpy(self.deviation)
        centres = torch.from_numpy(self.centres)
        # |x - c|² without its first term, which is the same for all centres.
        return (x @ centres.T - centres.square().sum(1) / 2).argmax(-1).numpy()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as .npz, all at once."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
        values: dict[str, Any] = {"centres": self.centres, "mean": self.mean, "deviation": self.deviation}
        np.savez(temporary, layer=np.array(self.layer), **values)
        os.replace(temporary, path)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codebook:
        """Read what `save` wrote."""
        try:
            with np.load(path) as file:
                return cls(int(file["layer"]), file["centres"], file["mean"], file["deviation"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: is no codebook ({error}); fit one and save it") from error


def fit_codebook(
    dataset: AudioDataset,
    encoder: nn.Module,
    layer: int,
    n_units: int,
    *,
    device: str | torch.device = "cpu",
    max_frames: int = 50_000,
    seed: int = 0,
) -> Codebook:
    """Find units by k-means on the frames of utterances drawn at random.

    Parameters
    ----------
    dataset : AudioDataset
        With ``id`` and ``sig``, at the encoder's sample rate.
    encoder : nn.Module
        Keeps the Encoder contract.
    layer : int
        Of its layers; negative ones count from the last.
    n_units : int
        K.
    device : str or torch.device
        Where it runs.
    max_frames : int
        What k-means is fitted on.
    seed : int
        Of the draw and of k-means.

    Raises
    ------
    ConfigError
        There is no such layer.
    DataError
        Fewer frames than units.
    """
    from sklearn.cluster import KMeans

    dims: list[int] = list(encoder.layer_dims)  # type: ignore[arg-type]
    if not -len(dims) <= layer < len(dims):
        raise ConfigError(f"codebook: layer {layer}; the encoder has {len(dims)}, the first is 0")
    found: list[Tensor] = []
    for frames in _heard(dataset, encoder, layer, device, shuffle=True, seed=seed):
        found += [frame for _, frame in frames]
        if sum(map(len, found)) >= max_frames:
            break
    x = torch.cat(found).float()[:max_frames] if found else torch.zeros(0, dims[layer])
    if len(x) < n_units:
        raise DataError(f"codebook: {len(x)} frames for {n_units} units; give more audio, or ask for fewer units")
    mean, deviation = x.mean(0), x.std(0).clamp_min(1e-5)
    fitted = KMeans(n_units, init="random", n_init=1, max_iter=20, random_state=seed).fit(
        ((x - mean) / deviation).numpy()
    )
    centres = np.asarray(fitted.cluster_centers_, dtype=np.float32)
    return Codebook(layer % len(dims), centres, mean.numpy(), deviation.numpy())


def describe(
    dataset: AudioDataset,
    encoder: nn.Module,
    codebook: Codebook,
    *,
    device: str | torch.device = "cpu",
    columns: Sequence[str] = (),
) -> Pool:
    """Hear each utterance once: its units, and the mean over time of the layer as its embedding.

    Parameters
    ----------
    dataset, encoder, device
        As for `fit_codebook`.
    codebook : Codebook
        The same for pool and target.
    columns : sequence of str
        Labels of the manifest to take along.

    Returns
    -------
    Pool
        Without the utterances that cannot be read.
    """
    units: dict[str, NDArray[np.int64]] = {}
    means: dict[str, NDArray[np.float32]] = {}
    for frames in _heard(dataset, encoder, codebook.layer, device):
        for name, frame in frames:
            units[name] = codebook.units(frame)
            means[name] = frame.float().mean(0).cpu().numpy()
    rows = [row for row in dataset.manifest.rows if row["id"] in units]
    if not rows:
        raise DataError("pool: no utterance could be heard; see the log")
    ids = [row["id"] for row in rows]
    return Pool(
        np.array(ids),
        np.array([row["duration"] for row in rows]),
        np.array([row["group"] for row in rows]),
        Units.of([units[name] for name in ids]),
        np.stack([means[name] for name in ids]),
        {name: np.array([row[name] for row in rows]) for name in columns},
    )


@torch.inference_mode()
def _heard(
    dataset: AudioDataset,
    encoder: nn.Module,
    layer: int,
    device: str | torch.device,
    shuffle: bool = False,
    seed: int = 0,
) -> Iterator[list[tuple[str, Tensor]]]:
    """Batch by batch, the real frames (T, D) of each utterance that could be read."""
    sampler = GlobalBatchSampler(dataset.durations, 60.0, shuffle=shuffle, seed=seed)
    loader: Iterable[Any] = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    modes = {module: module.training for module in encoder.modules()}
    encoder.to(device).eval()
    try:
        for batch in loader:
            skipped = {name for name, _ in batch.skipped}
            waveform, lengths = batch.sig
            output = encoder(waveform.to(device), lengths.to(device))
            real = [frames[valid] for frames, valid in zip(output.layers[layer], output.valid, strict=True)]
            yield [(n, f) for n, f in zip(batch.id, real, strict=True) if n not in skipped and len(f)]
    finally:
        for module, mode in modes.items():
            module.training = mode
