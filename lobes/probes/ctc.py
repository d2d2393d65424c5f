"""Connectionist temporal classification (Graves et al., ICML 2006) that survives what real data holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lobes.errors import DataError
from lobes.probes.tokenizer import CharTokenizer

__all__ = ["CTCLoss", "CharTokenizer", "ctc_frames_needed", "ctc_greedy", "ctc_loss"]


class CTCLoss(NamedTuple):
    """What `ctc_loss` returns: `loss` (nats per utterance), `weight` (utterances in it), `excluded` (left out)."""

    loss: Tensor
    weight: Tensor
    excluded: Tensor


def ctc_frames_needed(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Return the least number of frames that can emit each transcript, (B,): its tokens, and a blank per repeat.

    Example
    -------
    >>> ctc_frames_needed(torch.tensor([[3, 3, 4, 9]]), torch.tensor([3])).tolist()
    [4]
    """
    inside = torch.arange(tokens.shape[1], device=tokens.device)[1:] < token_lengths.unsqueeze(1)
    repeats = (tokens[:, 1:] == tokens[:, :-1]) & inside
    return token_lengths + repeats.sum(1)


def ctc_loss(logits: Tensor, valid: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0) -> CTCLoss:
    """Return the mean over utterances of -log p(tokens | frames).

    An utterance with fewer frames than its transcript needs, or with none, has probability 0 and infinite loss: it is
    left out, counted in `excluded`, and has no gradient. Without any left the loss is 0 with zero gradients.

    Parameters
    ----------
    logits : tensor (B, T, V)
        Before the softmax; padded frames are not read.
    valid : bool tensor (B, T)
        True for real frames, which come first.
    tokens : integer tensor (B, L)
        Transcripts, padded with anything.
    token_lengths : tensor (B,)
        Numbers of tokens if integer; relative to L, as SpeechBrain has them, if floating.
    blank : int
        Index of the blank.

    Returns
    -------
    CTCLoss
        `loss` in nats per utterance; `weight`, by which losses of several batches average to that of all.

    Raises
    ------
    DataError
        If a transcript holds the blank or a token outside the vocabulary.

    Example
    -------
    >>> valid = torch.ones(2, 3, dtype=torch.bool)
    >>> out = ctc_loss(torch.zeros(2, 3, 2), valid, torch.tensor([[1, 1, 1], [1, 0, 0]]), torch.tensor([3, 1]))
    >>> round(float(out.loss), 4), int(out.weight), int(out.excluded)
    (0.2877, 1, 1)
    """
    if token_lengths.is_floating_point():
        token_lengths = (token_lengths * tokens.shape[1]).round()
    token_lengths = token_lengths.long()
    _check_tokens(tokens, token_lengths, logits.shape[-1], blank)
    frames = valid.sum(1)
    usable = (frames > 0) & (frames >= ctc_frames_needed(tokens, token_lengths))
    weight = usable.sum()
    logits = logits.masked_fill(~valid.unsqueeze(-1), 0.0)
    if not usable.any():
        return CTCLoss(logits.float().sum() * 0.0, weight.float(), (~usable).sum().float())
    log_probs = logits[usable].float().log_softmax(-1).transpose(0, 1)
    losses = F.ctc_loss(
        log_probs, tokens[usable].long(), frames[usable], token_lengths[usable], blank=blank, reduction="none"
    )
    return CTCLoss(losses.mean(), weight.float(), (~usable).sum().float())


def _check_tokens(tokens: Tensor, token_lengths: Tensor, size: int, blank: int) -> None:
    """Refuse tokens that the loss would read beyond its table, or take for blanks."""
    inside = torch.arange(tokens.shape[1], device=tokens.device) < token_lengths.unsqueeze(1)
    wrong = inside & ((tokens < 0) | (tokens >= size) | (tokens == blank))
    if wrong.any():
        value = int(tokens[wrong][0])
        raise DataError(
            f"tokens: {value}, expected 0 to {size - 1} and not the blank {blank}; give the head len(tokenizer) outputs"
        )


@torch.no_grad()
def ctc_greedy(logits: Tensor, valid: Tensor, blank: int = 0) -> list[list[int]]:
    """Return the best path of each utterance, repeats merged and blanks removed (Graves et al. 2006, section 3.2).

    Parameters
    ----------
    logits : tensor (B, T, V)
        Padded frames are not read.
    valid : bool tensor (B, T)
        True for real frames.
    blank : int
        Index of the blank.

    Example
    -------
    >>> path = torch.tensor([[1, 1, 0, 1, 2, 2]])
    >>> ctc_greedy(F.one_hot(path, 3).float(), torch.ones(1, 6, dtype=torch.bool))
    [[1, 1, 2]]
    """
    decoded = []
    for best, real in zip(logits.argmax(-1), valid, strict=True):
        merged = torch.unique_consecutive(best[real])
        decoded.append(merged[merged != blank].tolist())
    return decoded
