"""One interface for every task: the encoder, how much of it trains, and where its features are kept."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from lobes.adapters import LoRA
from lobes.dataio import audio_dataset, collate, write_manifest
from lobes.errors import ConfigError, DataError
from lobes.probes import AttentionHead, BiLSTMHead, LinearHead, TagSeq2Seq
from lobes.training.downstream import head_of, load_upstream, on_layers, with_layers

GIVEN = {"encoder": "sm-tiny", "untrained": False, "seed": 1, "mode": "frozen", "features": None, "features_gib": 20,
         "head": LinearHead, "normalize_layers": True}  # fmt: skip


@pytest.fixture
def clips(tmp_path):
    """Makes a dataset of noise of three lengths."""
    noise, rows = np.random.default_rng(0), []
    for number, seconds in enumerate((1.0, 0.4, 0.7)):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * noise.standard_normal(round(16000 * seconds)), 16000)
        where = {"id": f"u{number}", "wav": f"$data_root/{number}.wav", "start": 0.0, "stop": seconds}
        rows.append({**where, "duration": seconds, "sample_rate": 16000, "channel": None, "group": f"s{number}"})
    path = write_manifest(tmp_path / "all.csv", rows, data_root=tmp_path, source="noise", licence="CC0-1.0")
    return lambda: audio_dataset(path, 16000, ("id", "sig", "group"))


def trained_share(encoder):
    count = [p.numel() for p in encoder.parameters()]
    return sum(p.numel() for p in encoder.parameters() if p.requires_grad) / sum(count)


def test_one_word_says_how_much_is_trained():
    shares = {mode: trained_share(load_upstream({**GIVEN, "mode": mode})) for mode in ("frozen", "finetune", "LoRA")}
    assert shares["frozen"] == 0 and shares["finetune"] == 1 and 0 < shares["LoRA"] < 0.2
    method = LoRA(rank=1)
    assert 0 < trained_share(load_upstream({**GIVEN, "mode": method})) < shares["LoRA"]
    for wrong in ("tuned", "roles", "Adaptation"):
        with pytest.raises(ConfigError, match=f"mode is '{wrong}': expected frozen, finetune, or one of BitFit"):
            load_upstream({**GIVEN, "mode": wrong})


def test_a_head_is_named_like_a_mode():
    encoder = load_upstream({**GIVEN, "head": "BiLSTMHead"})
    assert isinstance(on_layers({**GIVEN, "head": "BiLSTMHead"}, encoder, 3).probe.head, BiLSTMHead)
    assert head_of(GIVEN) is LinearHead
    for wrong in ("BiLSTM", "Probe", "AMSoftmax", "ctc_loss", 3):
        with pytest.raises(ConfigError, match="head is .*: expected one of AttentionHead, .*BiLSTMHead") as told:
            load_upstream({**GIVEN, "head": wrong, "encoder": "is not looked for"})
        assert repr(wrong) in str(told.value)


def test_a_head_writes_where_there_is_a_search_and_nowhere_else():
    for head in ("AttentionHead", partial(AttentionHead, depth=1)):
        assert head_of({"head": head, "search": {"beam": 2}}) and head_of({"head": head, "coding": TagSeq2Seq})
        for searchless in ({}, {"search": None}):
            with pytest.raises(ConfigError, match="AttentionHead.*, which attends, and search is null"):
                load_upstream({**GIVEN, "head": head, "encoder": "is not looked for", **searchless})
    for head in ("LinearHead", partial(BiLSTMHead, hidden=8)):
        with pytest.raises(ConfigError, match="head is .*Head.*search is given: expected lobes.probes.AttentionHead"):
            load_upstream({**GIVEN, "head": head, "encoder": "is not looked for", "search": {"beam": 2}})


def test_features_from_anywhere_are_the_same(clips, tmp_path):
    encoder = load_upstream(GIVEN)
    model = on_layers(GIVEN, encoder, 3).eval()
    found = {}
    for name, where in {"each step": None, "memory": "memory", "folder": str(tmp_path / "cache")}.items():
        [dataset] = with_layers({**GIVEN, "features": where}, encoder, [clips()])
        [batch] = DataLoader(dataset, batch_size=3, collate_fn=collate)
        assert hasattr(batch, "layers") != hasattr(batch, "sig") and (where is None) == hasattr(batch, "sig")
        with torch.no_grad():
            found[name], valid = model(batch)
        assert int(valid.sum()) > 50
    torch.testing.assert_close(found["memory"], found["each step"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["folder"], found["each step"], atol=2e-3, rtol=0)
    # Another head, another run: nothing is computed again.
    encoder.forward = None
    with_layers({**GIVEN, "features": str(tmp_path / "cache")}, encoder, [clips()])
    other = load_upstream({**GIVEN, "untrained": True})
    with pytest.raises(DataError, match="another teacher"):
        with_layers({**GIVEN, "features": str(tmp_path / "cache")}, other, [clips()])


def test_features_that_need_more_room_than_is_allowed_are_not_computed(clips, tmp_path):
    encoder = load_upstream(GIVEN)
    little = {**GIVEN, "features": str(tmp_path / "cache"), "features_gib": 1e-6}
    with pytest.raises(ConfigError, match=r"features_gib is 1e-06, too little .* \(targets would take .* GiB"):
        with_layers(little, encoder, [clips()])
    assert not list((tmp_path / "cache").glob("*.npy"))
    with_layers({**little, "features_gib": 0.01}, encoder, [clips()])
    assert list((tmp_path / "cache").glob("*.npy"))


def test_what_is_trained_is_heard_anew(clips, tmp_path):
    tuned = {**GIVEN, "mode": "LoRA", "features": "memory"}
    encoder = load_upstream(tuned)
    [dataset] = with_layers(tuned, encoder, [clips()])
    model = on_layers(tuned, encoder, 3)
    [batch] = DataLoader(dataset, batch_size=3, collate_fn=collate)
    model(batch)[0].sum().backward()
    adapted = [p for p in encoder.parameters() if p.requires_grad]
    assert adapted and any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted)
    assert len(model.parameter_groups(1e-3)) == 2
