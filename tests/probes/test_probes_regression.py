"""Heads that rate, their loss, and encoders at the pace of ratings: padding, and slow loops."""

from __future__ import annotations

import math

import pytest
import torch

from lobes.encoders import EncoderOutput, absolute_lengths, frame_mask
from lobes.errors import ConfigError
from lobes.evaluation import agreement_records, ccc, ccc_per_file
from lobes.export import load_encoder
from lobes.probes import BiLSTMRater, GRURater, LinearRater, PacedEncoder, Probe, ccc_loss, rated_steps
from lobes.probes.paced import pace

DIM = 6
RATERS = {
    "linear": lambda **given: LinearRater(DIM, 1, **given),
    "gru_32": lambda **given: GRURater(DIM, 1, **given),
    "gru_64": lambda **given: GRURater(DIM, 1, hidden=64, **given),
    "bilstm_5": lambda **given: BiLSTMRater(DIM, 1, hidden=4, **given),
}


def mask(counts, n_steps):
    return torch.arange(n_steps) < torch.tensor(counts).unsqueeze(1)


@pytest.fixture(params=sorted(RATERS))
def make(request):
    return RATERS[request.param]


@pytest.mark.parametrize("garbage", [1e4, math.nan, math.inf])
def test_padding_is_never_read(make, garbage):
    counts, n_steps = [9, 3, 1, 0], 11
    valid = mask(counts, n_steps)
    layers = [torch.randn(4, n_steps, DIM) for _ in range(2)]
    spoilt = [layer.masked_fill(~valid.unsqueeze(-1), garbage).requires_grad_() for layer in layers]
    probe = Probe([DIM] * 2, make(bounds=(2.0, 3.0)), normalize=True).eval()
    together = probe(spoilt, valid)
    assert (together[~valid] == 0).all() and together.shape == (4, n_steps, 1)
    for row, count in enumerate(counts):
        if count:
            alone = probe([layer[row : row + 1, :count] for layer in layers], mask([count], count))
            torch.testing.assert_close(alone[0], together[row, :count], atol=1e-5, rtol=0)
    target = torch.full((4, n_steps), garbage)
    target[valid] = torch.rand(int(valid.sum()))
    loss, _ = ccc_loss(together[..., 0], target, valid)
    loss.backward()
    gradients = [p.grad for p in probe.parameters() if p.grad is not None] + [layer.grad for layer in spoilt]
    assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_ratings_stay_within_their_bounds(make):
    x, valid = torch.randn(3, 20, DIM), mask([20, 20, 20], 20)
    rater = make(bounds=(0.0, 10.0)).eval()
    with torch.no_grad():
        rating = rater(x, valid)
        assert 0 < float(rating.min()) < float(rating.max()) < 10
        for bias, end in ((50.0, 10.0), (-50.0, 0.0)):
            rater.output.bias.fill_(bias)
            assert rater(x, valid).flatten().tolist() == pytest.approx([end] * 60, abs=1e-4)
    with pytest.raises(ConfigError, match="bounds are 1 and 1"):
        make(bounds=(1, 1))


def test_without_steps_nothing_is_rated(make):
    assert make()(torch.zeros(2, 0, DIM), mask([0, 0], 0)).shape == (2, 0, 1)
    loss, weight = ccc_loss(torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3), mask([0, 0], 3))
    assert torch.isfinite(loss) and weight == 0
    loss.backward()


def test_a_gru_hears_the_past_only_and_a_bilstm_both():
    x, valid = torch.randn(1, 9, DIM), mask([9], 9)
    other = x.clone()
    other[:, 5:] += 1
    gru, bilstm = GRURater(DIM, 1).eval(), BiLSTMRater(DIM, 1, hidden=4, layers=1).eval()
    assert (gru(x, valid)[:, :5] == gru(other, valid)[:, :5]).all()
    assert (bilstm(x, valid)[:, :5] != bilstm(other, valid)[:, :5]).any()


def test_they_are_of_the_sizes_that_they_are_called_after():
    assert sum(p.numel() for p in LinearRater(768, 1).parameters()) == 769
    for units in (32, 64):
        expected = 3 * units * (768 + units + 2) + units + 1
        assert sum(p.numel() for p in GRURater(768, 1, hidden=units).parameters()) == expected
    assert BiLSTMRater(768, 1).network.num_layers == 5 and BiLSTMRater(768, 1).network.bidirectional


