"""Adversarial reprogramming: where the learned waveform is put, and which frames come back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from adapter_cases import Wrapper, adapted, batch, disturb, hear, own, pretrained, same

from lobes.adapters import LabelMapping, LoRA, Reprogramming, adapter_macs, trainable_share
from lobes.encoders import EfficientNetV2, EncoderOutput, LogMel, LogMelEncoder
from lobes.errors import ConfigError, DataError
from lobes.mixers import SummaryMixing
from lobes.training import costs


def delta(module) -> torch.Tensor:
    return module.reprogramming.adapters["default"].delta.detach()


@pytest.mark.parametrize("encoder", ["summary", "hubert", "wrapper"])
@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.0])
def test_onto_repeats_and_crops(encoder, seconds):
    module = disturb(Reprogramming(seconds=seconds).apply(pretrained(encoder)))
    program = delta(module)
    assert program.shape == (round(16000 * seconds),)
    waveform, lengths = batch((6400, 2301), fill=torch.nan)
    by_hand = waveform + program.repeat(6400 // len(program) + 1)[:6400]
    assert same(hear(module, waveform, lengths), hear(pretrained(encoder), by_hand, lengths))


@pytest.mark.parametrize("encoder", ["summary", "hubert", "wrapper"])
@pytest.mark.parametrize(("offset", "frame"), [(0.0, 0), (0.13, None)])
def test_around_puts_the_clip_in_and_takes_its_frames_out(encoder, offset, frame):
    module = disturb(Reprogramming(seconds=0.6, place="around", offset=offset).apply(pretrained(encoder)))
    program, period = delta(module), 640 if encoder == "summary" else 40
    frame = round(offset * 16000) // period if frame is None else frame
    start = frame * period
    waveform, lengths = batch((6400, 2301), fill=torch.nan)
    put_in = program.repeat(2, 1)
    put_in[0, start : start + 6400], put_in[1, start : start + 2301] = waveform[0], waveform[1, :2301]
    whole = hear(pretrained(encoder), put_in, torch.ones(2))
    ours, plain = hear(module, waveform, lengths), hear(pretrained(encoder), waveform, lengths)
    assert torch.equal(ours.valid, plain.valid) and ours.frames.shape == plain.frames.shape
    for row, count in enumerate(plain.valid.sum(1).tolist()):
        torch.testing.assert_close(ours.frames[row, :count], whole.frames[row, frame : frame + count])
        for layer, theirs in zip(ours.layers, whole.layers, strict=True):
            torch.testing.assert_close(layer[row, :count], theirs[row, frame : frame + count])


def test_a_clip_that_does_not_fit_is_named():
    module = adapted("summary", "around")
    with pytest.raises(DataError, match="a clip has 7681 samples; expected at most 7680, into which it is put"):
        hear(module, torch.zeros(1, 7681), torch.ones(1))
    assert hear(module, torch.zeros(1, 7680), torch.ones(1)).valid.sum() == 12


def test_it_hears_the_rate_of_what_stands_around_the_model():
    class Resampling(torch.nn.Module):
        """Takes 8 kHz, and gives a model of 16 kHz every sample twice."""

        sample_rate, frame_rate = 8000, 400.0

        def __init__(self) -> None:
            super().__init__()
            self.encoder = Wrapper(pretrained("hubert"))

        def n_frames(self, samples: torch.Tensor) -> torch.Tensor:
            return self.encoder.n_frames(2 * samples)

        def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> EncoderOutput:
            return self.encoder(waveform.repeat_interleave(2, dim=1), lengths)

    wrapper = Resampling()
    plain = hear(wrapper, *batch((3200, 1500)))
    Reprogramming(seconds=0.6, place="around", offset=0.1).apply(wrapper)
    assert delta(wrapper).shape == (4800,)
    ours = hear(wrapper, *batch((3200, 1500)))
    assert ours.frames.shape == plain.frames.shape and torch.equal(ours.valid, plain.valid)


def test_keywords_and_a_missing_mask():
    model = disturb(Reprogramming(seconds=0.1).apply(pretrained("hubert")))
    waveform = torch.randn(2, 1600)
    one, other = model(waveform), model(input_values=waveform, attention_mask=torch.ones(2, 1600).long())
    torch.testing.assert_close(one.last_hidden_state, other.last_hidden_state, atol=1e-5, rtol=1e-5)
    encoder = disturb(Reprogramming(seconds=0.1).apply(own(SummaryMixing).eval()))
    assert torch.equal(
        encoder(waveform, torch.ones(2)).frames, encoder(waveform=waveform, lengths=torch.ones(2)).frames
    )


def test_wrong_options_and_encoders_are_refused():
    with pytest.raises(ConfigError, match="place is 'in'; expected onto or around"):
        Reprogramming(place="in")
    with pytest.raises(ConfigError, match="seconds is 1 and offset 1; expected 0 <= offset < seconds"):
        Reprogramming(offset=1.0)
    with pytest.raises(ConfigError, match="Linear takes no waveform; expected an encoder of ours"):
        Reprogramming().apply(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="where the frames of LogMelEncoder lie is not known; expected place: onto"):
        Reprogramming(place="around").apply(LogMelEncoder(LogMel()))


def test_features_without_a_weight_can_be_reprogrammed():
    encoder = LogMelEncoder(LogMel())
    before = hear(encoder, *batch())
    disturb(Reprogramming(seconds=0.1).apply(encoder))
    assert not same(hear(encoder, *batch()), before)


def test_an_encoder_of_convolutions_alone():
    encoder = EfficientNetV2(LogMel(n_mels=20), 16, [("fused", 8, 1, 2), ("mbconv", 8, 2, 2)]).eval()
    before = hear(encoder, *batch())
    LoRA(rank=2, targets=["ffn", "mixer"]).apply(encoder, "lora")
    Reprogramming(seconds=0.6, place="around").apply(encoder, "around")
    after = hear(encoder, *batch())
    assert torch.equal(before.valid, after.valid) and after.layers[0].shape == before.layers[0].shape
    assert trainable_share(encoder) > 0


def test_labels_are_mapped_many_to_one():
    mapping = LabelMapping(11, 3, seed=1)
    assert mapping.groups.shape == (3, 3) and len(mapping.groups.unique()) == 9
    logits = torch.randn(2, 5, 11)
    expected = torch.stack([logits.softmax(-1)[..., group].mean(-1) for group in mapping.groups], dim=-1)
    torch.testing.assert_close(mapping(logits).exp(), expected)
    assert torch.equal(LabelMapping(11, 3, seed=1).groups, mapping.groups)
    assert not torch.equal(LabelMapping(11, 3, seed=2).groups, mapping.groups)
    assert LabelMapping(11, 3, per_target=1).groups.shape == (3, 1)
    for options in ({"per_target": 4}, {"n_target": 12}, {"n_target": 0}):
        with pytest.raises(ConfigError, match="expected no more than n_source = 11"):
            LabelMapping(**{"n_source": 11, "n_target": 3, **options})


@pytest.mark.parametrize(("seconds", "heard"), [(0.6, 0.47), (20.0, 10.0)])
def test_a_run_costs_what_the_longest_clip_does(seconds, heard):
    encoder = Reprogramming(seconds=seconds, place="around", offset=0.13).apply(pretrained("sdpa"))
    found = costs(SimpleNamespace(modules=encoder, audio_seconds=0.0, wall_seconds=0.0), encoder)["macs_per_second"]
    assert found * heard == pytest.approx(encoder.macs(heard) + adapter_macs(encoder, heard)) and found > 0
