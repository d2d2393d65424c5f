"""Encoders that only a leaf describes, in recipes/Gibbons: slowed down, pictures, VGGish, code of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from recipe_runner import ROOT, leave, train

from lobes.dataio.annotations import Annotation, write_annotations
from lobes.detection import detect_recordings, load_detector
from lobes.errors import ConfigError
from lobes.export import load_encoder

LEAVES = ROOT / "hparams" / "encoders"
CLASSES = "--classes=[duet, long.argus, noise]"
VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
       "intermediate_size": 24, "image_size": 32, "patch_size": 16}  # fmt: skip


def expansion(path, factor, inner="logmel-40-25hz"):
    """A leaf that slows audio down for an encoder that comes with lobes."""
    path.write_text(
        "!new:lobes.encoders.TimeExpansion\n"
        f"encoder: !apply:lobes.export.load_encoder [{inner}]\nfactor: {factor}  # times as long\n"
    )
    return path


def test_calls_are_told_apart_by_an_encoder_that_hears_them_slowed_down(danum, tmp_path):
    leaf = expansion(tmp_path / "slow.yaml", 2, inner="sm-tiny")
    given = (f"--data_folder={danum(clips=4)}", f"--encoder={leaf}", CLASSES, "--probe.strengths=[0.1]")
    result = train("Gibbons/call_type", tmp_path / "run", *given)
    assert result["metric"]["value"] > 0.8 and result["metric"]["n_items"] == 36
    assert result["cost"]["macs_per_second"] == load_encoder("sm-tiny").macs(20.0) / 10, "two seconds of it for one"
    assert "factor: 2\n" in (tmp_path / "run" / "encoder.leaf.yaml").read_text()


def test_calls_are_told_apart_by_pictures(danum, tmp_path):
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text(json.dumps(VIT))
    leaf = tmp_path / "pictures.yaml"
    leaf.write_text(
        f"base: {LEAVES / 'picture_transformer.yaml'}\nsource: {tmp_path / 'vit'}\nwindow: 0.5\nhop: 0.25\n"
    )
    given = (f"--data_folder={danum(clips=4)}", f"--encoder={leaf}", CLASSES, "--untrained=True")
    result = train("Gibbons/call_type", tmp_path / "run", *given)
    assert result["metric"]["value"] > 0.6, "random weights see which way a whistle goes; chance is 1/3"
    assert result["cost"]["parameters_total"] > sum(p.numel() for p in load_encoder(leaf, untrained=True).parameters())


def test_vggish_by_its_leaf(danum, tmp_path):
    leaf = tmp_path / "small.yaml"
    leaf.write_text(
        f"base: {LEAVES / 'vggish.yaml'}\nadds: [channels, hidden, dim]\nhop: 0.24\n"
        "channels: [4, 8, 8, 8]\nhidden: 16\ndim: 12\n"
    )
    given = (f"--data_folder={danum(clips=4)}", f"--encoder={leaf}", CLASSES)
    assert train("Gibbons/call_type", tmp_path / "run", *given)["metric"]["value"] > 0.6


@pytest.mark.slow
def test_vggish_as_it_is_shipped(danum, tmp_path):
    given = (f"--data_folder={danum(clips=2)}", f"--encoder={LEAVES / 'vggish.yaml'}", CLASSES)
    result = train("Gibbons/call_type", tmp_path / "run", *given)
    assert result["cost"]["parameters_total"] > 72e6


@pytest.mark.slow
def test_a_slowed_down_encoder_is_tuned(danum, tmp_path):
    leaf = expansion(tmp_path / "slow.yaml", 2, inner="sm-tiny")
    given = (f"--data_folder={danum(kinds=('duet', 'noise'), clips=2)}", f"--encoder={leaf}", "--classes=[duet, noise]")
    given += ("--epochs=1", "--train_loader.batch_seconds=4", "--adaptation=!name:lobes.adapters.LoRA {rank: 2}")
    result = train("Gibbons/call_type", tmp_path / "run", *given, hparams="tune.yaml")
    assert 0 < result["cost"]["parameters_trained"] < 0.3 * result["cost"]["parameters_total"]
    # What was begun with one content of the leaf is not gone on with under another.
    leaf.write_text("# the same\n" + leaf.read_text())
    train("Gibbons/call_type", tmp_path / "run", *given, hparams="tune.yaml")
    expansion(leaf, 4, inner="sm-tiny")
    with pytest.raises(ConfigError, match="holds a run with another content of .*slow.yaml.*encoder.leaf.yaml"):
        train("Gibbons/call_type", tmp_path / "run", *given, hparams="tune.yaml")


RATE = 48000


def ultrasound(noise, begins, seconds=12.0):
    """Whistles of a second that fall from 20 kHz on, over noise: for an encoder of 16 kHz there is nothing."""
    sound = 0.01 * noise.standard_normal(round(seconds * RATE))
    time = np.arange(RATE) / RATE
    for begin in begins:
        start = round(begin * RATE)
        sound[start : start + RATE] += 0.2 * np.sin(2 * np.pi * (20000 - 1000 * time) * time)
    return sound


@pytest.fixture
def bats(tmp_path):
    """Recordings at 48 kHz of five sites, with Raven's tables."""
    noise, root = np.random.default_rng(0), tmp_path / "bats"
    for site in range(5):
        (root / f"site{site}").mkdir(parents=True)
        begins = (2.0 + 0.3 * site, 7.0)
        soundfile.write(root / f"site{site}" / "a.wav", ultrasound(noise, begins), RATE)
        table = [Annotation(begin, begin + 1.0, "call") for begin in begins]
        write_annotations(root / f"site{site}" / "a.Table.1.selections.txt", table)
    return root


