"""What an encoder tells of speakers without any training: cosines of its layers' statistics over time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lobes.dataio import AudioDataset, Trial
from lobes.evaluation import trials_eer
from lobes.probes.downstream import cache_features
from lobes.probes.pooled import PooledLayers


def pooled_layers(
    encoder: Any, datasets: Mapping[str, AudioDataset], train: str = "train", device: str | torch.device = "cpu"
) -> dict[str, dict[str, Tensor]]:
    """Mean and deviation over time of all layers, standardised over the training split: (L, 2·D) by split and id.

    The layers of an encoder hold a large constant part, which is all that a cosine of plain means sees; so each
    dimension is less its mean and over its deviation among the training utterances. No label is used. The deviation
    over time is there because features that are centred over time, as log-mel features are, have no mean.

    Parameters
    ----------
    encoder : nn.Module
        Keeps the Encoder contract; its layers have one width.
    datasets : mapping
        Split -> dataset with keys ``id`` and ``sig``; changed in place.
    train : str
        The split to standardise over.
    device : str or torch.device
        Where the encoder runs.
    """
    pooled: dict[str, dict[str, Tensor]] = {}
    for split, dataset in datasets.items():
        known: dict[str, Tensor] = {}  # utterance id -> (1, L, 2·D)
        cache_features(dataset, PooledLayers(encoder), device, known=known)
        pooled[split] = {name: found[0] for name, found in known.items()}
    heard = torch.stack(list(pooled[train].values()))
    mean, deviation = heard.mean(0), heard.std(0, correction=0)
    # What hardly varies, such as the mean of what is centred, is rounding errors, and stays small.
    deviation = deviation.maximum(1e-3 * deviation.amax(-1, keepdim=True)).clamp(min=1e-12)
    return {
        split: {name: (vector - mean) / deviation for name, vector in found.items()} for split, found in pooled.items()
    }


def training_free(
    encoder: Any, datasets: Mapping[str, AudioDataset], trials: Sequence[Trial], device: str | torch.device = "cpu"
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any], str]:
    """Statistics over time of the one layer whose cosines are best on development trials.

    Parameters
    ----------
    encoder, device
        As for `pooled_layers`.
    datasets : mapping
        `train`, `valid` and `test`; changed in place.
    trials : sequence of Trial
        Of `valid`.

    Returns
    -------
    tuple
        Embeddings (2·D,) by split and utterance id; what they cost, as `lobes.evaluation.write_result` takes it; which
        layer it was, and the error of each.
    """
    started = time.perf_counter()
    layers = pooled_layers(encoder, datasets, device=device)

    def of_layer(split: str, layer: int) -> dict[str, np.ndarray]:
        return {name: vectors[layer].numpy() for name, vectors in layers[split].items()}

    errors = [trials_eer(of_layer("valid", layer), trials) for layer in range(len(encoder.layer_dims))]
    best = int(np.argmin(errors))
    cost = {
        "parameters_trained": 0,
        "parameters_total": sum(p.numel() for p in encoder.parameters()),
        "audio_hours": 0.0,
        "wall_seconds": time.perf_counter() - started,
        "macs_per_second": encoder.macs(10.0) / 10,
    }
    listed = " ".join(f"{error:.3f}" for error in errors)
    return {split: of_layer(split, best) for split in layers}, cost, f"layer {best}; EER on valid by layer: {listed}"
