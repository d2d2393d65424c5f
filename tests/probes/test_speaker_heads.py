"""Speaker embeddings do not depend on the batch; losses with a margin equal their formula and SpeechBrain's."""

from __future__ import annotations

import math

import pytest
import torch

from lobes.errors import ConfigError
from lobes.probes import ECAPA, AAMSoftmax, AMSoftmax, Probe, XVector
from lobes.probes.speakers import ChannelAttentivePool, MaskedConv, SERes2Block

DIM, EMBEDDING = 6, 5
HEADS = {
    "x-vector": lambda: XVector(DIM, EMBEDDING, channels=8),
    "ecapa": lambda: ECAPA(DIM, EMBEDDING, channels=8, groups=4, hidden=7),
}


def mask(counts, n_frames):
    return torch.arange(n_frames) < torch.tensor(counts).unsqueeze(1)


@pytest.fixture(params=sorted(HEADS))
def head(request):
    """A head whose normalisations have seen training."""
    torch.manual_seed(0)
    built = HEADS[request.param]().train()
    for _ in range(5):
        built(2 * torch.randn(6, 9, DIM) + 1, mask([9, 8, 7, 6, 5, 4], 9))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built.eval()


@pytest.mark.parametrize("garbage", [1e4, math.nan, math.inf])
def test_an_embedding_does_not_depend_on_the_batch(head, garbage):
    counts = [40, 9, 3, 1, 0]
    valid, layers = mask(counts, 43), [torch.randn(5, 43, DIM) for _ in range(2)]
    spoilt = [layer.masked_fill(~valid.unsqueeze(-1), garbage) for layer in layers]
    probe = Probe([DIM] * 2, head, normalize=True).eval()
    with torch.no_grad():
        together = probe(spoilt, valid)
        turned = probe([layer.flip(0) for layer in spoilt], valid.flip(0)).flip(0)
        assert torch.isfinite(together).all() and together[:4].std(0).min() > 1e-3, "not constants"
        for row, count in enumerate(counts):
            alone = probe([layer[row : row + 1, :count] for layer in layers], mask([count], count))
            assert (alone[0] - together[row]).abs().max() < 1e-5
            assert (turned[row] - together[row]).abs().max() < 1e-5


