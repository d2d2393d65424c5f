"""From audio to a pool: discrete units and an embedding of each utterance, by a layer of an encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lobes.dataio import AudioDataset, GlobalBatchSampler, collate
from lobes.distillation.codebook import Codebook
from lobes.encoders import absolute_lengths
from lobes.errors import ConfigError, DataError
from lobes.selection import Pool, Units, active_share, wada_snr


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
    dims: list[int] = list(encoder.layer_dims)  # type: ignore[arg-type]
    if not -len(dims) <= layer < len(dims):
        raise ConfigError(f"codebook: layer {layer}; the encoder has {len(dims)}, the first is 0")
    found: list[Tensor] = []
    for heard in _heard(dataset, encoder, layer, device, shuffle=True, seed=seed):
        found += [frame for _, frame, _ in heard]
        if sum(map(len, found)) >= max_frames:
            break
    x = torch.cat(found)[:max_frames] if found else torch.zeros(0, dims[layer])
    return Codebook.fit(x, layer % len(dims), n_units, seed)


def describe(
    dataset: AudioDataset,
    encoder: nn.Module,
    codebook: Codebook,
    *,
    device: str | torch.device = "cpu",
    columns: Sequence[str] = (),
) -> Pool:
    """Hear each utterance once: its units, the mean over time of the layer as its embedding, and how clean it sounds.

    Columns are `snr_db` and `active` (`lobes.selection.wada_snr`, `active_share`), for filters to go by.

    Parameters
    ----------
    dataset, encoder, device
        As for `fit_codebook`.
    codebook : Codebook
        The same for pool and target.
    columns : sequence of str
        Labels of the manifest to take along as further columns.

    Returns
    -------
    Pool
        Without the utterances that cannot be read.
    """
    units: dict[str, NDArray[np.int64]] = {}
    means: dict[str, NDArray[np.float32]] = {}
    signal: dict[str, tuple[float, float]] = {}
    rate: int = encoder.sample_rate  # type: ignore[assignment]
    for heard in _heard(dataset, encoder, codebook.layer, device):
        for name, frame, waveform in heard:
            units[name] = codebook.units(frame)
            means[name] = frame.float().mean(0).cpu().numpy()
            signal[name] = wada_snr(waveform.numpy()), active_share(waveform.numpy(), rate)
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
        {
            "snr_db": np.array([signal[name][0] for name in ids]),
            "active": np.array([signal[name][1] for name in ids]),
            **{name: np.array([row[name] for row in rows]) for name in columns},
        },
    )


@torch.inference_mode()
def _heard(
    dataset: AudioDataset,
    encoder: nn.Module,
    layer: int,
    device: str | torch.device,
    shuffle: bool = False,
    seed: int = 0,
) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Batch by batch, the real frames (T, D) and the waveform (samples,) of each utterance that could be read."""
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
            samples = absolute_lengths(lengths, waveform.shape[1]).tolist()
            waveforms = [row[:count] for row, count in zip(waveform, samples, strict=True)]
            parts = zip(batch.id, real, waveforms, strict=True)
            yield [(name, f, w) for name, f, w in parts if name not in skipped and len(f)]
    finally:
        for module, mode in modes.items():
            module.training = mode
