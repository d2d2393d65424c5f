"""Image and video models on log-mel pictures: what the models give, of windows that show nothing but the utterance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from upstream_cases import PICTURES, SMALL_VGGISH, UPSTREAMS

from lobes.encoders import LogMel, PictureTransformer, VGGish
from lobes.encoders.filterbank import KaldiFilterbank, VGGishMel, WhisperLogMel
from lobes.errors import CheckpointError, ConfigError
from lobes.evaluation.cost import counted_macs

NAMES = ("vit", "vit-mean", "ast", "videomae", "vggish")
ONE = torch.ones(1)


def kaldi(name, wave):
    """Hugging Face's extractors before they normalise."""
    import transformers

    if name == "ast":
        return transformers.ASTFeatureExtractor(num_mel_bins=80, do_normalize=False)._extract_fbank_features(wave, 123)
    return transformers.SeamlessM4TFeatureExtractor()._extract_fbank_features(wave)


@pytest.mark.parametrize(("name", "window", "scale"), [("ast", "hanning", 1.0), ("seamless", "povey", 32768.0)])
def test_the_filterbank_is_kaldis(name, window, scale):
    wave = 0.1 * torch.randn(20000)
    ours, valid = KaldiFilterbank(80, window, scale)(wave[None], ONE)
    theirs = torch.as_tensor(kaldi(name, wave.numpy()))
    assert valid.all()
    torch.testing.assert_close(ours[0], theirs, atol=2e-4, rtol=1e-5)


def test_whispers_features_are_whispers():
    from transformers import WhisperFeatureExtractor

    wave = 0.1 * torch.randn(20000)
    extractor = WhisperFeatureExtractor(feature_size=128)
    theirs = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    ours = WhisperLogMel(128)(torch.nn.functional.pad(wave, (0, 460000))[None])
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


def test_vggishs_features_equal_a_slow_loop():
    """From the published parameters: 64 triangles on the scale 1127 ln(1 + f / 700), log(magnitude + 0.01)."""
    wave = 0.1 * torch.randn(4000).double().numpy()
    hertz = np.arange(257) * 16000 / 512
    edges = np.linspace(*(1127 * np.log(1 + np.array([125, 7500]) / 700)), 66)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    expected = np.zeros((23, 64))
    for t in range(23):
        magnitude = np.abs(np.fft.rfft(wave[160 * t : 160 * t + 400] * window, 512))
        for band in range(64):
            for m, f in zip(magnitude, hertz, strict=True):
                mel = 1127 * math.log(1 + f / 700)
                up = (mel - edges[band]) / (edges[band + 1] - edges[band])
                down = (edges[band + 2] - mel) / (edges[band + 2] - edges[band + 1])
                expected[t, band] += max(0.0, min(up, down)) * m
    ours, _ = VGGishMel()(torch.tensor(wave, dtype=torch.float32)[None], ONE)
    np.testing.assert_allclose(ours[0].numpy(), np.log(expected + 0.01), atol=1e-4)


