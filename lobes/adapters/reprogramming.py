"""Adversarial reprogramming: a learned waveform on or around each clip, and a mapping of labels."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.adapters.anatomy import Anatomy
from lobes.adapters.base import Adaptation
from lobes.adapters.sites import Site, like, site_at
from lobes.encoders import EfficientNetV2, Encoder, EncoderOutput, absolute_lengths, frame_mask
from lobes.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reprogramming(Adaptation):
    """A learned waveform δ of N samples, the same for all clips, alone (Elsayed et al. 2019, eq. 1-2).

    ``place: onto`` adds it to each clip x of S samples: x'(t) = x(t) + δ(t mod N) for t < S: repeated in a longer clip,
    cropped in a shorter one. It begins at zero, which is the identity.

    ``place: around`` puts the clip into it, as Voice2Series does (Yang et al. 2021, eq. 2): x'(t) = x(t - o) where the
    clip is, o <= t < o + S, and δ(t) elsewhere up to N. The encoder hears N samples for every clip, all of them real;
    what it gives are the frames of the clip, as many and as valid as without. It begins as silence around the clip,
    which is not the identity, and a clip must fit: S <= N - o.

    On HuBERT-base ``seconds: 1`` trains .017 %, ``seconds: 10`` .170 %. Behind a classifier of other labels goes
    `LabelMapping`. δ is in the units of the waveform that is given to the encoder. Not for chunks, and only where the
    encoder is called with a waveform.

    Arguments
    ---------
    seconds : float
        N, in seconds.
    place : str
        ``onto`` or ``around``.
    offset : float
        o in seconds, for ``around``; rounded down to whole frames of the encoder.
    sample_rate : int, optional
        Hz; by default the encoder's ``sample_rate``, and 16 kHz for a bare model of Hugging Face.
    """

    seconds: float = 1.0
    place: str = "onto"
    offset: float = 0.0
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if self.place not in ("onto", "around"):
            raise ConfigError(f"Reprogramming: place is '{self.place}'; expected onto or around")
        if self.seconds <= 0 or not 0 <= self.offset < self.seconds:
            raise ConfigError(
                f"Reprogramming: seconds is {self.seconds:g} and offset {self.offset:g}; expected 0 <= offset < seconds"
            )

    @property
    def identity(self) -> bool:
        """Whether δ is added."""
        return self.place == "onto"

    @property
    def max_seconds(self) -> float:
        """What a clip must fit into."""
        return self.seconds - self.offset if self.place == "around" else super().max_seconds

    def _insert(self, anatomy: Anatomy, name: str) -> None:
        encoder: Any = anatomy.encoder
        rate: int = self.sample_rate or getattr(encoder, "sample_rate", None) or 16000
        masked = hasattr(encoder, "_get_feat_extract_output_lengths")
        if not masked and not hasattr(encoder, "frame_rate"):
            raise ConfigError(
                f"Reprogramming: {type(encoder).__name__} takes no waveform; expected an encoder of ours, or a speech "
                "model such as HubertModel, Wav2Vec2Model or WavLMModel"
            )
        first = round(self.offset * rate) // _frame_period(encoder) if self.place == "around" else None
        site, new = site_at(encoder, "reprogramming", ReprogrammingSite, masked)
        site.adapters[name] = like(Program(round(self.seconds * rate), first), anatomy.weight)
        if new:
            encoder.register_forward_pre_hook(site.on_the_way_in, with_kwargs=True)
            encoder.register_forward_hook(site.on_the_way_out)


def _frame_period(encoder: Any) -> int:
    """Samples from one frame of an encoder to the next."""
    if isinstance(encoder, (Encoder, EfficientNetV2)):
        return encoder.features.hop_samples * encoder.stem.factor
    if hasattr(encoder, "n_frames") and hasattr(encoder, "frame_rate"):
        period = encoder.sample_rate / encoder.frame_rate
        if period == round(period):
            return round(period)
    elif hasattr(encoder, "_get_feat_extract_output_lengths"):
        return math.prod(encoder.config.conv_stride)
    raise ConfigError(
        f"Reprogramming: where the frames of {type(encoder).__name__} lie is not known; expected place: onto, an "
        "encoder of ours, or a speech model of Hugging Face such as HubertModel, Wav2Vec2Model or WavLMModel"
    )


def _n_frames(encoder: Any, samples: Tensor) -> Tensor:
    """Frames that an encoder gives for so many samples."""
    if isinstance(encoder, (Encoder, EfficientNetV2)):
        return torch.div(samples - 1, _frame_period(encoder), rounding_mode="floor") + 1
    if hasattr(encoder, "n_frames"):
        return encoder.n_frames(samples)
    return encoder._get_feat_extract_output_lengths(samples).clamp_min(0)


class Program(nn.Module):
    """δ (N,), and at which frame of it clips begin, None where it is put onto them."""

    def __init__(self, samples: int, first_frame: int | None) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(samples))
        self.first_frame = first_frame

    def onto(self, waveform: Tensor, counts: Tensor) -> Tensor:
        """(B, S), of which ``counts`` (B,) samples are real."""
        samples = waveform.shape[1]
        repeated = self.delta.repeat(-(-samples // len(self.delta)))[:samples].to(waveform.dtype)
        return waveform + repeated * frame_mask(counts, samples)

    def around(self, waveform: Tensor, counts: Tensor, start: int) -> Tensor:
        """(B, S) to (B, N), each clip beginning at sample ``start``."""
        samples, length = waveform.shape[1], len(self.delta)
        if samples > length - start:
            raise DataError(
                f"Reprogramming: a clip has {samples} samples; expected at most {length - start}, into which it is "
                "put; cut the clips, or give more seconds"
            )
        beyond = length - start - samples
        real = F.pad(frame_mask(counts, samples), (start, beyond))
        return torch.where(real, F.pad(waveform, (start, beyond)), self.delta.to(waveform.dtype))


class ReprogrammingSite(Site):
    """The program that is at work, hung on an encoder as hooks.

    Arguments
    ---------
    takes_masks : bool
        Whether the encoder takes masks of samples, as Hugging Face's do, and not relative lengths.
    """

    def __init__(self, takes_masks: bool) -> None:
        super().__init__()
        self.takes_masks = takes_masks
        self._clip: tuple[int, Tensor] | None = None

    @property
    def needs_whole(self) -> str:
        """Why chunks are refused."""
        return "" if self.working is None else "reprogramming has no chunks; expected none, or LoRA or PrefixTuning"

    def on_the_way_in(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """The waveform, reprogrammed, and its lengths or mask."""
        program, self._clip = self.working, None
        if program is None:
            return None
        masked = self.takes_masks
        names = ("input_values", "attention_mask") if masked else ("waveform", "lengths")
        given = dict(zip(names, args, strict=False)) | kwargs
        waveform, lengths = given[names[0]], given.get(names[1])
        samples = waveform.shape[1]
        if lengths is None:
            counts = torch.full((len(waveform),), samples, device=waveform.device)
        else:
            counts = lengths.sum(-1) if masked else absolute_lengths(lengths, samples)
        if program.first_frame is None:
            given[names[0]] = program.onto(waveform, counts)
        else:
            given[names[0]] = program.around(waveform, counts, program.first_frame * _frame_period(module))
            self._clip = samples, counts
            if lengths is not None:
                given[names[1]] = (
                    lengths.new_ones(len(waveform), len(program.delta)) if masked else torch.ones_like(lengths)
                )
        return tuple(given.pop(name) for name in names if name in given) + args[2:], given

    def on_the_way_out(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The frames of the clips alone, if there are others."""
        program, clip = self.working, self._clip
        if program is None or clip is None:
            return output
        self._clip = None
        samples, counts = clip
        start = program.first_frame
        stop = start + int(_n_frames(module, torch.tensor(samples)))
        if not isinstance(output, EncoderOutput):
            return _cut(output, slice(start, stop))
        part = output.between(start, stop)
        valid = frame_mask(_n_frames(module, counts), part.valid.shape[1])
        padded = ~valid[..., None]
        layers = [layer.masked_fill(padded, 0.0) for layer in part.layers]
        return EncoderOutput(part.frames.masked_fill(padded, 0.0), valid, layers)


