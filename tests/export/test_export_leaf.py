"""Encoders by a leaf: what `--encoder path/to/leaf.yaml` builds, trusts, tells apart and refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lobes.distillation import Teacher
from lobes.encoders import PitchShift, TimeExpansion, VGGish
from lobes.errors import CheckpointError, ConfigError
from lobes.export import encoder_text, load_encoder, save_encoder
from lobes.export.leaf import is_leaf, leaf_digest, leaf_document

LEAVES = Path(__file__).parents[2] / "hparams" / "encoders"
HUBERT = """\
model_type: hubert
hidden_size: 16
num_hidden_layers: 2
num_attention_heads: 2
intermediate_size: 24
conv_dim: [8, 8, 8, 8, 8, 8, 8]
num_conv_pos_embeddings: 16
num_conv_pos_embedding_groups: 2
"""
EXPANDED = "!new:lobes.encoders.TimeExpansion\nencoder: !apply:lobes.export.load_encoder [sm-tiny]\nfactor: 2\n"
WAVE = torch.randn(2, 12000), torch.tensor([1.0, 0.7])


@pytest.fixture
def leaf(tmp_path):
    """Write a leaf; give its path."""

    def write(text: str, name: str = "leaf.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def frames(encoder):
    with torch.no_grad():
        return encoder(*WAVE).frames


def test_a_shipped_encoder_hears_audio_slowed_down(leaf):
    encoder, inner = load_encoder(leaf(EXPANDED)), load_encoder("sm-tiny")
    assert isinstance(encoder, TimeExpansion) and not encoder.training
    assert (encoder.sample_rate, encoder.frame_rate) == (32000, 50.0)
    assert torch.equal(frames(encoder), frames(inner))


@pytest.mark.parametrize("name", ["tiny", "tiny/ssd", "small/u_net"])
def test_our_own_leaves_have_weights_from_the_seed(name):
    path = LEAVES / f"{name}.yaml"
    first, again, other = (frames(load_encoder(path, untrained=True, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    before = torch.get_rng_state()
    load_encoder(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("call", ["[sm-tiny]", "{source: sm-tiny}", "{source: sm-tiny, untrained: False, seed: 5}"])
def test_untrained_reaches_what_a_leaf_holds(leaf, call):
    path = leaf(EXPANDED.replace("[sm-tiny]", call))
    random, trained = load_encoder(path, untrained=True, seed=3), load_encoder(path)
    assert torch.equal(frames(random), frames(load_encoder("sm-tiny", untrained=True, seed=3)))
    assert torch.equal(frames(trained), frames(load_encoder("sm-tiny")))


def test_untrained_leaves_out_files_of_weights(leaf, tmp_path):
    sizes = "channels: [2, 2, 2, 2]\nhidden: 4\ndim: 6\n"
    torch.manual_seed(9)
    trained = VGGish(channels=[2, 2, 2, 2], hidden=4, dim=6).eval()
    torch.save(trained.model.state_dict(), tmp_path / "vggish.pth")
    path = leaf(f"!new:lobes.encoders.VGGish\nweights: {tmp_path / 'vggish.pth'}\n{sizes}")
    assert torch.equal(frames(load_encoder(path)), frames(trained))
    random = load_encoder(path, untrained=True, seed=4)
    assert torch.equal(frames(random), frames(load_encoder(path, untrained=True, seed=4)))
    assert not torch.allclose(frames(random), frames(trained))


def test_fingerprints_tell_content_and_weights_but_not_layout(leaf, monkeypatch):
    path = leaf(EXPANDED)
    known = [Teacher(load_encoder(path), [1]).fingerprint()]
    commented = leaf(f"# a comment\n{EXPANDED.replace('factor: 2', 'factor:   2  # twice')}", "commented.yaml")
    assert Teacher(load_encoder(commented), [1]).fingerprint() == known[0]
    assert leaf_digest(commented) == leaf_digest(path) and leaf_document(commented) == leaf_document(path)
    known.append(Teacher(load_encoder(path, untrained=True, seed=1), [1]).fingerprint())
    known.append(Teacher(load_encoder(path, untrained=True, seed=2), [1]).fingerprint())
    known.append(Teacher(load_encoder(leaf(EXPANDED.replace("2", "3"), "three.yaml")), [1]).fingerprint())
    # Nothing of these is in a weight or a rate.
    for window in (0.032, 0.064):
        shifted = f"{EXPANDED.replace('TimeExpansion', 'PitchShift')}window: {window}\n"
        known.append(Teacher(load_encoder(leaf(shifted, f"{window}.yaml")), [1]).fingerprint())
    known.append(Teacher(load_encoder("sm-tiny"), [1]).fingerprint())
    assert len(set(known)) == len(known)


def test_a_delta_is_as_good_as_the_whole(leaf):
    base = leaf(EXPANDED, "base.yaml")
    delta = leaf(f"base: {base.name}\nfactor: 4\n")
    assert load_encoder(delta).sample_rate == 64000
    assert leaf_digest(delta) == leaf_digest(leaf(EXPANDED.replace("factor: 2", "factor: 4"), "whole.yaml"))
    before = leaf_digest(delta)
    leaf(EXPANDED.replace("[sm-tiny]", "[logmel]"), "base.yaml")
    assert leaf_digest(delta) != before, "what it is a delta of is its content too"


@pytest.mark.parametrize(
    "inner", ["!apply:lobes.export.load_encoder [sm-tiny]", "!include:../tiny.yaml", "hubert", "picture"]
)
def test_it_is_saved_as_a_folder_that_needs_neither_leaf_nor_source(inner, leaf, tmp_path, monkeypatch):
    if inner == "!include:../tiny.yaml":
        inner = f"!include:{LEAVES / 'tiny.yaml'}"
    elif inner == "hubert":
        config = "".join(f"        {line}\n" for line in HUBERT.splitlines())
        inner = f"!new:lobes.encoders.HuggingFaceEncoder\n    source:\n{config}"
    elif inner == "picture":
        inner = "!new:lobes.encoders.VGGish {channels: [2, 2, 2, 2], hidden: 4, dim: 6}"
    path = leaf(f"!new:lobes.encoders.PitchShift\nfactor: 2\nencoder: {inner}\n")
    encoder = load_encoder(path)
    text = encoder_text(path, encoder)
    saved = save_encoder(encoder, tmp_path / "saved", text)
    path.unlink()
    loaded = load_encoder(saved)
    assert isinstance(loaded, PitchShift) and torch.equal(frames(loaded), frames(encoder))


MINE = """\
import torch
from torch import nn
from lobes.encoders import EncoderOutput

