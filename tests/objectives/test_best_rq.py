"""BEST-RQ: masks and targets belong to the utterance, and the loss falls."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError, DataError
from lobes.mixers import SummaryMixing
from lobes.objectives import (
    BestRQ,
    RandomProjectionQuantiser,
    SSLModel,
    effective_rank,
    perplexity,
    span_mask,
    utterance_generator,
)

DIM, MELS = 16, 20


def build(**options) -> SSLModel:
    torch.manual_seed(0)
    encoder = Encoder(LogMel(n_mels=MELS), StackingStem(MELS, DIM), DIM, 2, SummaryMixing, kernel=5)
    options = {"codebook_size": 32, "n_codebooks": 2, "mask_probability": 0.2, "mask_span": 3} | options
    return SSLModel(encoder, BestRQ(encoder, **options))


def make_batch(utterances: dict[str, torch.Tensor], step: int = 0) -> SimpleNamespace:
    longest = max(len(u) for u in utterances.values())
    waveform = torch.zeros(len(utterances), longest)
    for row, utterance in zip(waveform, utterances.values(), strict=True):
        row[: len(utterance)] = utterance
    lengths = torch.tensor([len(u) / max(longest, 1) for u in utterances.values()])
    return SimpleNamespace(id=list(utterances), sig=(waveform, lengths), step=step)


def sounds(*seconds: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"u{i}": torch.randn(int(s * 16000), generator=generator) for i, s in enumerate(seconds)}


def test_a_batch_is_the_weighted_mean_of_its_utterances():
    """So masks, noise, targets and predictions of an utterance depend on nothing else in the batch."""
    model, utterances = build(), sounds(0.7, 3.0, 0.05, 1.31)
    together = model(make_batch(utterances, step=3))
    alone = [model(make_batch({name: sound}, step=3)) for name, sound in utterances.items()]
    assert sum(o.weight for o in alone) == together.weight
    torch.testing.assert_close(sum(o.loss * o.weight for o in alone), together.loss * together.weight)


def test_the_masked_share_does_not_depend_on_the_shortest_utterance():
    model = build()
    objective = model.objective
    share = []
    for seconds in ((15.0,), (15.0, 0.5)):
        valid = model.encoder.features(*make_batch(sounds(*seconds)).sig)[1][:, ::4]
        share.append(objective.draw(["u0", "u1"][: len(seconds)], valid, 0)[0][0].float().mean())
    assert share[0] == share[1] > 0.3


def test_masks_change_with_the_step_in_training_and_not_in_evaluation():
    model, utterances = build(), sounds(2.0)
    losses = [model(make_batch(utterances, step)).loss for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    model.eval()
    assert model(make_batch(utterances, 0)).loss == model(make_batch(utterances, 1)).loss


def test_the_encoder_does_not_see_what_is_masked():
    """A masked frame's features may change at will: only the targets follow, not the encoder's input."""
    model = build(mask_probability=0.3)
    batch = make_batch(sounds(2.0))
    seen = []
    model.encoder.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    model(batch)
    features, valid = model.encoder.features(*batch.sig)
    mask, noise = model.objective.draw(batch.id, valid[:, ::4], 0)
    frame_mask = mask.repeat_interleave(4, 1)
    assert torch.equal(seen[0][~frame_mask], features[~frame_mask])
    assert seen[0][frame_mask].std() < 0.12 and features[frame_mask].std() > 0.5


@pytest.mark.parametrize("n_frames", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("probability", [0.001, 0.08, 1.0])
def test_some_frames_are_masked_and_some_are_not(n_frames, probability):
    for step in range(20):
        mask = span_mask(n_frames, probability, 6, utterance_generator(0, "a", step))
        assert mask.shape == (n_frames,)
        assert mask.any() or n_frames == 0
        assert not mask.all() or n_frames < 2


def test_the_quantiser_finds_the_nearest_code():
    quantiser = RandomProjectionQuantiser(12, codebook_size=40, codebook_dim=4, n_codebooks=3, seed=5)
    x = torch.randn(30, 12)
    for book in range(3):
        projected = F.normalize(x @ quantiser.projection[book], dim=-1)
        nearest = torch.cdist(projected, quantiser.codes[book]).argmin(-1)
        assert torch.equal(quantiser(x)[:, book], nearest)
    again = RandomProjectionQuantiser(12, codebook_size=40, codebook_dim=4, n_codebooks=3, seed=5)
    assert torch.equal(again(x), quantiser(x)) and not list(quantiser.parameters())


def correlated(n: int = 4000) -> torch.Tensor:
    """Vectors most of whose variance lies along one direction, far from the origin."""
    generator = torch.Generator().manual_seed(2)
    spread = torch.tensor([30.0, 5.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.01])
    mixing = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    return 4 + (spread * torch.randn(n, 8, generator=generator)) @ mixing


def test_whitening_makes_the_components_uncorrelated_and_the_codes_spread():
    x = correlated()
    plain, white = (RandomProjectionQuantiser(8, 64, 4, seed=3, whiten=components) for components in (None, 6))
    white.fit(x.split(700))
    projected = (x - white.mean) @ white.components
    covariance = torch.cov(projected.T)
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()), atol=1e-3, rtol=0)
    expected = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)[:6]
    torch.testing.assert_close(covariance.diagonal(), expected / (expected + 0.01 * expected[0]), atol=1e-3, rtol=0)
    assert perplexity(white(x)[:, 0], 64) > 2 * perplexity(plain(x)[:, 0], 64)


def test_statistics_do_not_depend_on_how_the_data_is_cut_and_are_saved():
    x = correlated()
    whole, cut, loaded = (RandomProjectionQuantiser(8, 64, 4, n_codebooks=2, whiten=6) for _ in range(3))
    with pytest.raises(ConfigError, match="whiten"):
        whole(x)
    whole.fit([x]), cut.fit(x.flip(0).split(13))
    torch.testing.assert_close(cut.components, whole.components)
    loaded.load_state_dict(whole.state_dict())
    assert torch.equal(loaded(x), whole(x))


def test_statistics_of_real_frames_alone():
    model, utterances = build(whiten=10), sounds(0.7, 3.0, 0.05, 1.31)
    model.objective.fit(model.encoder, [make_batch(utterances)])
    mean = model.objective.quantiser.mean.clone()
    model.objective.fit(model.encoder, [make_batch({name: sound}) for name, sound in utterances.items()])
    torch.testing.assert_close(model.objective.quantiser.mean, mean, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(model(make_batch(utterances)).loss)


def test_statistics_of_nothing_are_refused():
    with pytest.raises(DataError, match="0 frames"):
        RandomProjectionQuantiser(8, 64, 4, whiten=6).fit([])
    with pytest.raises(ConfigError, match="whiten: 9"):
        RandomProjectionQuantiser(8, 64, 4, whiten=9)


def test_a_batch_of_unreadable_files_is_harmless():
    model = build()
    output = model(make_batch({"u0": torch.zeros(0)}))
    output.loss.backward()
    assert output.loss == 0 and output.weight == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_monitors_tell_a_collapsed_encoder():
    assert effective_rank(torch.randn(200, 8)) > 7
    assert effective_rank(torch.randn(200, 1) * torch.randn(1, 8)) < 1.01
    model = build().eval()
    stats = model(make_batch(sounds(2.0, 3.0))).stats
    assert 1 < stats["embedding_rank"] <= DIM and 1 < stats["code_perplexity"] <= 32
    assert 0 <= stats["masked_accuracy"] <= 1 and 0.3 < stats["masked_share"] < 0.7


def test_utterances_are_counted_one_by_one_in_evaluation():
    model = build().eval()
    utterances = sounds(2.0, 0.0, 3.0)
    output = model(make_batch(utterances))
    assert output.items["predictions"].sum() == output.weight and output.items["predictions"][1] == 0
    accuracy = output.items["correct"].sum() / output.weight
    torch.testing.assert_close(accuracy, output.stats["masked_accuracy"])
    alone = model(make_batch({"u2": utterances["u2"]})).items["correct"][0]
    torch.testing.assert_close(alone, output.items["correct"][2])


def test_the_first_five_steps_are_pinned():
    """A change that should not alter training must leave this curve as it is."""
    model, utterances = build(), sounds(1.0, 2.0, 1.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    curve = []
    for step in range(5):
        loss = model(make_batch(utterances, step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve == pytest.approx([3.5571, 3.54694, 3.46827, 3.48817, 3.40892], rel=1e-4)


def test_a_mask_that_masks_nothing_is_refused():
    with pytest.raises(ConfigError, match="mask_probability 0.0"):
        build(mask_probability=0.0)
