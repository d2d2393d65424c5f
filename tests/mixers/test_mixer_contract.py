"""Every mixer keeps the TokenMixer contract. A new mixer joins by a line in CASES of mixer_cases.py."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from mixer_cases import CASES, DIM, spans

from lobes.errors import ConfigError
from lobes.mixers import SDPA, Chunks, FNet, Linformer, PoM, TokenMixer, mixers_that

LENGTHS = (1, 2, 7, 13, 31)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def mixer(case) -> TokenMixer:
    torch.manual_seed(0)
    return case.build(DIM).eval()


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def chunked(mixer: TokenMixer, *sizes: int) -> list[Chunks | None]:
    """No chunks, then chunks of these sizes, rounded up to what the mixer can."""
    if not mixer.streamable:
        return [None]
    return [None, *(Chunks(-(-size // mixer.block) * mixer.block) for size in sizes)]


def padded(x: torch.Tensor, length: int, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x (T, D) beside a longer utterance, the rest of its row filled with garbage."""
    batch = torch.randn(2, length, x.shape[1], dtype=x.dtype)
    batch[0] = fill * torch.randn(length, x.shape[1], dtype=x.dtype)
    batch[0, : len(x)] = x
    valid = ones(2, length)
    valid[0, len(x) :] = False
    return batch, valid


# Largest difference that may be rounding: of numbers around 1, and in bfloat16, with its 8 bits, of sums of them.
TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 0.0}, torch.bfloat16: {"atol": 0.05, "rtol": 0.05}}


@pytest.fixture(params=TOLERANCE, ids=["float32", "bfloat16"])
def dtype(request) -> torch.dtype:
    return request.param


def close(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype, where: str) -> None:
    torch.testing.assert_close(ours, theirs, msg=lambda message: f"{where}: {message}", **TOLERANCE[dtype])


def test_alone_equals_padded_with_garbage(mixer, dtype):
    mixer = mixer.to(dtype)
    for length, chunks in product(LENGTHS, chunked(mixer, 4)):
        x = torch.randn(length, DIM, dtype=dtype)
        alone = mixer(x[None], ones(1, length), chunks)[0]
        for fill in (1e3, math.nan):
            beside = mixer(*padded(x, 40, fill), chunks)[0]
            assert beside.dtype == dtype
            close(beside[:length], alone, dtype, f"{length} frames, {chunks}, padded with {fill}")
            assert torch.equal(beside[length:], torch.zeros(40 - length, DIM, dtype=dtype))


def test_gradients_are_blind_to_padding_too(mixer):
    x = torch.randn(7, DIM, requires_grad=True)
    mixer(x[None], ones(1, 7)).square().sum().backward()
    alone = [x.grad, *(p.grad.clone() for p in mixer.parameters())]
    mixer.zero_grad()
    batch, valid = padded(x.detach(), 20, 1e3)
    batch.requires_grad_()
    mixer(batch, valid)[0].square().sum().backward()
    assert not batch.grad[0, 7:].any()
    beside = [batch.grad[0, :7], *(p.grad for p in mixer.parameters())]
    for grad, expected in zip(beside, alone, strict=True):
        torch.testing.assert_close(grad, expected, atol=1e-4, rtol=1e-4)


def test_batch_order_does_not_matter(mixer, dtype):
    mixer, x, valid = mixer.to(dtype), torch.randn(3, 9, DIM, dtype=dtype), ones(3, 9)
    valid[1, 4:] = False
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(mixer(x, valid)[order], mixer(x[order], valid[order]), **TOLERANCE[dtype])


def test_no_frame_is_alone(mixer):
    x = torch.randn(1, 9, DIM, requires_grad=True)
    mixer(x, ones(1, 9))[0, -1].square().sum().backward()
    assert (x.grad[0, -2:].abs().sum(-1) > 0).all()


def test_empty_utterances_and_batches_are_finite(mixer, dtype):
    mixer = mixer.to(dtype)
    for chunks in chunked(mixer, 2):
        x = torch.randn(2, 5, DIM, dtype=dtype, requires_grad=True)
        valid = ones(2, 5)
        valid[0] = False
        y = mixer(x, valid, chunks)
        y.sum().backward()
        assert torch.equal(y[0], torch.zeros(5, DIM, dtype=dtype))
        assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in mixer.parameters())
        assert mixer(torch.zeros(2, 0, DIM, dtype=dtype), ones(2, 0), chunks).shape == (2, 0, DIM)


def test_a_frame_does_not_see_past_its_chunk(mixer, dtype):
    mixer, x, valid = mixer.to(dtype), torch.randn(1, 24, DIM, dtype=dtype), ones(1, 24)
    for chunks in chunked(mixer, 1, 5):
        edge = 24 if chunks is None else chunks.size
        edge = 7 if mixer.causal else edge
        if edge == 24:
            continue
        changed = x.clone()
        changed[:, edge:] += 10
        assert torch.equal(mixer(x, valid, chunks)[:, :edge], mixer(changed, valid, chunks)[:, :edge])
    changed = x.clone()
    changed[:, -1] += 10
    same = torch.equal(mixer(x, valid)[:, -2], mixer(changed, valid)[:, -2])
    assert same is mixer.causal


