"""Adapter folders: ``adapter.json`` and ``adapter.safetensors``, written and read, without the encoder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lobes
from lobes.adapters.base import Adaptation, active_adapter, adaptations, methods, remove_adapter
from lobes.adapters.sites import adapter_tensors, pretrained_model, pretrained_tensors
from lobes.errors import CheckpointError, ConfigError

DESCRIPTION_FILE, TENSORS_FILE = "adapter.json", "adapter.safetensors"


def save_adapter(encoder: nn.Module, folder: str | Path, name: str | None = None) -> Path:
    """Write one adapter of an encoder, and what it was made on, as a folder.

    Arguments
    ---------
    encoder : nn.Module
        With the adapter.
    folder : str or Path
        Made if missing; its two files are replaced if not.
    name : str, optional
        Of the adapter; the active one by default.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If there is no such adapter.
    CheckpointError
        If one of its numbers is not finite.
    """
    name, known = name or active_adapter(encoder), adaptations(encoder)
    if name is None or name not in known:
        raise ConfigError(f"save_adapter: no adapter '{name}'; the encoder has {', '.join(known) or 'none'}")
    adaptation = known[name]
    root = pretrained_model(encoder)
    tensors = {key: t.detach().cpu().clone().contiguous() for key, t in adapter_tensors(encoder, name).items()}
    broken = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"save_adapter: {broken[0]} holds inf or nan; expected finite numbers")
    description = {
        "lobes_version": lobes.__version__,
        "method": type(adaptation).__name__,
        "options": adaptation.options(),
        "encoder": fingerprint(root),
    }
    text = json.dumps(description, indent=2) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / TENSORS_FILE, lambda path: save_file(tensors, path, {"format": "pt"}))
    _replace(folder / DESCRIPTION_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return folder


def load_adapter(
    encoder: nn.Module, folder: str | Path, name: str = "default", *, same_weights: bool = True
) -> nn.Module:
    """Put a saved adapter into an encoder, and leave it active.

    Nothing is unpickled, and nothing is run that the folder names but the methods of `lobes.adapters`.

    Arguments
    ---------
    encoder : nn.Module
        The pretrained encoder that the adapter was made on; it may have others already.
    folder : str or Path
        From `save_adapter`.
    name : str
        What to call it here.
    same_weights : bool
        Refuse an encoder of the same architecture with other weights.

    Returns
    -------
    nn.Module
        The encoder.

    Raises
    ------
    CheckpointError
        If the files are missing or damaged, do not fit each other, or were made on another encoder.
    """
    folder = Path(folder)
    description, tensors = _read(folder)
    _check_encoder(folder, description.get("encoder", {}), fingerprint(pretrained_model(encoder)), same_weights)
    _adaptation(folder, description).apply(encoder, name)
    own = adapter_tensors(encoder, name)
    wrong = [key for key in own.keys() ^ tensors.keys()]
    wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if wrong:
        remove_adapter(encoder, name)
        raise CheckpointError(
            f"{folder}: {TENSORS_FILE} and {DESCRIPTION_FILE} do not fit: {sorted(wrong)[0]}; copy it again"
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(tensors[key])
    return encoder


def fingerprint(root: nn.Module) -> dict[str, Any]:
    """What tells a pretrained model from others, whatever adapters it has.

    Returns
    -------
    dict
        ``class``, ``parameters``, and SHA-256 of the names and shapes of its tensors (``architecture``) and of what is
        in them (``weights``).
    """
    tensors = pretrained_tensors(root)
    architecture, weights = hashlib.sha256(), hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        architecture.update(f"{key} {tuple(tensor.shape)}\n".encode())
        weights.update(f"{key} {tensor.dtype}\n".encode())
        weights.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return {
        "class": type(root).__name__.removeprefix("Parametrized"),
        "parameters": sum(t.numel() for t in tensors.values() if isinstance(t, nn.Parameter)),
        "architecture": architecture.hexdigest(),
        "weights": weights.hexdigest(),
    }


def _check_encoder(folder: Path, made_on: dict[str, Any], given: dict[str, Any], same_weights: bool) -> None:
    def kind(of: dict[str, Any]) -> str:
        return f"{of.get('class')} of {of.get('parameters', 0):,} parameters"

    if made_on.get("architecture") != given["architecture"]:
        raise CheckpointError(f"{folder}: made on {kind(made_on)} with other tensors than this encoder, {kind(given)}")
    if same_weights and made_on.get("weights") != given["weights"]:
        raise CheckpointError(
            f"{folder}: made on {kind(made_on)} with other weights than this encoder's; load the pretrained weights, "
            "or pass same_weights=False"
        )


def _adaptation(folder: Path, description: dict[str, Any]) -> Adaptation:
    found = {c.__name__: c for c in methods() if c.__module__.startswith("lobes.adapters.")}
    method = description.get("method")
    if method not in found:
        raise CheckpointError(f"{folder}: method is '{method}'; expected one of {', '.join(sorted(found))}")
    try:
        return found[method](**description.get("options", {}))
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder}: options of {method} are not this version's ({error}); save it again"
        ) from error


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: no adapter that can be read ({error}); expected the folder of save_adapter"
        ) from error
    if not isinstance(description, dict):
        raise CheckpointError(f"{folder}: {DESCRIPTION_FILE} holds no mapping; expected the folder of save_adapter")
    return description, tensors


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have it written beside the file, then rename, so that nobody ever reads half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
