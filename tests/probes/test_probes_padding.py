"""Heads never read padding: alone, or padded with garbage or NaN in a batch, an utterance's output is the same."""

from __future__ import annotations

import math

import pytest
import torch

from lobes.errors import ConfigError
from lobes.probes import (
    AttentiveHead,
    AttentivePool,
    BiLSTMHead,
    FrameLinear,
    LinearHead,
    MeanStdPool,
    Probe,
    WeightedLayerSum,
)

DIM, OUTPUTS = 6, 5
HEADS = {
    "mean_std": lambda: MeanStdPool(DIM),
    "attentive_pool": lambda: AttentivePool(DIM, hidden=7),
    "linear": lambda: LinearHead(DIM, OUTPUTS),
    "linear_projected": lambda: LinearHead(DIM, OUTPUTS, projection=4),
    "attentive": lambda: AttentiveHead(DIM, OUTPUTS, hidden=7),
    "frame": lambda: FrameLinear(DIM, OUTPUTS),
    "bilstm": lambda: BiLSTMHead(DIM, OUTPUTS, hidden=8, layers=2),
}


def make_mask(counts: list[int], n_frames: int) -> torch.Tensor:
    return torch.arange(n_frames) < torch.tensor(counts).unsqueeze(1)


def valid_part(output: torch.Tensor, count: int) -> torch.Tensor:
    return output[:count] if output.dim() == 2 else output


