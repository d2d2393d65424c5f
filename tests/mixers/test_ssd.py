"""What is particular to SSD: its decays over long recordings, its gradients, and its two directions."""

from __future__ import annotations

import pytest
import torch
from slow_ssd import slow_ssd

from lobes.errors import ConfigError
from lobes.mixers import SSD

DIM = 8


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_an_hour_in_float32_is_as_exact_as_a_minute():
    """90,000 frames: a product of that many decays is 0, and the sum of their logarithms too large to subtract from."""
    torch.manual_seed(0)
    mixer = SSD(DIM, state=4, head_dim=8).eval()
    x = torch.randn(1, 90000, DIM)
    with torch.no_grad():
        low = mixer(x, ones(1, 90000)).double()
        high = mixer.double()(x.double(), ones(1, 90000))
    error = (low - high).abs()
    assert error[:, :1500].max() < 1e-5 and error[:, -1500:].max() < 1e-5


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_equal_those_of_the_slow_loop(bidirectional):
    torch.manual_seed(0)
    mixer = SSD(DIM, state=4, head_dim=8, segment=4, bidirectional=bidirectional).double()
    x = torch.randn(11, DIM, dtype=torch.float64)
    grads = []
    for y in (mixer(x[None], ones(1, 11))[0], slow_ssd(mixer, x, None)):
        mixer.zero_grad()
        y.square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in mixer.named_parameters()})
    for name, grad in grads[0].items():
        assert grad.abs().sum() > 0, name
        torch.testing.assert_close(grad, grads[1][name], atol=1e-12, rtol=1e-9)


def test_the_two_directions_are_mirror_images():
    torch.manual_seed(0)
    mixer = SSD(DIM, state=4, head_dim=8, segment=4, bidirectional=True).eval()
    x = torch.randn(1, 10, DIM)
    y = mixer(x, ones(1, 10))
    mixer.recurrence, mixer.backward_recurrence = mixer.backward_recurrence, mixer.recurrence
    torch.testing.assert_close(mixer(x.flip(1), ones(1, 10)).flip(1), y, atol=1e-6, rtol=0)
    assert not torch.allclose(mixer(x, ones(1, 10)), y, atol=1e-3)


def test_a_large_decay_overflows_nothing():
    """Differences of logarithms of a thousand per frame: the future's would be infinite, and infinity times 0."""
    mixer = SSD(DIM, state=4, head_dim=8, segment=16)
    with torch.no_grad():
        mixer.recurrence.step_bias.fill_(100.0)
    y = mixer(torch.randn(1, 40, DIM), ones(1, 40))
    y.sum().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize("options", [{"state": 0}, {"segment": 0}, {"head_dim": 5}, {"kernel": 0}])
def test_bad_options_are_refused_at_once(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.* {next(iter(options.values()))}"):
        SSD(DIM, **{"head_dim": 8} | options)
