"""Fewer samples, fewer blocks, and no more blocks than it takes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lobes.encoders import Downsampled, EarlyExit, Encoder, LogMel, StackingStem, first_blocks
from lobes.errors import ConfigError
from lobes.mixers import SummaryMixing
from lobes.probes import LinearHead


def encoder(depth: int = 3) -> Encoder:
    torch.manual_seed(0)
    return Encoder(LogMel(n_mels=20), StackingStem(20, 16), 16, depth, SummaryMixing).eval()


@pytest.mark.parametrize("way", ["signal", "average", "convolution"])
@pytest.mark.parametrize("factor", [2, 3])
def test_downsampling_halves_cost_and_frames_and_reads_no_padding(way, factor):
    inner = encoder()
    fast = Downsampled(inner, factor, way).eval()
    assert (fast.sample_rate, fast.frame_rate) == (16000, 25 / factor)
    alone = torch.randn(1, 12_345)
    padded = torch.full((2, 20_000), math.nan)
    padded[0, :12_345], padded[1] = alone[0], torch.randn(20_000)
    one = fast(alone, torch.ones(1))
    both = fast(padded, torch.tensor([12_345 / 20_000, 1.0]))
    n_frames = int(one.valid.sum())
    assert n_frames == int(both.valid[0].sum()) == pytest.approx(12_345 / 16000 * 25 / factor, abs=1)
    torch.testing.assert_close(both.frames[0, :n_frames], one.frames[0, :n_frames], atol=2e-5, rtol=0)
    taps = 160 * round(160_000 / factor) if way == "convolution" else 0
    assert fast.macs(10.0) - taps < 1.1 * inner.macs(10.0) / factor


def test_a_convolution_begins_as_the_mean():
    inner = encoder()
    waveform, lengths = torch.randn(2, 16_000), torch.tensor([1.0, 0.7])
    mean, learned = (Downsampled(inner, 2, way)(waveform, lengths) for way in ("average", "convolution"))
    torch.testing.assert_close(mean.frames, learned.frames, atol=1e-5, rtol=0)
    fast = Downsampled(inner, 2, "convolution")
    fast(waveform, lengths).frames.square().sum().backward()
    assert fast.convolution.weight.grad.abs().sum() > 0


def test_a_tone_stays_a_tone_where_the_signal_is_thinned():
    time = torch.arange(16_000) / 16_000
    high = torch.sin(2 * math.pi * 7000 * time)[None]  # what half of the samples cannot hold
    low = torch.sin(2 * math.pi * 500 * time)[None]
    fast = Downsampled(encoder(), 2)
    assert fast._read(high)[:, 100:-100].abs().max() < 0.05 and fast._read(low).abs().max() > 0.9


def test_first_blocks_give_the_first_layers():
    whole = encoder()
    fewer = first_blocks(whole, 2)
    waveform, lengths = torch.randn(2, 16_000), torch.tensor([1.0, 0.6])
    a, b = whole(waveform, lengths), fewer(waveform, lengths)
    assert len(b.layers) == 3 and all(torch.equal(x, y) for x, y in zip(a.layers, b.layers, strict=False))
    assert fewer.macs(10.0) < whole.macs(10.0) and len(whole.blocks) == 3


class Sure(nn.Module):
    """Sure of utterances that are louder than it asks for."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x, valid):
        loud = x.square().sum((1, 2)) / valid.sum(1) / x.shape[2] > self.level
        return torch.stack([torch.where(loud, 9.0, 0.0), torch.zeros(len(x))], dim=1)


def test_an_utterance_leaves_where_a_head_is_sure_of_it_whatever_the_others_do():
    inner = encoder()
    waveform, lengths = torch.randn(4, 16_000), torch.tensor([1.0, 0.8, 0.6, 0.9])
    powers = [
        (x.square().sum((1, 2)) / inner(waveform, lengths).valid.sum(1) / 16).tolist()
        for x in inner(waveform, lengths).layers
    ]
    levels = [sorted(power)[-2] + 1e-6 for power in powers]  # one utterance of each layer is above
    early = EarlyExit(inner, [Sure(level) for level in levels]).eval()
    together = early(waveform, lengths)
    for row in range(4):
        samples = round(float(lengths[row]) * 16_000)
        alone = early(waveform[row : row + 1, :samples], torch.ones(1))
        assert alone.layer.item() == together.layer[row].item()
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-4, rtol=0)
    assert together.layer.min() == 0 and together.layer.max() == 3


def test_what_is_not_needed_is_not_computed(monkeypatch):
    inner = encoder()
    early = EarlyExit(inner, [LinearHead(16, 3) for _ in range(4)], threshold=0.0).eval()
    for block in inner.blocks:
        monkeypatch.setattr(block, "forward", None)
    assert early(torch.randn(2, 16_000), torch.ones(2)).layer.tolist() == [0, 0]
    assert early.macs(10.0, 0) < early.macs(10.0, 1) < early.macs(10.0, 3) == inner.macs(10.0)
    assert early.macs(10.0, 0) == inner.features.macs(1000) + inner.stem.macs(1000)


def test_all_heads_are_trained_together_and_none_leaves_above_one():
    inner = encoder()
    early = EarlyExit(inner, [LinearHead(16, 3) for _ in range(4)], threshold=1.1).eval()
    waveform, lengths = torch.randn(2, 16_000), torch.tensor([1.0, 0.5])
    every, last = early.logits(waveform, lengths), early(waveform, lengths)
    assert last.layer.tolist() == [3, 3]
    torch.testing.assert_close(every[3], last.logits)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Downsampled(encoder(), 0), "factor is 0"),
        (lambda: Downsampled(encoder(), 2, "skip"), "way is 'skip'; expected one of signal"),
        (lambda: Downsampled(encoder(), 4, "convolution", kernel=2), "kernel is 2"),
        (lambda: first_blocks(encoder(), 9), "n_blocks is 9; expected 1 to 3"),
        (lambda: EarlyExit(encoder(), [LinearHead(16, 3)]), "1 heads for 4 layers"),
        (lambda: first_blocks(Downsampled(encoder()), 4), "n_blocks is 4; expected 1 to 3"),
    ],
)
def test_what_is_impossible_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
