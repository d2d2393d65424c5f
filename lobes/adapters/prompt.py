"""Learned frames before those of the utterance."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.base import Adaptation
from lobes.adapters.sites import Site, like, site_at
from lobes.encoders import Encoder
from lobes.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptTuning(Adaptation):
    """Learned frames before the first layer (Lester et al. 2021, "The Power of Scale", section 2), and nothing else.

    They are real frames to every layer, attention or not, and as many for each utterance of a batch; they are taken
    away from what the encoder gives. It does not begin as the pretrained encoder. In an encoder of Hugging Face's they
    come before its positional convolution. On HuBERT-base ``length: 20`` trains .016 %.

    It is for the `Encoder` of ours, with any mixer, and for Hugging Face's Transformers. Not for chunks.

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
            site, _ = site_at(root, "prompts", PromptSite)
            width = root.dim
        else:
            transformer, model = _transformer(anatomy)
            site, new = site_at(transformer, "prompts", PromptSite)
            width = root.config.hidden_size
            if new:
                transformer.register_forward_pre_hook(site.put_before, with_kwargs=True)
                transformer.register_forward_hook(site.take_from_output)
                model.register_forward_hook(site.take_from_layers)
        site.adapters[name] = like(Prompts(self.length, width, self.std), anatomy.weight)


class Prompts(nn.Module):
    """P frames (P, D)."""

    def __init__(self, length: int, dim: int, std: float) -> None:
        super().__init__()
        self.frames = nn.Parameter(torch.randn(length, dim) * std)


class PromptSite(Site):
    """The ``prompts`` of an encoder; of Hugging Face's they are put there, and taken away, by hooks."""

    @property
    def needs_whole(self) -> str:
        """Why chunks are refused."""
        return "" if self.working is None else "prompt tuning has no chunks; expected none, or LoRA or PrefixTuning"

    def forward(self, x: Tensor) -> Tensor:
        """The frames (B, P, D) to be put before x (B, T, D)."""
        return x[:, :0] if self.working is None else self.working.frames.to(x.dtype).expand(len(x), -1, -1)

    def put_before(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """On the way into a Transformer of Hugging Face: frames, and a mask (B, T) of real ones or None."""
        if self.working is None:
            return None
        given = dict(zip(("hidden_states", "attention_mask"), args, strict=False)) | kwargs
        frames, mask = given["hidden_states"], given.get("attention_mask")
        prompts = self(frames)
        given["hidden_states"] = torch.cat((prompts, frames), dim=1)
        if mask is not None:
            given["attention_mask"] = F.pad(mask, (prompts.shape[1], 0), value=1)
        return args[2:], given

    def take_from_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        """On the way out of it."""
        return output if self.working is None else cut_output(output, self._length)

    def take_from_layers(self, module: nn.Module, args: Any, output: Any) -> Any:
        """On the way out of the model, which by then has the frames of all layers, prompts and all."""
        return output if self.working is None else cut_output(output, self._length, layers_only=True)

    @property
    def _length(self) -> int:
        return len(self.working.frames)


def cut_output(output: Any, start: int, stop: int | None = None, layers_only: bool = False) -> Any:
    """Keep the frames from ``start`` to before ``stop`` of what a model of Hugging Face gives.

    Arguments
    ---------
    output : ModelOutput, tuple or Tensor
        Frames (B, T, D), and tuples of them.
    start, stop : int
        Which frames.
    layers_only : bool
        Only of tuples.
    """

    def cut(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return part if layers_only else part[:, start:stop]
        return tuple(layer[:, start:stop] for layer in part)

    if isinstance(output, torch.Tensor):
        return cut(output)
    if isinstance(output, tuple):
        return tuple(cut(part) if _is_frames(part) else part for part in output)
    for key in ("last_hidden_state", "hidden_states"):
        if output.get(key) is not None:
            output[key] = cut(output[key])
    return output


def _is_frames(part: Any) -> bool:
    """Frames of three axes, or several: weights of attention have four."""
    first = part[0] if isinstance(part, tuple) and part else part
    return isinstance(first, torch.Tensor) and first.dim() == 3


def _transformer(anatomy: Anatomy) -> tuple[Any, nn.Module]:
    """The module of Hugging Face's that takes frames through all layers, and the model around it."""
    if anatomy.huggingface:
        block = anatomy.block_of(anatomy.attentions("PromptTuning")[0])
        transformer = anatomy.parent_of(anatomy.parent_of(block))
        if next(iter(inspect.signature(transformer.forward).parameters)) == "hidden_states":
            return transformer, anatomy.parent_of(transformer)
    raise ConfigError(
        f"PromptTuning: {type(anatomy.root).__name__} takes no frames; expected an Encoder of ours, or a "
        "Transformer of Hugging Face such as HubertModel, Wav2Vec2Model or WavLMModel"
    )