# --------------------------------------------------------------------------- loss


def slow_ccc(x, y):
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    spread = sum((a - mean_x) ** 2 for a in x) / n + sum((b - mean_y) ** 2 for b in y) / n + (mean_x - mean_y) ** 2
    return 2 * sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n / spread


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_loss_equals_a_slow_loop_and_the_metric(offset):
    counts = [7, 3, 12, 0]
    valid = mask(counts, 13)
    target, predicted = (offset + torch.randn(4, 13, dtype=torch.float64) for _ in range(2))
    pairs = [(target[k, :count].tolist(), predicted[k, :count].tolist()) for k, count in enumerate(counts) if count]
    each = [slow_ccc(*pair) for pair in pairs]
    together = slow_ccc(sum((x for x, _ in pairs), []), sum((y for _, y in pairs), []))
    by_batch, steps = ccc_loss(predicted, target, valid)
    by_file, files = ccc_loss(predicted, target, valid, over="file")
    assert float(by_batch) == pytest.approx(1 - together, abs=1e-9) and steps == sum(counts)
    assert float(by_file) == pytest.approx(1 - sum(each) / 3, abs=1e-9) and files == 3
    records = agreement_records(*zip(*pairs, strict=True), ["a", "b", "c"])
    assert float(by_batch) == pytest.approx(1 - ccc(records), abs=1e-6)
    assert float(by_file) == pytest.approx(1 - ccc_per_file(records), abs=1e-6)
    assert float(ccc_loss(predicted.float(), target.float(), valid)[0]) == pytest.approx(1 - together, abs=1e-4)


@pytest.mark.parametrize("over", ["batch", "file"])
def test_loss_at_its_ends(over):
    target, valid = torch.rand(2, 9), mask([9, 5], 9)
    assert float(ccc_loss(target, target, valid, over)[0]) == pytest.approx(0.0, abs=1e-6)
    mean = target[valid].mean()
    assert 1 < float(ccc_loss(2 * mean - target, target, valid, over)[0]) <= 2.0
    constant = torch.full((2, 9), 0.3, requires_grad=True)
    loss, _ = ccc_loss(constant, target, valid, over)
    loss.backward()
    assert loss.item() == pytest.approx(1.0, abs=1e-6) and torch.isfinite(constant.grad).all()
    assert constant.grad.abs().sum() > 0, "it learns to vary"
    half, _ = ccc_loss(target.bfloat16(), target, valid, over)
    assert half.dtype == torch.float32


def test_loss_over_something_else_is_refused():
    with pytest.raises(ConfigError, match="over is 'corpus': expected one of batch, file"):
        ccc_loss(torch.zeros(1, 2), torch.zeros(1, 2), mask([2], 2), "corpus")


def test_only_steps_that_are_both_heard_and_rated_count():
    output, rating = torch.randn(3, 8, 1), torch.randn(3, 6)
    predicted, target, valid = rated_steps(output, mask([8, 2, 5], 8), rating, torch.tensor([1.0, 1.0, 0.5]))
    assert predicted.shape == target.shape == valid.shape == (3, 6)
    assert valid.sum(1).tolist() == [6, 2, 3]


# --------------------------------------------------------------------------- pace


