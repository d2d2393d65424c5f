"""Discrete units: the nearest of some centres that k-means found in the frames of an encoder's layer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lobes.errors import DataError


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

    @classmethod
    def fit(cls, frames: Tensor, layer: int, n_units: int, seed: int = 0) -> Codebook:
        """Find units by k-means on standardised frames (N, D).

        Raises
        ------
        DataError
            Fewer frames than units.
        """
        from sklearn.cluster import KMeans

        x = frames.float().cpu()
        if len(x) < n_units:
            raise DataError(f"codebook: {len(x)} frames for {n_units} units; give more audio, or ask for fewer units")
        mean, deviation = x.mean(0), x.std(0).clamp_min(1e-5)
        points = ((x - mean) / deviation).numpy()
        found = KMeans(n_units, init="random", n_init=1, max_iter=20, random_state=seed).fit(points)
        return cls(layer, np.asarray(found.cluster_centers_, dtype=np.float32), mean.numpy(), deviation.numpy())

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
