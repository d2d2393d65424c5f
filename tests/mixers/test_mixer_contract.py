"""Every mixer keeps the TokenMixer contract. A new mixer joins by a line in CASES."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.mixers import SDPA, SummaryMixing

DIM = 16
CASES = {
    "sdpa": partial(SDPA, num_heads=2),
    "sdpa-causal": partial(SDPA, num_heads=2, causal=True, left_context=64),
    "sdpa-causal-short": partial(SDPA, num_heads=2, causal=True, left_context=5),
    "summary": SummaryMixing,
    "summary-causal": partial(SummaryMixing, causal=True),
}
LENGTHS = (1, 2, 7, 13, 31)


@pytest.fixture(params=CASES)
def mixer(request):
    torch.manual_seed(0)
    return CASES[request.param](DIM).eval()


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def padded(x: torch.Tensor, length: int, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x (T, D) beside a longer utterance, the rest of its row filled with garbage."""
    batch = torch.randn(2, length, x.shape[1], dtype=x.dtype)
    batch[0] = fill * torch.randn(length, x.shape[1], dtype=x.dtype)
    batch[0, : len(x)] = x
    valid = ones(2, length)
    valid[0, len(x) :] = False
    return batch, valid


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("fill", [1e3, math.nan])
def test_alone_equals_padded_with_garbage(mixer, length, fill):
    x = torch.randn(length, DIM)
    alone = mixer(x[None], ones(1, length))[0]
    batch, valid = padded(x, 40, fill)
    beside = mixer(batch, valid)[0]
    torch.testing.assert_close(beside[:length], alone, atol=1e-5, rtol=0)
    assert torch.equal(beside[length:], torch.zeros(40 - length, DIM))


def test_batch_order_does_not_matter(mixer):
    x, valid = torch.randn(3, 9, DIM), ones(3, 9)
    valid[1, 4:] = False
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(mixer(x, valid)[order], mixer(x[order], valid[order]), atol=1e-6, rtol=0)


def test_the_whole_is_mixed_and_no_frame_is_alone(mixer):
    x = torch.randn(1, 9, DIM, requires_grad=True)
    mixer(x, ones(1, 9))[0, -1].sum().backward()
    assert (x.grad[0, 4:].abs().sum(-1) > 0).all()


def test_empty_utterances_and_batches_are_finite(mixer):
    x = torch.randn(2, 5, DIM, requires_grad=True)
    valid = ones(2, 5)
    valid[0] = False
    y = mixer(x, valid)
    y.sum().backward()
    assert torch.equal(y[0], torch.zeros(5, DIM))
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in mixer.parameters())
    assert mixer(torch.zeros(2, 0, DIM), ones(2, 0)).shape == (2, 0, DIM)


def test_a_causal_mixer_does_not_see_the_future(mixer):
    x, valid = torch.randn(1, 12, DIM), ones(1, 12)
    changed = x.clone()
    changed[:, 7:] += 10
    same = torch.equal(mixer(x, valid)[:, :7], mixer(changed, valid)[:, :7])
    assert same is mixer.causal


@pytest.mark.parametrize("chunks", [[1] * 23, [4, 4, 4, 4, 7], [23], [9, 0, 14]])
def test_streaming_equals_the_whole_pass(mixer, chunks):
    if not mixer.streamable:
        with pytest.raises(ConfigError, match="cannot stream.*causal: True"):
            mixer.init_state(1)
        return
    x, valid = torch.randn(2, 23, DIM), ones(2, 23)
    valid[1, 10:] = False  # a stream that ends earlier, in the middle of a chunk
    state, outputs = mixer.init_state(2), []
    for part, mask in zip(x.split(chunks, 1), valid.split(chunks, 1), strict=True):
        y, state = mixer.step(part, mask, state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), mixer(x, valid), atol=1e-5, rtol=0)
    assert sum(part[0].numel() for part in state) == mixer.state_floats()


def test_bfloat16_is_close(mixer):
    x, valid = torch.randn(2, 31, DIM), ones(2, 31)
    low = mixer.bfloat16()(x.bfloat16(), valid).float()
    torch.testing.assert_close(low, mixer.float()(x, valid), atol=0.05, rtol=0)


