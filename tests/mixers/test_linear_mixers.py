"""Mixers of linear cost over long streams, at extreme scores, and with options that cannot be."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from slow_fastformer import slow_fastformer
from slow_luna import slow_luna

from lobes.errors import ConfigError
from lobes.mixers import Chunks, Fastformer, LinearAttention, Linformer, Luna
from lobes.mixers.running import SoftmaxSums, running_softmax, softmax_sums

DIM = 16


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


@pytest.mark.parametrize("drift", [-300.0, 0.0, 300.0])
@pytest.mark.parametrize("n_chunks", [1, 2, 5, 8, 13])
def test_a_running_softmax_is_exact_at_any_scores(drift, n_chunks):
    """Scores that fall or rise without end under- or overflow every exponential that is not relative."""
    scores = torch.randn(2, n_chunks, 3, 2, 4) + drift * torch.arange(n_chunks * 3.0).view(n_chunks, 3, 1, 1)
    scores[1, :, 1] = -torch.inf
    values = torch.randn(2, n_chunks, 3, 2, 5)
    sums = softmax_sums(scores, values)
    means = running_softmax(sums, SoftmaxSums.none(sums.values[:, 0])).mean()
    assert not means[:, 0].any()
    for n in range(1, n_chunks + 1):
        weights = scores[:, :n].flatten(1, 2).double().softmax(1)
        expected = torch.einsum("bshp,bshd->bhpd", weights, values[:, :n].flatten(1, 2).double())
        torch.testing.assert_close(means[:, n].double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("build, slow", [(Luna, slow_luna), (Fastformer, slow_fastformer)])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_beyond_the_range_of_exp_do_not_overflow(build, slow, causal):
    torch.manual_seed(0)
    mixer = build(DIM, num_heads=2, causal=causal)
    weights = (mixer.pack.weight,) if build is Luna else (mixer.query_weight, mixer.key_weight)
    with torch.no_grad():
        for weight in weights:
            weight *= 1000
    x = torch.randn(1, 40, DIM, requires_grad=True)
    y = mixer(x, ones(1, 40), None if causal else Chunks(8))
    y.square().sum().backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in mixer.parameters())
    ends = [t + 1 if causal else t // 8 * 8 + 8 for t in range(40)]
    expected = slow(mixer.double(), x[0].double(), [(0, end) for end in ends])
    torch.testing.assert_close(y[0].double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("build", [Luna, LinearAttention, Fastformer])
def test_a_long_stream_of_single_frames_stays_with_the_whole(build):
    torch.manual_seed(0)
    mixer = build(DIM, num_heads=2, causal=True).requires_grad_(False)
    x = torch.randn(1, 500, DIM)
    state, last = mixer.init_state(1), None
    for frame in x.unbind(1):
        last, state = mixer.step(frame[:, None], ones(1, 1), state)
    whole = mixer.double()(x.double(), ones(1, 500))
    torch.testing.assert_close(last[:, 0].double(), whole[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size, segment", [(1, 64), (8, 64), (8, 20), (64, 64), (100, 64)])
def test_the_segment_changes_nothing(size, segment):
    torch.manual_seed(0)
    x, valid = torch.randn(2, 150, DIM, dtype=torch.float64), ones(2, 150)
    valid[0, 70:] = False
    one = LinearAttention(DIM, num_heads=2, segment=1).double()
    other = LinearAttention(DIM, num_heads=2, segment=segment).double()
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(x, valid, Chunks(size)), one(x, valid, Chunks(size)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_frames", [2, 17, 64, 65, 150])
@pytest.mark.parametrize("build", [Luna, LinearAttention, Fastformer])
def test_macs_of_causal_mixers_count_whole_blocks(build, n_frames):
    from torch.utils.flop_counter import FlopCounterMode

    mixer = build(DIM, num_heads=2, causal=True)
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(1, n_frames, DIM), ones(1, n_frames))
    assert mixer.macs(n_frames) == counter.get_total_flops() // 2


def test_linear_attention_of_keys_without_weight_is_finite():
    mixer = LinearAttention(DIM, num_heads=2)
    with torch.no_grad():
        mixer.qkv.bias[: 2 * DIM] = -200
    x = torch.randn(1, 9, DIM, requires_grad=True)
    y = mixer(x, ones(1, 9))
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()


def test_linformer_mixes_short_and_long_utterances_at_one_scale():
    torch.manual_seed(0)
    mixer = Linformer(64, num_heads=2, rank=16, max_frames=2000).requires_grad_(False)
    scales = []
    mixer.key.register_forward_hook(lambda _, inputs, __: scales.append(inputs[0].std().item()))
    for n_frames in (10, 200, 2000):
        mixer(torch.randn(4, n_frames, 64), ones(4, n_frames))
    assert scales == pytest.approx([1.0, 1.0, 1.0], rel=0.15)


def test_linformer_names_both_lengths():
    with pytest.raises(ConfigError, match="max_frames is 10.*batch has 11 frames"):
        Linformer(DIM, max_frames=10)(torch.randn(1, 11, DIM), ones(1, 11))


@pytest.mark.parametrize("build", [Luna, LinearAttention, Fastformer, Linformer])
def test_autocast_is_close(build):
    torch.manual_seed(0)
    mixer, x, valid = build(DIM, num_heads=2), torch.randn(2, 31, DIM), ones(2, 31)
    valid[0, 20:] = False
    mixers = [mixer] if build is Linformer else [mixer, build(DIM, num_heads=2, causal=True)]
    for each in mixers:
        with torch.autocast("cpu", torch.bfloat16):
            low = each(x, valid)
        torch.testing.assert_close(low.float(), each(x, valid), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "build, message",
    [
        (partial(Luna, num_heads=3), "Luna: dim 16.*num_heads = 3"),
        (partial(Luna, memory=0), "Luna: memory is 0"),
        (partial(LinearAttention, num_heads=0), "LinearAttention: dim 16.*num_heads = 0"),
        (partial(LinearAttention, segment=0), "LinearAttention: segment is 0"),
        (partial(Fastformer, num_heads=5), "Fastformer: dim 16.*num_heads = 5"),
        (partial(Linformer, num_heads=5), "Linformer: dim 16.*num_heads = 5"),
        (partial(Linformer, rank=0), "Linformer: rank is 0"),
        (partial(Linformer, max_frames=0), "Linformer: max_frames is 0"),
    ],
)
def test_bad_options_are_refused_at_once(build, message):
    with pytest.raises(ConfigError, match=message):
        build(DIM)
