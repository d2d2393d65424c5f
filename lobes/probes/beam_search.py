"""Beam search with normalisation by length, over several utterances at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    rows = torch.arange(len(limits), device=device).repeat_interleave(beam)
    state = state.select(rows)
    items = [_Item([_Live(0.0 if k == 0 else -torch.inf, 0, begin, []) for k in range(beam)], []) for _ in limits]
    for length in range(1, max(limits, default=-1) + 2):
        last = torch.tensor([live.token for item in items for live in item.live], device=device)
        log_probs, state = step(last, state)
        log_probs[:, [begin, *forbidden]] = -torch.inf
        scores = torch.tensor([[live.score for live in item.live] for item in items], device=device)
        total = scores.unsqueeze(-1) + log_probs.unflatten(0, scores.shape)
        closing = torch.tensor([length > limit for limit in limits], device=device)
        others = torch.arange(total.shape[-1], device=device) != end
        total.masked_fill_(closing[:, None, None] & others, -torch.inf)
        best, place = total.flatten(1).topk(min(2 * beam, total[0].numel()))
        ranked = zip(best.tolist(), (place // len(others)).tolist(), (place % len(others)).tolist(), strict=True)
        for item, limit, ranking in zip(items, limits, ranked, strict=True):
            item.go_on(list(zip(*ranking, strict=True)), end, length**length_power, (limit + 1) ** length_power)
        if all(item.done for item in items):
            break
        parents = torch.tensor([[live.parent for live in item.live] for item in items], device=device)
        first = torch.arange(len(items), device=device).unsqueeze(1) * beam
        state = state.select((first + parents).flatten(), same_memory=True)
    # Nothing is finished where log-probabilities are NaN.
    nothing = Hypothesis([], -torch.inf)
    return [max(item.finished, key=lambda found: found.score, default=nothing) for item in items]


class _Live(NamedTuple):
    """A hypothesis to go on with: its log p, the row that it came from, its last token, and all of its tokens."""

    score: float
    parent: int
    token: int
    tokens: list[int]


@dataclass
class _Item:
    """The search in one utterance."""

    live: list[_Live]
    finished: list[Hypothesis]
    done: bool = False

    def go_on(self, ranking: list[tuple[float, int, int]], end: int, divisor: float, longest: float) -> None:
        """Go on with the best continuations, (log p, row, token); `divisor` of those that end, `longest` of any."""
        beam = len(self.live)
        live = []
        for rank, (score, parent, token) in enumerate(ranking):
            if self.done or score == -torch.inf:
                break
            before = self.live[parent].tokens
            if token != end:
                live.append(_Live(score, parent, token, [*before, token]))
            elif rank < beam:
                self.finished.append(Hypothesis(before, score / divisor))
        self.live = live[:beam] + [_Live(-torch.inf, 0, end, [])] * max(0, beam - len(live))
        best = max((found.score for found in self.finished), default=-torch.inf)
        # Those that live can win no more when log p, which only falls, is too low for any length.
        self.done = not live or len(self.finished) >= beam or best >= live[0].score / longest
