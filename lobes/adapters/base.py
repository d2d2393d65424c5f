"""The contract of all ways to adapt a pretrained encoder, and what can be done with what they put into it."""

from __future__ import annotations

import dataclasses
import logging
import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.sites import Site, adapter_tensors, is_peft, pretrained_model, pretrained_modules
from lobes.errors import ConfigError
from lobes.evaluation.cost import counted_macs

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptation(ABC):
    """A way to adapt a pretrained encoder: a frozen probe, full fine-tuning, or anything between.

    One key of a recipe chooses it, ``adaptation: !name:lobes.adapters.LoRA`` with its options; the recipe then says
    ``adaptation().apply(encoder)``. The encoder may be any of ours, a model of Hugging Face or torchaudio, or a module
    that holds one. It is changed in place and keeps its contract: same attributes, same shapes of frames, layers and
    validity. Its pretrained weights never change: they are frozen, and stay beside what is learned.

    What every method keeps, and ``tests/adapters`` checks for each:

    - an utterance's output does not depend on its batch's padding if that of the pretrained encoder does not;
    - where `identity` is true, the adapted encoder begins as exactly the pretrained one;
    - only its own parameters train, all of them have gradients, and inactive ones of other names do not;
    - without an active adapter, the encoder gives exactly what the pretrained one gives;
    - it works in chunks and streams where the encoder does, or is refused there.

    An encoder's ``macs`` stay those of the pretrained one; `adapter_macs` counts what the active adapter adds to them.

    Attributes
    ----------
    mergeable : bool
        Whether it can become part of the weights, at no cost in use (`merge_adapter`).
    """

    mergeable: ClassVar[bool] = False

    @property
    def identity(self) -> bool:
        """Whether the adapted encoder begins as exactly the pretrained one."""
        return True

    @property
    def max_seconds(self) -> float:
        """The longest clip that the adapted encoder takes."""
        return float("inf")

    def apply(self, encoder: nn.Module, name: str = "default") -> nn.Module:
        """Adapt an encoder, and leave this adapter active and everything else frozen.

        Layer drop is switched off: a skipped layer's adapter would have no gradient, for which DistributedDataParallel
        fails.

        Arguments
        ---------
        encoder : nn.Module
            What will be called with a batch; some methods need its lengths. Changed in place. It may have adapters
            already, of other names.
        name : str
            Of this adapter.

        Returns
        -------
        nn.Module
            The encoder.

        Raises
        ------
        ConfigError
            If the name is taken or no name, or the method does not fit the encoder, which is then unchanged.
        """
        record = record_of(encoder)
        if name in record.adaptations:
            raise ConfigError(f"adapter '{name}': the encoder has one of that name; give another name, or remove it")
        if not re.fullmatch(r"[A-Za-z]\w*", name) or hasattr(nn.ModuleDict, name) or hasattr(nn.ParameterDict, name):
            raise ConfigError(f"adapter name {name!r}: expected letters, digits and _, and no Python word such as keys")
        self._insert(Anatomy(encoder), name)
        record.adaptations[name] = self
        vars(pretrained_model(encoder))["lobes_adapters"] = record
        for module in encoder.modules():
            known: Any = vars(module)
            if hasattr(known.get("config"), "layerdrop"):
                known["config"].layerdrop = 0.0
            if "layer_drop" in known:
                known["layer_drop"] = 0.0
            if "_requires_grad" in known:  # else Hugging Face's convolutions keep what no gradient needs
                known["_requires_grad"] = False
        encoder.requires_grad_(False)
        set_active(encoder, name)
        logger.info(summary(encoder))
        return encoder

    @abstractmethod
    def _insert(self, anatomy: Anatomy, name: str) -> None:
        """Put the adapter in under that name; raise before anything is changed."""

    def options(self) -> dict[str, Any]:
        """What it was built with, as plain values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass
class Record:
    """What adapters an encoder has; it hangs on the encoder."""

    adaptations: dict[str, Adaptation] = dataclasses.field(default_factory=dict)
    active: str | None = None


def record_of(encoder: nn.Module) -> Record:
    """The record of an encoder, or of one inside; a new one if nothing was adapted."""
    found = (vars(module).get("lobes_adapters") for module in encoder.modules())
    return next(filter(None, found), None) or Record()


def adaptations(encoder: nn.Module) -> dict[str, Adaptation]:
    """The adapters of an encoder by name, in the order in which they came."""
    return dict(record_of(encoder).adaptations)


def active_adapter(encoder: nn.Module) -> str | None:
    """The name of the one that works, None where the encoder is the pretrained one."""
    return record_of(encoder).active


def set_active(encoder: nn.Module, name: str | None) -> None:
    """Let the adapter of one name work, and none of the others; with None, the encoder is the pretrained one again.

    Parameters of the active adapter train, all others of the encoder are frozen.

    Arguments
    ---------
    encoder : nn.Module
        With adapters, or a module that holds such an encoder.
    name : str, optional
        One of `adaptations`.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    record = record_of(encoder)
    if name is not None and name not in record.adaptations:
        raise ConfigError(f"adapter '{name}': the encoder has {_names(record)}; expected one of them, or None")
    for module in encoder.modules():
        if isinstance(module, Site):
            module.activate(name)
        elif is_peft(module):
            module.enable_adapters(name is not None)  # type: ignore[operator]
            module.set_adapter([name] if name else [])  # type: ignore[operator]
    record.active = name


