"""A Transformer decoder (Vaswani et al., NeurIPS 2017), in one pass over known tokens or one token at a time.

Layers are pre-norm. What an utterance gets depends neither on the padding of its frames nor on that of its tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError

#: Keys and values of one attention, each (B, H, T, D / H).
KeysValues = tuple[Tensor, Tensor]


def sinusoids(first: int, count: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017), (count, width), from position `first` on; sines, then cosines."""
    position = torch.arange(first, first + count, device=like.device, dtype=torch.float32).unsqueeze(1)
    half = width // 2
    rate = torch.exp(torch.arange(half, device=like.device, dtype=torch.float32) * (-math.log(1e4) / max(1, half - 1)))
    return torch.cat([(position * rate).sin(), (position * rate).cos()], dim=1).to(like.dtype)


def readable(valid: Tensor) -> Tensor:
    """Keys that may be attended to, (B, 1, 1, T), from a mask (B, T).

    An utterance without any real frame attends to all of its frames, which are zero: a softmax over nothing is NaN.
    """
    return (valid | ~valid.any(1, keepdim=True))[:, None, None]


class Attention(nn.Module):
    """Scaled dot-product attention with several heads, whose keys and values can be computed beforehand.

    Parameters
    ----------
    width : int
        Of queries, memory and output.
    heads : int
        Divides `width`.
    dropout : float
        On the attention's weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ConfigError(f"heads is {heads}: expected a divisor of width={width}, which is to be even")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Keys and values (B, H, T, D / H) of memory (B, T, D)."""
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, memory: KeysValues, allowed: Tensor | None) -> Tensor:
        """(B, L, D) from queries (B, L, D); `allowed` broadcasts to (B, H, L, T), None for all."""
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(self._split(self.query(x)), *memory, allowed, dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Self-attention over all real frames and a feed-forward network, both pre-norm.

    Parameters
    ----------
    width, hidden, heads, dropout
        As for `TransformerDecoder`.
    """

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = Attention(width, heads, dropout)
        self.feed_forward = _feed_forward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D) from frames (B, T, D), finite in padding, and mask (B, T)."""
        y = self.norms[0](x)
        x = x + self.dropout(self.attention(y, self.attention.keys_values(y), readable(valid)))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class DecoderLayer(nn.Module):
    """Attention to earlier tokens, attention to the memory and a feed-forward network, each pre-norm.

    Parameters
    ----------
    width, hidden, heads, dropout
        As for `TransformerDecoder`.
    """

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.to_tokens = Attention(width, heads, dropout)
        self.to_memory = Attention(width, heads, dropout)
        self.feed_forward = _feed_forward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: KeysValues | None, earlier: Tensor | None, memory: KeysValues, allowed: Tensor
    ) -> tuple[Tensor, KeysValues]:
        """Tokens (B, L, D) after the `past` ones to (B, L, D); and the keys and values of all of them."""
        y = self.norms[0](x)
        tokens = self.to_tokens.keys_values(y)
        if past is not None:
            tokens = (torch.cat([past[0], tokens[0]], 2), torch.cat([past[1], tokens[1]], 2))
        x = x + self.dropout(self.to_tokens(y, tokens, earlier))
        x = x + self.dropout(self.to_memory(self.norms[1](x), memory, allowed))
        return x + self.dropout(self.feed_forward(self.norms[2](x))), tokens


@dataclass
class DecoderState:
    """What a decoder keeps between two steps.

    Attributes
    ----------
    past : list
        Keys and values of the tokens so far, by layer; None before the first.
    memory : list
        Those of the memory.
    allowed : bool tensor (B, 1, 1, T)
        Frames of the memory that are real.
    position : int
        Number of tokens so far.
    """

    past: list[KeysValues | None]
    memory: list[KeysValues]
    allowed: Tensor
    position: int = 0

    def select(self, rows: Tensor, same_memory: bool = False) -> DecoderState:
        """The state of other rows, (B',) indices into the present ones; with `same_memory` all read what they read."""
        past = [None if kept is None else (kept[0][rows], kept[1][rows]) for kept in self.past]
        if same_memory:
            return DecoderState(past, self.memory, self.allowed, self.position)
        memory = [(keys[rows], values[rows]) for keys, values in self.memory]
        return DecoderState(past, memory, self.allowed[rows], self.position)


class TransformerDecoder(nn.Module):
    """Tokens to logits of the next ones, given a memory; output weights are those of the embedding.

    Parameters
    ----------
    n_symbols : int
        Size V of the vocabulary with all of its symbols.
    width : int
        Of tokens and memory.
    hidden : int
        Of the feed-forward networks.
    heads : int
        Of each attention.
    depth : int
        Number of layers.
    dropout : float
        On embeddings, on attention weights and after each part.

    Example
    -------
    >>> decoder = TransformerDecoder(9, width=8, hidden=16, heads=2, depth=1, dropout=0.0)
    >>> memory, valid = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    >>> decoder(torch.tensor([[7, 1, 2], [7, 3, 3]]), memory, valid).shape
    torch.Size([2, 3, 9])
    """

    def __init__(self, n_symbols: int, width: int, hidden: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(n_symbols, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.layers = nn.ModuleList(DecoderLayer(width, hidden, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def start(self, memory: Tensor, valid: Tensor) -> DecoderState:
        """The state before the first token, from memory (B, T, D), finite in padding, and mask (B, T)."""
        read = [layer.to_memory.keys_values(memory) for layer in self.layers]  # type: ignore[union-attr,operator]
        return DecoderState([None] * len(self.layers), read, readable(valid))

    def forward(self, tokens: Tensor, memory: Tensor, valid: Tensor) -> Tensor:
        """Logits (B, L, V) of the token after each of `tokens` (B, L), in one pass."""
        return self._advance(tokens, self.start(memory, valid))[0]

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Log-probabilities (B, V) of what follows `tokens` (B,), the last ones; and the state with them in it."""
        logits, state = self._advance(tokens.unsqueeze(1), state)
        return logits[:, 0].float().log_softmax(-1), state

    def _advance(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        count = tokens.shape[1]
        x = self.embedding(tokens) * math.sqrt(self.width)
        x = self.dropout(x + sinusoids(state.position, count, self.width, x))
        # A single token is after all others; several are only ever given at the beginning.
        earlier = torch.ones(count, count, dtype=torch.bool, device=x.device).tril() if count > 1 else None
        past: list[KeysValues | None] = []
        for layer, before, memory in zip(self.layers, state.past, state.memory, strict=True):
            x, kept = layer(x, before, earlier, memory, state.allowed)
            past.append(kept)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return logits, DecoderState(past, state.memory, state.allowed, state.position + count)
