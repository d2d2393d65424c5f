"""The checks of the contract: those of our contract tests, for any model, with the difference measured.

A difference is the largest over all real frames, as a share of the standard deviation of the expected output.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contract.subject import Call, Masks, NotOfferedError, Subject
from lobes.mixers import Chunks

PASS, FAIL, RAISES, NOT_OFFERED = "pass", "fail", "raises", "not offered"
TOLERANCE = 1e-4
LONGEST, SHORTER = 60, (20, 47)
CHUNKS = Chunks(8, 16)


class Found(NamedTuple):
    """What a check found."""

    outcome: str
    difference: float | None = None
    note: str = ""


def fresh(subject: Subject, causal: bool = False) -> nn.Module:
    """A model with the weights it is born with, in evaluation mode."""
    torch.manual_seed(0)
    return subject.build(causal).eval()


def random_input(subject: Subject, n_frames: int, batch: int = 1) -> Tensor:
    """Noise (B, T, F) or (B, samples)."""
    shape = (batch, subject.inputs(n_frames), subject.width)
    return torch.randn(shape if subject.width else shape[:2])


def lengths_of(subject: Subject, *n_frames: int) -> Tensor:
    """Input lengths (B,) of utterances of so many output frames."""
    return torch.tensor([subject.inputs(n) for n in n_frames])


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest, relative to the deviation of what is expected; NaN if there is one."""
    return ((found - expected).abs().max() / expected.std()).item()


def judge(value: float, note: str = "") -> Found:
    """Pass or fail."""
    return Found(PASS if value <= TOLERANCE else FAIL, value, note)


def padding(subject: Subject, fill: Callable[[Tensor], Tensor]) -> Found:
    """An utterance alone against the same one beside a longer one."""
    if subject.zeros_only and fill is not torch.zeros_like:
        raise NotOfferedError(subject.zeros_only)
    model, values = fresh(subject), []
    for n_frames in SHORTER:
        batch = random_input(subject, LONGEST, 2)
        size = subject.inputs(n_frames)
        alone = subject.encode(model, batch[:1, :size], lengths_of(subject, n_frames))[0]
        batch[0, size:] = fill(batch[0, size:])
        beside = subject.encode(model, batch, lengths_of(subject, n_frames, LONGEST))[0]
        values.append(difference(beside[: len(alone)], alone))
    return judge(math.nan if any(map(math.isnan, values)) else max(values))


def batch_order(subject: Subject) -> Found:
    """A batch of three lengths against the same in another order."""
    model, n_frames, order = fresh(subject), (LONGEST, *SHORTER), [2, 0, 1]
    batch, lengths = random_input(subject, LONGEST, 3), lengths_of(subject, *n_frames)
    for row, length in zip(batch, lengths.tolist(), strict=True):
        row[length:] = 0
    expected = subject.encode(model, batch, lengths)[order]
    found = subject.encode(model, batch[order], lengths[order])
    rows = [slice(n_frames[row]) for row in order]
    return judge(max(difference(f[rows[i]], e[rows[i]]) for i, (f, e) in enumerate(zip(found, expected, strict=True))))


def future(subject: Subject, causal: bool, chunks: Chunks | None) -> Found:
    """Outputs before a point in time where everything after it changes."""
    model, lengths, edge = fresh(subject, causal), lengths_of(subject, 48), 24
    x, changed = random_input(subject, 48), random_input(subject, 48)
    kept = subject.inputs(edge) + subject.lookahead
    changed[:, :kept] = x[:, :kept]
    expected = subject.encode(model, x, lengths, chunks)[:, :edge]
    return judge(difference(subject.encode(model, changed, lengths, chunks)[:, :edge], expected))


def streaming(subject: Subject) -> Found:
    """Chunk by chunk against the whole in chunks, the past limited and not; the last chunk is shorter."""
    model, lengths = fresh(subject), lengths_of(subject, 44)
    x = random_input(subject, 44)
    value = difference(subject.stream(model, x, CHUNKS), subject.encode(model, x, lengths, CHUNKS))
    unlimited = Chunks(CHUNKS.size)
    try:
        streamed = subject.stream(model, x, unlimited)
    except Exception as error:
        return judge(value, f"with an unlimited past: {told(error)}")
    return judge(max(value, difference(streamed, subject.encode(model, x, lengths, unlimited))))


