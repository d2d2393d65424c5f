"""A detector: an encoder, a head on it, the classes, and how recordings are cut and scores become events."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.dataio.annotations import Annotation
from lobes.encoders import relative_lengths
from lobes.errors import ConfigError
from lobes.evaluation import EventRule
from lobes.probes import Downstream, Probe

ACTIVATIONS = ("sigmoid", "softmax")
#: Frames by which a window of seconds may miss a whole number of frames.
_SLACK = 1e-6


class Detector(nn.Module):
    """Scores the windows of a recording, frame by frame.

    The head is one that gives logits per frame (`FrameLinear`, `BiLSTMHead`), or one per window (`LinearHead`,
    `AttentiveHead`), which then holds for all of the window. Scores of overlapping windows are averaged on one time
    grid of `frame_rate`.

    Parameters
    ----------
    encoder : nn.Module
        Keeps the Encoder contract.
    head : Callable
        Constructor of the head (``!name:`` in YAML), called with the layers' dimension and the number of classes.
    classes : sequence of str
        Names of the head's outputs.
    background : sequence of str
        Those of them that are no events, such as `noise`.
    activation : str
        `sigmoid`, where classes can sound at once, or `softmax`.
    window, hop : float
        Seconds of a window, and from one to the next; half a window by default. For a head per frame, both must be
        whole numbers of frames.
    rules : mapping of str to EventRule, optional
        How the scores of each class become events; classes that are not named have the default rule.
    bands : mapping of str to (low, high), optional
        Where each class calls, Hz, for tables and pictures; the model reads all of its band whatever they are.
    normalize : bool
        As for `lobes.probes.WeightedLayerSum`.
    frozen : bool, optional
        Whether training leaves the encoder as it is; None as for `lobes.probes.Downstream`.

    Attributes
    ----------
    model : Downstream
        Encoder and probe: what a recipe trains.
    events : list of str
        The classes that are no background, in order.
    sample_rate : int
        Hz that recordings are to be resampled to.
    frame_rate : float
        Of the grid of scores, Hz.

    Raises
    ------
    ConfigError
        Classes, windows or rules do not fit each other or the encoder.

    Example
    -------
    >>> from lobes.export import load_encoder
    >>> from lobes.probes import FrameLinear
    >>> detector = Detector(load_encoder("logmel-25hz"), FrameLinear, ["duet", "noise"], background=["noise"])
    >>> scores, valid = detector.scores(torch.randn(1, 8 * 16000), torch.tensor([8000]))
    >>> scores.shape, valid, detector.frame_rate
    ((1, 200, 1), [13], 25.0)
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: Callable[..., nn.Module],
        classes: Sequence[str],
        background: Sequence[str] = (),
        activation: str = "sigmoid",
        window: float = 8.0,
        hop: float | None = None,
        rules: Mapping[str, EventRule] | None = None,
        bands: Mapping[str, tuple[float, float]] | None = None,
        normalize: bool = False,
        frozen: bool | None = True,
    ) -> None:
        super().__init__()
        self.classes, self.background = list(classes), list(background)
        self.events = [name for name in self.classes if name not in self.background]
        self.activation, self.window, self.hop = activation, float(window), float(window / 2 if hop is None else hop)
        self.normalize, self.head = normalize, head
        self.bands = {name: (float(low), float(high)) for name, (low, high) in (bands or {}).items()}
        self.rules = {name: (rules or {}).get(name, EventRule()) for name in self.events}
        self._check(rules or {})
        dims = list(encoder.layer_dims)  # type: ignore[arg-type]
        probe = Probe(dims, head(dims[0], len(self.classes)), normalize)
        self.model = Downstream(encoder, probe, frozen)
        self.sample_rate = int(encoder.sample_rate)  # type: ignore[arg-type]
        self.per_frame = _gives_frames(probe, dims)
        self._lay_grid(float(encoder.frame_rate))  # type: ignore[arg-type]

    def _check(self, rules: Mapping[str, EventRule]) -> None:
        if not self.events or len(set(self.classes)) < len(self.classes):
            raise ConfigError(
                f"Detector: classes are {self.classes}; expected different names, one of them no background"
            )
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"Detector: activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}")
        if not 0 < self.hop <= self.window < math.inf:
            raise ConfigError(f"Detector: window {self.window:g} s, hop {self.hop:g} s; expected 0 < hop <= window")
        for field, names in (("background", self.background), ("rules", rules), ("bands", self.bands)):
            unknown = [name for name in names if name not in (self.classes if field == "background" else self.events)]
            if unknown:
                raise ConfigError(f"Detector: {field} names '{unknown[0]}'; expected some of {', '.join(self.classes)}")

    def _lay_grid(self, encoder_rate: float) -> None:
        """Choose the grid: the encoder's frames, or the largest step that windows and hops are multiples of."""
        window, hop = (Fraction(seconds).limit_denominator(10_000) for seconds in (self.window, self.hop))
        if self.per_frame:
            frames = [float(seconds) * encoder_rate for seconds in (self.window, self.hop)]
            if any(abs(count - round(count)) > _SLACK or round(count) < 1 for count in frames):
                nearest = [max(1, round(count)) / encoder_rate for count in frames]
                raise ConfigError(
                    f"Detector: window {self.window:g} s and hop {self.hop:g} s are {frames[0]:g} and {frames[1]:g} "
                    f"frames of the encoder; expected whole numbers, such as {nearest[0]:g} s and {nearest[1]:g} s"
                )
            self.frame_rate = encoder_rate
            self.window_frames, self.hop_frames = (round(count) for count in frames)
        else:
            common = math.gcd(window.numerator * hop.denominator, hop.numerator * window.denominator)
            step = Fraction(common, window.denominator * hop.denominator)
            self.frame_rate = float(1 / step)
            self.window_frames, self.hop_frames = int(window / step), int(hop / step)
        self.window_samples, self.hop_samples = (
            round(count / self.frame_rate * self.sample_rate) for count in (self.window_frames, self.hop_frames)
        )

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits of a batch, (B, T, classes) or (B, classes), and the validity of its frames; see `Downstream`."""
        return self.model(batch)

    @torch.inference_mode()
    def scores(self, audio: Tensor, samples: Tensor) -> tuple[NDArray[np.float32], list[int]]:
        """Scores of windows; call `eval` first.

        Parameters
        ----------
        audio : Tensor
            (B, `window_samples`), at `sample_rate`.
        samples : Tensor
            (B,), int64: how many of them are real.

        Returns
        -------
        scores : array (B, `window_frames`, events)
            Probabilities of the events, on the grid.
        valid : list of int
            How many frames of each window are real: those that begin before its end.
        """
        device = next((p.device for p in self.parameters()), audio.device)
        lengths = relative_lengths(samples, audio.shape[1])
        output = self.model.encoder(audio.to(device), lengths.to(device))
        logits = self.model.probe(output.layers, output.valid).float()
        probabilities = logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()
        probabilities = probabilities[..., [self.classes.index(name) for name in self.events]].cpu()
        if self.per_frame:
            probabilities = _completed(probabilities, output.valid.sum(1).cpu(), self.window_frames)
        else:
            probabilities = probabilities[:, None].expand(-1, self.window_frames, -1)
        frames = torch.ceil(samples.double() / self.sample_rate * self.frame_rate - _SLACK).long()
        return probabilities.numpy(), frames.clamp(1, self.window_frames).tolist()


def frame_targets(
    annotations: Iterable[Annotation], classes: Sequence[str], frame_rate: float, n_frames: int, start: float = 0.0
) -> NDArray[np.float32]:
    """What a detector should say: 1 in the frames whose middle lies in an event of the class, else 0.

    Parameters
    ----------
    annotations : iterable of Annotation
        Of one recording, in seconds from its beginning; labels that are no class are passed over.
    classes : sequence of str
        Columns.
    frame_rate : float
        Hz.
    n_frames : int
        Frames of the stretch.
    start : float
        Where the stretch begins, seconds.

    Returns
    -------
    array (n_frames, C), float32

    Example
    -------
    >>> frame_targets([Annotation(1.0, 2.0, "duet")], ["duet"], frame_rate=2.0, n_frames=6)[:, 0].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    targets = np.zeros((n_frames, len(classes)), dtype=np.float32)
    column = {name: number for number, name in enumerate(classes)}
    for event in annotations:
        if event.label in column:
            # Frame i has its middle at start + (i + 1/2) / frame_rate.
            first, last = (math.ceil((time - start) * frame_rate - 0.5 - _SLACK) for time in (event.start, event.end))
            targets[max(first, 0) : max(last, 0), column[event.label]] = 1.0
    return targets