def test_training_does_not_read_padding_either(head):
    """Batch normalisation is over real frames: garbage changes neither output, gradient nor running statistics."""
    head.train()
    valid, x = mask([9, 4, 6], 12), torch.randn(3, 12, DIM)
    found = []
    for garbage in (0.0, math.nan):
        state = {name: value.clone() for name, value in head.state_dict().items()}
        output = head(x.masked_fill(~valid.unsqueeze(-1), garbage), valid)
        output.square().sum().backward()
        gradients = [p.grad.clone() for p in head.parameters()]
        found.append([output.detach(), *gradients, *(v.clone().float() for v in head.state_dict().values())])
        head.zero_grad()
        head.load_state_dict(state)
    assert all(torch.isfinite(value).all() for value in found[0])
    for clean, spoilt in zip(*found, strict=True):
        torch.testing.assert_close(clean, spoilt, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("counts", [[5, 0], [0, 0]])
def test_empty_utterances_give_finite_output_and_gradient(head, counts):
    x = torch.randn(2, 5, DIM, requires_grad=True)
    output = head.train()(x, mask(counts, 5))
    output.square().sum().backward()
    assert torch.isfinite(output).all() and torch.isfinite(x.grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in head.parameters())
    assert torch.isfinite(head(torch.zeros(2, 0, DIM), mask([0, 0], 0))).all()


def test_double_precision_and_sizes(head):
    assert head.double()(torch.randn(2, 4, DIM).double(), mask([4, 2], 4)).dtype == torch.float64
    paper = ECAPA(80, 192, channels=512)
    assert 5.5e6 < sum(p.numel() for p in paper.parameters()) < 6.8e6, "6.2 M in the paper"
    with pytest.raises(ConfigError, match="channels is 10, groups 4"):
        ECAPA(DIM, EMBEDDING, channels=10, groups=4)
    with pytest.raises(ConfigError, match="kernel is 4"):
        MaskedConv(2, 2, 4)


def test_speechbrain_depends_on_the_batch():
    """What ours are for."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    torch.manual_seed(0)
    model = ECAPA_TDNN(DIM, lin_neurons=EMBEDDING, channels=[8] * 4 + [24], attention_channels=7, se_channels=7).eval()
    x = torch.randn(2, 40, DIM)
    x[1, 12:] = 0
    with torch.no_grad():
        together, alone = model(x, torch.tensor([1.0, 0.3]))[1], model(x[1:, :12])[0]
    assert (together - alone).abs().max() > 1e-3


def test_attentive_statistics_equal_a_slow_loop():
    torch.manual_seed(0)
    pool = ChannelAttentivePool(3, hidden=4).double().eval()
    count, x = 5, torch.randn(1, 7, 3, dtype=torch.float64)
    valid = mask([count], 7)
    x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
    found = pool(x, valid)[0]
    frames = x[0, :count]
    context = torch.cat([frames.mean(0), (frames.var(0, correction=0) + 1e-6).sqrt()])
    weights, hidden = pool.hidden.conv.conv, pool.hidden
    scores = []
    for frame in frames:
        inner = weights.weight[:, :, 0] @ torch.cat([frame, context]) + weights.bias
        inner = inner.relu() / math.sqrt(1 + hidden.norm.eps) * hidden.scale + hidden.offset
        scores.append(pool.score.weight @ inner.tanh() + pool.score.bias)
    for channel in range(3):
        shares = [math.exp(float(score[channel])) for score in scores]
        mean = sum(s * float(f[channel]) for s, f in zip(shares, frames, strict=True)) / sum(shares)
        square = sum(s * (float(f[channel]) - mean) ** 2 for s, f in zip(shares, frames, strict=True)) / sum(shares)
        assert float(found[channel]) == pytest.approx(mean, abs=1e-6)
        assert float(found[3 + channel]) == pytest.approx(math.sqrt(square + 1e-6), abs=1e-6)


def test_res2_groups_are_chained():
    """The first group passes as it is; the last one hears all before it, further away than its own kernel."""
    torch.manual_seed(0)
    block = SERes2Block(64, 3, dilation=2, groups=4, hidden=3).eval()
    x = torch.randn(1, 41, 64)
    moved = x.clone()
    moved[0, 20] += 1.0
    valid = mask([41], 41)
    with torch.no_grad():
        parts = [block.before(frames, valid).split(16, dim=-1) for frames in (x, moved)]
        reach = []
        for split in parts:
            done = [split[0]]
            for k, conv in enumerate(block.convs):
                done.append(conv(split[k + 1] + (done[-1] if k else 0), valid))
            reach.append(done)
        touched = [(a - b).abs().sum(-1)[0].nonzero().flatten() for a, b in zip(*reach, strict=True)]
        assert [int(t.max() - t.min()) for t in touched] == [0, 4, 8, 12]
        joined = block.after(torch.cat(reach[0], dim=-1), valid)
        torch.testing.assert_close(block(x, valid), x + joined * block.excite.gate(joined.mean(1)).unsqueeze(1))


# --------------------------------------------------------------------------- margins


def slow_loss(kind, embeddings, speakers, weight, margin, scale):
    total = 0.0
    for embedding, speaker in zip(embeddings.tolist(), speakers.tolist(), strict=True):
        logits = []
        for number, direction in enumerate(weight.tolist()):
            cosine = sum(a * b for a, b in zip(embedding, direction, strict=True)) / math.hypot(*embedding)
            cosine /= math.hypot(*direction)
            if number == speaker and kind is AMSoftmax:
                cosine -= margin
            elif number == speaker:
                angle = math.acos(cosine)
                cosine = math.cos(angle + margin) if angle < math.pi - margin else cosine - margin * math.sin(margin)
            logits.append(scale * cosine)
        total += math.log(sum(math.exp(logit - logits[speaker]) for logit in logits))
    return total / len(embeddings)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_losses_equal_a_slow_loop_and_speechbrain(kind):
    from speechbrain.nnet import losses

    torch.manual_seed(0)
    for margin in (0.0, 0.2, 0.5):
        loss = kind(4, 3, margin, scale=12.0).double()
        embeddings, speakers = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 3, (30,))
        embeddings[0] = -2 * loss.weight[speakers[0]].detach() + 0.01  # opposite: beyond pi - margin
        found = loss(embeddings, speakers)
        assert float(found) == pytest.approx(slow_loss(kind, embeddings, speakers, loss.weight, margin, 12.0), abs=1e-6)
        theirs = losses.AngularMargin if kind is AMSoftmax else losses.AdditiveAngularMargin
        cosine = torch.nn.functional.linear(
            torch.nn.functional.normalize(embeddings), torch.nn.functional.normalize(loss.weight)
        )
        wrapped = losses.LogSoftmaxWrapper(theirs(margin, scale=12.0))
        reference = wrapped(cosine.float().unsqueeze(1), speakers.unsqueeze(1))
        assert float(found) == pytest.approx(float(reference), abs=1e-4)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_losses_train_and_are_finite_at_the_ends(kind):
    torch.manual_seed(0)
    loss = kind(4, 2)
    same = loss.weight[0].detach()
    ends = torch.stack([same, -same, torch.zeros(4)]).requires_grad_()
    loss(ends, torch.tensor([0, 0, 1])).backward()
    assert torch.isfinite(ends.grad).all() and torch.isfinite(loss.weight.grad).all()
    embeddings, speakers = torch.randn(8, 4, requires_grad=True), torch.arange(8) % 2
    optimizer = torch.optim.SGD([embeddings, *loss.parameters()], 0.1)
    before = float(loss(embeddings, speakers))
    for _ in range(50):
        optimizer.zero_grad()
        loss(embeddings, speakers).backward()
        optimizer.step()
    assert float(loss(embeddings, speakers)) < 0.2 * before
    for given, message in [({"n_speakers": 1}, "n_speakers is 1"), ({"n_speakers": 2, "margin": -1.0}, "margin is -1")]:
        with pytest.raises(ConfigError, match=message):
            kind(4, **given)
