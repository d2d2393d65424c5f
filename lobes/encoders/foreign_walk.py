"""Models from elsewhere, block by block: what their own forward hands to the first block, and the blocks after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from lobes.encoders.layerwise import Walk
from lobes.encoders.upstream import PaddingHook, attended

#: What blocks are given by name that has a row, or several, for each utterance; the rest is the same for all.
_OF_UTTERANCES = ("attention_mask", "conv_attention_mask", "position_bias")


class Call(NamedTuple):
    """What a block is called with."""

    x: Tensor
    """(B, T, D)."""
    args: tuple[Any, ...]
    """What comes behind it: masks."""
    options: dict[str, Any]


class _Reached(Exception):  # noqa: N818  it is no error
    def __init__(self, call: Call) -> None:
        self.call = call


def first_call(run: Callable[[], object], block: nn.Module) -> Call:
    """What a forward pass calls its first block with; the block and all after it are not run.

    Arguments
    ---------
    run : Callable
        The forward pass.
    block : nn.Module
        Called by it.
    """

    def caught(module: nn.Module, args: Any, options: Any) -> None:
        options = dict(options)
        x, *others = args or (options.pop("hidden_states"),)
        raise _Reached(Call(x, tuple(others), options))

    handle = block.register_forward_pre_hook(caught, with_kwargs=True, prepend=True)
    try:
        run()
    except _Reached as reached:
        return reached.call
    finally:
        handle.remove()
    raise RuntimeError(f"{type(block).__name__}: the forward pass does not call it")


class ForeignWalk(Walk):
    """Through blocks that are called alike but for what WavLM's hand on, as ``position_bias``.

    Arguments
    ---------
    encoder : nn.Module
        Whose they are.
    blocks : nn.ModuleList
        Of the model.
    call : Call
        Of the first of them.
    valid : Tensor
        (B, T), bool.
    padding : PaddingHook
        Of the model's convolutions.
    """

    def __init__(
        self, encoder: nn.Module, blocks: nn.ModuleList, call: Call, valid: Tensor, padding: PaddingHook
    ) -> None:
        super().__init__(encoder, list(blocks), valid)
        self.x, self.args, self.options = call
        self.padding = padding

    @property
    def frames(self) -> Tensor:
        """See `Walk.frames`."""
        return self.x.masked_fill(~self.valid[..., None], 0.0)

    def _through(self, block: Callable[..., Any]) -> None:
        with self.padding.of(attended(self.valid)):
            output = block(self.x, *self.args, **self.options)
        self.x, *others = output if isinstance(output, tuple) else (output,)
        if "position_bias" in self.options:
            self.options["position_bias"] = others[0]

    def _keep(self, rows: Tensor) -> Tensor:
        self._keep_inside(rows)
        return rows

    def _keep_inside(self, rows: Tensor) -> None:
        """Keep rows (R,) of what the model's blocks read."""
        self.x = self.x[rows]
        self.args = tuple(_rows_of(value, rows) for value in self.args)
        for name in _OF_UTTERANCES:
            if name in self.options:
                self.options[name] = _rows_of(self.options[name], rows)


class PiecesWalk(ForeignWalk):
    """Through Whisper's blocks, whose rows are pieces of utterances; the last layer is normalised, as in Transformers.

    Arguments
    ---------
    encoder, blocks, call, valid, padding
        As for `ForeignWalk`.
    heard : Tensor
        (B, P), bool: the pieces of each utterance.
    norm : nn.Module
        Of the last layer.
    """

    def __init__(self, *given: Any, heard: Tensor, norm: nn.Module) -> None:
        super().__init__(*given)
        self.heard, self.norm = heard, norm

    @property
    def frames(self) -> Tensor:
        """See `Walk.frames`."""
        return joined(self.x, self.heard, self.valid.shape[1]).masked_fill(~self.valid[..., None], 0.0)

    def _through(self, block: Callable[..., Any]) -> None:
        super()._through(block)
        if block is self.blocks[-1]:
            self.x = self.norm(self.x)

    def _keep(self, rows: Tensor) -> Tensor:
        pieces = rows[:, None].expand_as(self.heard)[self.heard]
        self._keep_inside(pieces)
        self.heard = self.heard[rows]
        return pieces


def joined(pieces: Tensor, heard: Tensor, n_frames: int) -> Tensor:
    """Pieces (R, t, D) of utterances one after the other, (B, n_frames, D); where none was heard (B, P), zero."""
    whole = pieces.new_zeros(*heard.shape, *pieces.shape[1:])
    whole[heard] = pieces
    return whole.flatten(1, 2)[:, :n_frames]


def _rows_of(value: Any, rows: Tensor) -> Any:
    """Some rows of a tensor that has one, or several one after the other, for each; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return value.unflatten(0, (len(rows), -1))[rows].flatten(0, 1)
