"""Beam search with normalisation by length, over several utterances at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lobes.errors import ConfigError

#: (last tokens (N,), state) -> (log-probabilities of the next (N, V), state).
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


class Hypothesis(NamedTuple):
    """What `beam_search` finds: the tokens before the end, and log p, the end's included, over its length's power."""

    tokens: list[int]
    score: float


class _Live(NamedTuple):
    score: float
    parent: int
    token: int


@torch.no_grad()
def beam_search(
    step: Step,
    state: Any,
    limits: Sequence[int],
    *,
    begin: int,
    end: int,
    beam: int = 5,
    length_power: float = 1.0,
    forbidden: Sequence[int] = (),
    device: str | torch.device = "cpu",
) -> list[Hypothesis]:
    """Return the best hypothesis of each utterance: the largest log p / length^power (Wu et al. 2016, simplified).

    The length counts the end symbol. At each step the `beam` best continuations of all live hypotheses are looked at:
    those that end are finished, and the `beam` best of the others live on. An utterance is done when `beam` hypotheses
    are finished, or when none that lives can still beat the best of them. A beam of 1 is greedy search. An utterance's
    result does not depend on the others.

    Parameters
    ----------
    step : callable
        Such as `TransformerDecoder.step`.
    state : object
        Of the B utterances before the first token; has `select(rows, same_memory)` as `DecoderState` has.
    limits : sequence of int
        Most tokens of each of the B utterances, the end not counted.
    begin, end : int
        Symbols; `begin` is never written.
    beam : int
        Hypotheses of each utterance, 1 or more.
    length_power : float
        0 compares log p itself, which prefers short ones; 1 its mean over symbols.
    forbidden : sequence of int
        Symbols that are never written, such as the CTC blank.
    device : str or torch.device
        Where `state` is.

    Returns
    -------
    list of Hypothesis
        B of them.

    Raises
    ------
    ConfigError
        `beam` or `length_power` is out of range.
    """
    if beam < 1 or length_power < 0:
        raise ConfigError(f"beam is {beam}, length_power {length_power}: expected 1 or more, and 0 or more")
    count = len(limits)
    state = state.select(torch.arange(count, device=device).repeat_interleave(beam))
    scores = torch.full((count, beam), -torch.inf, device=device)
    scores[:, 0] = 0.0
    last = torch.full((count * beam,), begin, device=device)
    written: list[list[list[int]]] = [[[] for _ in range(beam)] for _ in range(count)]
    finished: list[list[Hypothesis]] = [[] for _ in range(count)]
    done = [False] * count
    for length in range(1, max(limits, default=0) + 2):
        log_probs, state = step(last, state)
        log_probs[:, [begin, *forbidden]] = -torch.inf
        total = scores.unsqueeze(-1) + log_probs.view(count, beam, -1)
        closing = torch.tensor([length > limit for limit in limits], device=device)
        if closing.any():
            others = torch.arange(total.shape[-1], device=device) != end
            total.masked_fill_(closing[:, None, None] & others, -torch.inf)
        best, place = total.flatten(1).topk(min(2 * beam, total[0].numel()))
        parents, tokens = (place // total.shape[-1]).tolist(), (place % total.shape[-1]).tolist()
        lives: list[list[_Live]] = []
        for item, ranked in enumerate(best.tolist()):
            ranking = [_Live(*entry) for entry in zip(ranked, parents[item], tokens[item], strict=True)]
            live = (
                [] if done[item] else _continue(ranking, end, beam, length**length_power, written[item], finished[item])
            )
            longest = (limits[item] + 1) ** length_power
            done[item] = (
                done[item] or not live or len(finished[item]) >= beam or _settled(finished[item], live, longest)
            )
            lives.append(live + [_Live(-torch.inf, 0, end)] * (beam - len(live)))
        if all(done):
            break
        written = [
            [[*before[entry.parent], entry.token] for entry in live]
            for before, live in zip(written, lives, strict=True)
        ]
        flat = [(item * beam + entry.parent, entry.token) for item, live in enumerate(lives) for entry in live]
        rows, last = (torch.tensor(column, device=device) for column in zip(*flat, strict=True))
        scores = torch.tensor([[entry.score for entry in live] for live in lives], device=device)
        state = state.select(rows, same_memory=True)
    # Nothing is finished where log-probabilities are NaN.
    return [
        max(found, key=lambda hypothesis: hypothesis.score, default=Hypothesis([], -torch.inf)) for found in finished
    ]


def _continue(
    ranking: list[_Live], end: int, beam: int, divisor: float, written: list[list[int]], finished: list[Hypothesis]
) -> list[_Live]:
    """Add to `finished` what ends among the first of a ranking, and return what lives on."""
    live = []
    for rank, entry in enumerate(ranking):
        if entry.score == -torch.inf:
            break
        if entry.token != end:
            live.append(entry)
        elif rank < beam:
            finished.append(Hypothesis(written[entry.parent], entry.score / divisor))
    return live[:beam]


def _settled(finished: list[Hypothesis], live: list[_Live], longest: float) -> bool:
    """Whether no live one can still win: log p only falls, and is divided by `longest` at most."""
    best = max((hypothesis.score for hypothesis in finished), default=-torch.inf)
    return best >= live[0].score / longest
