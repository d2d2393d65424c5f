"""HyperMixing works through its running sums a few at a time: how many at a time changes nothing but the memory."""

from __future__ import annotations

import pytest
import torch

from lobes.errors import ConfigError
from lobes.mixers import Chunks, HyperMixing, hyper_mixing

DIM, HIDDEN = 16, 6


def outputs_and_gradients(mixer: HyperMixing, x: torch.Tensor, chunks: Chunks | None) -> list[torch.Tensor]:
    mixer.zero_grad()
    valid = torch.ones(x.shape[:2], dtype=torch.bool)
    valid[1, 10:] = False
    y = mixer(x, valid, chunks)
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in mixer.parameters())]


@pytest.mark.parametrize("causal, chunks", [(True, None), (False, Chunks(4)), (False, Chunks(1))])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("at_once", [1, 3])
def test_groups_of_running_sums_equal_one_group(monkeypatch, causal, chunks, training, at_once):
    torch.manual_seed(0)
    mixer = HyperMixing(DIM, num_heads=2, hidden=HIDDEN, causal=causal).double().train(training)
    x = torch.randn(2, 23, DIM, dtype=torch.float64)
    expected = outputs_and_gradients(mixer, x, chunks)
    monkeypatch.setattr(hyper_mixing, "WORKED_ON_AT_ONCE", at_once * HIDDEN * DIM)
    for part, whole in zip(outputs_and_gradients(mixer, x, chunks), expected, strict=True):
        torch.testing.assert_close(part, whole, atol=1e-12, rtol=0)


def test_training_keeps_no_running_sum_for_the_backward_pass(monkeypatch):
    mixer, n_frames = HyperMixing(DIM, num_heads=2, hidden=64, causal=True), 40
    monkeypatch.setattr(hyper_mixing, "WORKED_ON_AT_ONCE", 4 * 64 * DIM)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape.numel()) or t, lambda t: t):
        mixer(torch.randn(1, n_frames, DIM), torch.ones(1, n_frames, dtype=torch.bool))
    # Of each group at most the sum before it, and nothing of a size of frames times sums.
    assert max(saved) <= n_frames * 64 * 2
    assert sum(saved) < n_frames * 64 * DIM


def test_length_does_not_make_it_louder():
    torch.manual_seed(0)
    mixer, x = HyperMixing(DIM, num_heads=2, hidden=HIDDEN).eval(), torch.randn(1, 9, DIM)
    twice = torch.cat((x, x), dim=1)
    short, long = (mixer(t, torch.ones(t.shape[:2], dtype=torch.bool)) for t in (x, twice))
    torch.testing.assert_close(long[:, :9], short, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options, message", [({"num_heads": 3}, "num_heads = 3"), ({"hidden": 0}, "hidden is 0")])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        HyperMixing(DIM, **options)