def slow_sdpa(mixer: SDPA, x: torch.Tensor) -> torch.Tensor:
    """One head, one query, one key at a time; rotation as complex numbers."""
    n_frames, d_head = len(x), DIM // mixer.num_heads
    query, key, value = mixer.qkv(x).split(DIM, dim=-1)
    rate = [10000 ** (-i / (d_head // 2)) for i in range(d_head // 2)]
    y = torch.zeros_like(x)
    for head in range(mixer.num_heads):
        part = slice(head * d_head, (head + 1) * d_head)
        q, k = (torch.complex(t[:, part][:, : d_head // 2], t[:, part][:, d_head // 2 :]) for t in (query, key))
        for i in range(n_frames):
            seen = range(max(0, i - mixer.left_context), i + 1) if mixer.causal else range(n_frames)
            turn = [
                torch.tensor([complex(math.cos((i - j) * r), math.sin((i - j) * r)) for r in rate], dtype=torch.cdouble)
                for j in seen
            ]
            products = [
                (q[i] * t * k[j].conj()).real.sum() / math.sqrt(d_head) for j, t in zip(seen, turn, strict=True)
            ]
            weights = torch.stack(products).softmax(0)
            y[i, part] = sum(w * value[j, part] for w, j in zip(weights, seen, strict=True))
    return mixer.out(y)


def slow_summary(mixer: SummaryMixing, x: torch.Tensor) -> torch.Tensor:
    weight = torch.cat((mixer.combine_local.weight, mixer.combine_summary.weight), dim=1)
    y = []
    for t in range(len(x)):
        seen = x[: t + 1] if mixer.causal else x
        mean = sum(F.gelu(mixer.summary(frame)) for frame in seen) / len(seen)
        y.append(F.gelu(weight @ torch.cat((F.gelu(mixer.local(x[t])), mean)) + mixer.combine_local.bias))
    return torch.stack(y)


def test_float64_parity_with_a_slow_loop(mixer):
    mixer = mixer.double()
    x = torch.randn(11, DIM, dtype=torch.float64)
    slow = slow_sdpa if isinstance(mixer, SDPA) else slow_summary
    torch.testing.assert_close(mixer(x[None], ones(1, 11))[0], slow(mixer, x), atol=1e-12, rtol=0)


def test_sdpa_equals_llama_attention_of_transformers():
    """An independent implementation of the same equations, with the same weights."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=DIM, num_attention_heads=2, num_key_value_heads=2, attention_bias=True, attn_implementation="eager"
    )
    theirs = llama.LlamaAttention(config, layer_idx=0).eval()
    ours = SDPA(DIM, num_heads=2).eval()
    with torch.no_grad():
        projections = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
        ours.qkv.weight.copy_(torch.cat([p.weight for p in projections]))
        ours.qkv.bias.copy_(torch.cat([p.bias for p in projections]))
        ours.out.weight.copy_(theirs.o_proj.weight)
        ours.out.bias.copy_(theirs.o_proj.bias)
    x = torch.randn(1, 9, DIM)
    rotary = llama.LlamaRotaryEmbedding(config)(x, torch.arange(9)[None])
    expected = theirs(x, position_embeddings=rotary, attention_mask=None)[0]
    torch.testing.assert_close(ours(x, ones(1, 9)), expected, atol=1e-5, rtol=0)


def test_macs_equal_the_counted_products(mixer):
    """FlopCounterMode counts linear layers and misses CPU attention, whose share is added by hand."""
    from torch.utils.flop_counter import FlopCounterMode

    n_frames = 24
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(1, n_frames, DIM), ones(1, n_frames))
    attention = 0
    if isinstance(mixer, SDPA):
        seen = min(n_frames, mixer.left_context + 1) if mixer.causal else n_frames
        attention = 2 * n_frames * seen * DIM
    assert mixer.macs(n_frames) == counter.get_total_flops() // 2 + attention


def test_export_keeps_dynamic_length(mixer):
    length = torch.export.Dim("length", min=2, max=4096)
    shapes = {"x": {1: length}, "valid": {1: length}}
    program = torch.export.export(mixer, (torch.randn(2, 9, DIM), ones(2, 9)), dynamic_shapes=shapes)
    for n_frames in (5, 33):
        x, valid = torch.randn(2, n_frames, DIM), ones(2, n_frames)
        valid[0, n_frames // 2 :] = False
        torch.testing.assert_close(program.module()(x, valid), mixer(x, valid), atol=1e-5, rtol=0)


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="dim 10.*num_heads"):
        SDPA(10, num_heads=4)
