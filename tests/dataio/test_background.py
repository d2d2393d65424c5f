"""Background without the call: bands, what is beside a call, and the backgrounds of others."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from lobes.dataio import audio_dataset, collate, read_manifest, write_manifest
from lobes.dataio.background import BackgroundSwap, BandOnly, BandStop, CallBandStop, beside_calls, mix
from lobes.errors import ConfigError, DataError


def sine(hertz, seconds=1.0, rate=16000):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * rate)) / rate)


def manifest_of(folder, parts):
    """A manifest of (id, file, start, stop, group, individual)."""
    rows = [
        {
            "id": name,
            "wav": f"$data_root/{file}",
            "start": start,
            "stop": stop,
            "duration": stop - start,
            "sample_rate": 16000,
            "channel": None,
            "group": group,
            "individual": individual,
        }
        for name, file, start, stop, group, individual in parts
    ]
    return write_manifest(folder / "all.csv", rows, data_root=folder, source="test", licence="CC0")


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_band_and_its_rest_are_the_whole(rate):
    waveform = torch.randn(rate + 7)
    band, rest = BandOnly(500, 1500)(waveform, rate), BandStop(500, 1500)(waveform, rate)
    assert band.shape == rest.shape == waveform.shape
    torch.testing.assert_close(band + rest, waveform, atol=1e-5, rtol=0)
    spectrum = np.abs(np.fft.rfft(band.double().numpy()))
    hertz = np.fft.rfftfreq(len(waveform), 1 / rate)
    outside = (hertz < 470) | (hertz > 1530)
    assert spectrum[outside].max() < 1e-4 * spectrum.max()


def test_a_call_is_gone_from_beside_its_band():
    call, hum = sine(800) * 0.5, sine(100) * 0.01
    torch.testing.assert_close(BandOnly(high_hz=300)(call + hum, 16000), hum, atol=1e-3, rtol=0)
    torch.testing.assert_close(BandStop(400, 1800)(call + hum, 16000), hum, atol=1e-3, rtol=0)
    torch.testing.assert_close(BandStop(9000, 10000)(call, 16000), call, atol=1e-5, rtol=0)
    assert len(BandStop(400, 1800)(torch.zeros(0), 16000)) == 0
    with pytest.raises(ConfigError, match="expected 0 <= low_hz < high_hz"):
        BandOnly(1800, 400)
    with pytest.raises(ConfigError, match="low_hz is 4500: a waveform of 8000 Hz"):
        BandOnly(4500)(call, 8000)


def test_each_call_loses_the_band_that_it_was_annotated_with():
    whole = sine(500) + sine(2000)
    rows = [{"id": "a", "low_hz": "400", "high_hz": "600"}, {"id": "b", "low_hz": "", "high_hz": ""}, {"id": "c"}]
    low, high = sine(500), sine(2000)
    torch.testing.assert_close(CallBandStop()(whole, 16000, rows[0]), high, atol=1e-3, rtol=0)
    for row in rows[1:]:
        torch.testing.assert_close(CallBandStop(1900, 2100)(whole, 16000, row), low, atol=2e-3, rtol=0)
        with pytest.raises(DataError, match=f"{row['id']} has no low_hz and high_hz"):
            CallBandStop()(whole, 16000, row)


def test_mixing_at_a_ratio():
    call, noise = sine(800), torch.randn(3000)
    for snr_db in (-5.0, 0.0, 20.0):
        added = mix(call, noise, snr_db, offset=0.3) - call
        measured = 10 * torch.log10(call.square().mean() / added.square().mean())
        assert float(measured) == pytest.approx(snr_db, abs=0.05)
        torch.testing.assert_close(added[:12000], added[3000:15000], msg="a short background is repeated")
    long = torch.arange(20000.0)
    assert float(mix(torch.zeros(100), long, offset=0.0)[0]) == 0
    last = mix(torch.zeros(100), long, offset=0.99999)
    assert len(last) == 100 and float(last[-1]) == 19999
    for foreground, background, word in [
        (torch.zeros(5), noise, "the foreground is silent"),
        (call, torch.zeros(5), "the background is silent"),
        (call, torch.zeros(0), "cannot be mixed"),
    ]:
        with pytest.raises(DataError, match=word):
            mix(foreground, background, 0.0)


@pytest.fixture
def recordings(tmp_path):
    """Two recordings of 10 s: noise, of a level of its own, with calls at 2-3, 3.2-4.2 and 8.9-9.9 s."""
    parts = []
    for name, level in (("a", 0.01), ("b", 0.1)):
        samples = level * np.random.default_rng(0).standard_normal(160000)
        for n, start in enumerate((2.0, 3.2, 8.9)):
            samples[int(start * 16000) : int((start + 1) * 16000)] += 0.8
            parts.append((f"{name}{n}", f"{name}.wav", start, start + 1.0, name, "AB"[n % 2]))
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
    return manifest_of(tmp_path, parts)


def test_what_is_beside_a_call_holds_no_call(recordings, tmp_path):
    path = beside_calls(recordings, tmp_path / "beside.csv", gap=0.25)
    rows = {row["id"]: row for row in read_manifest(path).rows}
    assert {name: (row["start"], row["stop"]) for name, row in rows.items() if name < "b"} == {
        "a0": (0.75, 1.75),
        "a1": (4.45, 5.45),
        "a2": (7.65, 8.65),
    }
    whole = read_manifest(recordings)
    assert [(row["id"], row["group"], row["individual"]) for row in whole.rows] == [
        (row["id"], row["group"], row["individual"]) for row in rows.values()
    ]
    for item in audio_dataset(path):
        assert float(item["sig"].abs().max()) < 0.7
    assert read_manifest(path).meta["options"]["beside_calls"] is True
    near = read_manifest(beside_calls(recordings, tmp_path / "near.csv", min_seconds=4.0, max_distance=1.0))
    assert [row["id"] for row in near.rows] == ["a1", "a2", "b1", "b2"]
    assert near.meta["skipped"][0] == {"file": "a0", "reason": "has no 4 s of background within 1 s"}


def test_clips_cut_to_their_calls_have_nothing_beside_them(tmp_path, tone):
    tone(tmp_path / "a.wav", 1.0)
    path = manifest_of(tmp_path, [("a", "a.wav", 0.0, 1.0, "g", "A"), ("b", "gone.wav", 0.0, 1.0, "g", "A")])
    with pytest.raises(DataError, match="no call has background beside it.*use BandStop"):
        beside_calls(path, tmp_path / "beside.csv")


def test_the_background_of_another_is_mixed_in(recordings, tmp_path):
    beside = beside_calls(recordings, tmp_path / "beside.csv")
    swap = BackgroundSwap(beside, differs=("group", "individual"), seed=3)
    plain = audio_dataset(recordings)
    swapped = audio_dataset(recordings, transform=swap)
    rows = read_manifest(recordings).rows
    for item, mixed, row in zip(plain, swapped, rows, strict=True):
        chosen = swap.choose(row)
        assert chosen["group"] != row["group"] and chosen["individual"] != row["individual"]
        level = float((mixed["sig"] - item["sig"]).std())
        assert level == pytest.approx({"a": 0.01, "b": 0.1}[chosen["group"]], rel=0.1)
        torch.testing.assert_close(mixed["sig"], swapped[rows.index(row)]["sig"], msg="the same each time")
    chosen = {tuple(swap.choose(row, epoch)["id"] for row in rows) for epoch in range(8)}
    assert len(chosen) > 1, "another epoch, another background"
    with pytest.raises(DataError, match="differs names 'species'"):
        BackgroundSwap(beside, differs="species")
    alone = BackgroundSwap(beside, differs="group")
    with pytest.raises(DataError, match="no background differs from x in group"):
        BackgroundSwap(manifest_of(tmp_path, [("c", "a.wav", 0.0, 1.0, "x", "A")])).choose({"id": "x", "group": "x"})
    assert {alone.choose(row)["group"] for row in rows if row["group"] == "a"} == {"b"}


def test_a_background_loses_the_band_of_its_own_call(tmp_path):
    """And not that of the clip that it is mixed into."""
    rows = []
    for group, hertz in (("a", 500), ("b", 2000)):
        soundfile.write(tmp_path / f"{group}.wav", (0.1 * (sine(hertz) + sine(4000))).numpy(), 16000, subtype="FLOAT")
        row = {"id": group, "wav": f"$data_root/{group}.wav", "start": 0.0, "stop": 1.0, "duration": 1.0}
        row |= {"sample_rate": 16000, "channel": None, "group": group}
        rows.append({**row, "low_hz": hertz - 100, "high_hz": hertz + 100})
    calls = write_manifest(tmp_path / "calls.csv", rows, data_root=tmp_path, source="test", licence="CC0")
    dataset = audio_dataset(calls, transform=BackgroundSwap(calls, filter=CallBandStop()))
    for item, hertz in zip(dataset, (500, 2000), strict=True):
        spectrum = np.abs(np.fft.rfft(item["sig"].numpy())) / 800  # 1 for what is there once
        assert spectrum[[500, 2000]] == pytest.approx([float(hertz == 500), float(hertz == 2000)], abs=0.02)
        assert spectrum[4000] > 1.01, "the background is there"


def test_a_background_that_cannot_be_used_skips_the_item(recordings, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    soundfile.write(silent / "s.wav", np.zeros(16000), 16000)
    parts = [("s", "s.wav", 0.0, 1.0, "s", "C"), ("g", "gone.wav", 0.0, 1.0, "g", "C")]
    dataset = audio_dataset(recordings, transform=BackgroundSwap(manifest_of(silent, parts), snr_db=0.0))
    batch = collate([dataset[i] for i in range(len(dataset))])
    assert len(batch.skipped) == 6
    reasons = " ".join(reason for _, reason in batch.skipped)
    assert "the background is silent" in reasons and "gone.wav" in reasons
    filtered = audio_dataset(
        recordings, transform=BackgroundSwap(recordings, filter=BandStop(0, 4000), snr_db=0.0), max_seconds=0.5
    )
    assert len(filtered[0]["sig"]) == 8000 and filtered[0]["skip_reason"] == ""
