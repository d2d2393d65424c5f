"""What was kept: measured against what is known of made-up changes."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lobes.adapters.controls import EWC, L2SP, Replay, fisher
from lobes.adapters.retention import compare_layers, interpolate, total_change, weight_change
from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError
from lobes.mixers import SummaryMixing


def encoder(seed: int = 0, depth: int = 2) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(LogMel(n_mels=20), StackingStem(20, 16), 16, depth, SummaryMixing)


def batches(padding: float = 0.0):
    noise = torch.Generator().manual_seed(0)
    for group in "abc":
        waveform = torch.randn(2, 16000, generator=noise)
        waveform[1, 8000:] = padding
        yield SimpleNamespace(sig=(waveform, torch.tensor([1.0, 0.5])), group=[group, group])


def test_an_encoder_is_like_itself_and_less_and_less_like_a_disturbed_one():
    before = encoder()
    assert [cka.value() for cka in compare_layers(before, copy.deepcopy(before), batches())] == pytest.approx([1] * 3)
    after = copy.deepcopy(before)
    with torch.no_grad():
        for w in after.blocks[0].parameters():
            w += 0.5 * torch.randn_like(w)
    stem, first, second = compare_layers(before, after, batches())
    assert stem.value() == pytest.approx(1) and first.value() < 0.95 and second.value() < 0.95
    interval = first.interval()
    assert interval.n_groups == 3 and interval.low < first.value() < interval.high
    assert before.training and after.training, "modes are given back"


def test_padding_is_no_frame():
    before, after = encoder(0), encoder(1)
    zeros, noise = (compare_layers(before, after, batches(padding)) for padding in (0.0, 5.0))
    assert zeros[0].n_frames == 3 * (25 + 13)
    assert [c.value() for c in zeros] == pytest.approx([c.value() for c in noise], abs=1e-6)
    assert compare_layers(before, after, batches(), every=5)[0].n_frames == 3 * (5 + 3)


def test_encoders_of_other_layers_are_refused():
    with pytest.raises(ConfigError, match="3 layers of 25 frames and 4 of 25"):
        compare_layers(encoder(), encoder(depth=3), batches())


def test_weight_change_finds_size_and_rank():
    before = nn.Linear(30, 20)
    after = copy.deepcopy(before)
    u, v = torch.randn(20, 2), torch.randn(2, 30)
    with torch.no_grad():
        after.weight += u @ v
    weight, bias = weight_change(before, after)
    assert weight.relative == pytest.approx(((u @ v).norm() / before.weight.norm()).item(), rel=1e-5)
    assert 1.2 < weight.effective_rank <= 2.01 and weight.n_parameters == 600
    assert (bias.relative, bias.effective_rank) == (0, 0)
    assert 0 < total_change(before, after) <= weight.relative
    with pytest.raises(ConfigError, match="none in common"):
        weight_change(before, nn.BatchNorm1d(3, affine=False))


def test_interpolation_ends_where_it_should():
    before, after = encoder(0), encoder(1)
    for share, end in ((0.0, before), (1.0, after)):
        found = interpolate(before, after, share)
        assert all(torch.equal(found[name], w) for name, w in end.state_dict().items() if w.is_floating_point())
    half = interpolate(before, after, 0.5)
    torch.testing.assert_close(half["norm.weight"], (before.norm.weight + after.norm.weight).detach() / 2)
    between = encoder(2)
    between.load_state_dict(half, strict=False)
    distance = total_change(before, between)
    assert distance == pytest.approx(total_change(before, after) / 2, rel=1e-5)
    with pytest.raises(ConfigError, match="merge the adapter"):
        interpolate(before, encoder(0, depth=3), 0.5)


def train(model: nn.Linear, control=None) -> None:
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(1500):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        (loss + control() if control else loss).backward()
        optimizer.step()


def test_l2sp_holds_all_weights_and_ewc_those_that_the_old_task_needs():
    torch.manual_seed(0)
    start = nn.Linear(2, 1)
    with torch.no_grad():
        start.weight.zero_()
    untied, held, elastic = (copy.deepcopy(start) for _ in range(3))
    train(untied)
    train(held, L2SP(held, 1.0))
    assert total_change(start, held) < 0.8 * total_change(start, untied)
    old = [torch.tensor([[value, 0.0]]) for value in (1.0, -2.0, 3.0)]  # the old task never saw the second input
    importance = fisher(elastic, lambda x: (elastic(x) - 1).square().mean(), old)
    assert importance["weight"][0, 0] > 0 and importance["weight"][0, 1] == 0
    train(elastic, EWC(elastic, 5.0, importance))
    needed, free = elastic.weight[0].tolist()
    assert abs(needed) < 0.15 and free == pytest.approx(1, abs=0.3)


def test_the_strength_of_ewc_means_what_that_of_l2sp_means():
    layer = nn.Linear(2, 1)
    importance = {"weight": torch.tensor([[5.0, 1.0]]), "bias": torch.tensor([0.0]), "frozen": torch.tensor([99.0])}
    tiny = {name: 1e-6 * values for name, values in importance.items()}
    held, elastic, scaled = L2SP(layer, 3.0), EWC(layer, 3.0, importance), EWC(layer, 3.0, tiny)
    textbook = EWC(layer, 3.0, tiny, scaled=False)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 2.0
    assert held().item() == pytest.approx(18)
    assert elastic().item() == pytest.approx(18) == scaled().item(), "whatever the scale of the importance"
    assert textbook().item() == pytest.approx(36e-6), "eq. 3: 3 / 2 · 6e-6 · 2²"
    with torch.no_grad():
        layer.weight[0, 1] -= 2.0
    assert held().item() == pytest.approx(12) and scaled().item() == pytest.approx(15), "the needed weight counts more"


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_importance_that_holds_nothing_is_refused(value):
    importance = {"weight": torch.full((1, 2), value), "bias": torch.full((1,), value)}
    with pytest.raises(ConfigError, match=f"mean of {value}; expected a positive one"):
        EWC(nn.Linear(2, 1), 1.0, importance)


def test_fisher_is_the_mean_of_squared_gradients():
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    found = fisher(layer, lambda x: layer(x).sum(), [torch.tensor([[1.0]]), torch.tensor([[3.0]])])
    assert found["weight"].item() == 5.0 and layer.weight.grad is None


def test_replay_goes_round():
    replay = Replay(lambda batch: torch.tensor(float(batch)), [1, 2], strength=0.5)
    assert [replay().item() for _ in range(5)] == [0.5, 1.0, 0.5, 1.0, 0.5]
    with pytest.raises(ConfigError, match="no batches"):
        Replay(torch.tensor, [])()


def test_nothing_to_hold_is_said():
    with pytest.raises(ConfigError, match="no weight of the encoder is trained"):
        L2SP(nn.Linear(2, 2).requires_grad_(False), 1.0)
    with pytest.raises(ConfigError, match="importance of bias is missing"):
        EWC(nn.Linear(2, 2), 1.0, {"weight": torch.ones(2, 2)})
