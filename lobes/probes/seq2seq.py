"""Sequence to sequence on an encoder: a head that writes a text, a translation or a transcript, with attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError, DataError
from lobes.probes.beam_search import Hypothesis, beam_search
from lobes.probes.ctc import ctc_loss
from lobes.probes.downstream import Downstream
from lobes.probes.norms import FrameNorm
from lobes.probes.transformer_decoder import EncoderLayer, TransformerDecoder, sinusoids


class AttentionHead(nn.Module):
    """Standardised frames, fewer of them, a Transformer over them if wanted, and a decoder that attends to them.

    In shape it is the head of LeBenchmark's speech translation (fairseq's s2t_transformer on features).
    A head as `Probe` has them: called with frames and mask it gives the memory; `decoder` writes.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Size of the tokenizer; the symbols `begin` and `end` are added after it.
    n_source : int
        Size of the source text's tokenizer, for a CTC loss on the memory; 0 for none.
    width, hidden, heads, depth, dropout
        As for `TransformerDecoder`.
    encoder_depth : int
        Transformer layers on the frames before the decoder.
    subsample : int
        Frames that become one, a power of 2: a convolution of stride 2 for each factor.
    blank : int
        Of the tokenizer; never written.

    Raises
    ------
    ConfigError
        An option is out of range.

    Example
    -------
    >>> head = AttentionHead(8, 30, width=16, hidden=32, heads=2, depth=1, subsample=2)
    >>> valid = torch.ones(2, 5, dtype=torch.bool)
    >>> head(torch.randn(2, 5, 8), valid).shape, head.memory_valid(valid).shape, head.end
    (torch.Size([2, 3, 16]), torch.Size([2, 3]), 31)
    """

    def __init__(
        self,
        dim: int,
        n_outputs: int,
        n_source: int = 0,
        width: int = 256,
        hidden: int = 1024,
        heads: int = 4,
        depth: int = 6,
        encoder_depth: int = 0,
        subsample: int = 1,
        dropout: float = 0.1,
        blank: int = 0,
    ) -> None:
        super().__init__()
        factors = int(math.log2(subsample)) if subsample > 0 else -1
        if 2**factors != subsample:
            raise ConfigError(f"subsample is {subsample}: expected a power of 2, or 1 to keep all frames")
        self.dim, self.width, self.blank = dim, width, blank
        self.begin, self.end = n_outputs, n_outputs + 1
        self.norm = FrameNorm(dim)
        self.projection = nn.Linear(dim, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for _ in range(factors))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(width, hidden, heads, dropout) for _ in range(encoder_depth))
        self.memory_norm = nn.LayerNorm(width)
        self.decoder = TransformerDecoder(n_outputs + 2, width, hidden, heads, depth, dropout)
        self.ctc = nn.Linear(width, n_source) if n_source else None

    def memory_valid(self, valid: Tensor) -> Tensor:
        """Mask (B, M) of the memory, from that of the frames (B, T), whose real ones come first."""
        if valid.shape[1] == 0:
            return valid.new_zeros(len(valid), 1)
        return valid[:, :: 2 ** len(self.convolutions)]

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Memory (B, M, width), zero in padding, from frames (B, T, D) and mask (B, T), real ones first."""
        if x.shape[1] == 0:
            x, valid = x.new_zeros(len(x), 1, x.shape[2]), valid.new_zeros(len(valid), 1)
        x = self.projection(self.norm(x, valid)).masked_fill(~valid.unsqueeze(-1), 0.0)
        for convolution in self.convolutions:
            valid = valid[:, ::2]
            x = F.gelu(convolution(x.transpose(1, 2))).transpose(1, 2).masked_fill(~valid.unsqueeze(-1), 0.0)
        x = self.dropout(x + sinusoids(0, x.shape[1], self.width, x))
        for layer in self.layers:
            x = layer(x, valid)
        return self.memory_norm(x).masked_fill(~valid.unsqueeze(-1), 0.0)

    def search(
        self,
        memory: Tensor,
        valid: Tensor,
        beam: int = 5,
        length_power: float = 1.0,
        max_tokens: int = 200,
        tokens_per_frame: float | None = None,
    ) -> list[Hypothesis]:
        """The best text of each utterance, as tokens of the tokenizer.

        Parameters
        ----------
        memory, valid : tensors (B, M, width), (B, M)
            What `forward` and `memory_valid` give.
        beam, length_power
            As for `beam_search`.
        max_tokens : int
            Most tokens of a text.
        tokens_per_frame : float, optional
            Most tokens to each frame of the memory, below `max_tokens`.
        """
        frames = valid.sum(1).tolist()
        limits = [max_tokens] * len(frames)
        if tokens_per_frame is not None:
            limits = [min(max_tokens, math.ceil(tokens_per_frame * count)) for count in frames]
        return beam_search(
            self.decoder.step,
            self.decoder.start(memory, valid),
            limits,
            begin=self.begin,
            end=self.end,
            beam=beam,
            length_power=length_power,
            forbidden=[self.blank],
            device=memory.device,
        )


class Seq2SeqOutput(NamedTuple):
    """Memory (B, M, width), its mask (B, M), logits (B, L + 1, V), CTC logits (B, M, S); the last two may be None."""

    memory: Tensor
    valid: Tensor
    logits: Tensor | None
    ctc_logits: Tensor | None


