"""Low-rank and scaling adapters of single layers, by the library peft: LoRA, DoRA, IA3, VeRA, LoRA of convolutions."""

from __future__ import annotations

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from lobes.adapters.anatomy import Anatomy, Layer
from lobes.adapters.base import Adaptation
from lobes.adapters.sites import is_peft
from lobes.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Peft(Adaptation):
    """An adapter of peft's around layers that are named by role."""

    mergeable: ClassVar[bool] = True
    _kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)
    targets: Sequence[str] = ("mixer",)

    @abstractmethod
    def _config(self, peft: Any, layers: list[Layer]) -> Any:
        """peft's configuration, for these layers."""

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        peft = _import_peft(type(self).__name__)
        layers = self._chosen(anatomy.layers(type(self).__name__, self.targets, self._kinds))
        had = "peft_config" in vars(anatomy.root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._inject(self._config(peft, layers), anatomy.root, name, layers)
        if not had:
            vars(anatomy.root).pop("peft_config", None)

    def _chosen(self, layers: list[Layer]) -> list[Layer]:
        return layers

    def _inject(self, config: Any, root: nn.Module, name: str, layers: list[Layer]) -> None:
        from peft import inject_adapter_in_model

        inject_adapter_in_model(config, root, adapter_name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRA(_Peft):
    """Low-rank adaptation (Hu et al. 2022, "LoRA", eq. 3): W x + (α / r) B A x, with A random and B zero at the start.

    On HuBERT-base ``rank: 8`` trains, of 94,371,712 parameters, .313 % with ``targets: [query, value]`` (the paper's),
    .625 % with ``[mixer]``, and 1.406 % with ``[mixer, ffn]``.

    Arguments
    ---------
    rank : int
        Rank r.
    alpha : float
        Scale α.
    dropout : float
        Of the adapter's input in training.
    targets : list of str
        Roles of the linear layers (`lobes.adapters.roles`).

    Example
    -------
    >>> from lobes.adapters import trainable_share
    >>> from lobes.encoders import Encoder, LogMel, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 2, SummaryMixing)
    >>> adapted = LoRA(rank=2).apply(encoder)
    >>> round(trainable_share(adapted), 3)
    0.028
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    _options: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        _check(self)

    def _config(self, peft: Any, layers: list[Layer]) -> Any:
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=[layer.name for layer in layers],
            **self._options,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """Weight-decomposed low-rank adaptation (Liu et al. 2024, "DoRA", eq. 5): m (W + B A) / ‖W + B A‖.

    Norms are over each output's weights, and m, learned, begins as those of W. On HuBERT-base ``rank: 8`` on
    ``targets: [query, value]`` trains .332 %.

    Arguments
    ---------
    rank, alpha, dropout, targets
        As for `LoRA`.
    """

    _options: ClassVar[dict[str, Any]] = {"use_dora": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvLoRA(LoRA):
    """`LoRA` of convolutions: the kernel (out, in, k) gets a product of (out, r) and (r, in, k), zero at the start.

    As Hu et al.'s own library and Yeh et al. 2024 ("Navigating Text-To-Image Customization", section 3.2) have it: a
    convolution to r channels with the kernel and stride of the pretrained one, and one of width 1 after it. It reads
    what the pretrained one reads, so it knows no padding either. Convolutions in groups, depthwise ones among them, are
    left as they are. On HuBERT-base ``rank: 8`` trains .100 % in the seven convolutions of the feature extractor.

    Arguments
    ---------
    rank, alpha, dropout
        As for `LoRA`.
    targets : list of str
        Roles of the convolutions: ``frontend``, in `EfficientNetV2` ``convolution`` too.
    """

    targets: Sequence[str] = ("frontend",)
    _kinds: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv1d, nn.Conv2d)

    def _chosen(self, layers: list[Layer]) -> list[Layer]:
        chosen = [layer for layer in layers if layer.module.groups == 1]
        if not chosen:
            raise ConfigError(f"ConvLoRA: all convolutions of {list(self.targets)} are in groups; choose other targets")
        return chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class IA3(_Peft):
    """Learned scales of activations (Liu et al. 2022, "(IA)³", eq. 3-4), one at the start.

    They multiply what the layers of ``targets`` give; of a narrowing feed-forward layer (``ffn_down``), what it takes.
    On HuBERT-base ``targets: [key, value, ffn_down]``, the paper's, trains .059 %. The default does what it can with
    any mixer.

    Arguments
    ---------
    targets : list of str
        Roles of the linear layers.
    """

    targets: Sequence[str] = ("mixer", "ffn_down")

    def _config(self, peft: Any, layers: list[Layer]) -> Any:
        return peft.IA3Config(
            target_modules=[layer.name for layer in layers],
            feedforward_modules=[layer.name for layer in layers if "ffn_down" in layer.roles],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VeRA(_Peft):
    """Vector-based random matrix adaptation (Kopiczko et al. 2024, "VeRA", eq. 2): W x + b ∘ B (d ∘ A x).

    A and B are random, frozen and the same in all layers, cut to a layer's size; d and b, which is zero at the start,
    are learned. On HuBERT-base ``rank: 256`` on ``targets: [query, value]`` trains .026 %.

    Arguments
    ---------
    rank : int
        Rank r of A and B.
    seed : int
        Of A and B, which `lobes.adapters.save_adapter` keeps all the same.
    dropout : float
        Of the adapter's input in training.
    targets : list of str
        Roles of the linear layers.
    """

    rank: int = 256
    seed: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def _config(self, peft: Any, layers: list[Layer]) -> Any:
        return peft.VeraConfig(
            r=self.rank,
            vera_dropout=self.dropout,
            projection_prng_key=self.seed,
            save_projection=False,  # they would be in a state_dict once for every layer
            target_modules=[layer.name for layer in layers],
        )

    def _inject(self, config: Any, root: nn.Module, name: str, layers: list[Layer]) -> None:
        from peft.tuners.vera import VeraModel

        # inject_adapter_in_model refuses VeRA because a model returned bare loses A and B; each layer refers to them.
        layered: list[Any] = [m for m in root.modules() if is_peft(m) and hasattr(m, "vera_A")]
        before = [(dict(layer.vera_A), dict(layer.vera_B)) for layer in layered]

        class Sized(VeraModel):
            def _find_dim(self, config: Any) -> tuple[int, int]:
                # peft's does not see layers that have adapters of other methods.
                out, into = zip(*(layer.module.weight.shape for layer in layers), strict=True)
                return max(out), max(into)

        Sized(root, {name: config}, name)
        # A second adapter's A and B come in the place of those of the first.
        for layer, kept in zip(layered, before, strict=True):
            for container, known in zip((layer.vera_A, layer.vera_B), kept, strict=True):
                for key in known.keys() - container.keys():
                    container[key] = known[key]


def _check(method: LoRA | VeRA) -> None:
    if method.rank < 1 or not 0 <= method.dropout < 1:
        raise ConfigError(
            f"{type(method).__name__}: rank is {method.rank} and dropout {method.dropout}; expected 1 or more, 0 to 1"
        )


def _import_peft(method: str) -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(f"{method}: the package peft is missing; pip install -e '.[adapters]'") from error
    return peft