def remove_adapter(encoder: nn.Module, name: str) -> nn.Module:
    """Take an adapter out; without the last one, the encoder has the pretrained one's ``state_dict`` again.

    Returns
    -------
    nn.Module
        The encoder, frozen but for the active adapter.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    record = record_of(encoder)
    active = record.active
    set_active(encoder, name)  # raises if there is none
    set_active(encoder, None)
    for module in encoder.modules():
        if isinstance(module, Site) and name in module.adapters:
            del module.adapters[name]
    for parent, attribute, layer in _peft_layers(encoder):
        layer.delete_adapter(name)
        if not layer._get_available_adapters():
            setattr(parent, attribute, layer.base_layer)
    del record.adaptations[name]
    set_active(encoder, None if active == name else active)
    return encoder


def merge_adapter(encoder: nn.Module, name: str | None = None) -> nn.Module:
    """Make an adapter part of the weights: the encoder gives the same, at the cost and with the keys of the pretrained.

    Arguments
    ---------
    encoder : nn.Module
        Changed in place; its pretrained weights are gone afterwards.
    name : str, optional
        Of its only adapter, and not needed.

    Returns
    -------
    nn.Module
        The encoder, without adapters, frozen.

    Raises
    ------
    ConfigError
        If there is none of that name, or other ones besides, or its method cannot be merged.
    """
    record = record_of(encoder)
    name = name or next(iter(record.adaptations), None)
    if name not in record.adaptations:
        raise ConfigError(f"merge_adapter: no adapter '{name}'; the encoder has {_names(record)}")
    if len(record.adaptations) > 1:
        raise ConfigError(
            f"merge_adapter: the encoder has {_names(record)}, which were learned on the weights as they are; "
            f"remove_adapter all but '{name}' first"
        )
    check_mergeable(record.adaptations[name])
    set_active(encoder, name)
    for module in encoder.modules():
        if isinstance(module, Site):
            module.merge()
    for parent, attribute, layer in _peft_layers(encoder):
        layer.merge(adapter_names=[name])
        setattr(parent, attribute, layer.base_layer)
    return remove_adapter(encoder, name)


def check_mergeable(adaptation: Adaptation) -> None:
    """Refuse a method that cannot become part of the weights, such as for what is saved merged: before it is trained.

    Raises
    ------
    ConfigError
        The method is none of those that can, which it names.
    """
    method = type(adaptation)
    if not method.mergeable:
        can = ", ".join(sorted(c.__name__ for c in methods() if c.mergeable))
        raise ConfigError(f"{method.__name__} cannot be merged: no weights can express it; {can} can")


def trainable_share(encoder: nn.Module) -> float:
    """Parameters that train, as a share of the pretrained encoder's number of parameters.

    Adapters are not counted in the latter, so that shares of different methods have one denominator.

    Example
    -------
    >>> trainable_share(nn.Linear(3, 1))
    1.0
    """
    trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    return trained / max(_n_pretrained(encoder), 1)


def adapter_macs(encoder: nn.Module, seconds: float) -> int:
    """Multiply-accumulates that the active adapter adds to a pass over some seconds of audio, counted in one.

    0 where it can become part of the weights (`merge_adapter`), which costs nothing in use.

    Arguments
    ---------
    encoder : nn.Module
        That keeps the Encoder contract.
    seconds : float
        Of audio at its rate.

    Example
    -------
    >>> from lobes.adapters import BitFit, Houlsby
    >>> from lobes.encoders import Encoder, LogMel, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 2, SummaryMixing)
    >>> adapter_macs(BitFit().apply(encoder, "biases"), 1.0), adapter_macs(Houlsby(bottleneck=4).apply(encoder), 1.0)
    (0, 19200)
    """
    name = active_adapter(encoder)
    if name is None or record_of(encoder).adaptations[name].mergeable:
        return 0
    first = next(encoder.parameters())
    rate: Any = encoder.sample_rate
    waveform = torch.zeros(1, round(seconds * rate), device=first.device)
    lengths = torch.ones(1, device=first.device)
    training = {module: module.training for module in encoder.modules()}
    trains = {parameter: parameter.requires_grad for parameter in encoder.parameters()}
    counts = {}
    try:
        for active in (name, None):
            set_active(encoder.eval(), active)
            encoder.requires_grad_(False)  # what counts hooks on gradients, which a module's own parameter lacks here
            counts[active] = counted_macs(lambda: encoder(waveform, lengths)).total
    finally:
        set_active(encoder, name)
        for module, state in training.items():
            module.training = state
        for parameter, wanted in trains.items():
            parameter.requires_grad_(wanted)
    return counts[name] - counts[None]


def summary(encoder: nn.Module) -> str:
    """One line for each adapter: its method and options, its parameters, and whether it is active.

    Example
    -------
    >>> from lobes.adapters import BitFit
    >>> from lobes.encoders import Encoder, LogMel, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 2, SummaryMixing)
    >>> print(summary(BitFit().apply(encoder)))
    default (active): BitFit(), 720 of 18,288 parameters, 3.937 %
    """
    total, lines = _n_pretrained(encoder), []
    for name, adaptation in adaptations(encoder).items():
        tensors = adapter_tensors(encoder, name).values()
        count = sum(tensor.numel() for tensor in tensors if isinstance(tensor, nn.Parameter))
        state = " (active)" if name == active_adapter(encoder) else ""
        lines.append(
            f"{name}{state}: {adaptation}, {count:,} of {total:,} parameters, {100 * count / max(total, 1):.3f} %"
        )
    return "\n".join(lines) or f"no adapters, {total:,} parameters"


def methods() -> list[type[Adaptation]]:
    """All classes of adaptations that can be applied."""
    found, unseen = [], [Adaptation]
    while unseen:
        subclasses = unseen.pop().__subclasses__()
        unseen += subclasses
        found += [c for c in subclasses if not c.__name__.startswith("_")]
    return found


def _n_pretrained(encoder: nn.Module) -> int:
    owners = [module for _, module in pretrained_modules(encoder)]
    parameters = {id(p): p for owner in owners for p in owner.parameters(recurse=False)}
    return sum(parameter.numel() for parameter in parameters.values())


def _peft_layers(encoder: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Parent, attribute and layer of each layer of peft's, inner ones first."""
    found = [
        (parent, attribute, child)
        for parent in encoder.modules()
        for attribute, child in parent.named_children()
        if is_peft(child)
    ]
    return found[::-1]


def _names(record: Record) -> str:
    return ", ".join(f"'{name}'" for name in record.adaptations) or "no adapters"
