"""A detector finds calls, gives the same for any block and batch, and is the same when it is loaded again."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from synthetic_calls import RATE, SWEEPS, new_detector, random_calls, with_calls, write_recording

from lobes.dataio import Recording, resample
from lobes.dataio.annotations import Annotation
from lobes.detection import (
    Detector,
    detect_recording,
    detect_under,
    detector_checksum,
    frame_loss,
    frame_targets,
    lenient,
    load_detector,
    save_detector,
    score_recording,
    tune_detector,
)
from lobes.errors import CheckpointError, ConfigError
from lobes.evaluation import EventRule, event_f1, event_records
from lobes.export import encoder_text, load_encoder, save_encoder
from lobes.probes import AttentiveHead, BiLSTMHead, FrameLinear, LinearHead


def scores_of(detector: Detector, path: Path, **options) -> np.ndarray:
    return np.concatenate(list(score_recording(detector, Recording(path, detector.sample_rate), **options)))


def test_calls_are_found_in_an_unseen_recording(detector, tmp_path):
    calls = random_calls(100.0, seed=7)
    path = write_recording(tmp_path / "a.wav", 100.0, calls)
    found = detect_recording(detector, Recording(path, detector.sample_rate))
    records = event_records({"a": calls}, {"a": found})
    assert event_f1(records) > 0.95, records
    assert all(0.6 <= event.score <= 1 and event.low_hz for event in found)


def test_a_detector_is_tuned_on_recordings(detector, tmp_path):
    """With heads of shifted logits, no threshold fits but a tuned one."""
    shifted = new_detector(rules=dict.fromkeys(SWEEPS, EventRule(0.5, min_duration=0.2)))
    shifted.load_state_dict(detector.state_dict())
    with torch.no_grad():
        shifted.model.probe.head.output.bias += torch.tensor([-3.0, 2.5])
    truth = {name: random_calls(48.0, seed) for name, seed in (("a", 21), ("b", 22))}
    files = {name: write_recording(tmp_path / f"{name}.wav", 48.0, calls) for name, calls in truth.items()}

    def f1(model: Detector) -> float:
        found = {name: detect_recording(model, Recording(path)) for name, path in files.items()}
        return event_f1(event_records(truth, found))

    before = f1(shifted)
    points = tune_detector(shifted, truth, files, thresholds=[0.05, 0.2, 0.5, 0.8, 0.95], low_ratios=[0.7])
    assert f1(shifted) > max(before, 0.9) and len(points) == 10
    assert shifted.rules["whoop"].high < shifted.rules["hoot"].high and shifted.rules["whoop"].min_duration == 0.2


def test_lenient_rules_find_more_of_which_the_strict_ones_are_those_with_high_scores(detector, tmp_path):
    files = [write_recording(tmp_path / f"{k}.wav", 48.0, random_calls(48.0, seed=30 + k)) for k in range(2)]
    strict = {name: EventRule(0.95, low=0.3, min_duration=0.2) for name in SWEEPS}
    found, more = detect_under(detector, [*files, tmp_path / "gone.wav"], [strict, lenient(strict)])
    assert list(found) == list(more) == files, "what cannot be read is left out"
    for file in files:
        assert found[file] == [event for event in more[file] if event.score >= 0.95]
    assert sum(map(len, more.values())) > sum(map(len, found.values())) > 0


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(16000, 1, "wav"), (44100, 2, "flac"), (96000, 2, "wav")])
def test_blocks_and_batches_change_nothing(detector, tmp_path, rate, channels, suffix):
    seconds = 37.313
    path = write_recording(tmp_path / f"a.{suffix}", seconds, random_calls(seconds, seed=3), rate, channels)
    expected = scores_of(detector, path)
    assert len(expected) == int(np.ceil(seconds * 25)), "the last, partial window is kept"
    events = detect_recording(detector, Recording(path, 16000))
    assert len(events) >= 3
    for batch_size, block in ((8, 1.0), (8, 7.77), (3, 60.0), (1, 0.5)):
        got = scores_of(detector, path, batch_size=batch_size, block_seconds=block)
        if batch_size == 8:
            assert np.array_equal(got, expected), "the same to the last bit for any block"
        assert np.abs(got - expected).max() < 1e-5
        again = detect_recording(detector, Recording(path, 16000), batch_size=batch_size, block_seconds=block)
        assert [(e.start, e.end, e.label) for e in again] == [(e.start, e.end, e.label) for e in events]


def test_scores_are_those_of_each_window_alone_averaged(detector, tmp_path):
    """The definition, window by window, without batches, blocks or padding."""
    path = write_recording(tmp_path / "a.wav", 13.5, random_calls(13.5, seed=5))
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    heard: dict[int, list[np.ndarray]] = {}
    for start in range(10):
        part = samples[start * 2 * RATE : start * 2 * RATE + 4 * RATE]
        with torch.no_grad():
            output = detector.model.encoder(part[None], torch.ones(1))
            probabilities = detector.model.probe(output.layers, output.valid).sigmoid()[0]
        for frame, row in enumerate(probabilities.numpy()):
            heard.setdefault(start * 50 + frame, []).append(row)
        if start * 2 * RATE + 4 * RATE >= len(samples):
            break
    expected = np.stack([np.mean(heard[frame], axis=0) for frame in range(len(heard))])
    got = scores_of(detector, path)
    assert got.shape == expected.shape and np.abs(got - expected).max() < 1e-5


@pytest.mark.parametrize("head", [LinearHead, partial(AttentiveHead, hidden=8)])
@pytest.mark.parametrize(
    ("window", "hop", "step"), [(4.0, 2.0, 2.0), (4.0, 4.0, 4.0), (5.0, 2.0, 1.0), (3.0, 0.5, 0.5)]
)
def test_heads_that_judge_a_whole_window(tmp_path, head, window, hop, step):
    detector = new_detector(head=head, window=window, hop=hop)
    assert detector.frame_rate == pytest.approx(1 / step) and not detector.per_frame
    path = write_recording(tmp_path / "a.wav", 21.3, random_calls(21.3, seed=5))
    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    heard: dict[int, list[np.ndarray]] = {}
    start = 0.0
    while True:
        part = samples[round(start * RATE) : round((start + window) * RATE)]
        with torch.no_grad():
            output = detector.model.encoder(part[None], torch.ones(1))
            row = detector.model.probe(output.layers, output.valid).sigmoid()[0].numpy()
        first = round(start / step)
        for cell in range(first, first + int(np.ceil(len(part) / RATE / step - 1e-9))):
            heard.setdefault(cell, []).append(row)
        if (start + window) * RATE >= len(samples):
            break
        start += hop
    expected = np.stack([np.mean(heard[cell], axis=0) for cell in range(len(heard))])
    got = scores_of(detector, path, batch_size=3)
    assert got.shape == expected.shape and np.abs(got - expected).max() < 1e-5
    found = detect_recording(detector, Recording(path, 16000), rules=dict.fromkeys(SWEEPS, EventRule(0.01)))
    assert [event.end for event in found] == pytest.approx([21.3] * len(found)), "nothing goes on after the end"


def test_softmax_with_background(tmp_path):
    detector = Detector(
        load_encoder("logmel-40-25hz"), FrameLinear, ["whoop", "noise"], ["noise"], "softmax", window=4.0
    ).eval()
    path = write_recording(tmp_path / "a.wav", 5.0, [])
    scores = scores_of(detector, path)
    assert scores.shape == (125, 1) and detector.events == ["whoop"] and detector.hop == 2.0
    with torch.no_grad():
        output = detector.model.encoder(torch.from_numpy(with_calls(5.0, []))[None, : 4 * RATE], torch.ones(1))
        expected = detector.model.probe(output.layers, output.valid).softmax(-1)[0, :50, 0]
    assert np.abs(scores[:50, 0] - expected.numpy()).max() < 1e-3  # 16-bit samples


class Slow(torch.nn.Module):
    """An encoder that hears four times as slowly as it is, for calls above its band."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = load_encoder("logmel-40-25hz")
        self.layer_dims, self.sample_rate, self.frame_rate = self.inner.layer_dims, 64000, 100.0

    def forward(self, waveform, lengths):
        return self.inner(waveform, lengths)


