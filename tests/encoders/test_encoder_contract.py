"""Every encoder, stem and block is blind to padding, whatever its mixer."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from upstream_cases import UPSTREAMS

from lobes.encoders import (
    BranchformerBlock,
    ConformerBlock,
    ConvolutionStem,
    Encoder,
    LogMel,
    LogMelEncoder,
    MaskedConvolution,
    MixerBlock,
    PitchShift,
    PlainBlock,
    StackingStem,
    TimeExpansion,
    absolute_lengths,
    relative_lengths,
)
from lobes.errors import ConfigError
from lobes.mixers import SDPA, SummaryMixing

DIM, MELS = 16, 20
STEMS = {
    "stack4": lambda: StackingStem(MELS, DIM, 4),
    "stack8": lambda: StackingStem(MELS, DIM, 8),
    "conv4": lambda: ConvolutionStem(MELS, DIM, 4, channels=8),
    "conv8": lambda: ConvolutionStem(MELS, DIM, 8, channels=8),
}
MIXERS = {"sdpa": partial(SDPA, num_heads=2), "summary": SummaryMixing}


def build(stem: str = "stack4", mixer: str = "summary", normalise=True, **options) -> Encoder:
    torch.manual_seed(0)
    return Encoder(
        LogMel(n_mels=MELS, normalise=normalise), STEMS[stem](), DIM, 2, MIXERS[mixer], kernel=5, **options
    ).eval()


def seeded(build):
    torch.manual_seed(0)
    return build()


LAYOUTS = {
    "plain": {"block": PlainBlock},
    "branchformer": {"block": BranchformerBlock},
    "mixer-only": {"block": MixerBlock},
    "u-net": {"rates": [2, 4]},
    "plain-u-net": {"block": PlainBlock, "rates": [1, 3]},
    "running": {"normalise": "running"},
}
ENCODERS = {f"{stem}-{mixer}": partial(build, stem, mixer) for stem in STEMS for mixer in MIXERS}
ENCODERS |= {name: partial(build, "stack4", "sdpa", **options) for name, options in LAYOUTS.items()}
ENCODERS["logmel"] = lambda: LogMelEncoder(LogMel(n_mels=MELS), factor=4)
ENCODERS["logmel-raw"] = lambda: LogMelEncoder(LogMel(n_mels=MELS, normalise=False))
ENCODERS["mfcc"] = lambda: LogMelEncoder(LogMel(n_mels=MELS, normalise=False), n_mfcc=5)
ENCODERS["time-expansion"] = lambda: TimeExpansion(LogMelEncoder(LogMel(8000, MELS)), 2)
ENCODERS["pitch-shift"] = lambda: PitchShift(LogMelEncoder(LogMel(6400, MELS)), 2.5)
ENCODERS |= {name: partial(seeded, build) for name, build in UPSTREAMS.items()}


@pytest.fixture(params=ENCODERS)
def encoder(request):
    return ENCODERS[request.param]()


def pad(utterances: list[torch.Tensor], fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(u) for u in utterances)
    batch = torch.full((len(utterances), longest), fill)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return batch, torch.tensor([len(u) / longest for u in utterances])


def check_padding(encoder, lengths: list[int], fills: list[float], **tolerance: float) -> None:
    """Utterances of these lengths in samples, beside a longer one, are as each is alone, whatever fills their rows."""
    utterances = [torch.randn(length) for length in lengths]
    each = [encoder(utterance[None], torch.ones(1)) for utterance in utterances]
    for fill in fills:
        batch = encoder(*pad([*utterances, torch.randn(20001)], fill))
        assert batch.valid[-1].all()
        for row, (length, alone) in enumerate(zip(lengths, each, strict=True)):
            n_frames, where = alone.frames.shape[1], f"{length} samples, padded with {fill}"
            assert alone.valid.all() and batch.valid[row].sum() == n_frames, where
            for ours, theirs in zip([batch.frames, *batch.layers], [alone.frames, *alone.layers], strict=True):
                torch.testing.assert_close(
                    ours[row, :n_frames].float(), theirs[0].float(), msg=lambda m, w=where: f"{w}: {m}", **tolerance
                )
                assert not ours[row, n_frames:].any(), where


def test_alone_equals_padded_with_garbage(encoder):
    check_padding(encoder, [1, 159, 160, 161, 401, 7777, 16000], [0.0, 100.0, math.nan], atol=1e-5, rtol=1e-5)


def test_alone_equals_padded_with_garbage_in_bfloat16(encoder):
    """As it is used: weights in float32, under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        check_padding(encoder, [1, 401, 7777], [math.nan], atol=0.1, rtol=0.05)


def test_gradients_are_blind_to_padding_too():
    encoder = build()
    utterance = torch.randn(4000)
    encoder(utterance[None], torch.ones(1)).frames.sum().backward()
    alone = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    encoder(*pad([utterance, torch.randn(9000)], math.nan)).frames[0].sum().backward()
    for grad, parameter in zip(alone, encoder.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, grad, atol=1e-4, rtol=1e-4)


