"""Features computed once give what the encoder gives, utterance by utterance."""

from __future__ import annotations

import pytest
import soundfile
import torch

from lobes.adapters import IA3, LayerNormTuning
from lobes.dataio import audio_dataset, collate, write_manifest
from lobes.encoders import Encoder, LogMel, StackingStem
from lobes.mixers import SummaryMixing
from lobes.probes import Downstream, FrameLinear, LinearHead, Probe, cache_features
from lobes.probes.norms import FrameNorm, PooledNorm

DIM = 16


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(LogMel(n_mels=20), StackingStem(20, DIM), DIM, 2, SummaryMixing, kernel=5).eval()


@pytest.fixture
def manifest(tmp_path):
    """Four clips, one of which is no audio."""
    rows = []
    for number, seconds in enumerate((0.4, 1.1, 0.7, 0.5)):
        sound = 0.1 * torch.randn(int(16000 * seconds), generator=torch.Generator().manual_seed(number))
        soundfile.write(tmp_path / f"{number}.wav", sound.numpy(), 16000)
        clip = {"id": f"clip{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": seconds}
        rows.append({**clip, "duration": seconds, "sample_rate": 16000, "channel": None, "group": "a"})
    path = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="noise", licence="none")
    (tmp_path / "2.wav").write_bytes(b"not audio")
    return path


def batch_of(dataset):
    return collate([dataset[index] for index in range(len(dataset))])


def test_cached_features_equal_the_encoder(encoder, manifest):
    model = Downstream(encoder, Probe(encoder.layer_dims, FrameLinear(DIM, 5))).eval()
    direct, valid = model(batch_of(audio_dataset(manifest)))
    cached = cache_features(audio_dataset(manifest), encoder)
    assert cached.data_ids == ["clip0", "clip1", "clip3"] and len(cached.durations) == 3
    logits, cached_valid = model(batch_of(cached))
    assert torch.equal(valid, cached_valid)
    torch.testing.assert_close(logits, direct, atol=1e-5, rtol=0)


def test_known_features_are_not_computed_again(encoder, manifest):
    known: dict[str, torch.Tensor] = {}
    cache_features(audio_dataset(manifest), encoder, known=known)
    calls = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    again = cache_features(audio_dataset(manifest), encoder, known=known)
    assert again[0]["layers"] is known["clip0"]
    assert len(calls) == 1, "only the unreadable clip is tried again"


def test_a_frozen_encoder_is_not_trained(encoder):
    model = Downstream(encoder, Probe(encoder.layer_dims, LinearHead(DIM, 3)))
    assert len(model.parameter_groups(0.1)) == 1 and not any(p.requires_grad for p in encoder.parameters())
    tuned = Downstream(encoder, model.probe, frozen=False)
    groups = tuned.parameter_groups(0.1)
    assert groups[1]["lr"] == 0.1 and len(groups[1]["params"]) == len(list(encoder.parameters()))


@pytest.mark.parametrize("method", [IA3, LayerNormTuning])
def test_weight_decay_does_not_pull_what_is_tuned_away_from_the_pretrained_encoder(encoder, method):
    model = Downstream(method().apply(encoder), Probe(encoder.layer_dims, LinearHead(DIM, 3)), frozen=None)
    optimizer = torch.optim.AdamW(model.parameter_groups(0.1), lr=0.1, weight_decay=0.5)
    tuned = {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in tuned.items()}
    head = model.probe.head.output.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert tuned and all(torch.equal(p, before[name]) for name, p in tuned.items())
    assert torch.allclose(model.probe.head.output.weight, 0.95 * head), "the head keeps the optimiser's"


def test_pooled_features_are_standardised_and_single_ones_do_not_fail():
    norm = PooledNorm(4)
    x = 5 + 3 * torch.randn(500, 4)
    torch.testing.assert_close(norm(x).std(0), torch.ones(4), atol=0.01, rtol=0)
    assert norm(x[:1]).shape == (1, 4)
    norm.eval()
    torch.testing.assert_close(norm(x[:2])[0], norm(x[:1])[0])
    assert not list(norm.parameters())


def test_frames_are_standardised_over_the_real_ones_alone():
    norm, reference = FrameNorm(4), torch.nn.BatchNorm1d(4, affine=False)
    x = 5 + 3 * torch.randn(3, 20, 4)
    valid = torch.arange(20) < torch.tensor([20, 7, 0])[:, None]
    x[~valid] = float("nan")
    y = norm(x, valid)
    torch.testing.assert_close(y[valid], reference(x[valid]))
    assert not y[~valid].any()
    norm.eval(), reference.eval()
    torch.testing.assert_close(norm(x[1:2, :7], valid[1:2, :7])[0], norm(x, valid)[1, :7])
    torch.testing.assert_close(norm(x, valid)[valid], reference(x[valid]))


@pytest.mark.parametrize("n_frames", [0, 1])
def test_a_batch_of_hardly_any_frames_is_standardised_too(n_frames):
    norm = FrameNorm(4)
    assert torch.isfinite(norm(torch.ones(1, n_frames, 4), torch.ones(1, n_frames, dtype=torch.bool))).all()
