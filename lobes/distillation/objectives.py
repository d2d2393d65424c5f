"""Distillation as objectives: a student learns what its teacher makes of the same audio, without labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from lobes.dataio import AudioDataset, GlobalBatchSampler, collate
from lobes.distillation.heads import LayerHeads, align, reduced
from lobes.distillation.inputs import student_output
from lobes.distillation.losses import explained, gram_distance, l1_cosine, mse, temporal_gram
from lobes.distillation.teacher import Targets, Teacher, cached_targets
from lobes.encoders import EncoderOutput
from lobes.errors import ConfigError
from lobes.objectives import Objective, ObjectiveOutput


class DistillationObjective(Objective):
    """What distillation objectives share: the teacher, its targets, cached or not, and the student's fidelity.

    Out of training, ``items`` holds for each utterance the sums of squares ``residual`` and ``total`` of
    `lobes.distillation.losses.explained`.

    Parameters
    ----------
    encoder : nn.Module
        The student: any encoder that keeps the contract, asked here for its widths and rate and not kept.
    teacher : Teacher
        With the layers to be learned.

    Raises
    ------
    ConfigError
        The two hear audio of different sample rates.

    Attributes
    ----------
    needs_audio : bool
        Whether training needs the audio even where targets and the student's inputs are cached.
    """

    needs_audio: ClassVar[bool] = False
    mean: Tensor

    def __init__(self, encoder: nn.Module, teacher: Teacher) -> None:
        super().__init__()
        if encoder.sample_rate != teacher.sample_rate:
            raise ConfigError(
                f"distillation: the student hears {encoder.sample_rate} Hz, the teacher {teacher.sample_rate} Hz; "
                "expected one sample rate: resample for one of them, or take another student"
            )
        self.teacher = teacher
        mean = torch.full((len(teacher.layers), teacher.dim), float("nan"))
        self.register_buffer("mean", mean, persistent=False)  # of what is tested, not of what was learned

    def prepare(self, dataset: AudioDataset, max_frames: int = 50_000, batch_seconds: float = 60.0) -> None:
        """What has to be known before training, from randomly drawn utterances of a dataset.

        The same on every process, for the draws do not depend on it.
        """

        def some() -> Iterator[Targets]:
            count = 0
            for targets in self._heard(dataset, batch_seconds, shuffle=True):
                yield targets
                count += int(targets.valid.sum())
                if count >= max_frames:
                    return

        self.settle(some())

    def settle(self, heard: Iterable[Targets]) -> None:
        """What has to be known before training, from some of the teacher's targets: their mean."""
        total, count = torch.zeros(self.mean.shape, dtype=torch.float64), 0
        for targets in heard:
            for place, layer in enumerate(targets.layers):
                total[place] += layer[targets.valid].double().sum(0).cpu()
            count += int(targets.valid.sum())
        self.mean.copy_(total / max(count, 1))

    def measure_against(self, dataset: AudioDataset, batch_seconds: float = 60.0) -> None:
        """Measure fidelity against the teacher's mean over all of a dataset: that which is tested.

        So a student's R² does not depend on what it was trained on but through what it has learned.
        """
        DistillationObjective.settle(self, self._heard(dataset, batch_seconds, shuffle=False))

    def _heard(self, dataset: AudioDataset, batch_seconds: float, shuffle: bool) -> Iterator[Targets]:
        sampler = GlobalBatchSampler(dataset.durations, batch_seconds, shuffle=shuffle)
        loader: Iterable[Any] = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
        for batch in loader:
            yield self.targets(batch)

    def targets(self, batch: Any) -> Targets:
        """Of a batch: as its dataset has them (`TargetCache.attach`), or else computed."""
        known = cached_targets(batch)
        if known is not None:
            return known
        waveform, lengths = batch.sig
        device = self.mean.device
        return self.teacher(waveform.to(device), lengths.to(device))

    def forward(self, encoder: nn.Module, batch: Any) -> ObjectiveOutput:
        """Loss over the frames that teacher and student both have; see `Objective.forward`."""
        targets = self.targets(batch)
        output = student_output(encoder, batch)
        predicted, valid = self.predict(output)
        predicted, wanted, both = align(predicted, valid, targets.layers, targets.valid)
        loss, stats = self.loss(predicted, wanted, both, output, targets)
        items = {}
        if not self.training:
            residual, total = explained(predicted, wanted, both, list(self.mean))
            items = {"residual": residual, "total": total}
        return ObjectiveOutput(loss, both.sum().float(), stats, items)

    @abstractmethod
    def predict(self, output: EncoderOutput) -> tuple[list[Tensor], Tensor]:
        """The student's predictions of each target (B, T, D), at the teacher's rate, and their validity (B, T)."""

    @abstractmethod
    def loss(
        self, predicted: list[Tensor], wanted: list[Tensor], valid: Tensor, output: EncoderOutput, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), and what of it is worth a look."""


class Distillation(DistillationObjective):
    """Predict layers of the teacher from layers of the student by linear heads.

    With ``layers: [-1, -1, -1]``, `l1_cosine` and a teacher's layers 4, 8 and 12 this is DistilHuBERT (Chang et al.
    2022); with a layer of the student for each of the teacher's, `mse` and weights 0.1, …, 0.1, 1 it is FitHuBERT (Lee
    et al. 2022); with `l1_cosine` without the log-sigmoid, what DPHuBERT distils by (Peng et al. 2023).

    Parameters
    ----------
    encoder, teacher
        As for `DistillationObjective`.
    layers : sequence of int, optional
        For each target the student's layer that it is predicted from; its last for all by default.
    distance : Callable
        (predicted, target, valid) -> (), such as `lobes.distillation.losses.l1_cosine` or `mse`.
    weights : sequence of float, optional
        Of each target in the loss, which is their weighted sum; 1 by default.

    Raises
    ------
    ConfigError
        There is no such layer, layers or weights are not one for each target, or the sample rates differ.
    """

    def __init__(
        self,
        encoder: nn.Module,
        teacher: Teacher,
        layers: Sequence[int] | None = None,
        distance: Callable[[Tensor, Tensor, Tensor], Tensor] = l1_cosine,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(encoder, teacher)
        dims: list[int] = list(encoder.layer_dims)  # type: ignore[arg-type]
        n_targets = len(teacher.layers)
        self.layers = [-1] * n_targets if layers is None else list(layers)
        self.weights = [1.0] * n_targets if weights is None else list(weights)
        for field, given in (("layers", self.layers), ("weights", self.weights)):
            if len(given) != n_targets:
                raise ConfigError(f"Distillation: {len(given)} {field} for {n_targets} targets; give one for each")
        wrong = [layer for layer in self.layers if not -len(dims) <= layer < len(dims)]
        if wrong:
            raise ConfigError(f"Distillation: layer {wrong[0]}; the student has {len(dims)}, the first is 0")
        widths = {dims[layer] for layer in self.layers}
        if len(widths) > 1:
            raise ConfigError(f"Distillation: layers {self.layers} of the student have widths {sorted(widths)}")
        self.distance = distance
        rates = (float(cast(Any, encoder).frame_rate), teacher.frame_rate)
        self.heads = LayerHeads(widths.pop(), teacher.dim, n_targets, *rates)

    def predict(self, output: EncoderOutput) -> tuple[list[Tensor], Tensor]:
        """See `DistillationObjective.predict`."""
        return self.heads([output.layers[layer] for layer in self.layers], output.valid)

    def loss(
        self, predicted: list[Tensor], wanted: list[Tensor], valid: Tensor, output: EncoderOutput, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `DistillationObjective.loss`."""
        parts = [self.distance(p, t, valid) for p, t in zip(predicted, wanted, strict=True)]
        stats = {f"layer_{layer}": part.detach() for layer, part in zip(self.teacher.layers, parts, strict=True)}
        return torch.stack([weight * part for weight, part in zip(self.weights, parts, strict=True)]).sum(), stats