def test_encoders_of_other_rates_find_calls_where_they_are(detector, tmp_path):
    """Sweeps four times as high and as fast, in a file of another rate again."""
    rule = EventRule(0.6, 0.4, 0.05, 0.05, 0.05)
    fast = Detector(Slow(), FrameLinear, list(SWEEPS), window=1.0, hop=0.5, rules=dict.fromkeys(SWEEPS, rule)).eval()
    fast.model.probe.load_state_dict(detector.model.probe.state_dict())
    slow_calls = random_calls(80.0, seed=11)
    calls = [Annotation(call.start / 4, call.end / 4, call.label) for call in slow_calls]
    samples = resample(torch.from_numpy(with_calls(80.0, slow_calls)), 64000, 96000)
    soundfile.write(tmp_path / "bat.wav", samples.numpy(), 96000)
    assert (fast.sample_rate, fast.frame_rate) == (64000, 100.0)
    found = detect_recording(fast, Recording(tmp_path / "bat.wav", fast.sample_rate))
    assert event_f1(event_records({"a": calls}, {"a": found})) > 0.9


class Shorter(torch.nn.Module):
    """An encoder whose windows end a frame early, as those without padding do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = load_encoder("logmel-40-25hz")
        self.layer_dims, self.sample_rate, self.frame_rate = self.inner.layer_dims, 16000, 25.0

    def forward(self, waveform, lengths):
        output = self.inner(waveform, lengths)
        shorter = output.valid.clone()
        shorter[torch.arange(len(shorter)), output.valid.sum(1) - 1] = False
        return output._replace(layers=[output.layers[0][:, :-1]], frames=output.frames[:, :-1], valid=shorter[:, :-1])


def test_frames_that_an_encoder_lacks_are_the_last_that_it_has(tmp_path):
    detector = Detector(Shorter(), FrameLinear, list(SWEEPS), window=4.0, hop=4.0).eval()
    scores = scores_of(detector, write_recording(tmp_path / "a.wav", 9.0, []))
    assert len(scores) == 225
    for last in (99, 199, 224):
        assert np.array_equal(scores[last], scores[last - 1]) and not np.array_equal(scores[last], scores[last - 2])


@pytest.mark.parametrize(
    "head", [FrameLinear, partial(BiLSTMHead, hidden=5, layers=1), partial(AttentiveHead, hidden=4)]
)
def test_a_detector_is_the_same_when_it_is_loaded(tmp_path, head):
    options = {"head": head, "window": 3.2, "hop": 1.6, "normalize": True, "bands": {"whoop": (400.0, 1200.0)}}
    detector = new_detector(**options)
    for parameter in detector.model.probe.parameters():
        torch.nn.init.normal_(parameter)
    folder = save_detector(detector, tmp_path / "model", encoder_text("logmel-40-25hz"), {"date": "today"})
    loaded = load_detector(folder)
    audio, samples = torch.randn(2, detector.window_samples), torch.tensor([detector.window_samples, 20000])
    assert np.array_equal(loaded.scores(audio, samples)[0], detector.scores(audio, samples)[0])
    for name in ("classes", "events", "rules", "bands", "window", "hop", "frame_rate", "activation", "normalize"):
        assert getattr(loaded, name) == getattr(detector, name), name
    assert not loaded.training and "today" in (folder / "detector.yaml").read_text()


def test_a_tuned_encoder_is_saved_as_it_is(tmp_path):
    encoder = load_encoder("sm-tiny", untrained=True, seed=3)
    detector = Detector(encoder, FrameLinear, ["call"], frozen=False, window=2.0).eval()
    with torch.no_grad():
        encoder.norm.weight.mul_(1.5)
    folder = save_detector(detector, tmp_path / "model", encoder_text("sm-tiny"))
    audio, samples = torch.randn(1, 32000), torch.tensor([32000])
    assert np.allclose(load_detector(folder).scores(audio, samples)[0], detector.scores(audio, samples)[0], atol=1e-6)


def test_the_checksum_tells_detectors_apart(detector_folder, tmp_path):
    same = Path(shutil.copytree(detector_folder, tmp_path / "same"))
    assert detector_checksum(same) == detector_checksum(detector_folder)
    (same / "notes.txt").write_text("anything")
    assert detector_checksum(same) == detector_checksum(detector_folder)
    changed = same / "detector.yaml"
    changed.write_text(changed.read_text().replace("0.6", "0.7"))
    assert detector_checksum(same) != detector_checksum(detector_folder)
    assert load_detector(same).rules["whoop"].high == 0.7


def test_folders_that_are_none_are_named(detector_folder, tmp_path):
    with pytest.raises(CheckpointError, match="detector.yaml: cannot be read"):
        load_detector(tmp_path)
    text = (detector_folder / "detector.yaml").read_text()
    save_encoder(load_encoder("logmel"), tmp_path / "encoder", encoder_text("logmel"))
    for wrong, word in (
        (text.replace("!name:lobes.probes.heads.FrameLinear", "!name:os.system"), "nothing was loaded"),
        (text.replace("head:", "hat:"), "no head"),
        (text.replace("window: 4.0", "window: 4.003"), "frames of the encoder"),
        (text.replace("high: 0.6", "height: 0.6"), "height"),
        (text + "colour: red\n", "colour"),
        ("{", "expected a file"),
    ):
        (tmp_path / "detector.yaml").write_text(wrong)
        with pytest.raises(CheckpointError, match=word):
            load_detector(tmp_path)
    (tmp_path / "detector.yaml").write_text(text)  # the head is of 40 mel bands stacked, the encoder of 80
    (tmp_path / "head.safetensors").write_bytes((detector_folder / "head.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="head.safetensors"):
        load_detector(tmp_path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"classes": ["a"], "background": ["a"]}, "classes"),
        ({"background": ["b"]}, "background names 'b'"),
        ({"rules": {"b": EventRule()}}, "rules names 'b'"),
        ({"bands": {"b": (0, 1)}}, "bands names 'b'"),
        ({"activation": "relu"}, "activation"),
        ({"window": 2.0, "hop": 3.0}, "hop 3"),
        ({"window": 2.01}, "such as 2 s"),
    ],
)
def test_what_does_not_fit_is_named(options, word):
    with pytest.raises(ConfigError, match=word):
        Detector(load_encoder("logmel-40-25hz"), FrameLinear, **{"classes": ["a"], **options})


def test_heads_that_cannot_be_built_again_are_refused_when_saving(tmp_path):
    detector = new_detector(head=lambda dim, n: FrameLinear(dim, n))
    with pytest.raises(ConfigError, match="!name:"):
        save_detector(detector, tmp_path, encoder_text("logmel-40-25hz"))
    with pytest.raises(ConfigError, match="another than the one given"):
        save_detector(new_detector(), tmp_path, encoder_text("sm-tiny"))


def test_targets_are_those_of_the_frames_middles():
    calls = [Annotation(0.5, 1.0, "a"), Annotation(1.26, 1.49, "b"), Annotation(2.0, 9.0, "a"), Annotation(0, 9, "c")]
    targets = frame_targets(calls, ["a", "b"], 4.0, 10, start=0.0)
    middles = (np.arange(10) + 0.5) / 4
    for column, label in enumerate("ab"):
        expected = [any(c.label == label and c.start <= m < c.end for c in calls) for m in middles]
        assert targets[:, column].tolist() == expected
    assert np.array_equal(frame_targets(calls, ["a", "b"], 4.0, 6, start=1.0), targets[4:])


def test_the_loss_reads_no_padding():
    logits, targets = torch.randn(2, 6, 3), torch.randint(0, 2, (2, 7, 3)).float()
    valid = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    loss = frame_loss(logits, valid, targets)
    kept = torch.cat([logits[0], logits[1, :2]]), torch.cat([targets[0, :6], targets[1, :2]])
    assert loss == pytest.approx(torch.nn.functional.binary_cross_entropy_with_logits(*kept).item(), abs=1e-6)
    logits[1, 2:] = torch.nan
    assert frame_loss(logits, valid, targets).isfinite()
