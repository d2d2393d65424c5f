"""The TokenMixer contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from lobes.errors import ConfigError


class TokenMixer(nn.Module, ABC):
    """Mixes information along time: the part of an encoder layer that is attention in a Transformer.

    A mixer is built as ``Mixer(dim, **options)`` and keeps this contract, which ``tests/mixers`` checks for each:

    - it never reads a padded frame: an utterance's output is the same alone and beside longer ones;
    - its output at padded frames is zero;
    - where ``causal`` is true, the output at frame t depends on frames <= t alone;
    - where ``streamable`` is true, feeding chunks of any size to `step` gives what `forward` gives for the whole.

    Arguments
    ---------
    dim : int
        Width D of its input and output.

    Attributes
    ----------
    causal, streamable, exportable : bool
        What this instance can do. `causal` is often an option of the constructor.
    """

    causal: bool = False
    streamable: bool = False
    exportable: bool = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ConfigError(f"{type(self).__name__}: dim is {dim}; expected a positive width")
        self.dim = dim

    @abstractmethod
    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Mix a padded batch.

        Arguments
        ---------
        x : Tensor
            (B, T, D), float.
        valid : Tensor
            (B, T), bool, true at real frames; always passed.

        Returns
        -------
        Tensor
            (B, T, D), zero where not valid.
        """

    @abstractmethod
    def macs(self, n_frames: int) -> int:
        """Multiply-accumulates for one utterance of ``n_frames`` frames (matrix products only)."""

    def init_state(self, batch: int) -> Any:
        """State before the first chunk of ``batch`` streams, on the device and in the type of the weights."""
        raise ConfigError(self._cannot_stream())

    def step(self, x: Tensor, valid: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix the next chunk (B, t, D) of each stream; an ended stream has no valid frame in it.

        Returns
        -------
        tuple[Tensor, Any]
            The output (B, t, D) and the state for the next chunk.
        """
        raise ConfigError(self._cannot_stream())

    def state_floats(self) -> int:
        """Numbers of state kept per stream (0 where it cannot stream)."""
        return 0

    def _cannot_stream(self) -> str:
        return (
            f"mixer {type(self).__name__} (causal={self.causal}) cannot stream; "
            "build a streamable one: SDPA or SummaryMixing with causal: True"
        )
