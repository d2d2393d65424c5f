"""What recipes of downstream tasks share: an encoder, how much of it is trained, and a head on its layers.

Three keys choose all of it, alike in every task: ``encoder`` (ours, a hub id, a local folder, `logmel`), ``mode``
(`frozen`, `finetune`, or a method of `lobes.adapters`) and ``head`` (one of `lobes.probes`, by its name or a tag).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from lobes import adapters, probes
from lobes.adapters import Adaptation
from lobes.dataio import AudioDataset
from lobes.distillation import TargetCache, Teacher
from lobes.errors import ConfigError
from lobes.export import load_encoder
from lobes.probes import Downstream, Probe, attends, cache_features
from lobes.training.parallel import on_main, rank, world_size

#: The words for ``mode`` beside the names of `lobes.adapters`.
FROZEN, FINETUNE = "frozen", "finetune"


def load_upstream(hparams: Mapping[str, Any]) -> nn.Module:
    """The encoder that ``encoder``, ``untrained`` and ``seed`` name, with what ``mode`` lets train, and adapters.

    Arguments
    ---------
    hparams : mapping
        ``mode`` is `frozen`, `finetune`, the name of a method of `lobes.adapters` with its default options, such as
        `LoRA`, or the method itself: ``!new:lobes.adapters.LoRA`` in a YAML. ``head``, if there is one, is looked at as
        `head_of` does.

    Returns
    -------
    nn.Module
        Keeps the Encoder contract; what does not train has ``requires_grad`` False.

    Raises
    ------
    ConfigError
        ``mode`` or ``head`` is another word, or the method does not fit the encoder; before anything is computed.
    """
    mode = hparams["mode"]
    if hparams.get("head") is not None:
        head_of(hparams)
    method = adaptation(mode)
    encoder = load_encoder(hparams["encoder"], untrained=hparams["untrained"], seed=hparams["seed"])
    if method is None:
        return encoder.requires_grad_(mode == FINETUNE)
    method.apply(encoder)
    return encoder


def adaptation(mode: str | Adaptation) -> Adaptation | None:
    """The method that a ``mode`` names; None for `frozen` and `finetune`."""
    if isinstance(mode, Adaptation):
        return mode
    if mode in (FROZEN, FINETUNE):
        return None
    found = getattr(adapters, str(mode), None)
    if not (isinstance(found, type) and issubclass(found, Adaptation) and found is not Adaptation):
        methods = [name for name in adapters.__all__ if _is_method(getattr(adapters, name))]
        raise ConfigError(f"mode is '{mode}': expected {FROZEN}, {FINETUNE}, or one of {', '.join(sorted(methods))}")
    return found()


def head_of(hparams: Mapping[str, Any]) -> Callable[..., nn.Module]:
    """What ``head`` names: itself, or of a plain name the head of `lobes.probes`, with its default options.

    Call it before what takes long, so that a name that is none, or a head that cannot do what is asked, is told at
    once: where ``search`` is given the head must write by itself, as an `AttentionHead` does; where neither it nor a
    ``coding`` is, which looks for itself, it must not.

    Raises
    ------
    ConfigError
        There is no such head, or it is of the other kind.

    Example
    -------
    >>> head_of({"head": "BiLSTMHead"}).__name__
    'BiLSTMHead'
    """
    head = hparams["head"]
    found = head if callable(head) else _head_called(head)
    search = hparams.get("search") is not None
    if search and not attends(found):
        raise ConfigError(f"head is {head}, and search is given: expected lobes.probes.AttentionHead, or search null")
    if attends(found) and not search and "coding" not in hparams:
        raise ConfigError(f"head is {head}, which attends, and search is null: expected a head that gives logits")
    return found


def _head_called(head: Any) -> Callable[..., nn.Module]:
    heads = {name: found for name in probes.__all__ if _is_head(found := getattr(probes, name))}
    if not isinstance(head, str) or head not in heads:
        raise ConfigError(
            f"head is {head!r}: expected one of {', '.join(sorted(heads))}, or with options"
            " '!name:lobes.probes.LinearHead {dropout: 0.2}'"
        )
    return heads[head]


def with_layers(
    hparams: Mapping[str, Any], encoder: nn.Module, datasets: Sequence[AudioDataset], device: str = "cpu"
) -> list[AudioDataset]:
    """The datasets with ``layers`` in place of ``sig`` where the encoder is frozen, or as they are.

    ``features`` says where they are kept: None computes them in each step, `memory` once in each run, and a folder once
    for all runs, heads and tasks that hear the same utterances with this encoder. ``features_gib`` is the most that a
    split's may take there or in memory, GiB.

    Raises
    ------
    ConfigError
        A split's would take more, before any of it is computed.
    """
    where, most = hparams["features"], float(hparams["features_gib"])
    if where is None or hparams["mode"] != FROZEN:
        return list(datasets)
    if where == "memory":
        return [cache_features(dataset, encoder, device, features_gib=most) for dataset in datasets]
    cache = TargetCache(where, Teacher(encoder, range(len(encoder.layer_dims))))  # type: ignore[arg-type]
    for dataset in datasets:
        try:
            cache.extract(dataset, device, part=(rank(), world_size()), max_gib=most, progress=False)
        except ConfigError as error:
            raise ConfigError(
                f"features_gib is {most:g}, too little for the features of a split in {where} ({error}); give more,"
                " if there is room, or --features null, which computes them in each step"
            ) from error
    on_main(cache.refresh)  # all processes have written before any reads
    cache.refresh()
    return [cache.attach(dataset, "layers", drop=["sig"]) for dataset in datasets]


def on_layers(
    hparams: Mapping[str, Any], encoder: nn.Module, n_outputs: int, head: Callable[..., nn.Module] | None = None
) -> Downstream:
    """A head on the weighted sum of the encoder's layers, in one module with it.

    Arguments
    ---------
    hparams : mapping
        ``head``, as of `head_of`, is called with the layers' width and `n_outputs`; ``normalize_layers`` as for
        `lobes.probes.Probe`.
    encoder : nn.Module
        From `load_upstream`.
    n_outputs : int
        Classes, vocabulary or targets.
    head : callable, optional
        In place of ``head``.
    """
    dims: list[int] = list(encoder.layer_dims)  # type: ignore[arg-type]
    built = (head or head_of(hparams))(dims[0], n_outputs)
    return Downstream(encoder, Probe(dims, built, hparams["normalize_layers"]), frozen=None)


def _is_method(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Adaptation) and found is not Adaptation


def _is_head(found: Any) -> bool:
    """Heads are modules of (dim, n_outputs); what else a head takes has a default."""
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return False
    return list(inspect.signature(found).parameters)[:2] == ["dim", "n_outputs"]