def attends(head: Callable[..., Any]) -> bool:
    """Whether a head, a class or one with some of its options, writes by itself: is an `AttentionHead`."""
    made = head.func if isinstance(head, partial) else head
    return isinstance(made, type) and issubclass(made, AttentionHead)


class Seq2Seq(Downstream):
    """An encoder with an `AttentionHead` in one module, so that one forward pass does all that is trained.

    Parameters
    ----------
    downstream : Downstream
        What `lobes.training.downstream.on_layers` makes with an `AttentionHead`.
    """

    def __init__(self, downstream: Downstream) -> None:
        super().__init__(downstream.encoder, downstream.probe, frozen=None)
        if not isinstance(self.head, AttentionHead):
            raise ConfigError(f"head is {type(self.head).__name__}: expected lobes.probes.AttentionHead, which writes")

    @property
    def head(self) -> Any:
        """The `AttentionHead`."""
        return self.probe.head

    def forward(self, batch: Any) -> Seq2SeqOutput:  # type: ignore[override]
        """Memory of a batch; and logits where it has ``tokens`` (B, L) with their relative lengths (B,)."""
        memory, valid = super().forward(batch)
        valid = self.head.memory_valid(valid)
        logits = None
        if hasattr(batch, "tokens"):
            tokens, lengths = batch.tokens
            inputs = with_begin(tokens, lengths, self.head.begin)
            logits = self.head.decoder(inputs, memory, valid)
        ctc_logits = self.head.ctc(memory) if self.head.ctc is not None else None
        return Seq2SeqOutput(memory, valid, logits, ctc_logits)


def token_counts(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Numbers of tokens (B,) from absolute lengths, or from those relative to L of tokens (B, L)."""
    return (lengths * tokens.shape[1]).round().long() if lengths.is_floating_point() else lengths.long()


def with_begin(tokens: Tensor, lengths: Tensor, begin: int) -> Tensor:
    """What a decoder reads, (B, L + 1): the begin symbol and the tokens (B, L); `begin` also in padding."""
    inside = torch.arange(tokens.shape[1], device=tokens.device) < token_counts(tokens, lengths).unsqueeze(1)
    return F.pad(tokens.long().masked_fill(~inside, begin), (1, 0), value=begin)


def attention_loss(
    logits: Tensor, tokens: Tensor, lengths: Tensor, end: int, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy with label smoothing (Szegedy et al., CVPR 2016) of the tokens and the end after them.

    Parameters
    ----------
    logits : tensor (B, L + 1, V)
        Of `TransformerDecoder` on `with_begin`; padding is not read.
    tokens : integer tensor (B, L)
        Padded with anything.
    lengths : tensor (B,)
        Numbers of tokens if integer; relative to L if floating.
    end : int
        Symbol.
    smoothing : float
        Probability that is spread over all V symbols.

    Returns
    -------
    loss, weight : tensors ()
        Mean over tokens, in nats; the number of tokens, ends included.

    Raises
    ------
    DataError
        If a token is outside the vocabulary.

    Example
    -------
    >>> loss, weight = attention_loss(torch.zeros(1, 3, 4), torch.tensor([[1, 2]]), torch.tensor([1]), end=3)
    >>> round(float(loss), 4), int(weight)
    (1.3863, 2)
    """
    counts = token_counts(tokens, lengths)
    place = torch.arange(tokens.shape[1] + 1, device=tokens.device)
    targets = F.pad(tokens.long(), (0, 1)).masked_fill(place == counts.unsqueeze(1), end)
    targets = targets[place <= counts.unsqueeze(1)]
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[-1]:
        odd = int(targets.max()) if int(targets.min()) >= 0 else int(targets.min())
        raise DataError(f"tokens: {odd}, expected 0 to {logits.shape[-1] - 1}; give the head len(tokenizer) outputs")
    logits = logits[place <= counts.unsqueeze(1)].float()
    return F.cross_entropy(logits, targets, label_smoothing=smoothing), counts.sum().float() + len(counts)


def seq2seq_loss(
    output: Seq2SeqOutput, batch: Any, end: int, smoothing: float = 0.0, ctc_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`attention_loss`, joined by a share of CTC on the source text (Watanabe et al. 2017).

    Both are sums over the batch divided by its target tokens, so that those of several batches average to that of all.

    Parameters
    ----------
    output : Seq2SeqOutput
        Of a batch with ``tokens``.
    batch : PaddedBatch
        Also with ``source_tokens`` (B, S) and their relative lengths where `ctc_weight` is not 0.
    end, smoothing
        As for `attention_loss`.
    ctc_weight : float
        Between 0 and 1; the rest is attention's. An utterance that CTC cannot align is without it.

    An utterance without a frame counts for nothing.

    Returns
    -------
    loss, weight : tensors ()
        In nats per token; the number of target tokens, ends included.
    """
    assert output.logits is not None
    heard = output.valid.any(1)
    targets, target_lengths = (part[heard] for part in batch.tokens)
    loss, weight = attention_loss(output.logits[heard], targets, target_lengths, end, smoothing)
    if not ctc_weight:
        return loss, weight
    if output.ctc_logits is None:
        raise ConfigError(f"ctc_weight is {ctc_weight}: expected 0 for a head without n_source")
    tokens, lengths = batch.source_tokens
    ctc = ctc_loss(output.ctc_logits, output.valid, tokens, lengths)
    return (1 - ctc_weight) * loss + ctc_weight * ctc.loss * ctc.weight / weight.clamp(min=1), weight
