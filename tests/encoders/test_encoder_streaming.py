"""Streams equal the pass in chunks, from audio on; what cannot stream says so."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from lobes.encoders import (
    BranchformerBlock,
    ConvolutionStem,
    Encoder,
    LogMel,
    MixerBlock,
    PlainBlock,
    StackingStem,
    StreamingEncoder,
)
from lobes.errors import ConfigError
from lobes.mixers import SDPA, Chunks, SummaryMixing

DIM, MELS = 16, 20
OPTIONS = {
    "stack": {},
    "sdpa": {"mixer": partial(SDPA, num_heads=2, left_context=12)},
    "convolution": {"stem": ConvolutionStem(MELS, DIM, 4, channels=8)},
    "convolution8": {"stem": ConvolutionStem(MELS, DIM, 8, channels=8)},
    "plain": {"block": PlainBlock},
    "branchformer": {"block": BranchformerBlock},
    "mixer-only": {"block": MixerBlock},
    "u-net": {"rates": [2, 4], "mixer": partial(SDPA, num_heads=2, left_context=12)},
    "hybrid": {"mixer": [SummaryMixing, partial(SDPA, num_heads=2, left_context=12)]},
    "causal": {"causal": True, "mixer": partial(SummaryMixing, causal=True)},
    "raw": {"normalise": False},
}


def build(name: str) -> Encoder:
    torch.manual_seed(0)
    options = {"mixer": SummaryMixing, "stem": StackingStem(MELS, DIM, 4), "kernel": 5, **OPTIONS[name]}
    features = LogMel(n_mels=MELS, normalise=options.pop("normalise", "running"))
    return Encoder(features, options.pop("stem"), DIM, 2, options.pop("mixer"), **options).eval()


@pytest.fixture(params=OPTIONS)
def encoder(request):
    return build(request.param)


def stream(streaming: StreamingEncoder, audio: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    parts = [streaming.feed(part) for part in audio.split(sizes)]
    return torch.cat([*parts, streaming.finish()])


@pytest.mark.parametrize("chunks", [Chunks(8), DynChunkTrainConfig(4, 2)], ids=["8", "4-2"])
def test_a_stream_equals_the_pass_in_chunks(encoder, chunks):
    streaming = StreamingEncoder(encoder, chunks)  # one for all: after each utterance it begins anew
    for samples in (0, 1, 160, 5121, 20001, 20480):
        audio = torch.randn(samples) * torch.linspace(0.01, 1, samples)
        whole = encoder(audio[None], torch.ones(1), chunks).frames[0]
        for piece in (320, 7001):
            streamed = stream(streaming, audio, [piece] * (samples // piece) + [samples % piece])
            torch.testing.assert_close(
                streamed, whole, atol=1e-5, rtol=0, msg=lambda m, s=samples, p=piece: f"{s} samples by {p}: {m}"
            )


def test_the_future_beyond_a_chunk_changes_nothing(encoder):
    audio = torch.randn(1, 16000)
    changed = audio.clone()
    changed[:, 8 * encoder.stem.factor * 160 + 240 :] *= 5
    frames = [encoder(x, torch.ones(1), Chunks(8)).frames[:, :8] for x in (audio, changed)]
    assert torch.equal(*frames)


def test_the_state_is_as_large_as_it_says_and_does_not_grow(encoder):
    def floats(state) -> int:
        return state[0].numel() if isinstance(state, torch.Tensor) else sum(map(floats, state))

    streaming = StreamingEncoder(encoder, Chunks(8))
    for _ in range(3):
        streaming.feed(torch.randn(16000))
        assert floats(streaming._state) == encoder.state_floats() > 0
        assert len(streaming._pending) < (8 * encoder.stem.factor + 2) * 160


def test_chunks_of_everything_equal_no_chunks_without_bounds():
    encoder = build("stack")
    audio = torch.randn(1, 16000)
    whole, chunked = (encoder(audio, torch.ones(1), chunks).frames for chunks in (None, Chunks(1000)))
    torch.testing.assert_close(whole, chunked, atol=1e-5, rtol=0)


def test_chunks_of_a_padded_batch_are_blind_to_padding(encoder):
    audio, other = torch.randn(7777), torch.randn(16000)
    batch = torch.stack([torch.cat((audio, torch.full((16000 - 7777,), float("nan")))), other])
    beside = encoder(batch, torch.tensor([7777 / 16000, 1.0]), Chunks(8)).frames[0]
    alone = encoder(audio[None], torch.ones(1), Chunks(8)).frames[0]
    torch.testing.assert_close(beside[: len(alone)], alone, atol=1e-5, rtol=0)


def test_what_cannot_stream_says_so():
    with pytest.raises(ConfigError, match="multiple of 4"):
        StreamingEncoder(build("u-net"), Chunks(6))
    with pytest.raises(ConfigError, match="chunks is None"):
        StreamingEncoder(build("stack"), None)
    whole = Encoder(LogMel(n_mels=MELS), StackingStem(MELS, DIM, 4), DIM, 1, SummaryMixing)
    with pytest.raises(ConfigError, match="normalise is True.*running"):
        StreamingEncoder(whole, Chunks(8))
    with pytest.raises(ConfigError, match="one channel"):
        StreamingEncoder(build("stack"), Chunks(8)).feed(torch.zeros(2, 100))


def test_rates_have_to_fit_the_depth():
    with pytest.raises(ConfigError, match="rates are .*depth 1"):
        Encoder(LogMel(n_mels=MELS), StackingStem(MELS, DIM, 4), DIM, 1, SummaryMixing, rates=[1, 2])
