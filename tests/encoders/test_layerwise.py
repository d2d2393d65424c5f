"""Block by block, cut short, and left on the way: the same as the whole pass, for encoders of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from upstream_cases import AVES, AVES_LARGE, CONFIGS, PICTURES, SMALL_VGGISH, WAVES, tiny

from lobes.adapters import LoRA, PrefixTuning, PromptTuning, Reprogramming
from lobes.distillation import first_layers, thin
from lobes.encoders import (
    Downsampled,
    EarlyExit,
    EfficientNetV2,
    Encoder,
    LogMel,
    LogMelEncoder,
    PictureTransformer,
    PitchShift,
    PrunedEncoder,
    ReusedAttention,
    StackingStem,
    TimeExpansion,
    TorchaudioEncoder,
    VGGish,
    first_blocks,
)
from lobes.errors import ConfigError
from lobes.evaluation.cost import counted_macs
from lobes.export import load_encoder, save_encoder
from lobes.mixers import SDPA, SummaryMixing
from lobes.probes import LinearHead

DEPTH = 3


def foreign(name: str, **options: Any) -> Any:
    return tiny(name, options={"encoder_layers" if name == "whisper" else "num_hidden_layers": DEPTH, **options})


def ours(mixer: Any = SummaryMixing, **options: Any) -> Encoder:
    return Encoder(LogMel(n_mels=20), StackingStem(20, 16), 16, DEPTH, mixer, **options)


def hubert() -> dict[str, Any]:
    return {"model_type": "hubert", **WAVES, "num_hidden_layers": DEPTH}


SIZES = {"heads": [2, 0, 1], "ffn": [5, 24, 7], "conv": [4, 8, 8, 3, 8, 8, 8]}
MADE: dict[str, Callable[[], Any]] = {name: partial(foreign, name) for name in CONFIGS}
MADE |= {
    "aves": lambda: TorchaudioEncoder(AVES | {"encoder_num_layers": DEPTH}),
    "aves-large": lambda: TorchaudioEncoder(AVES_LARGE | {"encoder_num_layers": DEPTH}, normalise=True),
    "pruned": lambda: PrunedEncoder(hubert(), SIZES),
    "reused": lambda: ReusedAttention(hubert(), every=2),
    "DistilHuBERT": lambda: first_layers(tiny("hubert", options={"num_hidden_layers": 6}), DEPTH),
    "ARMHuBERT": lambda: thin(foreign("hubert"), dim=8, reuse=3),
}
SAVED = [*MADE]
MADE |= {
    "ours": ours,
    "ours, attention, rates": lambda: ours(partial(SDPA, num_heads=2), rates=[1, 2, 1]),
    "downsampled": lambda: Downsampled(foreign("wavlm"), 2, "average"),
    "expanded": lambda: TimeExpansion(foreign("hubert"), 0.5),
    "shifted": lambda: PitchShift(ours(), 2),
}


@pytest.fixture(params=MADE)
def encoder(request):
    torch.manual_seed(0)
    made = MADE[request.param]().eval()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def batch(encoder, *seconds: float):
    """Utterances of such lengths, and what is not a number behind them."""
    torch.manual_seed(1)
    counts = [round(second * encoder.sample_rate) for second in seconds]
    waveform = torch.full((len(counts), max(counts)), math.nan)
    for row, count in enumerate(counts):
        waveform[row, :count] = torch.randn(count)
    return waveform, torch.tensor([count / max(counts) for count in counts])


LENGTHS = (0.7, 1.3, 0.5, 1.1)  # Whisper's pieces are of a second here


@torch.no_grad()
def test_block_by_block_is_the_whole_pass_for_whoever_is_left(encoder):
    given = batch(encoder, *LENGTHS)
    layers, walk, there = encoder(*given).layers, encoder.walk(*given), torch.arange(4)
    assert encoder.n_blocks == len(layers) - 1 == DEPTH
    for number, layer in enumerate(layers):
        if number:
            walk.step()
        assert walk.layer == number and walk.frames.shape[0] == len(there)
        torch.testing.assert_close(walk.frames, layer[there], atol=1e-5, rtol=1e-5)
        rows = torch.arange(len(there)) != number % 2  # neither always the first nor always the longest
        walk.keep(rows)
        there = there[rows]


@torch.no_grad()
@pytest.mark.parametrize("n_blocks", [1, 2])
def test_the_first_blocks_give_the_first_layers(encoder, n_blocks):
    given = batch(encoder, *LENGTHS)
    whole, fewer = encoder(*given), first_blocks(encoder, n_blocks)
    found = fewer(*given)
    assert len(found.layers) == len(fewer.layer_dims) == n_blocks + 1 and torch.equal(found.valid, whole.valid)
    inner = getattr(fewer, "family", None)
    last = None if inner is None or inner.depth_name != "encoder_layers" else n_blocks  # Whisper's is normalised
    for number, layer in enumerate(found.layers):
        if number != last:
            torch.testing.assert_close(layer, whole.layers[number], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder(*given).frames, whole.frames, rtol=0, atol=0, msg="the whole is as it was")
    parameters = [sum(p.numel() for p in part.parameters()) for part in (fewer, encoder)]
    assert parameters[0] < parameters[1] and encoder.n_blocks == DEPTH and fewer.n_blocks == n_blocks
    assert encoder.macs(3.0, n_blocks) == fewer.macs(3.0) < encoder.macs(3.0)
    assert encoder.macs(3.0, 0) == fewer.macs(3.0, 0) < fewer.macs(3.0)
    assert encoder.macs(3.0, DEPTH) == encoder.macs(3.0)


@torch.no_grad()
@pytest.mark.parametrize("name", SAVED)
def test_the_first_blocks_are_counted_and_saved(name, tmp_path):
    whole = MADE[name]().eval().requires_grad_(False)
    encoder, waveform = first_blocks(whole, 2), torch.randn(1, 16000)
    counted = [counted_macs(lambda part=part: part(waveform, torch.ones(1))).total for part in (whole, encoder)]
    assert counted[0] - counted[1] == whole.macs(1.0) - encoder.macs(1.0) > 0
    save_encoder(encoder, tmp_path / "saved", encoder.hparams_text())
    loaded = load_encoder(tmp_path / "saved")
    given = batch(encoder, *LENGTHS)
    assert type(loaded) is type(encoder) and len(loaded.layer_dims) == 3
    for ours, theirs in zip(loaded(*given).layers, encoder(*given).layers, strict=True):
        assert torch.equal(ours, theirs)


class SureOf(nn.Module):
    """Sure of utterances whose `mark` is among those given, and says what it read of each."""

    def __init__(self, marks: torch.Tensor) -> None:
        super().__init__()
        self.marks = marks

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        found = mark(x, valid)
        known = torch.isclose(found[:, None], self.marks, rtol=1e-3, atol=1e-6).any(1)
        return torch.stack([found + 9.0 * known, found], dim=1)


def mark(x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """A number (B,) by which to know an utterance."""
    return x.sum(1) @ torch.linspace(-1, 1, x.shape[2]) / valid.sum(1)


def blocks_of(encoder) -> list[nn.Module]:
    while hasattr(encoder, "encoder"):
        encoder = encoder.encoder
    return list(encoder.family.stack(encoder.model).layers if hasattr(encoder, "family") else encoder.blocks)


@torch.no_grad()
def test_blocks_compute_only_who_is_left_and_give_what_the_whole_pass_gives(encoder):
    given, leaves = batch(encoder, *LENGTHS), torch.tensor([2, 0, 1, 1])
    output = encoder(*given)
    at = [mark(layer, output.valid)[leaves == number] for number, layer in enumerate(output.layers)]
    early = EarlyExit(encoder, [SureOf(marks) for marks in at], threshold=0.9).eval()
    read: list[int] = []
    hooks = [block.register_forward_hook(lambda m, args, o: read.append(1)) for block in blocks_of(encoder)]
    found = early(*given)
    assert found.layer.tolist() == leaves.tolist()
    assert len(read) == 2, "nobody is left for the third"
    every = early.logits(*given)
    expected = torch.stack([every[layer][row] for row, layer in enumerate(leaves.tolist())])
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-5)
    for hook in hooks:
        hook.remove()
    for row, seconds in enumerate(LENGTHS):
        samples = round(seconds * encoder.sample_rate)
        alone = early(given[0][row : row + 1, :samples], torch.ones(1))
        assert alone.layer.item() == leaves[row]
        torch.testing.assert_close(alone.logits[0], found.logits[row], atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hubert", "wavlm", "aves", "reused", "ours"])
def test_blocks_read_the_rows_of_those_who_are_left(name):
    encoder = MADE[name]().eval()
    given = batch(encoder, *LENGTHS)
    output = encoder(*given)
    marks = [mark(layer, output.valid) for layer in output.layers]
    at = [marks[0][:1], marks[1][1:3], marks[2][:0], marks[3]]
    rows: list[int] = []
    for block in blocks_of(encoder):
        block.register_forward_hook(
            lambda m, args, found: rows.append(len(found[0] if isinstance(found, tuple) else found))
        )
    layer = EarlyExit(encoder, [SureOf(marks) for marks in at], threshold=0.9)(*given).layer
    assert layer.tolist() == [0, 1, 1, 3] and rows == [3, 1, 1]


@torch.no_grad()
@pytest.mark.parametrize("name", ["hubert", "wavlm", "whisper", "aves", "ours"])
def test_utterances_too_short_for_a_frame_leave_too(name):
    encoder = MADE[name]().eval()
    early = EarlyExit(encoder, [LinearHead(16, 2) for _ in range(DEPTH + 1)], threshold=1.1).eval()
    nothing = early(torch.randn(2, 300), torch.ones(2))
    assert nothing.layer.tolist() == [DEPTH] * 2 and nothing.logits.isfinite().all()
    beside = early(*batch(encoder, 0.01, 0.8))
    assert beside.logits.isfinite().all()


@torch.no_grad()
def test_no_map_of_attention_is_kept():
    encoder = ReusedAttention({**hubert(), "num_hidden_layers": 6}, every=3).eval()
    given = batch(encoder, *LENGTHS)
    fewer = first_blocks(encoder, 5)
    fewer(*given)
    assert fewer.every == 3 and all(block.attention.seen.map is None for block in blocks_of(fewer))
    walk = encoder.walk(*given)
    walk.step()
    walk.keep(torch.tensor([True, False, True, True]))
    assert len(blocks_of(encoder)[0].attention.seen.map) == 3
    # A pass of fewer that begins while another has not ended reads nothing of that one.
    encoder.walk(*batch(encoder, 0.5, 0.6)).keep(torch.tensor([True, False]))
    assert blocks_of(encoder)[0].attention.seen.map is None
    heads = [SureOf(torch.zeros(0)), *(SureOf(mark(x, encoder(*given).valid)) for x in encoder(*given).layers[1:])]
    assert EarlyExit(encoder, heads)(*given).layer.tolist() == [1] * 4
    assert all(block.attention.seen.map is None for block in blocks_of(encoder))


@torch.no_grad()
@pytest.mark.parametrize("name", ["hubert", "wavlm", "aves", "ours, attention, rates"])
@pytest.mark.parametrize(
    "method", [LoRA(), PrefixTuning(length=2), PromptTuning(length=4)], ids=lambda m: type(m).__name__
)
def test_adapted_encoders_go_the_same_way(name, method):
    encoder = MADE[name]()
    method.apply(encoder)
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    encoder.eval()
    given = batch(encoder, *LENGTHS)
    layers, walk, there = encoder(*given).layers, encoder.walk(*given), torch.arange(4)
    for number, layer in enumerate(layers):
        if number:
            walk.step()
        torch.testing.assert_close(walk.frames, layer[there], atol=1e-5, rtol=1e-5)
        rows = torch.arange(len(there)) != number % 2
        walk.keep(rows)
        there = there[rows]
    found = first_blocks(encoder, 2)(*given).layers
    for ours, theirs in zip(found, layers, strict=False):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_first_blocks_are_fine_tuned():
    encoder = first_blocks(tiny("wavlm", gradient_checkpointing=True, frozen="front-end"), 1).train()
    encoder(*batch(encoder, 0.5, 0.8)).frames.square().sum().backward()
    grads = {name: p.grad for name, p in encoder.named_parameters()}
    assert all(grad is None for name, grad in grads.items() if "feature_extractor" in name)
    assert any(grad is not None and grad.abs().sum() > 0 for name, grad in grads.items() if "layers.0" in name)


WITHOUT_BLOCKS: dict[str, Callable[[], Any]] = {
    "VGGish": lambda: VGGish(**SMALL_VGGISH, hop=0.32),
    "EfficientNetV2": lambda: EfficientNetV2(
        LogMel(n_mels=32), 16, stages=[{"block": "fused", "channels": 8, "depth": 1, "expand": 2}], stem_channels=4
    ),  # fmt: skip  # noqa: E501
    "PictureTransformer": lambda: PictureTransformer(PICTURES["vit"], window=0.5, hop=0.2),
    "LogMelEncoder": lambda: LogMelEncoder(LogMel()),
}


@pytest.mark.parametrize("name", WITHOUT_BLOCKS)
def test_what_has_no_blocks_is_named(name):
    for made in (WITHOUT_BLOCKS[name](), Downsampled(WITHOUT_BLOCKS[name]())):
        for asker, ask in {"first_blocks": first_blocks, "EarlyExit": lambda e, _: EarlyExit(e, [])}.items():
            with pytest.raises(ConfigError, match=f"{asker}: encoder is a {name}, which has no blocks"):
                ask(made, 1)


def test_an_encoder_whose_call_does_more_is_refused():
    encoder = foreign("hubert")
    early = EarlyExit(Downsampled(encoder), [LinearHead(16, 2) for _ in range(DEPTH + 1)])
    Reprogramming().apply(encoder)
    with pytest.raises(ConfigError, match="EarlyExit: something hooks into the call of HuggingFaceEncoder"):
        early(*batch(encoder, 0.5))