def test_empty_utterances_and_batches_work(encoder):
    output = encoder(*pad([torch.randn(0), torch.randn(5000)], 0.0))
    assert not output.valid[0].any() and output.frames.isfinite().all()
    assert encoder(torch.zeros(2, 0), torch.ones(2)).frames.shape[:2] == (2, 0)


def test_the_output_says_what_it_is(encoder):
    output = encoder(torch.randn(1, 32000), torch.ones(1))
    assert [layer.shape[-1] for layer in output.layers] == encoder.layer_dims
    assert output.frames.shape[-1] == encoder.dim
    whole = math.ceil(2 * encoder.frame_rate)
    assert output.frames.shape[1] == (encoder.n_frames(torch.tensor(32000)) if hasattr(encoder, "n_frames") else whole)
    assert whole - 1 <= output.frames.shape[1] <= whole
    assert encoder.sample_rate == 16000 and 0 < encoder.macs(2.0) < encoder.macs(20.0)


def test_macs_equal_the_counted_products():
    from torch.utils.flop_counter import FlopCounterMode

    built = [build(stem) for stem in STEMS] + [build(**options) for options in LAYOUTS.values()]
    for encoder in built:
        with FlopCounterMode(display=False) as counter:
            encoder.encode(torch.randn(1, 203, MELS), torch.ones(1, 203, dtype=torch.bool))
        assert encoder.macs(2.03) - encoder.features.macs(203) == counter.get_total_flops() // 2


def test_mixers_are_separate_and_can_differ_by_layer():
    encoder = Encoder(LogMel(n_mels=MELS), STEMS["stack4"](), DIM, 2, [MIXERS["sdpa"], SummaryMixing])
    assert [type(block.mixer) for block in encoder.blocks] == [SDPA, SummaryMixing]
    same = build()
    assert same.blocks[0].mixer.local.weight is not same.blocks[1].mixer.local.weight
    with pytest.raises(ConfigError, match="1 mixers for depth 2"):
        Encoder(LogMel(n_mels=MELS), STEMS["stack4"](), DIM, 2, [SummaryMixing])


def test_a_stem_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ConfigError, match="expected 20 .*to 32"):
        Encoder(LogMel(n_mels=MELS), StackingStem(80, DIM), 32, 1, SummaryMixing)


def floats(state) -> int:
    """Numbers in a state of nested tuples, per stream."""
    return state[0].numel() if isinstance(state, torch.Tensor) else sum(floats(part) for part in state)


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("mixer", [partial(SDPA, num_heads=2, causal=True), partial(SummaryMixing, causal=True)])
def test_a_causal_block_streams(mixer, chunk):
    block = ConformerBlock(DIM, mixer, kernel=5, causal=True).eval()
    x, valid = torch.randn(2, 23, DIM), torch.ones(2, 23, dtype=torch.bool)
    valid[1, 13:] = False
    state, outputs = block.init_state(2), []
    for part, mask in zip(x.split(chunk, 1), valid.split(chunk, 1), strict=True):
        y, state = block.step(part, mask, state)
        outputs.append(y)
    streamed, whole = torch.cat(outputs, 1), block(x, valid)
    torch.testing.assert_close(streamed[valid], whole[valid], atol=1e-5, rtol=0)
    assert block.streamable and block.state_floats() == floats(state)


def test_the_convolution_equals_a_one_dimensional_one():
    module = MaskedConvolution(DIM, kernel=5).eval()
    x, valid = torch.randn(2, 12, DIM), torch.ones(2, 12, dtype=torch.bool)
    plain = torch.nn.Conv1d(DIM, DIM, 5, padding=2, groups=DIM)
    depthwise = module.depthwise.conv
    plain.weight.data, plain.bias.data = depthwise.weight.data[..., 0], depthwise.bias.data
    mixed = plain(torch.nn.functional.glu(module.expand(x), -1).transpose(1, 2)).transpose(1, 2)
    expected = module.project(torch.nn.functional.silu(module.norm(mixed)))
    torch.testing.assert_close(module(x, valid), expected, atol=1e-5, rtol=0)


def test_the_features_equal_torchaudio():
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=512, win_length=400, hop_length=160, n_mels=80, center=False
    )
    # Torchaudio centres a short window in its FFT; shift ours by as much.
    x = torch.randn(1, 8000)
    theirs = torch.log(mel(x)[0].T + 1e-6)
    ours, _ = LogMel(normalise=False)(x[:, 56:], torch.ones(1))
    torch.testing.assert_close(ours[0, : len(theirs)], theirs, atol=1e-3, rtol=1e-4)


def test_lengths_survive_the_round_trip():
    longest = 30 * 16000 + 7
    lengths = torch.randint(0, longest + 1, (1000,))
    assert torch.equal(absolute_lengths(relative_lengths(lengths, longest), longest), lengths)


def test_dropout_is_off_in_evaluation_and_on_in_training():
    encoder = build(dropout=0.3)
    x, lengths = torch.randn(1, 8000), torch.ones(1)
    assert torch.equal(encoder(x, lengths).frames, encoder(x, lengths).frames)
    encoder.train()
    assert not torch.equal(encoder(x, lengths).frames, encoder(x, lengths).frames)
