"""BEST-RQ: masks and targets belong to the utterance, and the loss falls."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError
from lobes.evaluation.representations import effective_rank
from lobes.mixers import SummaryMixing
from lobes.objectives import (
    BestRQ,
    Disturbance,
    RandomProjectionQuantiser,
    SSLModel,
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


def check_a_batch_is_the_weighted_mean_of_its_utterances(model: SSLModel) -> None:
    """So masks, noise, targets and predictions of an utterance depend on nothing else in the batch."""
    utterances = sounds(0.7, 3.0, 0.05, 1.31)
    together = model(make_batch(utterances, step=3))
    alone = [model(make_batch({name: sound}, step=3)) for name, sound in utterances.items()]
    assert sum(o.weight for o in alone) == together.weight
    torch.testing.assert_close(sum(o.loss * o.weight for o in alone), together.loss * together.weight)


@pytest.mark.parametrize("disturbance", [None, Disturbance(noise=1.0, cut=1.0)])
def test_a_batch_is_the_weighted_mean_of_its_utterances(disturbance):
    check_a_batch_is_the_weighted_mean_of_its_utterances(build(disturbance=disturbance))


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


def test_targets_are_those_of_the_undisturbed_audio():
    batch, seen, targets = make_batch(sounds(2.0)), [], []
    for disturbance in (None, Disturbance(warp=0.2, noise=1.0, cut=1.0)):
        model = build(disturbance=disturbance)
        model.encoder.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        model.objective.quantiser.register_forward_hook(lambda _, __, codes: targets.append(codes))
        model(batch)
        model.eval()(batch)
    clean, evaluated, disturbed, disturbed_evaluated = seen
    assert all(torch.equal(targets[0], codes) for codes in targets[1:])
    assert torch.equal(clean, evaluated) and torch.equal(clean, disturbed_evaluated), "evaluation is undisturbed"
    assert (clean - disturbed).square().mean() > 0.1


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
    assert curve == pytest.approx([3.51551, 3.55906, 3.43873, 3.4341, 3.41828], rel=1e-4)


def test_a_mask_that_masks_nothing_is_refused():
    with pytest.raises(ConfigError, match="mask_probability 0.0"):
        build(mask_probability=0.0)


def test_training_for_streaming_draws_chunks_by_step_and_sees_no_further():
    from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig, DynChunkTrainConfigRandomSampler

    sampler = DynChunkTrainConfigRandomSampler(0.5, 3, 9, 0.5, 1, 2, valid_config=DynChunkTrainConfig(5, 2))
    model = build(chunks=sampler)
    drawn = [model.objective.draw_chunks(4, step) for step in range(40)]
    assert drawn == [model.objective.draw_chunks(4, step) for step in range(40)]
    sizes = {chunks.size for chunks in drawn if chunks}
    assert None in drawn and sizes == {4, 8, 12}, "rounded up to the granularity"
    assert {chunks.left // chunks.size for chunks in drawn if chunks and chunks.left} == {1, 2}
    check_a_batch_is_the_weighted_mean_of_its_utterances(model)
    model.eval()
    assert model.objective.draw_chunks(1, 7) == (5, 10)


def test_an_encoder_that_cannot_stream_is_not_trained_for_it():
    from lobes.mixers import Linformer

    encoder = Encoder(LogMel(n_mels=MELS), StackingStem(MELS, DIM), DIM, 1, Linformer)
    with pytest.raises(ConfigError, match="mixer Linformer of block 0 cannot stream"):
        BestRQ(encoder, chunks=lambda stage: None)