def export(subject: Subject) -> Found:
    """``torch.export`` with a dynamic length against eager, at two lengths that it has not seen.

    A model is called once before, at the length of the example, so that it has the tables that it keeps. Where it
    fails, and works once it was called at the longest length before, the note says so.
    """
    try:
        return judge(_exported(subject, 32))
    except NotOfferedError:
        raise
    except Exception as error:
        found = Found(RAISES, None, told(error))
    try:
        value = _exported(subject, 300)
    except Exception:
        return found
    return found._replace(note=f"{found.note}; after a call at the longest length {judge(value).outcome}")


def _exported(subject: Subject, warm: int) -> float:
    shallow = copy.copy(subject)
    shallow.depth = 1  # the layers are alike, and tracing them takes long
    model = fresh(shallow)
    eager, traced = Call(shallow, model), shallow.traced(model)
    with quiet():
        eager(random_input(subject, warm), lengths_of(subject, warm))
        shapes = {1: torch.export.Dim.AUTO}, None
        example = random_input(subject, 32, 2), lengths_of(subject, 32, 20)
        program = torch.export.export(traced, example, dynamic_shapes=shapes).module()
        values = []
        for n_frames in (21, 300):
            real = n_frames, n_frames // 2 + 8
            x, lengths = random_input(subject, n_frames, 2), lengths_of(subject, *real)
            pairs = zip(program(x, lengths), eager(x, lengths), real, strict=True)
            values += [difference(found[:n], expected[:n]) for found, expected, n in pairs]
    return max(values)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the graphs that ``torch.export`` prints when it fails."""
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(logging.NOTSET)


def one_frame(subject: Subject) -> Found:
    """The shortest utterance, alone and beside a longer one: its frame exists and is finite."""
    model, x = fresh(subject), random_input(subject, 30, 2)
    size = subject.inputs(1)
    x[0, size:] = 0
    alone = subject.encode(model, x[:1, :size], lengths_of(subject, 1))
    beside = subject.encode(model, x, lengths_of(subject, 1, 30))
    works = alone.shape[1] == 1 and bool(alone.isfinite().all() and beside[0, :1].isfinite().all())
    return Found(PASS if works else FAIL)


def empty_beside(subject: Subject) -> Found:
    """An utterance of no frames beside another: that one is as it was, and the gradients are finite."""
    model, x = fresh(subject), random_input(subject, 30, 2)
    x[0] = 0
    x.requires_grad_()
    expected = subject.encode(model, x[1:], lengths_of(subject, 30))[0]
    beside = subject.encode(model, x, lengths_of(subject, 0, 30))[1]
    beside.square().sum().backward()
    found = judge(difference(beside, expected))
    if all(p.grad is None or p.grad.isfinite().all() for p in (x, *model.parameters())):
        return found
    return found._replace(outcome=FAIL, note="gradients are not finite")


def empty_alone(subject: Subject) -> Found:
    """A batch of one utterance of no frames has no frames."""
    frames = subject.encode(fresh(subject), random_input(subject, 0), lengths_of(subject, 0))
    return Found(PASS if frames.shape[1] == 0 else FAIL)


def masked_share(masks: Masks) -> Found:
    """The share of 15 s that is masked for a pretext task, alone and beside 2 s; at most two points between them."""
    alone, beside = masks.share(15.0, []), masks.share(15.0, [2.0])
    outcome = PASS if abs(beside - alone) <= 0.02 else FAIL
    return Found(outcome, abs(beside - alone), f"{alone:.0%} of 15 s alone, {beside:.0%} beside 2 s")


def told(error: Exception) -> str:
    """The first line of an error, cut."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first if len(first) <= 150 else first[:147] + '...'}"


CHECKS: dict[str, Callable[[Subject], Found]] = {
    "padding, zeros": lambda subject: padding(subject, torch.zeros_like),
    "padding, garbage": lambda subject: padding(subject, lambda x: 100 * torch.randn_like(x)),
    "padding, NaN": lambda subject: padding(subject, lambda x: torch.full_like(x, math.nan)),
    "batch order": batch_order,
    "causal form": lambda subject: future(subject, True, None),
    "chunks": lambda subject: future(subject, False, CHUNKS),
    "streaming": streaming,
    "export": export,
    "1 frame": one_frame,
    "0 frames in a batch": empty_beside,
    "0 frames alone": empty_alone,
}


def run(subject: Subject, check: str) -> Found:
    """One check of one model; what it raises is a finding too."""
    try:
        return CHECKS[check](subject)
    except NotOfferedError as reason:
        return Found(NOT_OFFERED, None, str(reason))
    except Exception as error:
        return Found(RAISES, None, told(error))
