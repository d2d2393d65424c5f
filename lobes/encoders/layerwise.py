"""Encoders that are stacks of blocks, one block at a time: to be cut short, or to be left on the way.

A *layered* encoder keeps the Encoder contract, and has besides

- ``n_blocks``: layer n of its output is what n blocks give, layer 0 what the first one reads;
- ``first_blocks(n_blocks)``: a copy with so many of them;
- ``walk(waveform, lengths)``: a `Walk` through them, with the arguments of ``forward``;
- ``macs(seconds, n_blocks=None)``: multiply-accumulates up to a block, or of all.

`Encoder` is one, so are `HuggingFaceEncoder`, its kin and `TorchaudioEncoder`, and so is what is `Around` one of them.
A module that keeps something of each utterance from one block to another has a method ``keep_rows(rows)``, which drops
the others, as `Walk.keep` does.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lobes.errors import ConfigError

if TYPE_CHECKING:
    from lobes.encoders.encoder import EncoderOutput


class Walk(ABC):
    """A batch on its way through an encoder's blocks, which utterances may leave.

    Arguments
    ---------
    encoder : nn.Module
        Whose they are.
    blocks : sequence of Callable
        What there is to go through.
    valid : Tensor
        (B, T), bool.

    Attributes
    ----------
    valid : Tensor
        (b, T), of the utterances that are still there.
    layer : int
        Blocks that are behind.
    """

    def __init__(self, encoder: nn.Module, blocks: Sequence[Callable[..., Any]], valid: Tensor) -> None:
        self.encoder, self.blocks, self.valid, self.layer = encoder, blocks, valid, 0

    @property
    @abstractmethod
    def frames(self) -> Tensor:
        """(b, T, D), of the layer that was reached, as ``EncoderOutput.layers`` has it: zero where not valid."""

    def step(self) -> None:
        """Go through the next block."""
        self._through(self.blocks[self.layer])
        self.layer += 1

    def keep(self, rows: Tensor) -> None:
        """Go on with some utterances only, (b,) bool; with none, nothing of the batch is kept between blocks."""
        if rows.all():
            return
        inside = self._keep(rows)
        self.valid = self.valid[rows]
        for module in self.encoder.modules():
            keep_rows: Any = getattr(module, "keep_rows", None)
            if keep_rows is not None:
                keep_rows(inside)

    @abstractmethod
    def _through(self, block: Callable[..., Any]) -> None:
        """Go through a block."""

    @abstractmethod
    def _keep(self, rows: Tensor) -> Tensor:
        """Keep what the blocks read of some utterances; which rows of it these are, bool."""


class BlockWalk(Walk):
    """Through blocks that are called as ours, ``block(x, valid, chunks)``, some frames before the utterances' own."""

    def __init__(
        self, encoder: nn.Module, blocks: Sequence[Callable[..., Any]], x: Tensor, valid: Tensor, before: int = 0
    ) -> None:
        super().__init__(encoder, blocks, valid[:, before:])
        self.x, self.seen, self.before = x, valid, before

    @property
    def frames(self) -> Tensor:
        """See `Walk.frames`."""
        return self.x[:, self.before :]

    def _through(self, block: Callable[..., Any]) -> None:
        self.x = block(self.x, self.seen, None).masked_fill(~self.seen[..., None], 0.0)

    def _keep(self, rows: Tensor) -> Tensor:
        self.x, self.seen = self.x[rows], self.seen[rows]
        return rows


class Around(nn.Module):
    """What hears for an encoder: it changes the waveform, or what it is taken for, and the encoder does the rest."""

    encoder: Any

    def heard(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder reads of a padded batch (B, samples) and relative lengths (B,)."""
        return waveform, lengths

    def forward(self, waveform: Tensor, lengths: Tensor) -> EncoderOutput:
        """Encode a padded batch: (B, samples) at ``sample_rate``, and relative lengths (B,)."""
        return self.encoder(*self.heard(waveform, lengths))

    @property
    def layer_dims(self) -> list[int]:
        """Width of each layer."""
        return self.encoder.layer_dims

    @property
    def n_blocks(self) -> int:
        """See `lobes.encoders.layerwise`."""
        return self.encoder.n_blocks

    def first_blocks(self, n_blocks: int) -> Any:
        """See `lobes.encoders.layerwise`."""
        kept = copy.deepcopy(self)
        kept.encoder = kept.encoder.first_blocks(n_blocks)
        return kept

    def walk(self, waveform: Tensor, lengths: Tensor) -> Walk:
        """See `lobes.encoders.layerwise`."""
        return self.encoder.walk(*self.heard(waveform, lengths))

    def inner_macs(self, seconds: float, n_blocks: int | None) -> int:
        """The encoder's, which takes the number of blocks only if it has some."""
        return self.encoder.macs(seconds) if n_blocks is None else self.encoder.macs(seconds, n_blocks)


def layered(encoder: Any, asker: str) -> Any:
    """The encoder, if it is a layered one.

    Raises
    ------
    ConfigError
        If it is not, or the one is not that it hears for.
    """
    inner = encoder
    while isinstance(inner, Around):
        inner = inner.encoder
    if not hasattr(inner, "walk"):
        raise ConfigError(
            f"{asker}: encoder is a {type(inner).__name__}, which has no blocks to be taken one by one; expected "
            "Encoder, HuggingFaceEncoder or its kin, or TorchaudioEncoder"
        )
    return encoder


def check_hooks(encoder: nn.Module, asker: str) -> None:
    """Refuse an encoder whose call does more than its ``forward``, which a walk would not do.

    Raises
    ------
    ConfigError
        If there is a hook on its call, or on that of the one that it hears for.
    """
    inner: Any = encoder
    while True:
        if inner._forward_pre_hooks or inner._forward_hooks:
            raise ConfigError(
                f"{asker}: something hooks into the call of {type(inner).__name__}, as Reprogramming and CHAPTER do, "
                "which is not called block by block; expected another adaptation, or none"
            )
        if not isinstance(inner, Around):
            return
        inner = inner.encoder
