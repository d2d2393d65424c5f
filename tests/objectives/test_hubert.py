"""HuBERT: units are clusters of the teacher's features, of each utterance alone."""

from __future__ import annotations

import pytest
import torch
from test_best_rq import DIM, MELS, check_a_batch_is_the_weighted_mean_of_its_utterances, make_batch, sounds

from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.errors import ConfigError, DataError
from lobes.mixers import SummaryMixing
from lobes.objectives import Disturbance, HuBERT, SSLModel

CLUSTERS = 12


class Utterances(dict):
    """What `prepare` needs of an AudioDataset."""

    def __init__(self, *seconds: float) -> None:
        super().__init__({i: {"id": name, "sig": sound} for i, (name, sound) in enumerate(sounds(*seconds).items())})
        self.durations = list(seconds)


def encoder(factor: int = 4) -> Encoder:
    return Encoder(LogMel(n_mels=MELS), StackingStem(MELS, DIM, factor), DIM, 2, SummaryMixing, kernel=5)


def build(prepared: bool = True, **options) -> SSLModel:
    torch.manual_seed(0)
    student, teacher = encoder(), encoder()
    objective = HuBERT(student, teacher, layer=1, n_clusters=CLUSTERS, mask_probability=0.2, mask_span=3, **options)
    if prepared:
        objective.prepare(Utterances(2.0, 3.0, 1.0, 0.5, 2.5))
    return SSLModel(student, objective)


@pytest.mark.parametrize("disturbance", [None, Disturbance(noise=1.0, cut=1.0)])
def test_a_batch_is_the_weighted_mean_of_its_utterances(disturbance):
    check_a_batch_is_the_weighted_mean_of_its_utterances(build(disturbance=disturbance))


def test_units_are_the_nearest_centres_of_the_teachers_clean_features():
    objective = build(disturbance=Disturbance(noise=1.0)).objective.train()
    batch = make_batch(sounds(2.0, 1.0))
    output = objective.teacher(*batch.sig)
    mask = output.valid.clone()
    mask[:, ::2] = False
    x = (output.layers[1][mask] - objective.mean) / objective.deviation
    expected = torch.stack([torch.cdist(x, centres).argmin(-1) for centres in objective.centres], dim=-1)
    assert torch.equal(objective.targets(batch, torch.empty(0), mask), expected)


def test_clusters_explain_most_of_the_teachers_features_and_are_the_same_again():
    one, two = build().objective, build().objective
    assert torch.equal(one.centres, two.centres) and one.centres.isfinite().all()
    assert not torch.equal(one.centres[0], one.centres[1]), "each codebook has its own start"
    assert not torch.equal(build(seed=1).objective.centres, one.centres)
    frames = [one.teacher(*make_batch({"u": u["sig"]}).sig).layers[1][0] for u in Utterances(2.0, 3.0).values()]
    x = (torch.cat(frames) - one.mean) / one.deviation
    left = torch.cdist(x, one.centres[0]).amin(-1).square().sum() / x.square().sum()
    assert left < 0.8, "noise has few clusters; by chance it is above 1"


def test_the_teacher_is_neither_trained_nor_disturbed_by_training_mode():
    model = build().train()
    before = {name: value.clone() for name, value in model.objective.teacher.state_dict().items()}
    assert not model.objective.teacher.training and model.encoder.training
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(12):
        loss = model(make_batch(sounds(1.0, 2.0), step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(model.objective.teacher.state_dict()[name], value) for name, value in before.items())


def test_centres_are_saved_with_the_model():
    model, fresh = build(), build(prepared=False)
    assert fresh.objective.centres.isnan().all()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.objective.centres, model.objective.centres)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="frames per second"):
        HuBERT(encoder(4), encoder(8))
    with pytest.raises(ConfigError, match="layer 3; the teacher has 3"):
        HuBERT(encoder(), encoder(), layer=3)
    with pytest.raises(DataError, match="frames for 12 clusters"):
        build(prepared=False).objective.prepare(Utterances(0.1))
