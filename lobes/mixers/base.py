"""The TokenMixer contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from lobes.errors import ConfigError


class Chunks(NamedTuple):
    """How a recording is cut for streaming: a frame sees the whole of its chunk, and the past.

    The first chunk begins at frame 0, the last may be shorter.
    """

    size: int
    """Frames of a chunk."""
    left: int | None = None
    """Frames before its chunk that attention sees at most; None for as many as the mixer keeps. A mixer whose state
    does not grow with the past, a running mean for example, has nothing to bound and sees all of it."""

    @classmethod
    def of(cls, config: Any) -> Chunks | None:
        """From SpeechBrain's ``DynChunkTrainConfig`` (whose left context counts chunks), or None from None.

        Example
        -------
        >>> from types import SimpleNamespace
        >>> Chunks.of(SimpleNamespace(chunk_size=8, left_context_size=4))
        Chunks(size=8, left=32)
        """
        if config is None or isinstance(config, cls):
            return config
        left = config.left_context_size
        return cls(config.chunk_size, None if left is None else left * config.chunk_size)


class TokenMixer(nn.Module, ABC):
    """Mixes information along time: the part of an encoder layer that is attention in a Transformer.

    A mixer is built as ``Mixer(dim, **options)`` and keeps this contract, which ``tests/mixers`` checks for each:

    - it never reads a padded frame: an utterance's output is the same alone and beside longer ones;
    - its output at padded frames is zero;
    - where ``causal`` is true, the output at frame t depends on frames <= t alone;
    - where ``streamable`` is true, `step` chunk by chunk gives what `forward` gives under `Chunks` of that size, and
      where ``causal`` is true as well, chunks may have any size and `forward` needs no `Chunks`.

    Arguments
    ---------
    dim : int
        Width D of its input and output.

    Attributes
    ----------
    causal, streamable, exportable : bool
        What this instance can do; of a class, what it can do with the right options.
    block : int
        Frames that it mixes as one: the sizes of its chunks are multiples of it. 1 for most.
    """

    causal: bool = False
    streamable: bool = False
    exportable: bool = True
    block: int = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ConfigError(f"{type(self).__name__}: dim is {dim}; expected a positive width")
        self.dim = dim

    @abstractmethod
    def forward(self, x: Tensor, valid: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Mix a padded batch.

        Arguments
        ---------
        x : Tensor
            (B, T, D), float.
        valid : Tensor
            (B, T), bool, true at real frames; always passed.
        chunks : Chunks, optional
            Frames see no further than the end of their chunk. A causal mixer sees less anyway.

        Returns
        -------
        Tensor
            (B, T, D), zero where not valid.

        Raises
        ------
        ConfigError
            If there are chunks, and the mixer cannot stream or needs chunks of another size.
        """

    @abstractmethod
    def macs(self, n_frames: int) -> int:
        """Multiply-accumulates for one utterance of ``n_frames`` frames (matrix products and convolutions only)."""

    def init_state(self, batch: int, left: int | None = None) -> Any:
        """State before the first chunk of ``batch`` streams, on the device and in the type of the weights.

        Arguments
        ---------
        batch : int
            Streams.
        left : int, optional
            As `Chunks.left`.
        """
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

    def _check_heads(self, num_heads: int) -> None:
        """Refuse a number of heads that cannot share the width."""
        if num_heads < 1 or self.dim % num_heads:
            name = type(self).__name__
            raise ConfigError(f"{name}: dim {self.dim} is not a multiple of num_heads = {num_heads}; change either")

    def _checked(self, chunks: Chunks | None) -> Chunks | None:
        """The chunks, once it is certain that this mixer can work in them."""
        if chunks is None:
            return None
        if not self.streamable:
            raise ConfigError(self._cannot_stream())
        if chunks.size < 1 or chunks.size % self.block:
            raise ConfigError(
                f"mixer {type(self).__name__}: chunks of {chunks.size} frames; expected a multiple of {self.block}"
            )
        return chunks

    def _cannot_stream(self) -> str:
        options = f"causal={self.causal}" if self.block == 1 else f"causal={self.causal}, block={self.block}"
        return f"mixer {type(self).__name__} ({options}) cannot stream; build one that can: " + ", ".join(
            mixers_that("streamable")
        )


def mixers_that(ability: str) -> list[str]:
    """Names of the mixers that can, with the right options, do something.

    Arguments
    ---------
    ability : str
        ``streamable`` or ``exportable``.
    """
    found, unseen = set(), [TokenMixer]
    while unseen:
        subclasses = unseen.pop().__subclasses__()
        unseen += subclasses
        found |= {c.__name__ for c in subclasses if c.__module__.startswith("lobes.mixers.") and getattr(c, ability)}
    return sorted(found)