class Frames(torch.nn.Module):
    """Frames of 20 ms, less the last 5 ms of an utterance, as convolutions leave them; their value is their time."""

    sample_rate, frame_rate, dim, layer_dims = 1000, 50.0, 1, [1, 1]

    def forward(self, waveform, lengths):
        counts = ((absolute_lengths(lengths, waveform.shape[1]) - 5) // 20).clamp(min=0)
        longest = int(counts.max())
        x = waveform[:, : longest * 20].reshape(len(waveform), longest, 20).mean(-1, keepdim=True)
        return EncoderOutput(x, frame_mask(counts, longest), [x, 2 * x])

    def macs(self, seconds):
        return round(1000 * seconds)


@pytest.mark.parametrize(("rate", "period"), [(50.0, 0.25), (25.0, 0.25), (25.0, 0.04), (12.5, 0.04), (50.0, 0.033)])
def test_pace_is_the_mean_of_what_is_heard_in_a_period(rate, period):
    counts, steps = [40, 17, 1], 30
    x = torch.randn(3, 41, 2, dtype=torch.float64)
    paced = pace(x.masked_fill(~mask(counts, 41).unsqueeze(-1), math.nan), mask(counts, 41), rate, period, steps)
    parts = 500
    for row, count in enumerate(counts):
        for step in range(steps):
            times = [(step + (k + 0.5) / parts) * period for k in range(parts)]
            frames = [int(time * rate) for time in times]
            real = [x[row, frame] for frame in frames if frame < count] or [x[row, count - 1]]
            expected = torch.stack(real).mean(0)
            torch.testing.assert_close(paced[row, step], expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("period", [0.02, 0.04, 0.25])
@pytest.mark.parametrize("piece", [None, 1.0, 0.5])
def test_pieces_keep_their_place_in_time(period, piece):
    """A ramp is told by its time: no drift, however many pieces lose their last frame."""
    seconds = 10.1
    ramp = torch.arange(round(1000 * seconds)).unsqueeze(0) / 1000
    output = PacedEncoder(Frames(), period, piece)(ramp, torch.ones(1))
    steps = math.ceil(seconds / period - 1e-6)
    own = int(output.valid.sum())
    assert output.valid.shape == (1, steps) and output.valid[0, :own].all()
    assert steps - own == (period == 0.04 and piece == 0.5), "the last piece, of 20 ms, holds no frame"
    starts = torch.arange(steps) * period
    middles = (starts + (starts + period).clamp(max=seconds)) / 2
    assert (output.layers[0][0, :own, 0] - middles[:own]).abs().max() < 0.06
    torch.testing.assert_close(output.layers[1], 2 * output.layers[0])


def test_an_utterance_alone_equals_the_same_padded_with_garbage():
    lengths = [3210, 990, 1003, 2000, 3, 0]
    waveform = torch.randn(6, 3300)
    batch = waveform.masked_fill(torch.arange(3300) >= torch.tensor(lengths).unsqueeze(1), math.nan)
    paced = PacedEncoder(Frames(), 0.25, 1.0)
    together = paced(batch, torch.tensor(lengths) / 3300)
    for row, length in enumerate(lengths):
        own = int(together.valid[row].sum())
        assert own == (0 if length < 25 else math.ceil((length - (length % 1000 if length % 1000 < 25 else 0)) / 250))
        assert not together.valid[row, own:].any() and (together.layers[0][row, own:] == 0).all()
        if own:
            alone = paced(waveform[row : row + 1, :length], torch.ones(1))
            assert int(alone.valid.sum()) == own
            for one, other in zip(alone.layers, together.layers, strict=True):
                torch.testing.assert_close(one[0, :own], other[row, :own], atol=1e-6, rtol=0)


def test_a_real_encoder_keeps_the_contract_when_paced():
    encoder = load_encoder("sm-tiny").eval()
    for period, piece in ((0.25, 1.0), (None, None)):
        paced = PacedEncoder(encoder, period, piece).eval()
        assert paced.sample_rate == 16000 and paced.layer_dims == list(encoder.layer_dims)
        waveform = torch.randn(2, 40000)
        spoilt = waveform.clone()
        spoilt[1, 25000:] = 1e3
        with torch.no_grad():
            together = paced(spoilt, torch.tensor([1.0, 25000 / 40000]))
            alone = paced(waveform[1:, :25000], torch.ones(1))
        own = int(together.valid[1].sum())
        assert own == int(alone.valid.sum()) == (7 if period else math.ceil(25000 / 16000 * encoder.frame_rate))
        difference = max(
            float((one[0, :own] - two[1, :own]).abs().max())
            for one, two in zip(alone.layers, together.layers, strict=True)
        )
        assert difference < 1e-4
    assert paced.frame_rate == encoder.frame_rate and paced.macs(2.5) == encoder.macs(2.5)
    assert PacedEncoder(encoder, 0.25, 1.0).macs(2.5) == 2 * encoder.macs(1.0) + encoder.macs(0.5)
    for wrong in ({"period": 0.0}, {"piece_seconds": -1.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is"):
            PacedEncoder(encoder, **wrong)