def _cut(output: Any, frames: slice) -> Any:
    """Some frames of what a model of Hugging Face gives: (B, T, D) or a tuple of them, in a tuple or a ModelOutput."""
    if isinstance(output, tuple):
        return tuple(_cut(part, frames) for part in output)
    if isinstance(output, Tensor):
        return output[:, frames] if output.dim() == 3 else output
    for key in ("last_hidden_state", "hidden_states"):
        if output.get(key) is not None:
            output[key] = _cut(output[key], frames)
    return output


class LabelMapping(nn.Module):
    """Many labels of a classifier to each of one's own (Elsayed et al. 2019, section 3; Yang et al. 2021, eq. 4).

    The probability of a target is the mean of those of its own ``per_target`` source labels, which are drawn at random
    and belong to no other. Nothing of it is learned.

    Arguments
    ---------
    n_source, n_target : int
        Labels of the classifier, and one's own.
    per_target : int, optional
        Source labels of each target; by default as many as there are.
    seed : int
        Of the draw.

    Example
    -------
    >>> mapping = LabelMapping(10, 3)
    >>> mapping(torch.zeros(1, 10)).exp()
    tensor([[0.1000, 0.1000, 0.1000]])
    """

    groups: Tensor

    def __init__(self, n_source: int, n_target: int, per_target: int | None = None, seed: int = 0) -> None:
        super().__init__()
        per_target = per_target or n_source // max(n_target, 1)
        if n_target < 1 or per_target < 1 or per_target * n_target > n_source:
            raise ConfigError(
                f"LabelMapping: {n_target} targets of {per_target} labels each; expected no more than n_source = "
                f"{n_source} in all"
            )
        drawn = torch.randperm(n_source, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("groups", drawn[: n_target * per_target].view(n_target, per_target))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (..., n_source) to the logarithms (..., n_target) of the targets' mean probabilities.

        They are no distribution: the probability of sources that are nobody's is in none.
        """
        logs = logits.log_softmax(-1)[..., self.groups]
        return logs.logsumexp(-1) - math.log(self.groups.shape[1])
