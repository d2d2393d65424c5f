"""Learned frames before those of the utterance."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.base import Adaptation
from lobes.adapters.prefix import head_shape
from lobes.adapters.sites import Site, like, site_at
from lobes.encoders import Encoder
from lobes.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTuning(Adaptation):
    """Learned frames before the first layer (Lester et al. 2021, "The Power of Scale", section 2), and nothing else.

    They are real frames to every layer, attention or not, and as many for each utterance of a batch; they are taken
    away from what each layer gives. It does not begin as the pretrained encoder. In models from elsewhere they come
    after the positional convolution, which does not hear them. On HuBERT-base ``length: 20`` trains .016 %.

    It is for the `Encoder` of ours, with any mixer, and for Transformers of Hugging Face or torchaudio without relative
    positions in the layers' arguments. Not for chunks.

    Arguments
    ---------
    length : int
        Frames P, a multiple of the encoder's ``granularity``: lower rates, and mixers of blocks, group frames.
    std : float
        Deviation of the frames at the start.
    """

    length: int = 20
    std: float = 0.02

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"PromptTuning: length is {self.length}; expected 1 or more")

    @property
    def identity(self) -> bool:
        """Not so: frames before the first are heard by those after it."""
        return False

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        root: Any = anatomy.root
        if isinstance(root, Encoder):
            if self.length % root.granularity:
                raise ConfigError(
                    f"PromptTuning: length is {self.length}; expected a multiple of {root.granularity}, by which this "
                    "encoder groups frames"
                )
            layers: list[Any] = []
            width = root.dim
        else:
            layers, width = _transformer_layers(anatomy)
        site, new = site_at(root, "prompts", PromptSite)
        site.adapters[name] = like(Prompts(self.length, width, self.std), anatomy.weight)
        for number, layer in enumerate(layers if new else ()):
            # In the object's own dictionary it is no child: the site is the encoder's.
            vars(layer)["prompted_as"] = site, number
            layer.forward = types.MethodType(_forward, layer)


class Prompts(nn.Module):
    """P frames (P, D)."""

    def __init__(self, length: int, dim: int, std: float) -> None:
        super().__init__()
        self.frames = nn.Parameter(torch.randn(length, dim) * std)


class PromptSite(Site):
    """The ``prompts`` of an encoder; of one from elsewhere, its layers' forward passes go through here."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[int, Tensor] = {}

    @property
    def needs_whole(self) -> str:
        """Why chunks are refused."""
        return "" if self.working is None else "prompt tuning has no chunks; expected none, or LoRA or PrefixTuning"

    def forward(self, x: Tensor) -> Tensor:
        """The frames (B, P, D) to be put before x (B, T, D)."""
        return x[:, :0] if self.working is None else self.working.frames.to(x.dtype).expand(len(x), -1, -1)

    def through(self, number: int, forward: Any, frames: Tensor, args: Any, kwargs: Any) -> Any:
        """Take frames (B, T, D) and the prompts through a layer of a model from elsewhere.

        To whoever calls the layer there are no prompts: they go on to the next one from here. They are kept for each
        layer, so that gradient checkpointing finds them when it computes a layer again.
        """
        prompts = self(frames) if number == 0 else self._before[number]
        length = prompts.shape[1]
        if "attention_mask" in kwargs:
            kwargs = {**kwargs, "attention_mask": _seeing_prompts(kwargs["attention_mask"], length)}
        elif args and isinstance(args[0], Tensor):
            args = (_seeing_prompts(args[0], length), *args[1:])
        output = forward(torch.cat((prompts, frames), dim=1), *args, **kwargs)
        first = output[0] if isinstance(output, tuple) else output
        self._before[number + 1], first = first[:, :length], first[:, length:]
        return (first, *output[1:]) if isinstance(output, tuple) else first

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with some utterances, (B,) bool; see `lobes.encoders.layerwise`."""
        self._before = {number: prompts[rows] for number, prompts in self._before.items() if len(prompts) == len(rows)}

    def __getstate__(self) -> dict[str, Any]:
        # What a pass has left behind can be neither copied nor saved, and need not be.
        return {**vars(self), "_before": {}}


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of a layer's forward pass."""
    site, number = self.prompted_as
    forward = types.MethodType(type(self).forward, self)
    if site.working is None:
        return forward(*args, **kwargs)
    frames, *others = args or (kwargs.pop("hidden_states"),)
    return site.through(number, forward, frames, tuple(others), kwargs)


def _seeing_prompts(mask: Tensor | None, length: int) -> Tensor | None:
    """A mask (B, T) of real frames, or (B, 1, T, T) of what they see, with prompts, which all see and which see all."""
    if mask is None:
        return None
    seen = float(mask.dtype == torch.bool) if mask.dim() == 4 else 1.0
    if mask.dim() == 4 and mask.shape[2] > 1:
        mask = torch.cat((mask[:, :, :1].expand(-1, -1, length, -1), mask), dim=2)
    return F.pad(mask, (length, 0), value=seen)


def _transformer_layers(anatomy: Anatomy) -> tuple[list[Any], int]:
    """The layers of a Transformer from elsewhere, and their width."""
    if anatomy.foreign:
        attentions = anatomy.attentions("PromptTuning")
        layers = [anatomy.block_of(attention) for attention in attentions]
        taken = {name for layer in layers for name in inspect.signature(type(layer).forward).parameters}
        if not taken & {"relative_position_embeddings", "conv_attention_mask"}:
            heads, width = head_shape(attentions[0])
            return layers, heads * width
    raise ConfigError(
        f"PromptTuning: {type(anatomy.root).__name__} takes no frames before its own; expected an Encoder of ours, "
        "or a Transformer of Hugging Face or torchaudio such as HubertModel, Wav2Vec2Model or WavLMModel"
    )
