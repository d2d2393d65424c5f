"""Where adapters stand in an encoder: sites of ours, and the layers that peft puts in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

#: peft's containers of tensors that all of an adapter's layers share.
_SHARED = ("vera_A", "vera_B")


class Site(nn.Module):
    """A place for adapters of several names, one of which works, or none.

    Its parameters are those of ``adapters``, a module per name, and stand in the encoder's ``state_dict`` under the
    place's own name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.active: str | None = None

    def activate(self, name: str | None) -> None:
        """Let the adapter of that name work if there is one, and train, and none of the others."""
        self.active = name
        for key, adapter in self.adapters.items():
            adapter.requires_grad_(key == name)

    def merge(self) -> None:
        """Make what works part of the pretrained weights, where that can be."""

    @property
    def working(self) -> Any:
        """The module that works here, or None."""
        return None if self.active is None or self.active not in self.adapters else self.adapters[self.active]


SiteType = TypeVar("SiteType", bound=Site)


def site_at(parent: nn.Module, attribute: str, kind: type[SiteType], *args: Any) -> tuple[SiteType, bool]:
    """The site that is a child of that name, and whether it had to be made, with these arguments."""
    found = getattr(parent, attribute, None)
    if isinstance(found, kind):
        return found, False
    site = kind(*args)
    setattr(parent, attribute, site)
    return site, True


class TunedParameters(Site):
    """Tuned copies of pretrained parameters; those that work are what the parameters' owners find under their names.

    The pretrained ones never change, and keep their names in the ``state_dict``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._owned: list[tuple[str, Any, str]] = []

    def add(self, name: str, chosen: Iterable[tuple[str, nn.Module, str]]) -> None:
        """Copy parameters for an adapter: the name of each owner, itself, and the parameter's name in it."""
        copies, keys = nn.ParameterDict(), dict[int, str]()
        for place, owner, attribute in chosen:
            pretrained: Any = owner._parameters[attribute]
            written = f"{place}.{attribute}".replace(".base_layer", "").replace(".", "/")
            # What two owners share has one copy, of the first one's name.
            key = keys.setdefault(id(pretrained), written)
            if key == written:
                copies[key] = nn.Parameter(pretrained.detach().clone())
            if (key, owner, attribute) not in self._owned:
                self._owned.append((key, owner, attribute))
        self.adapters[name] = copies

    def activate(self, name: str | None) -> None:
        """Have the owners find the copies of that adapter, and else the pretrained parameters."""
        super().activate(name)
        for key, owner, attribute in self._owned:
            # What stands in an object's own dictionary is found before a module's parameters are looked up.
            if self.working is not None and key in self.working:
                vars(owner)[attribute] = self.working[key]
            else:
                vars(owner).pop(attribute, None)

    def merge(self) -> None:
        """Give the pretrained parameters the values of the copies that work."""
        for key, owner, attribute in self._owned:
            if self.working is not None and key in self.working:
                owner._parameters[attribute].data.copy_(self.working[key].data)


def is_peft(module: nn.Module) -> bool:
    """Whether it is a layer of peft's, told without importing peft."""
    return hasattr(module, "adapter_layer_names") and hasattr(module, "base_layer")


def without_peft(module: nn.Module) -> nn.Module:
    """The pretrained layer inside of layers of peft's."""
    while is_peft(module):
        module = module.base_layer  # type: ignore[assignment]
    return module


def peft_containers(layer: Any) -> dict[str, Any]:
    """The modules of a peft layer that hold tensors by an adapter's name."""
    names = (*layer.adapter_layer_names, *_SHARED)
    found = {name: getattr(layer, name, None) for name in dict.fromkeys(names)}
    return {name: container for name, container in found.items() if isinstance(container, nn.Module)}


def pretrained_model(encoder: nn.Module) -> nn.Module:
    """The model of Hugging Face or of torchaudio that an encoder holds, or else the encoder."""
    return next((module for module in encoder.modules() if is_foreign(module)), encoder)


def is_foreign(module: nn.Module) -> bool:
    """Whether it is a model of Hugging Face, or torchaudio's Wav2Vec2Model, told without importing either."""
    names = {(c.__name__, c.__module__.partition(".")[0]) for c in type(module).__mro__}
    return bool(names & {("PreTrainedModel", "transformers"), ("Wav2Vec2Model", "torchaudio")})


def adapter_tensors(encoder: nn.Module, name: str) -> dict[str, Tensor]:
    """Parameters and buffers of one adapter, in place.

    Their keys depend neither on its name nor on other adapters, nor on what stands around the pretrained model.
    """
    root = pretrained_model(encoder)
    around = next(f"{place}." for place, module in encoder.named_modules() if module is root)
    tensors: dict[str, Tensor] = {}
    for place, module in encoder.named_modules():
        place = place.removeprefix(around).replace(".base_layer", "")
        if isinstance(module, Site) and name in module.adapters:
            tensors |= _prefixed(place, module.adapters[name])
        elif is_peft(module):
            for attribute, container in peft_containers(module).items():
                if name in container:
                    # What all layers share is kept once.
                    key = attribute if attribute in _SHARED else f"{place}.{attribute}"
                    found = container[name]
                    tensors |= {key: found} if isinstance(found, Tensor) else _prefixed(key, found)
    return tensors


def pretrained_tensors(root: nn.Module) -> dict[str, Tensor]:
    """The encoder's own tensors, by the keys that they had before anything was adapted."""
    adapters = tuple(f"{place}." for place, _ in adapter_places(root))
    tensors = root.state_dict(keep_vars=True).items()
    return {key.replace(".base_layer.", "."): tensor for key, tensor in tensors if not key.startswith(adapters)}


def pretrained_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of an encoder that are no part of an adapter."""
    adapters = {id(module) for _, place in adapter_places(root) for module in place.modules()}
    return ((name, module) for name, module in root.named_modules() if id(module) not in adapters)


def adapter_places(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules that hold what adapters consist of, whatever their names."""
    for place, module in root.named_modules():
        if isinstance(module, Site):
            yield place, module
        elif is_peft(module):
            yield from ((f"{place}.{attribute}", part) for attribute, part in peft_containers(module).items())


def _prefixed(place: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{place}.{key}": tensor for key, tensor in module.state_dict(keep_vars=True).items()}


def like(module: nn.Module, tensor: Tensor) -> nn.Module:
    """Move a new adapter to where, and into the floating-point type in which, the encoder is."""
    dtype = tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()
    return module.to(tensor.device, dtype)
