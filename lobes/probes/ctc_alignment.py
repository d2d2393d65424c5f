"""Where in time the words are: forced alignment by CTC, and the segments between its word boundaries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lobes.probes.ctc import ctc_frames_needed

_NEVER = float("-inf")


class Alignment(NamedTuple):
    """What `ctc_align` returns.

    Attributes
    ----------
    labels : tensor (B, T)
        The label that each frame writes, long; the blank where it writes none, and in padding.
    positions : tensor (B, T)
        Which of the transcript's tokens that is, from 0; -1 for blanks and padding.
    aligned : bool tensor (B,)
        False where there are too few frames for the transcript: such an utterance has blanks only.
    log_prob : tensor (B,)
        Of the path, nats; -inf where there is none.
    """

    labels: Tensor
    positions: Tensor
    aligned: Tensor
    log_prob: Tensor


@torch.no_grad()
def ctc_align(logits: Tensor, valid: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0) -> Alignment:
    """Return the most probable path of each transcript, by the Viterbi algorithm on CTC's states.

    The states of Graves et al. (ICML 2006) are the tokens with a blank before, between and after them; a path goes on
    by no state, by one, or by two where it passes over a blank between different tokens.

    Parameters
    ----------
    logits : tensor (B, T, V)
        Before the softmax; padded frames are not read.
    valid : bool tensor (B, T)
        True for real frames, which come first.
    tokens : integer tensor (B, L)
        Transcripts, padded with anything.
    token_lengths : tensor (B,)
        Numbers of tokens if integer; relative to L if floating.
    blank : int
        Index of the blank.

    Example
    -------
    >>> logits = 5 * torch.nn.functional.one_hot(torch.tensor([[1, 0, 0, 2, 2]]), 3).float()
    >>> found = ctc_align(logits, torch.ones(1, 5, dtype=torch.bool), torch.tensor([[1, 2]]), torch.tensor([2]))
    >>> found.positions.tolist()
    [[0, -1, -1, 1, 1]]
    """
    if token_lengths.is_floating_point():
        token_lengths = (token_lengths * tokens.shape[1]).round()
    token_lengths = token_lengths.long()
    n_frames = valid.sum(1)
    aligned = (n_frames > 0) & (n_frames >= ctc_frames_needed(tokens, token_lengths))
    inside = torch.arange(tokens.shape[1], device=tokens.device) < token_lengths.unsqueeze(1)
    tokens = tokens.long().masked_fill(~inside, blank)
    states = tokens.new_full((len(tokens), 2 * tokens.shape[1] + 1), blank)
    states[:, 1::2] = tokens
    steps, scores = _viterbi(_log_probs(logits, valid), valid, states, blank)
    ends = 2 * token_lengths  # the blank after the last token, or that token
    last = torch.stack([ends, (ends - 1).clamp(min=0)], 1)
    best = scores.gather(1, last)
    state = last.gather(1, best.argmax(1, keepdim=True)).squeeze(1)
    path = state.new_zeros(valid.shape)
    for frame in reversed(range(valid.shape[1])):
        path[:, frame] = state
        if frame:
            back = steps[frame - 1].gather(1, state.unsqueeze(1)).squeeze(1)
            state = state - torch.where(valid[:, frame], back, 0)
    written = (path % 2 == 1) & valid & aligned.unsqueeze(1)
    labels = states.gather(1, path).masked_fill(~written, blank)
    positions = (path // 2).masked_fill(~written, -1)
    return Alignment(labels, positions, aligned, best.amax(1).masked_fill(~aligned, _NEVER))


def _log_probs(logits: Tensor, valid: Tensor) -> Tensor:
    return logits.masked_fill(~valid.unsqueeze(-1), 0.0).double().log_softmax(-1)


def _viterbi(log_probs: Tensor, valid: Tensor, states: Tensor, blank: int) -> tuple[list[Tensor], Tensor]:
    """By how many states the best path into each came, from the second frame on, and the scores after the last."""
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    scores = log_probs.new_full(states.shape, _NEVER)
    if not valid.shape[1]:
        return [], scores
    scores[:, :2] = log_probs[:, 0].gather(1, states[:, :2])
    steps = []
    for frame in range(1, valid.shape[1]):
        one = torch.nn.functional.pad(scores, (1, 0), value=_NEVER)[:, :-1]
        two = torch.nn.functional.pad(scores, (2, 0), value=_NEVER)[:, : states.shape[1]].masked_fill(~skips, _NEVER)
        best, step = torch.stack([scores, one, two]).max(0)
        steps.append(step)
        best = best + log_probs[:, frame].gather(1, states)
        scores = torch.where(valid[:, frame].unsqueeze(1), best, scores)
    return steps, scores


def word_segments(labels: Tensor, valid: Tensor, space: int, blank: int = 0) -> tuple[Tensor, Tensor]:
    """Divide frames into words: those between two frames that write a space, where any of them writes a letter.

    Parameters
    ----------
    labels : tensor (B, T)
        The label that each frame writes: the best path, or that of `ctc_align`.
    valid : bool tensor (B, T)
        True for real frames.
    space, blank : int
        Their labels.

    Returns
    -------
    segments : tensor (B, T)
        The word of each frame, from 0; -1 for none.
    counts : tensor (B,)
        Numbers of words: those of the text that the path writes.

    Example
    -------
    >>> path = torch.tensor([[0, 3, 0, 1, 1, 0, 4]])  # with 1 as the space
    >>> segments, counts = word_segments(path, torch.ones(1, 7, dtype=torch.bool), space=1)
    >>> segments.tolist(), counts.tolist()
    ([[0, 0, 0, -1, -1, 1, 1]], [2])
    """
    spaces = (labels == space) & valid
    letters = (labels != space) & (labels != blank) & valid
    region = spaces.cumsum(1)
    has_letter = torch.zeros(len(labels), labels.shape[1] + 1, dtype=torch.bool, device=labels.device)
    has_letter = has_letter.long().scatter_add(1, region, letters.long()) > 0
    number = has_letter.cumsum(1) - 1
    segments = number.gather(1, region).masked_fill(~has_letter.gather(1, region) | spaces | ~valid, -1)
    return segments, has_letter.sum(1)
