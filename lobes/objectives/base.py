"""The Objective contract, and the one module that a recipe trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from lobes.dataio import AudioDataset
from lobes.encoders import Encoder


class ObjectiveOutput(NamedTuple):
    """What an objective gives for a batch."""

    loss: Tensor
    """(), the mean over the batch's ``weight`` predictions."""
    weight: Tensor
    """(), float: over how many predictions the loss is a mean. Ranks and accumulated batches are averaged by it."""
    stats: dict[str, Tensor]
    """Scalars worth a look, detached."""
    items: dict[str, Tensor]
    """Out of training, counts (B,) of each utterance: ``correct`` of so many ``predictions``. Empty in training."""


class Objective(nn.Module, ABC):
    """A pretext task: owns its targets, heads and masks; the encoder is lent to it.

    What it draws at random for an utterance depends on the objective's seed, the utterance's id and the training step
    alone, never on the other members of the batch: so training is the same however utterances are dealt to processes.
    """

    def prepare(self, dataset: AudioDataset) -> None:
        """Learn from the training set, before the first step, what is needed to make targets; nothing by default."""

    @abstractmethod
    def forward(self, encoder: Encoder, batch: Any) -> ObjectiveOutput:
        """Loss of a batch.

        Arguments
        ---------
        encoder : Encoder
            What is trained.
        batch : PaddedBatch
            With ``id`` (list of B strings), ``sig`` (waveforms (B, samples), relative lengths (B,)) and, in training,
            ``step``, the number of optimizer steps taken so far.
        """


class SSLModel(nn.Module):
    """Encoder and objective as one module with one forward, which is what DistributedDataParallel needs to see.

    Arguments
    ---------
    encoder : Encoder
        What is trained.
    objective : Objective
        The pretext task.
    """

    def __init__(self, encoder: Encoder, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective

    def forward(self, batch: Any) -> ObjectiveOutput:
        """Loss of a batch."""
        return self.objective(self.encoder, batch)
