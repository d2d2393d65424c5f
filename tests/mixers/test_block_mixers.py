"""FNet and MLP-Mixer, which mix a fixed number of frames, and FNet's own lengths."""

from __future__ import annotations

import pytest
import torch

from lobes.errors import ConfigError
from lobes.mixers import FNet, MLPMixer

DIM = 8


@pytest.mark.parametrize("build", [FNet, MLPMixer])
def test_nothing_crosses_from_block_to_block(build):
    torch.manual_seed(0)
    mixer, x, valid = build(DIM, block=4), torch.randn(1, 11, DIM), torch.ones(1, 11, dtype=torch.bool)
    changed = x.clone()
    changed[:, 4:8] += 1
    moved = (mixer(x, valid) != mixer(changed, valid)).any(-1)[0]
    assert not moved[:4].any() and moved[4:8].all() and not moved[8:].any()


@pytest.mark.parametrize("build", [FNet, MLPMixer])
def test_a_block_has_frames(build):
    with pytest.raises(ConfigError, match=f"{build.__name__}: block is 0"):
        build(DIM, block=0)


def test_mlp_mixer_has_hidden_units():
    with pytest.raises(ConfigError, match="hidden is 0"):
        MLPMixer(DIM, hidden=0)


@pytest.mark.parametrize("block", [None, 6])
def test_fnet_keeps_the_energy(block):
    """The orthonormal transform does; half of it is in the real part, for white noise."""
    torch.manual_seed(0)
    x, valid = torch.randn(4, 600, 64), torch.ones(4, 600, dtype=torch.bool)
    y = FNet(64, block)(x, valid)
    assert y.square().mean().item() == pytest.approx(0.5, rel=0.05)


def test_fnet_of_many_lengths_equals_each_alone():
    torch.manual_seed(0)
    mixer, lengths = FNet(DIM), [5, 9, 5, 0, 1, 9]
    x, valid = torch.randn(6, 9, DIM), torch.arange(9) < torch.tensor(lengths)[:, None]
    y = mixer(x, valid)
    for row, length in enumerate(lengths):
        alone = mixer(x[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))[0]
        torch.testing.assert_close(y[row, :length], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [None, 6])
def test_fnet_is_computed_in_float32_under_autocast(block):
    x, valid = torch.randn(2, 24, DIM), torch.ones(2, 24, dtype=torch.bool)
    mixer = FNet(DIM, block)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer(x, valid), mixer(x, valid).float())
        low = mixer(x, valid)
    torch.testing.assert_close(low, mixer(x, valid), atol=1e-6, rtol=0)
