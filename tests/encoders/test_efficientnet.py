"""EfficientNetV2 keeps the contract of an encoder, equals the blocks of the paper, and learns."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lobes.encoders import LogMel
from lobes.encoders.efficientnet import EfficientNetV2, FusedMBConv, MBConv, Stage
from lobes.errors import ConfigError
from lobes.objectives import BestRQ, SSLModel

DIM, MELS = 16, 20
STAGES = [
    Stage("fused", 8, 2, 2),
    {"block": "mbconv", "channels": 8, "depth": 2, "expand": 4, "stride": 1},
    Stage("mbconv", 12, 1, 2, stride=2),
]


def build(**options) -> EfficientNetV2:
    torch.manual_seed(0)
    options = {"dim": DIM, "stages": STAGES, "stem_channels": 8} | options
    return EfficientNetV2(LogMel(n_mels=MELS), **options).eval()


def pad(utterances: list[torch.Tensor], fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(u) for u in utterances)
    batch = torch.full((len(utterances), longest), fill)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return batch, torch.tensor([len(u) / longest for u in utterances])


@pytest.mark.parametrize("samples", [1, 159, 161, 401, 7777, 16000])
@pytest.mark.parametrize("fill", [0.0, 100.0, math.nan])
@pytest.mark.parametrize("factor", [4, 8])
def test_alone_equals_padded_with_garbage(samples, fill, factor):
    encoder = build(factor=factor)
    utterance, other = torch.randn(samples), torch.randn(20001)
    alone, batch = encoder(utterance[None], torch.ones(1)), encoder(*pad([utterance, other], fill))
    n_frames = alone.frames.shape[1]
    assert alone.valid.all() and batch.valid[0].sum() == n_frames and batch.valid[1].all()
    assert alone.frames.std() > 0.1
    for ours, theirs in zip([batch.frames, *batch.layers], [alone.frames, *alone.layers], strict=True):
        torch.testing.assert_close(ours[0, :n_frames], theirs[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(ours[0, n_frames:], torch.zeros_like(ours[0, n_frames:]))


def test_gradients_are_blind_to_padding_too():
    encoder, utterance, weights = build().double(), torch.randn(4000), torch.randn(DIM, dtype=torch.float64)
    (encoder(utterance[None], torch.ones(1)).frames @ weights).square().sum().backward()
    alone = [p.grad.clone() for p in encoder.parameters()]
    assert all(grad.abs().sum() > 0 for grad in alone)
    encoder.zero_grad()
    (encoder(*pad([utterance, torch.randn(9000)], math.nan)).frames[0] @ weights).square().sum().backward()
    for grad, parameter in zip(alone, encoder.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, grad, atol=1e-9, rtol=1e-9)


def test_empty_utterances_and_batches_work():
    encoder = build()
    output = encoder(*pad([torch.randn(0), torch.randn(5000)], math.nan))
    output.frames.sum().backward()
    assert not output.valid[0].any() and output.frames.isfinite().all()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    empty = encoder(torch.zeros(2, 0), torch.ones(2))
    assert empty.frames.shape == (2, 0, DIM) and [layer.shape for layer in empty.layers] == [(2, 0, DIM)] * 3


def test_the_output_says_what_it_is():
    encoder = build()
    output = encoder(torch.randn(1, 32000), torch.ones(1))
    assert [layer.shape[-1] for layer in output.layers] == encoder.layer_dims == [DIM] * 3
    assert output.frames.shape == (1, math.ceil(2 * encoder.frame_rate), DIM) == (1, 50, encoder.dim)
    assert encoder.sample_rate == 16000 and (encoder.stem.factor, encoder.stem.n_features) == (4, MELS)


@pytest.mark.parametrize("options", [{}, {"factor": 8}, {"stages": [Stage("mbconv", 8, 2, 3, stride=3)]}])
def test_macs_equal_the_counted_products(options):
    encoder = build(**options)
    with FlopCounterMode(display=False) as counter:
        encoder.encode(torch.randn(1, 203, MELS), torch.ones(1, 203, dtype=torch.bool))
    assert encoder.macs(2.03) - encoder.features.macs(203) == counter.get_total_flops() // 2


def test_mbconv_equals_efficientnet_of_transformers():
    """The same without norms, which are not the same: theirs are batch norms."""
    theirs = pytest.importorskip("transformers.models.efficientnet.modeling_efficientnet")
    config = theirs.EfficientNetConfig(hidden_act="silu", squeeze_expansion_ratio=0.25)
    block = theirs.EfficientNetBlock(config, 8, 8, 1, 4, 3, 0.0, id_skip=False, adjust_padding=False).eval()
    block.expansion.expand_bn = block.depthwise_conv.depthwise_norm = block.projection.project_bn = nn.Identity()
    ours = MBConv(8, 8, expand=4, stride=1)
    ours.expand_norm = ours.convolution.norm = ours.norm = nn.Identity()
    ours.convolution.conv.load_state_dict(block.depthwise_conv.depthwise_conv.state_dict())
    squeeze = block.squeeze_excite
    pairs = [(ours.expand, block.expansion.expand_conv), (ours.project, block.projection.project_conv)]
    for linear, conv in (*pairs, (ours.squeeze, squeeze.reduce), (ours.excite, squeeze.expand)):
        linear.load_state_dict(
            {name: tensor.reshape(linear.state_dict()[name].shape) for name, tensor in conv.state_dict().items()}
        )
    picture = torch.randn(2, 9, 5, 8)
    y = ours(picture, torch.ones(2, 9, dtype=torch.bool))
    torch.testing.assert_close(y, block(picture.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_fused_block_equals_its_equation(stride):
    block = FusedMBConv(6, 6, expand=3, stride=stride)
    picture = torch.randn(1, 7, 5, 6)
    hidden = F.conv2d(picture.permute(0, 3, 1, 2), block.convolution.conv.weight, stride=(1, stride), padding=1)
    hidden = F.silu(F.layer_norm(hidden.permute(0, 2, 3, 1), (18,)))
    expected = F.layer_norm(hidden @ block.project.weight.T, (6,)) + (picture if stride == 1 else 0)
    torch.testing.assert_close(block(picture, torch.ones(1, 7, dtype=torch.bool)), expected, atol=1e-5, rtol=1e-5)


def test_best_rq_trains_it():
    encoder = build()
    options = {"codebook_size": 32, "n_codebooks": 2, "mask_probability": 0.2, "mask_span": 3}
    model = SSLModel(encoder.train(), BestRQ(encoder, **options))
    generator = torch.Generator().manual_seed(1)
    waveform, lengths = torch.randn(3, 32000, generator=generator), torch.tensor([1.0, 0.5, 0.75])
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(12):
        # The same masks at each step: what can be learned in so few of them.
        output = model(SimpleNamespace(id=["a", "b", "c"], sig=(waveform, lengths), step=0))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_the_default_is_as_large_as_tiny():
    encoder = EfficientNetV2(LogMel(n_mels=40))
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(1.3e6, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 6}, "factor is 6.*power of two"),
        ({"stages": []}, "stages is empty"),
        ({"stages": [{"block": "fused", "width": 8}]}, "stage 0 .*expected block, channels, depth, expand, stride"),
        ({"stages": [Stage("dense", 8, 1, 2)]}, "block of stage 0 is 'dense'"),
        ({"stages": [Stage("fused", 8, 0, 2)]}, "stage 0 .*positive"),
        ({"stem_channels": 0}, "stem_channels is 0"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_chunks_are_refused():
    with pytest.raises(ConfigError, match="cannot work in chunks"):
        build()(torch.randn(1, 8000), torch.ones(1), 8)
