"""Hugging Face's models in which some blocks use the attention map of a block before: no queries, no keys."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lobes.encoders.huggingface import HuggingFaceEncoder
from lobes.encoders.pruned import PRUNABLE
from lobes.errors import ConfigError


class ReusedAttention(HuggingFaceEncoder):
    """A `HuggingFaceEncoder` in which only every so many blocks compute where to attend; those between reuse it.

    Jang, Kim, Yun and Hwang, "Recycle-and-Distill: Universal compression strategy for Transformer-based speech SSL
    models with attention map reusing and masking distillation", Interspeech 2023 (ARMHuBERT). A block that reuses a map
    has values and an output projection only: half of its attention's parameters and multiply-accumulates. Maps are kept
    in memory, (B, heads, T, T), until the last block that reads them.

    Arguments
    ---------
    source
        As for `HuggingFaceEncoder`.
    every : int
        Blocks that share a map: 2, as in the paper, leaves queries and keys to blocks 0, 2, 4, …
    **options
        As for `HuggingFaceEncoder`. The weights of queries and keys that go are not used.

    Raises
    ------
    ConfigError
        The model is of a type with another attention, `every` does not fit its depth, or gradient checkpointing is
        asked for, which would compute blocks again without the map that they read.

    Example
    -------
    >>> tiny = {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    ...         "intermediate_size": 32, "conv_dim": [8] * 7}
    >>> encoder = ReusedAttention(tiny, every=2)
    >>> encoder(torch.randn(1, 16000), torch.ones(1)).frames.shape
    torch.Size([1, 49, 16])
    """

    def __init__(self, source: Any, every: int = 2, **options: Any) -> None:
        super().__init__(source, **options)
        config = self.model.config
        if config.model_type not in PRUNABLE:
            raise ConfigError(
                f"ReusedAttention: model_type is '{config.model_type}'; expected one of {', '.join(PRUNABLE)}"
            )
        if not 1 <= every <= config.num_hidden_layers:
            raise ConfigError(
                f"ReusedAttention: every is {every}; expected 1 to {config.num_hidden_layers}, its blocks"
            )
        if options.get("gradient_checkpointing"):
            raise ConfigError("ReusedAttention: gradient_checkpointing computes blocks alone; expected False")
        self.every = every
        self.model.set_attn_implementation("eager")  # what has maps, and what prefixes know that they do not fit
        blocks = self.model.encoder.layers
        for start in range(0, len(blocks), every):
            group = blocks[start : start + every]
            seen = _Seen(len(group))
            for block in group:
                block.attention = _Attention(block.attention, seen, computes=block is group[0])
        self.freeze(self.frozen)

    def first_blocks(self, n_blocks: int) -> ReusedAttention:
        """See `FamilyEncoder.first_blocks`."""
        kept = cast(ReusedAttention, super().first_blocks(n_blocks))
        kept.every = min(kept.every, n_blocks)
        last = (n_blocks - 1) // self.every * self.every  # of a group that may have lost readers
        kept.model.encoder.layers[last].attention.seen.readers = n_blocks - last
        return kept

    def arguments(self) -> dict[str, Any]:
        """See `UpstreamEncoder.arguments`."""
        return {**super().arguments(), "every": self.every}

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """See `FamilyEncoder.macs`."""
        frames = int(self.n_frames(torch.tensor(round(seconds * self.sample_rate))))
        depth = self.n_blocks if n_blocks is None else n_blocks
        reusing = depth - -(-depth // self.every)
        # Queries, keys and scores.
        return super().macs(seconds, n_blocks) - reusing * (2 * frames * self.dim**2 + frames**2 * self.dim)


class _Seen:
    """The attention map of a group of blocks, as long as one of them has yet to read it."""

    def __init__(self, readers: int) -> None:
        self.readers, self.left = readers, 0
        self.map: Tensor | None = None

    def put(self, attention: Tensor) -> None:
        """By the block that computes it."""
        self.map, self.left = attention, self.readers

    def keep(self, rows: Tensor) -> None:
        """Keep it for some utterances, or nothing where none is left, or where it is of a pass that was not ended."""
        if self.map is not None:
            self.map = self.map[rows] if len(self.map) == len(rows) and rows.any() else None

    def take(self) -> Tensor:
        """By each block of the group, once; the last one leaves nothing behind."""
        found, self.left = self.map, self.left - 1
        if found is None:
            raise RuntimeError("a block that reuses attention was called before the one that computes it")
        if self.left == 0:
            self.map = None
        return found


class _Attention(nn.Module):
    """Multi-head attention with the weights of Transformers' own, whose map may be that of a block before."""

    def __init__(self, attention: Any, seen: _Seen, computes: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = attention.num_heads, attention.head_dim, attention.dropout
        if computes:
            self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj
        self.computes, self.seen = computes, seen

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """(B, T, D) to (B, T, D); the mask (B, 1, T, T) is added to the scores."""
        if self.computes:
            query, key = self._heads(self.q_proj(hidden_states)), self._heads(self.k_proj(hidden_states))
            scores = query @ key.transpose(2, 3) * self.head_dim**-0.5
            self.seen.put((scores if attention_mask is None else scores + attention_mask).softmax(-1))
        attention = nn.functional.dropout(self.seen.take(), self.dropout, self.training)
        mixed = attention @ self._heads(self.v_proj(hidden_states))
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    def keep_rows(self, rows: Tensor) -> None:
        """Go on with some utterances, (B,) bool; see `lobes.encoders.layerwise`."""
        if self.computes:
            self.seen.keep(rows)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