class STaR(Distillation):
    """Learn which frames of the teacher are alike: temporal Gram matrices of layers (Jang et al., STaR, ICASSP 2024).

    `Σ ‖G(F_l, F_l) - G(F̂_l, F̂_l)‖² + λ Σ ‖G(F_{l-1}, F_l) - G(F̂_{l-1}, F̂_l)‖²` with `G(x, y) = x yᵀ / D`, here as means
    over pairs of real frames, and over layers, so that weights do not depend on how many there are. l goes over the
    teacher's targets, and l - 1 is the target before: with all of its layers as targets this is the paper's. Gram
    matrices do not know widths, so the student's layers need no heads; those that it has are trained beside, at
    `regression`, and say how far it is. Where rates differ, the faster one's frames are averaged.

    Parameters
    ----------
    encoder, teacher, layers
        As for `Distillation`; a layer of the student for each of the teacher's.
    between : float
        λ, of consecutive layers.
    regression : float
        Weight of the heads' mean squared error; no gradient of it reaches the student.
    """

    def __init__(
        self,
        encoder: nn.Module,
        teacher: Teacher,
        layers: Sequence[int] | None = None,
        between: float = 1.0,
        regression: float = 1.0,
    ) -> None:
        super().__init__(encoder, teacher, layers, mse)
        self.between, self.regression = between, regression

    def predict(self, output: EncoderOutput) -> tuple[list[Tensor], Tensor]:
        """From what the student has learned, without changing it."""
        return self.heads([output.layers[layer].detach() for layer in self.layers], output.valid)

    def loss(
        self, predicted: list[Tensor], wanted: list[Tensor], valid: Tensor, output: EncoderOutput, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `DistillationObjective.loss`."""
        read, _ = super().loss(predicted, wanted, valid, output, targets)
        ours, theirs, both = self._same_rate(output, targets)
        within = self._distance(list(zip(ours, ours, strict=True)), list(zip(theirs, theirs, strict=True)), both)
        pairs = list(zip(ours[:-1], ours[1:], strict=True)), list(zip(theirs[:-1], theirs[1:], strict=True))
        across = self._distance(*pairs, both) if len(ours) > 1 else within.new_zeros(())
        stats = {"within_layers": within.detach(), "between_layers": across.detach()}
        return within + self.between * across + self.regression * read, stats

    def _distance(
        self, ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]], valid: Tensor
    ) -> Tensor:
        grams = ((temporal_gram(*a, valid), temporal_gram(*b, valid)) for a, b in zip(ours, theirs, strict=True))
        return torch.stack([gram_distance(a, b, valid) for a, b in grams]).mean()

    def _same_rate(self, output: EncoderOutput, targets: Targets) -> tuple[list[Tensor], list[Tensor], Tensor]:
        ours, valid = [output.layers[layer] for layer in self.layers], output.valid
        theirs, their_valid = targets.layers, targets.valid
        if self.heads.expand > 1:
            theirs, their_valid = _means(theirs, their_valid, self.heads.expand)
        elif self.heads.reduce > 1:
            ours, valid = _means(ours, valid, self.heads.reduce)
        elif self.heads.interpolated:
            raise ConfigError(
                f"STaR: frames at {self.heads.student_rate:g} and {self.heads.teacher_rate:g} Hz; expected one rate to "
                "be a multiple of the other"
            )
        return align(ours, valid, theirs, their_valid)


def _means(frames: list[Tensor], valid: Tensor, factor: int) -> tuple[list[Tensor], Tensor]:
    return reduced([frame.masked_fill(~valid[..., None], 0.0) for frame in frames], valid, factor)