def frame_loss(logits: Tensor, valid: Tensor, targets: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy over the real frames, each class for itself.

    Parameters
    ----------
    logits : Tensor
        (B, T, C); or (B, C) of a head that decides on whole windows, which hold an event where half of it or more do.
    valid : Tensor
        (B, T), bool.
    targets : Tensor
        (B, T', C), 0 to 1; what one of the two is longer is left out.
    positive_weight : float
        How much more a frame with an event counts, where calls are rare.

    Returns
    -------
    Tensor
        Scalar, nats.
    """
    if logits.dim() == 2:
        logits, valid, targets = logits[:, None], valid[:, :1], (targets.mean(1, keepdim=True) >= 0.5).float()
    n_frames = min(logits.shape[1], targets.shape[1])
    logits, valid, targets = logits[:, :n_frames], valid[:, :n_frames], targets[:, :n_frames].to(logits)
    weight = logits.new_tensor(positive_weight)
    loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    count = valid.sum().clamp_min(1) * logits.shape[2]
    return loss.masked_fill(~valid[..., None], 0.0).sum() / count


def _gives_frames(probe: Probe, dims: Sequence[int]) -> bool:
    """Whether the head's logits are per frame."""
    training = probe.training
    parameter = next(probe.parameters())
    layers = [parameter.new_zeros(1, 2, dim) for dim in dims]
    with torch.no_grad():
        logits = probe.eval()(layers, torch.ones(1, 2, dtype=torch.bool))
    probe.train(training)
    return logits.dim() == 3


def _completed(probabilities: Tensor, valid: Tensor, n_frames: int) -> Tensor:
    """(B, T, C) to (B, n_frames, C): each window's last real frame goes on where its encoder has fewer frames."""
    last = (valid - 1).clamp_min(0)[:, None]
    place = torch.minimum(torch.arange(n_frames).expand(len(valid), -1), last)
    return probabilities.gather(1, place[..., None].expand(-1, -1, probabilities.shape[2]))
