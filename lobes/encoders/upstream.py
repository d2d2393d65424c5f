"""What encoders from elsewhere need to keep our contract: nothing of an utterance's batch may reach it."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lobes.encoders.encoder import EncoderOutput
from lobes.encoders.lengths import absolute_lengths, frame_mask
from lobes.errors import ConfigError

FROZEN = ("nothing", "front-end", "all")


class UpstreamEncoder(nn.Module, ABC):
    """A model from elsewhere behind the Encoder contract.

    The padding is set to zero before anything reads it, and frames that are not valid are zero in every layer. Batch
    norms always use their running statistics, since a batch's own would tie its utterances together.

    Attributes
    ----------
    model : nn.Module
        The model as its library knows it: adapters are put into it, or it is replaced by what wraps it.
    sample_rate : int
        Hz.
    frame_rate : float
        Frames per second, Hz.
    dim : int
        Width D of the output.
    layer_dims : list of int
        Width of each layer.
    by_length : bool
        Whether its front-end runs once for each length in a batch, so that sorting by length saves time.
    """

    model: Any
    sample_rate: int
    frame_rate: float
    dim: int
    layer_dims: list[int]
    by_length = False
    frozen = "nothing"

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """Encode a padded batch.

        Arguments
        ---------
        waveform : Tensor
            (B, samples), at `sample_rate`. Whatever stands in the padding is ignored, NaN included.
        lengths : Tensor
            (B,), relative to the longest, as in SpeechBrain.

        Returns
        -------
        EncoderOutput
            ``layers`` are all hidden states: what the first block reads, then what each gives.
        """
        waveform, n_samples, valid = self._without_padding(waveform, lengths)
        if not valid.any():
            nothing = [waveform.new_zeros(*valid.shape, dim) for dim in (self.dim, *self.layer_dims)]
            return EncoderOutput(nothing[0], valid, nothing[1:])
        frames, layers = self.hidden_states(waveform, n_samples, valid)
        if valid.all():
            return EncoderOutput(frames, valid, layers)
        padded = ~valid[..., None]
        return EncoderOutput(frames.masked_fill(padded, 0.0), valid, [x.masked_fill(padded, 0.0) for x in layers])

    def _without_padding(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The waveform (B, S) with zeros for its padding, samples (B,) of each, and which frames (B, T) are valid."""
        samples = waveform.shape[1]
        n_samples = absolute_lengths(lengths, samples)
        waveform = waveform.to(self._dtype()).masked_fill(~frame_mask(n_samples, samples), 0.0)
        longest = int(self.n_frames(torch.tensor(samples)))
        return waveform, n_samples, frame_mask(self.n_frames(n_samples), longest)

    @abstractmethod
    def hidden_states(self, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames (B, T, D) and layers of waveforms (B, S), zero after n_samples (B,), where some frame is valid."""

    @abstractmethod
    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Frames of utterances of so many samples, int64 of the same shape."""

    @abstractmethod
    def macs(self, seconds: float) -> int:
        """Multiply-accumulates for one utterance of that length, without adapters."""

    @abstractmethod
    def front_end(self) -> Iterable[nn.Module]:
        """What comes before the transformer and is left as it is where ``frozen`` is ``front-end``."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What the class has to be called with to build the same without its source, in plain values."""

    def hparams_text(self) -> str:
        """HyperPyYAML text of this encoder, for `lobes.export.save_encoder`.

        A folder that ``save_encoder(encoder, folder, encoder.hparams_text())`` writes needs neither hub nor source.
        """
        from ruamel.yaml import YAML

        text = io.StringIO()
        YAML(typ="safe", pure=True).dump(self.arguments(), text)
        body = "".join(f"    {line}\n" for line in text.getvalue().splitlines())
        return f"encoder: !new:lobes.encoders.{type(self).__name__}\n{body}"

    def freeze(self, frozen: str) -> None:
        """Leave the front-end or all out of training; what is left out already stays so.

        Arguments
        ---------
        frozen : str
            ``nothing`` more, ``front-end``, or ``all``, which also stays in evaluation mode.

        Raises
        ------
        ConfigError
            If it is another word.
        """
        if frozen not in FROZEN:
            raise ConfigError(f"{type(self).__name__}: frozen is {frozen!r}; expected one of {', '.join(FROZEN)}")
        self.frozen = frozen
        for module in {"nothing": [], "front-end": self.front_end(), "all": [self.model]}[frozen]:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> UpstreamEncoder:
        """As of every module, but for batch norms, and for what is frozen."""
        super().train(mode and self.frozen != "all")
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.training = False
        return self

    def _dtype(self) -> torch.dtype:
        found = next(self.model.parameters()).dtype
        return found if found.is_floating_point else torch.float32


def normalise_waveforms(waveform: Tensor, n_samples: Tensor) -> Tensor:
    """Zero mean and unit variance for each utterance, over its own samples, as Hugging Face's feature extractors do.

    Arguments
    ---------
    waveform : Tensor
        (B, S), zero after each utterance's end.
    n_samples : Tensor
        (B,), int64.

    Returns
    -------
    Tensor
        (B, S): (x - mean) / sqrt(variance + 1e-7), zero after each utterance's end.

    Example
    -------
    >>> normalise_waveforms(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([2]))
    tensor([[-1.0000,  1.0000,  0.0000]])
    """
    # In double precision, so that how long the padding is does not change the last digits.
    exact, counts = waveform.double(), n_samples.clamp_min(1)[:, None]
    mean = exact.sum(1, keepdim=True) / counts
    centred = (exact - mean).masked_fill(~frame_mask(n_samples, waveform.shape[1]), 0.0)
    variance = centred.square().sum(1, keepdim=True) / counts
    return (centred / (variance + 1e-7).sqrt()).to(waveform.dtype)


def run_by_length(
    front: Callable[[Tensor], Tensor], waveform: Tensor, n_samples: Tensor, n_frames: Tensor, longest: int
) -> Tensor:
    """Run a front-end that normalises over time on utterances without their padding, those of one length together.

    Arguments
    ---------
    front : Callable
        Waveforms (b, s) to features (b, t, C).
    waveform : Tensor
        (B, S).
    n_samples, n_frames : Tensor
        (B,), int64, of each utterance; t of ``front`` is its n_frames.
    longest : int
        Frames T of the result.

    Returns
    -------
    Tensor
        (B, T, C), zero after each utterance's end.
    """
    parts = []
    for length in n_samples[n_frames > 0].unique().tolist():
        rows = (n_samples == length).nonzero()[:, 0]
        parts.append((rows, front(waveform[rows, :length])))
    if len(parts) == 1 and parts[0][1].shape[:2] == (len(waveform), longest):
        return parts[0][1]
    features = parts[0][1].new_zeros(len(waveform), longest, parts[0][1].shape[2])
    for rows, part in parts:
        features[rows, : part.shape[1]] = part
    return features


def attended(valid: Tensor) -> Tensor | None:
    """What attention may read: the real frames, and one of an utterance that has none; None if all are real.

    A softmax over nothing is NaN, and so are the gradients of whatever it reaches, masked or not.
    """
    if valid.all():
        return None
    first = torch.arange(valid.shape[1], device=valid.device) == 0
    return valid | (first & ~valid.any(1, keepdim=True))


class PaddingHook:
    """Forward hook that sets the padding of a module's output (B, C, T) to zero, as the edge of a lone utterance is.

    Where a convolution comes after a bias, a norm or another convolution, zeros at the input do not stay zeros.
    """

    def __init__(self) -> None:
        self.valid: Tensor | None = None

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if self.valid is None else output.masked_fill(~self.valid[:, None], 0.0)

    def of(self, valid: Tensor | None) -> _Padding:
        """A context, in which the padding is that of (B, T), or none."""
        return _Padding(self, valid)

    def contexts(self) -> tuple[Any, Any]:
        """For `torch.utils.checkpoint`: what is computed again in the backward pass has the padding that it had."""
        return contextlib.nullcontext(), self.of(self.valid)


class _Padding:
    """Context of `PaddingHook.of`; can be entered again, as checkpoints do when a graph is kept."""

    def __init__(self, hook: PaddingHook, valid: Tensor | None) -> None:
        self.hook, self.valid = hook, valid

    def __enter__(self) -> None:
        self.before, self.hook.valid = self.hook.valid, self.valid

    def __exit__(self, *raised: object) -> None:
        self.hook.valid = self.before


@contextlib.contextmanager
def recorded(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside, a list fills with what the first block reads and what each of them gives (the first, of a tuple)."""
    states: list[Tensor] = []

    def before(module: nn.Module, args: Any, options: Any) -> None:
        if not states:
            states.append(args[0] if args else options["hidden_states"])

    def after(module: nn.Module, args: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = []
    for block in blocks:
        handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(block.register_forward_hook(after))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
