"""Adaptations that tune the encoder's own parameters: none, all, biases, norms."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.base import Adaptation
from lobes.adapters.sites import TunedParameters, pretrained_modules, site_at
from lobes.encoders import EfficientNetV2, Encoder
from lobes.encoders.layerwise import Around
from lobes.errors import ConfigError

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenProbe(Adaptation):
    """Nothing of the encoder trains: what its frames tell as they are, to a head of `lobes.probes`.

    Such as `lobes.probes.LinearHead` or `AttentiveHead` on a `lobes.probes.Probe`, which weights the layers.
    """

    mergeable: ClassVar[bool] = True

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tuning(Adaptation):
    """Tuned copies of some of the encoder's parameters, beside the pretrained ones.

    The norm of the output frames, which no layer passes through, is left as it is, and Hugging Face's masking vector:
    from a probe of the layers they would have no gradient, for which DistributedDataParallel fails.
    """

    mergeable: ClassVar[bool] = True

    @abstractmethod
    def _wants(self, module: nn.Module, attribute: str) -> bool:
        """Whether to tune a module's own parameter of that name."""

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        chosen = [(place, m, a) for place, m, a in own_parameters(anatomy.root) if self._wants(m, a)]
        if not chosen:
            raise ConfigError(f"{type(self).__name__}: {type(anatomy.root).__name__} has no parameter of that kind")
        tune(anatomy, name, chosen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullFineTuning(_Tuning):
    """Everything trains, from the waveform on.

    The tuned parameters are copies beside the pretrained ones, so that the pretrained encoder is still there to be
    compared with (`set_active` with None): it costs their memory, and no time. `merge_adapter` drops the pretrained
    ones.
    """

    def _wants(self, module: nn.Module, attribute: str) -> bool:
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class BitFit(_Tuning):
    """The biases alone train (Ben Zaken et al. 2022, "BitFit", section 3): of linear layers, convolutions and norms.

    On HuBERT-base .111 %.
    """

    def _wants(self, module: nn.Module, attribute: str) -> bool:
        return attribute.endswith("bias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerNormTuning(_Tuning):
    """Weight and bias of every normalisation layer train (Zhao et al. 2024, "Tuning LayerNorm in Attention").

    On HuBERT-base .043 %, the group norm of its first convolution included.
    """

    def _wants(self, module: nn.Module, attribute: str) -> bool:
        return isinstance(module, NORMS)


def tune(anatomy: Anatomy, name: str, chosen: Iterable[tuple[str, nn.Module, str]]) -> None:
    """Add tuned copies of parameters under an adapter's name; see `TunedParameters.add`."""
    site, _ = site_at(anatomy.root, "tuned_parameters", TunedParameters)
    site.add(name, chosen)


def own_parameters(root: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """The pretrained parameters on which the layers depend: their owner's name, the owner, their name in it."""
    skipped = _unread(root)
    for place, module in pretrained_modules(root):
        for attribute, _ in module.named_parameters(recurse=False):
            if id(module) not in skipped and attribute != "masked_spec_embed":
                yield place, module, attribute


def _unread(root: Any) -> set[int]:
    """Modules on which no layer depends: norms between the last one and the frames, positions that are not used."""
    while isinstance(root, Around):  # whose layers are those of the encoder that it hears for
        root = root.encoder
    if isinstance(root, (Encoder, EfficientNetV2)):
        return {id(root.norm)}
    stacks = [m for m in root.modules() if isinstance(getattr(m, "layers", None), nn.ModuleList)]
    config = getattr(root, "config", None)
    found = [
        getattr(m, n, None) for m in (root, *stacks) if _ends_in_norm(m, config) for n in ("layer_norm", "layernorm")
    ]
    unread = {id(norm) for norm in found if isinstance(norm, nn.LayerNorm)}
    if _is_conformer(config):  # it has others
        unread |= {id(part) for stack in stacks for part in getattr(stack, "pos_conv_embed", nn.Identity()).modules()}
    return unread


def _ends_in_norm(stack: Any, config: Any) -> bool:
    """Whether the norm of a stack of layers from elsewhere comes behind them, and not before the first."""
    if hasattr(stack, "layer_norm_first"):  # torchaudio
        return not stack.layer_norm_first
    if not hasattr(stack, "pos_conv_embed") or _is_conformer(config):
        return True
    return getattr(config, "do_stable_layer_norm", False)


def _is_conformer(config: Any) -> bool:
    return "conformer" in getattr(config, "model_type", "")