@pytest.fixture(params=sorted(HEADS))
def head(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    return HEADS[request.param]().eval()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("garbage", [1e4, math.nan, math.inf])
def test_padding_is_never_read(head: torch.nn.Module, garbage: float, normalize: bool) -> None:
    counts, n_frames = [9, 3, 1, 0], 11
    valid = make_mask(counts, n_frames)
    layers = [torch.randn(len(counts), n_frames, DIM) for _ in range(3)]
    spoilt = [layer.masked_fill(~valid.unsqueeze(-1), garbage) for layer in layers]
    probe = Probe([DIM] * 3, head, normalize=normalize).eval()
    with torch.no_grad():
        together = probe(spoilt, valid)
        for row, count in enumerate(counts):
            alone = probe([layer[row : row + 1, :count] for layer in layers], make_mask([count], count))
            difference = (valid_part(alone[0], count) - valid_part(together[row], count)).abs()
            assert not difference.numel() or difference.max() < 1e-5


def test_batch_order_does_not_matter(head: torch.nn.Module) -> None:
    valid, x = make_mask([4, 9, 2], 9), torch.randn(3, 9, DIM)
    order = [2, 0, 1]
    with torch.no_grad():
        torch.testing.assert_close(head(x, valid)[order], head(x[order], valid[order]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("counts", [[5, 0], [0, 0]])
def test_empty_utterances_give_finite_output_and_gradient(head: torch.nn.Module, counts: list[int]) -> None:
    valid = make_mask(counts, 5)
    layers = [torch.full((2, 5, DIM), math.nan) for _ in range(2)]
    layers = [torch.where(valid.unsqueeze(-1), torch.randn(2, 5, DIM), layer).requires_grad_() for layer in layers]
    probe = Probe([DIM, DIM], head, normalize=True).train()
    output = probe(layers, valid)
    assert torch.isfinite(output).all()
    output.square().sum().backward()
    gradients = [p.grad for p in probe.parameters() if p.grad is not None] + [layer.grad for layer in layers]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all((layer.grad[~valid] == 0).all() for layer in layers)


def test_a_batch_without_frames(head: torch.nn.Module) -> None:
    output = head(torch.zeros(2, 0, DIM, requires_grad=True), make_mask([0, 0], 0))
    assert torch.isfinite(output).all()
    output.sum().backward()


def test_double_precision(head: torch.nn.Module) -> None:
    output = head.double()(torch.randn(2, 4, DIM, dtype=torch.float64), make_mask([4, 2], 4))
    assert output.dtype == torch.float64


def test_frame_heads_are_zero_in_padding() -> None:
    valid, x = make_mask([3, 5], 5), torch.randn(2, 5, DIM)
    for head in (FrameLinear(DIM, OUTPUTS), BiLSTMHead(DIM, OUTPUTS, hidden=4)):
        assert (head(x, valid)[~valid] == 0).all()


def test_mean_std_equals_a_slow_loop() -> None:
    valid, x = make_mask([4, 7], 7), torch.randn(2, 7, DIM, dtype=torch.float64)
    pooled = MeanStdPool(DIM)(x, valid)
    for row, count in enumerate([4, 7]):
        for d in range(DIM):
            values = [float(x[row, t, d]) for t in range(count)]
            mean = sum(values) / count
            variance = sum((value - mean) ** 2 for value in values) / count
            assert float(pooled[row, d]) == pytest.approx(mean, abs=1e-6)
            assert float(pooled[row, DIM + d]) == pytest.approx(math.sqrt(variance), abs=1e-5)


def test_attentive_pool_with_equal_scores_is_the_mean_std_pool() -> None:
    valid, x = make_mask([4, 7], 7), torch.randn(2, 7, DIM)
    pool = AttentivePool(DIM)
    torch.nn.init.zeros_(pool.score[2].weight)
    torch.testing.assert_close(pool(x, valid), MeanStdPool(DIM)(x, valid), atol=1e-5, rtol=1e-5)


def test_bilstm_backward_direction_starts_at_the_last_real_frame() -> None:
    torch.manual_seed(0)
    head = BiLSTMHead(DIM, OUTPUTS, hidden=4, layers=1).eval()
    x = torch.randn(1, 6, DIM)
    full, _ = head.lstm(head.norm(x[:, :4], make_mask([4], 4)))
    torch.testing.assert_close(head(x, make_mask([4], 6))[:, :4], head.output(full), atol=1e-6, rtol=0)


# --------------------------------------------------------------------------- weighted layer sum


def test_layer_sum_equals_its_formula() -> None:
    mix = WeightedLayerSum(3).double()
    torch.nn.init.normal_(mix.scores)
    layers = [torch.randn(2, 4, DIM, dtype=torch.float64) for _ in range(3)]
    exponents = [math.exp(float(score)) for score in mix.scores.detach()]
    expected = sum(e / sum(exponents) * layer for e, layer in zip(exponents, layers, strict=True))
    torch.testing.assert_close(mix(layers, make_mask([4, 4], 4)), expected)
    assert mix.weights() == pytest.approx([e / sum(exponents) for e in exponents])


def test_layer_sum_normalises_scale_away() -> None:
    mix, valid = WeightedLayerSum(2, normalize=True), make_mask([4, 2], 4)
    layers = [torch.randn(2, 4, DIM), torch.randn(2, 4, DIM)]
    scaled = [layers[0], 50 * layers[1] + 3]
    torch.testing.assert_close(mix(layers, valid), mix(scaled, valid), atol=1e-3, rtol=1e-3)
    assert sum(p.numel() for p in mix.parameters()) == 2


def test_layer_weights_learn() -> None:
    torch.manual_seed(0)
    layers = [torch.randn(8, 5, DIM) for _ in range(3)]
    valid = make_mask([5] * 8, 5)
    mix = WeightedLayerSum(3)
    for _ in range(100):
        (gradient,) = torch.autograd.grad((mix(layers, valid) - layers[1]).square().mean(), mix.scores)
        with torch.no_grad():
            mix.scores -= 5 * gradient
    assert mix.weights()[1] > 0.95


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WeightedLayerSum(0), "n_layers: 0"),
        (lambda: Probe([8, 16], FrameLinear(8, 2)), "layer_dims"),
        (lambda: Probe([], FrameLinear(8, 2)), "layer_dims"),
        (lambda: Probe([16, 16], FrameLinear(8, 2)), "head: dim=8, expected 16"),
        (lambda: WeightedLayerSum(2)([torch.zeros(1, 2, 3)], make_mask([2], 2)), "layers: 1"),
        (
            lambda: WeightedLayerSum(2)([torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)], make_mask([2], 2)),
            "layers: shapes",
        ),
    ],
)
def test_wrong_sizes_are_named(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