def stream(mixer: TokenMixer, x: torch.Tensor, valid: torch.Tensor, sizes: list[int], left: int | None = None):
    """Step through in chunks of these sizes; the outputs, and the last state."""
    state, outputs = mixer.init_state(len(x), left), []
    for part, mask in zip(x.split(sizes, 1), valid.split(sizes, 1), strict=True):
        y, state = mixer.step(part, mask, state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def ended_stream(n_frames: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Two streams; one ends earlier, in the middle of a chunk, and has garbage after its end."""
    x, valid = torch.randn(2, n_frames, DIM, dtype=dtype), ones(2, n_frames)
    valid[1, 10:] = False
    x[1, 10:] = math.nan
    return x, valid


def floats(state) -> int:
    """Numbers in a state of nested tuples, per stream."""
    return state[0].numel() if isinstance(state, torch.Tensor) else sum(floats(part) for part in state)


def test_streaming_equals_the_pass_in_chunks(mixer, dtype):
    if not mixer.streamable:
        return
    mixer = mixer.to(dtype)
    for size, left in product({-(-size // mixer.block) * mixer.block for size in (1, 4, 23, 30)}, (None, 6)):
        x, valid = ended_stream(23, dtype)
        sizes = [size] * (23 // size) + [23 % size] * (23 % size > 0)
        streamed, state = stream(mixer, x, valid, sizes, left)
        close(streamed, mixer(x, valid, Chunks(size, left)), dtype, f"chunks of {size}, left {left}")
        if left is None:
            assert floats(state) == floats(mixer.init_state(2)) == mixer.state_floats()


def test_a_causal_mixer_streams_in_chunks_of_any_size(mixer):
    if not (mixer.streamable and mixer.causal):
        return
    x, valid = ended_stream(23)
    whole = mixer(x, valid)
    for sizes in ([1] * 23, [4, 4, 4, 4, 7], [23], [9, 0, 14]):
        close(stream(mixer, x, valid, sizes)[0], whole, torch.float32, f"chunks of {sizes}")


def test_a_mixer_that_cannot_stream_names_those_that_can(mixer):
    x, valid = torch.randn(1, 8, DIM), ones(1, 8)
    if mixer.streamable:
        assert type(mixer).__name__ in mixers_that("streamable")
        with pytest.raises(ConfigError, match=f"multiple of {mixer.block}"):
            mixer(x, valid, Chunks(0))
        return
    assert mixer.state_floats() == 0
    for attempt in (
        lambda: mixer.init_state(1),
        lambda: mixer.step(x, valid, None),
        lambda: mixer(x, valid, Chunks(4)),
    ):
        with pytest.raises(ConfigError, match=f"{type(mixer).__name__}.*cannot stream.*SummaryMixing"):
            attempt()


def test_bfloat16_is_close(mixer):
    x, valid = torch.randn(2, 31, DIM), ones(2, 31)
    valid[0, 20:] = False
    for chunks in chunked(mixer, 8):
        low = mixer.bfloat16()(x.bfloat16(), valid, chunks).float()
        high = mixer.float()(x, valid, chunks)
        torch.testing.assert_close(low, high, atol=0.05 * max(1.0, high.abs().max().item()), rtol=0)


def test_float64_parity_with_a_slow_loop(mixer, case):
    mixer = mixer.double()
    x = torch.randn(11, DIM, dtype=torch.float64)
    for chunks in chunked(mixer, 1, 3, 4, 20):
        expected = case.slow(mixer, x, spans(mixer, 11, chunks), chunks)
        torch.testing.assert_close(mixer(x[None], ones(1, 11), chunks)[0], expected, atol=1e-12, rtol=0)


def test_macs_equal_the_counted_products(mixer):
    """FlopCounterMode counts linear layers and misses CPU attention and FFT, whose share is added by hand."""
    from torch.utils.flop_counter import FlopCounterMode

    n_frames = 24
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(1, n_frames, DIM), ones(1, n_frames))
    uncounted = 0
    if isinstance(mixer, SDPA):
        uncounted = mixer.macs(n_frames) - 4 * n_frames * DIM**2
    if isinstance(mixer, Linformer):
        uncounted = 2 * n_frames * mixer.rank * DIM
    if isinstance(mixer, FNet):
        uncounted = mixer.macs(n_frames)
    assert mixer.macs(n_frames) == counter.get_total_flops() // 2 + uncounted


class Step(torch.nn.Module):
    """A mixer's step as a module of its own, for export."""

    def __init__(self, mixer: TokenMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x, valid, state):
        return self.mixer.step(x, valid, state)


def test_export_keeps_dynamic_length(mixer):
    """What is exportable takes any length; what is not, but streams, exports as the step of one chunk."""
    if not mixer.exportable:
        if mixer.streamable:
            size, state = 4 * mixer.block, mixer.init_state(2)
            x, valid = torch.randn(2, size, DIM), ones(2, size)
            exported = torch.export.export(Step(mixer), (x, valid, state)).module()
            x, state = torch.randn(2, size, DIM), mixer.step(x, valid, state)[1]
            torch.testing.assert_close(exported(x, valid, state)[0], mixer.step(x, valid, state)[0])
        return
    length = torch.export.Dim("length", min=2, max=4096)
    shapes = {"x": {1: length}, "valid": {1: length}}
    program = torch.export.export(mixer, (torch.randn(2, 9, DIM), ones(2, 9)), dynamic_shapes=shapes)
    for n_frames in (5, 33):
        x, valid = torch.randn(2, n_frames, DIM), ones(2, n_frames)
        valid[0, n_frames // 2 :] = False
        torch.testing.assert_close(program.module()(x, valid), mixer(x, valid), atol=1e-5, rtol=0)


def test_bad_options_are_refused_at_once():
    with pytest.raises(ConfigError, match="dim 10.*num_heads"):
        SDPA(10, num_heads=4)
    with pytest.raises(ConfigError, match="degree is 0"):
        PoM(DIM, degree=0)
    with pytest.raises(ConfigError, match="dim is 0"):
        CASES["summary"].build(0)
