"""A model under test: how it is built, at a small size, and called as its documentation says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from lobes.mixers import Chunks

DIM, HEADS, HIDDEN = 64, 4, 128


class NotOfferedError(Exception):
    """The model does not offer this; a message says what its documentation says."""


class Subject(ABC):
    """A model under test.

    Arguments
    ---------
    name : str
        As in the table.
    """

    library: str
    call: str
    """How it is called, for the reader of the table."""
    width = DIM
    """Features of an input frame; 0 if the input is a waveform."""
    lookahead = 0
    """Input samples after the end of a frame that still belong to it."""
    zeros_only = ""
    """Why the padding has to be zeros, where the documentation asks for that."""
    depth = 2
    """Layers."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def build(self, causal: bool = False) -> nn.Module:
        """The model with fresh weights; `NotOfferedError` if there is no causal form."""

    @abstractmethod
    def encode(self, model: Any, x: Tensor, lengths: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Outputs (B, T, D) of inputs (B, T, F) or (B, samples) of absolute lengths (B,), in chunks if given."""

    def stream(self, model: Any, x: Tensor, chunks: Chunks) -> Tensor:
        """Outputs (B, T, D) of whole inputs, one chunk at a time."""
        raise NotOfferedError

    def traced(self, model: Any) -> nn.Module:
        """What is exported: a module of inputs and absolute lengths that returns what `encode` does."""
        return Call(self, model)

    def inputs(self, n_frames: int) -> int:
        """Input frames or samples that make that many output frames."""
        return n_frames

    def whole_only(self, causal: bool = False, chunks: Chunks | None = None) -> None:
        """Refuse a causal form and chunks."""
        if causal:
            raise NotOfferedError
        if chunks is not None:
            raise NotOfferedError


class Call(nn.Module):
    """A model and its way of being called as one module.

    Arguments
    ---------
    subject : Subject
        Who knows how it is called.
    model : nn.Module
        What it built.
    """

    def __init__(self, subject: Subject, model: nn.Module) -> None:
        super().__init__()
        self.subject, self.model = subject, model

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The model's frames."""
        return self.subject.encode(self.model, x, lengths)


class Masks(ABC):
    """Masks for a pretext task under test."""

    name: str
    library: str
    call: str

    @abstractmethod
    def share(self, seconds: float, others: list[float]) -> float:
        """The share of an utterance that is masked, beside others of so many seconds in its batch."""