class Net(nn.Module):
    sample_rate, frame_rate, dim, layer_dims = 16000, 100.0, 4, [4]

    def __init__(self, width=4, rate=100):
        super().__init__()
        self.linear, self.rate = nn.Linear(160, width), rate

    def forward(self, waveform, lengths):
        x = self.linear(waveform.unfold(1, 160, 160))
        valid = torch.arange(x.shape[1]) < (lengths * x.shape[1]).round()[:, None]
        return EncoderOutput(x, valid, [x])

    def macs(self, seconds):
        return round(seconds * 100 * 160 * 4)

class Half(Net):
    layer_dims = [4, 4]

class Fails(Net):
    def forward(self, waveform, lengths):
        raise RuntimeError("no such thing")

class NoRate(nn.Module):
    dim, layer_dims = 4, [4]

def number():
    return 5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of one's own."""
    (tmp_path / "lobes_leaf_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("lobes_leaf_mine", None)


def test_code_of_ones_own_is_run_from_a_leaf_and_never_from_a_folder(leaf, mine, tmp_path):
    path = leaf("!new:lobes_leaf_mine.Net\n")
    encoder = load_encoder(path, seed=3)
    assert encoder(*WAVE).frames.shape == (2, 75, 4)
    with pytest.raises(ConfigError, match=r"leaf.yaml: 'lobes_leaf_mine.Net'.*can be probed and tuned, and not saved"):
        encoder_text(path, encoder)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "hyperparams.yaml").write_text("encoder: !new:lobes_leaf_mine.Net\n")
    with pytest.raises(CheckpointError, match="lobes_leaf_mine.Net.*nothing was loaded"):
        load_encoder(tmp_path / "folder", untrained=True)


def test_nothing_from_elsewhere_is_taken_for_a_leaf(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    assert not any(is_leaf(source) for source in (tmp_path / "folder.yaml", "hf:someone/net.yaml", "someone/net"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, r"encoder '.*leaf.yaml': no such file; expected a leaf, whose root is a call"),
        ("dim: 16\ndepth: 2\n", "its root is no !new: of an encoder"),
        ("encoder: !new:lobes.encoders.VGGish {}\n", "its root is no !new: of an encoder"),
        ("[1, 2]\n", "expected a mapping of keys to values"),
        ("!new:lobes.encoders.TorchaudioEncoder\nsource: !PLACEHOLDER\n", "'source' has no value yet; copy the leaf"),
        ("!new:lobes.encoders.VGGish\nhops: 1.0\n", r"has no argument 'hops' \(did you mean 'hop'"),
        ("!new:lobes.encoders.VGGisch\nhop: 1.0\n", "there is no 'lobes.encoders.VGGisch'"),
        ("!new:lobes.encoders.VGGish\nhop: -1.0\n", "hop -1.0 s; expected"),
        ("!apply:lobes_leaf_mine.number\nx: 1\n", "lobes_leaf_mine.number has no argument 'x'"),
        ("!new:torch.nn.Linear\nin_features: 2\nout_features: 2\n", "Linear has no sample_rate; expected what"),
        ("!new:lobes_leaf_mine.NoRate\n", "NoRate has no sample_rate; expected what"),
        ("!apply:lobes_leaf_mine.number\n", "gives a int; expected a leaf"),
        ("!new:lobes_leaf_mine.Fails {}\n", r"Fails fails on half a second of silence \(RuntimeError: no such thing\)"),
        ("!new:lobes_leaf_mine.Half {}\n", r"Half gives frames and layers of shapes .*expected \[\(2, 50, 4\), "),
        ("!new:lobes_leaf_mine.Net {width: 5}\n", r"\(2, 50, 5\).*expected \[\(2, 50, 4\)"),
    ],
)
def test_what_is_wrong_with_a_leaf_is_said_in_one_line(text, named, leaf, mine, tmp_path):
    path = tmp_path / "leaf.yaml"
    if text is not None:
        leaf(text)
    with pytest.raises(ConfigError, match=named) as caught:
        load_encoder(path)
    assert "\n" not in str(caught.value) and "leaf.yaml" in str(caught.value)
