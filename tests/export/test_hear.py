"""HEAR's interface and s3prl's: sizes, times in milliseconds, and nothing that depends on the batch."""

from __future__ import annotations

import pytest
import torch

from lobes.errors import ConfigError
from lobes.export import load_encoder
from lobes.export.hear import S3PRLUpstream, get_scene_embeddings, get_timestamp_embeddings, load_model


@pytest.mark.parametrize("name", ["sm-tiny", "logmel-40-25hz"])
def test_shapes_and_times(name):
    model = load_model(name)
    audio = 0.1 * torch.randn(3, 32000)
    frames, times = get_timestamp_embeddings(audio, model)
    scenes = get_scene_embeddings(audio, model)
    assert frames.shape == (3, 50, model.timestamp_embedding_size) and times.shape == (3, 50)
    assert scenes.shape == (3, model.scene_embedding_size) and scenes.dtype == frames.dtype == torch.float32
    assert times[0, 0] == 20.0 and torch.allclose(times.diff(dim=1), torch.tensor(40.0)), "milliseconds"
    torch.testing.assert_close(scenes[:, : frames.shape[2]], frames.mean(1))
    torch.testing.assert_close(get_scene_embeddings(audio[1:2], model), scenes[1:2], atol=1e-5, rtol=0)


def test_many_sounds_go_through_in_parts(monkeypatch):
    model, audio = load_model("sm-tiny"), 0.1 * torch.randn(7, 8000)
    whole = get_scene_embeddings(audio, model)
    monkeypatch.setattr("lobes.export.hear._BATCH_SECONDS", 1.0)
    torch.testing.assert_close(get_scene_embeddings(audio, model), whole, atol=1e-5, rtol=0)


def test_nothing_and_the_wrong_shape():
    model = load_model("sm-tiny")
    assert get_scene_embeddings(torch.zeros(2, 0), model).shape == (2, 288)
    with pytest.raises(ConfigError, match=r"audio has shape \(5,\); expected \(sounds, samples\)"):
        get_scene_embeddings(torch.zeros(5), model)


def test_s3prl_gets_all_layers_of_utterances_of_any_length():
    upstream = S3PRLUpstream("sm-tiny").eval()
    assert upstream.get_downsample_rates("hidden_states") == 640
    wavs = [0.1 * torch.randn(16000), 0.1 * torch.randn(9000)]
    with torch.no_grad():
        found, alone = upstream(wavs), load_encoder("sm-tiny")(wavs[1][None], torch.ones(1))
    assert len(found["hidden_states"]) == len(alone.layers)
    count = alone.frames.shape[1]
    for layer, expected in zip(found["hidden_states"], alone.layers, strict=True):
        torch.testing.assert_close(layer[1, :count], expected[0], atol=1e-5, rtol=0)
        assert not layer[1, count:].any()
