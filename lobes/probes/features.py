"""A frozen encoder's features, computed once and shared by every head that is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lobes.errors import DataError

Features = dict[str, list[Tensor]]
GIB = 2**30


def extract_features(
    encoder: nn.Module,
    loader: Iterable[Any],
    device: str | torch.device = "cpu",
    *,
    layers: Sequence[int] | None = None,
    half: bool = False,
    features_gib: float = 4.0,
    progress: bool = True,
) -> Features:
    """Return the encoder's layers for each utterance, without padding, in main memory.

    The encoder runs in evaluation mode without gradients, and every module is left in the mode in which it was.

    Parameters
    ----------
    encoder : nn.Module
        `encoder(waveform (B, S), lengths (B,))` giving `layers` [(B, T, D)...] and `valid` (B, T).
    loader : iterable of batch
        With `batch.id` and `batch.sig` = (waveform, relative lengths), such as SpeechBrain's `PaddedBatch`.
    device : str or torch.device
        Where the encoder is moved and runs.
    layers : sequence of int, optional
        Which layers to keep (negative from the last); all by default.
    half : bool
        Keep float16: half the memory, three significant digits.
    features_gib : float
        Most memory that the features may take, in GiB.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        Utterance id to a list of (T, D) tensors, one per layer.

    Raises
    ------
    DataError
        If they don't fit, said as soon as the batches so far let it be foreseen; if an id occurs twice; if half
        precision can't hold a value.
    """
    from tqdm import tqdm

    modes = {module: module.training for module in encoder.modules()}
    encoder.to(device).eval()
    features: Features = {}
    used = 0
    total, n_items = _length(loader), _length(getattr(loader, "dataset", None))
    try:
        bar = tqdm(loader, total=total, desc="features", disable=not progress, leave=False)
        for done, batch in enumerate(bar, start=1):
            used += _add(features, encoder, batch, device, layers, half)
            _check_size(_foreseen(used, features, done, total, n_items), len(features), features_gib, half)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return features


def _length(loader: Any) -> int | None:
    """Return the number of batches, or of items, None where it can't be known."""
    try:
        return len(loader)
    except TypeError:
        return None


def _add(
    features: Features,
    encoder: nn.Module,
    batch: Any,
    device: str | torch.device,
    layers: Sequence[int] | None,
    half: bool,
) -> int:
    """Add one batch to the features; return the bytes it took."""
    waveform, lengths = batch.sig
    with torch.inference_mode():
        output = encoder(waveform.to(device), lengths.to(device))
    chosen = output.layers if layers is None else [output.layers[index] for index in layers]
    counts = output.valid.sum(1).tolist()
    taken = 0
    for row, name in enumerate(batch.id):
        if name in features:
            raise DataError(f"id: {name!r} occurs twice in the data, expected distinct ones; mend the manifest")
        # A copy, made outside inference mode: free of the padded batch, and fit for training heads on it.
        kept = [layer[row, : counts[row]].to("cpu", torch.float16 if half else None, copy=True) for layer in chosen]
        if half and not all(torch.isfinite(layer).all() for layer in kept):
            raise DataError(f"features of {name!r}: beyond what float16 holds, expected below 65504; pass half=False")
        features[name] = kept
        taken += sum(layer.numel() * layer.element_size() for layer in kept)
    return taken


def _foreseen(used: int, features: Features, done: int, total: int | None, n_items: int | None) -> float:
    """Bytes that all of the features will take, at least, or that they take where that can't be told yet.

    Where an utterance has a single frame, as pooled ones have, each takes as much; else, each batch does, of which the
    last may be all but empty.
    """
    if done < 3:
        return used
    if n_items and len(next(iter(features.values()))[0]) == 1:
        return used * max(n_items / len(features), 1.0)
    return used * max(((total or 0) - 1) / done, 1.0)


def _check_size(foreseen: float, n_items: int, features_gib: float, half: bool) -> None:
    """Raise when the features are, or will be, too large."""
    if foreseen > features_gib * GIB:
        smaller = "" if half else "half=True or "
        raise DataError(
            f"features: {foreseen / GIB:.3g} GiB foreseen ({n_items} utterances done), expected at most"
            f" features_gib={features_gib:g}; give more, if there is memory for it, a smaller encoder or fewer"
            f" utterances (extract_features also takes {smaller}fewer layers)"
        )


def collate_features(
    features: Mapping[str, Sequence[Tensor]], ids: Sequence[str], device: str | torch.device = "cpu"
) -> tuple[list[Tensor], Tensor]:
    """Return layers [(B, T, D)...] in float32 and mask (B, T) of some utterances, as `Probe` takes them.

    Raises
    ------
    DataError
        If an id has no features.

    Example
    -------
    >>> features = {"a": [torch.ones(2, 4)], "b": [torch.ones(3, 4)]}
    >>> layers, valid = collate_features(features, ["a", "b"])
    >>> layers[0].shape, valid.tolist()
    (torch.Size([2, 3, 4]), [[True, True, False], [True, True, True]])
    """
    missing = [name for name in ids if name not in features]
    if missing:
        raise DataError(f"id: {missing[0]!r} has no features, expected all of {len(ids)}; extract them from this data")
    chosen = [features[name] for name in ids]
    layers = [
        pad_sequence([item[index] for item in chosen], batch_first=True).to(device, torch.float32)
        for index in range(len(chosen[0]))
    ]
    counts = torch.tensor([len(item[0]) for item in chosen], device=device)
    return layers, torch.arange(layers[0].shape[1], device=device) < counts.unsqueeze(1)