def test_calls_above_8_khz_are_found_where_they_are(bats, tmp_path):
    given = [f"--data_folder={bats}", "--classes=[call]", "--prepare.shares.test=0.4", "--normalize_layers=False",
             "--window=4.0", "--rule.min_duration=0.4", "--train_loader.batch_seconds=16"]  # fmt: skip
    leaf = expansion(tmp_path / "slow.yaml", 3)
    result = train("Gibbons/detection", tmp_path / "run", *given, f"--encoder={leaf}", hparams="own.yaml")
    assert result["metric"]["value"] > 0.8, result["metric"]["value"]
    leaf.unlink()
    detector = load_detector(tmp_path / "run" / "model")
    assert (detector.sample_rate, detector.frame_rate) == (48000, 75.0)
    soundfile.write(tmp_path / "new.wav", ultrasound(np.random.default_rng(9), (3.2, 9.0), 11.0), RATE)
    [found] = detect_recordings(detector, [tmp_path / "new.wav"]).values()
    assert [event.start for event in found] == pytest.approx([3.2, 9.0], abs=0.1)
    assert [event.end for event in found] == pytest.approx([4.2, 10.0], abs=0.1)


def test_code_that_cannot_be_saved_is_told_before_a_detector_is_trained(tmp_path):
    leaf = tmp_path / "mine.yaml"
    leaf.write_text("!new:speechbrain.nnet.linear.Linear\nn_neurons: 3\ninput_size: 4\n")
    given = (f"--data_folder={tmp_path / 'nowhere'}", f"--encoder={leaf}", "--classes=[call]")
    code, said = leave("Gibbons/detection", "hparams/own.yaml", f"--output_folder={tmp_path / 'run'}", *given)
    assert code == 2 and "Linear has no sample_rate; expected what lobes.encoders.Encoder has" in said
    code, said = leave("Gibbons/call_type", "hparams/tiny.yaml", f"--output_folder={tmp_path / 'run'}",
                       f"--data_folder={tmp_path}", f"--encoder={tmp_path / 'no.yaml'}")  # fmt: skip
    assert code == 2 and "no.yaml': no such file; expected a leaf" in said, "before the corpus is looked for"