@torch.no_grad()
def test_ast_gives_what_extractor_and_model_give():
    from transformers import ASTFeatureExtractor

    encoder, wave = PictureTransformer(PICTURES["ast"]).eval(), 0.2 * torch.randn(8000)
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    inputs = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    theirs = encoder.model(inputs, output_hidden_states=True)
    output = encoder(wave[None], ONE)
    torch.testing.assert_close(output.frames[0], theirs.pooler_output, atol=1e-5, rtol=1e-5)
    for ours, tokens in zip(output.layers, theirs.hidden_states, strict=True):
        torch.testing.assert_close(ours[0], tokens[:, :2].mean(1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_vit_and_videomae_see_the_window_with_low_bands_below_and_time_from_left_to_right():
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    tone[:8000] *= 1e-4
    encoder = PictureTransformer(PICTURES["vit"], window=1.0)
    features, _ = encoder.features(tone[None], ONE)
    scaled = (features - encoder.centre) / encoder.spread
    image = encoder.images(scaled)
    assert image.shape == (1, 3, 32, 32) and -1.01 < image.min() and 0.9 < image.max() < 1.01
    assert torch.equal(image[:, 0], image[:, 1])
    row, column = divmod(image[0, 0].argmax().item(), 32)
    assert row > 16 and column >= 16  # 1 kHz is in the lower half of the mel scale to 8 kHz
    film = PictureTransformer(PICTURES["videomae"], window=1.0).images(scaled)
    assert film.shape == (1, 4, 3, 32, 32)
    loudness = film[0, :, 0].mean((1, 2))
    assert loudness[:2].max() < loudness[2:].min()
    theirs = encoder.model.eval()(image, output_hidden_states=True)
    output = encoder.eval()(tone[None], ONE)
    torch.testing.assert_close(output.frames[0], theirs.last_hidden_state[:, 0])
    torch.testing.assert_close(output.layers[1][0], theirs.hidden_states[1][:, 0])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_each_window_is_seen_by_itself_and_the_last_one_is_kept(name):
    encoder = UPSTREAMS[name]()
    wave = torch.randn(2 * encoder.hop * 160 + 1000)
    frames = encoder(wave[None], ONE).frames[0]
    assert len(frames) == 3
    rest = encoder(wave[None, 2 * encoder.hop * 160 :], ONE).frames[0]
    torch.testing.assert_close(frames[2], rest[0], atol=1e-5, rtol=1e-5)
    encoder.at_once = 1
    torch.testing.assert_close(encoder(wave[None], ONE).frames[0], frames, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_macs_equal_the_counted_products(name):
    encoder = UPSTREAMS[name]()
    pictures = torch.randn(3, encoder.window, encoder.features.n_mels)
    assert 3 * encoder.picture_macs() == counted_macs(lambda: encoder.look(pictures)).total
    n_frames = encoder.features.n_frames(torch.tensor(32000))
    windows = len(encoder(torch.randn(1, 32000), ONE).frames[0])
    assert encoder.macs(2.0) == encoder.features.macs(int(n_frames)) + windows * encoder.picture_macs()


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_uses_every_weight(name):
    encoder = UPSTREAMS[name]().train()
    encoder(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).frames.square().sum().backward()
    unused = [key for key, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    encoder.freeze("front-end")
    assert {p.requires_grad for p in encoder.parameters()} == {True, False}


def test_vggish_gives_the_layers_that_are_asked_for():
    torch.manual_seed(3)
    whole = VGGish(**SMALL_VGGISH).eval()
    torch.manual_seed(3)
    some = VGGish(**SMALL_VGGISH, layers=[-1, 1, 2]).eval()
    wave = torch.randn(1, 32000)
    expected, found = whole(wave, ONE), some(wave, ONE)
    assert whole.layer_dims == [4, 8, 8, 8, 16] and some.layer_dims == [16, 8, 8] and some.dim == 16
    assert torch.equal(found.frames, expected.frames)
    assert all(torch.equal(x, expected.layers[place]) for x, place in zip(found.layers, [4, 1, 2], strict=True))
    assert some.arguments()["layers"] == [4, 1, 2]
    for wrong in ([], [5]):
        with pytest.raises(ConfigError, match="layers is .*expected some of 0 to 4"):
            VGGish(**SMALL_VGGISH, layers=wrong)


def test_vggish_has_the_published_size_and_reads_the_ports_names(tmp_path):
    with torch.device("meta"):
        published = VGGish()
    assert sum(p.numel() for p in published.parameters()) == 72_141_184
    names = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)] + [f"embeddings.{i}" for i in (0, 2, 4)]
    assert list(published.model.state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    trained = VGGish(**SMALL_VGGISH)
    torch.save(trained.model.state_dict(), tmp_path / "vggish.pth")
    loaded = VGGish(tmp_path / "vggish.pth", **SMALL_VGGISH)
    wave = torch.randn(1, 20000)
    assert torch.equal(loaded(wave, ONE).frames, trained(wave, ONE).frames)
    with pytest.raises(CheckpointError, match="of shape"):
        VGGish(tmp_path / "vggish.pth")


def test_from_a_local_folder(tmp_path):
    from transformers import ASTConfig, ASTForAudioClassification

    torch.manual_seed(3)
    model = ASTForAudioClassification(ASTConfig(**PICTURES["ast"])).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"mean": -6.0, "std": 3.0}')
    encoder = PictureTransformer(tmp_path).eval()
    assert (encoder.centre, encoder.spread) == (-6.0, 6.0)
    weight = "layers.0.attention.q_proj.weight"
    inner = model.audio_spectrogram_transformer.state_dict()
    assert torch.equal(encoder.model.state_dict()[weight], inner[weight])


def test_what_is_wrong_is_said_in_one_line():
    with pytest.raises(ConfigError, match="pool is 'cls'; expected mean, since it has no class token"):
        PictureTransformer(PICTURES["videomae"], pool="cls")
    with pytest.raises(ConfigError, match="pool is 'max'; expected cls or mean"):
        PictureTransformer(PICTURES["vit"], pool="max")
    with pytest.raises(ConfigError, match="AST reads 0.64 s of Kaldi's 32 bands"):
        PictureTransformer(PICTURES["ast"], window=2.0)
    with pytest.raises(ConfigError, match="hop 0.001 s; expected 0.01 s at least"):
        PictureTransformer(PICTURES["vit"], hop=0.001)
    with pytest.raises(ConfigError, match="features.normalise is True; expected False"):
        PictureTransformer(PICTURES["vit"], features=LogMel())
    with pytest.raises(ConfigError, match="model_type is 'hubert'; expected one of audio-spectrogram-transformer"):
        PictureTransformer({"model_type": "hubert"})
    with pytest.raises(ConfigError, match="channels is .1, 2.; expected four"):
        VGGish(channels=[1, 2])
