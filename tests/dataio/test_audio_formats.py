"""What field recorders write: extensible headers, 8 to 32 bits, 96 kHz, stereo, files beyond 4 GB, and broken ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from lobes.dataio import AudioError, Clip, audio_info, check_audio, read_audio, scan_clips

RATE = 96000
#: The sub-format of PCM in an extensible header, KSDATAFORMAT_SUBTYPE_PCM.
PCM_GUID = struct.pack("<IHH8s", 1, 0, 0x0010, bytes([0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]))


def wave_file(integers, bits, *, extensible, rate=RATE):
    """A RIFF/WAVE file by hand: integers (frames, channels) of so many bits, little-endian; 8 bits are unsigned."""
    channels, width = integers.shape[1], bits // 8
    samples = integers.astype("<i8") + (128 if bits == 8 else 0)
    data = b"".join(int(value).to_bytes(width, "little", signed=bits > 8) for value in samples.ravel())
    tag = 0xFFFE if extensible else 1
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, bits)
    if extensible:
        form += struct.pack("<HHI", 22, bits, 0) + PCM_GUID
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in ((b"fmt ", form), (b"data", data))
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_integers_of_any_width_are_read_exactly(tmp_path, bits, channels, extensible):
    full = 2 ** (bits - 1)
    integers = np.random.default_rng(bits).integers(-full, full, (4801, channels))
    path = tmp_path / "x.wav"
    path.write_bytes(wave_file(integers, bits, extensible=extensible))
    assert check_audio(path) == audio_info(path)
    assert (audio_info(path).frames, audio_info(path).sample_rate, audio_info(path).channels) == (4801, RATE, channels)
    expected = integers / full
    np.testing.assert_allclose(read_audio(path, None), expected.mean(axis=1), atol=3e-7)
    np.testing.assert_allclose(read_audio(path, None, channel=channels - 1), expected[:, -1], atol=3e-7)
    part = read_audio(path, None, start=0.01, stop=0.02)
    np.testing.assert_array_equal(part, read_audio(path, None)[960:1920])
    assert len(read_audio(path, 16000)) == 801


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAVEX", "PCM_24"),
        ("WAVEX", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_24"),
        ("AIFF", "PCM_24"),
    ],
)
def test_other_containers_of_wide_samples(tmp_path, container, subtype):
    samples = 0.3 * np.random.default_rng(0).standard_normal((9600, 2)).clip(-3, 3)
    path = tmp_path / "x.wav"
    soundfile.write(path, samples, RATE, format=container, subtype=subtype)
    np.testing.assert_allclose(read_audio(path, None), samples.mean(axis=1), atol=4e-5)
    content = path.read_bytes()
    for kept in (len(content) - 1, len(content) // 2, 40):
        path.write_bytes(content[:kept])
        for read in (audio_info, read_audio, check_audio):
            with pytest.raises(AudioError, match="truncated" if kept > 40 else "not readable audio"):
                read(path)


def test_a_folder_of_a_field_season_is_scanned_to_its_end(tmp_path):
    integers = np.random.default_rng(0).integers(-100, 100, (960, 2))
    good = {f"{bits}{kind}.wav": wave_file(integers, bits, extensible=kind == "x") for bits in (8, 24) for kind in "px"}
    whole = good["24x.wav"]
    at = whole.index(b"data") + 4
    bad = {
        "empty.wav": (b"", "is empty"),
        "cut.wav": (whole[: len(whole) // 2], "is truncated: "),
        "cut_in_header.wav": (whole[:30], "is not readable audio"),
        "power_lost.wav": (whole[:at] + b"\0\0\0\0" + whole[at + 4 :], "holds no samples"),
        "no_samples.wav": (wave_file(integers[:0], 24, extensible=True), "holds no samples"),
        "zeros.wav": (bytes(4096), "is not readable audio"),
    }
    for name, content in {**good, **{name: content for name, (content, _) in bad.items()}}.items():
        (tmp_path / name).write_bytes(content)
    clips = [Clip(name, name, "recorder") for name in (*bad, *good)]
    scan = scan_clips(clips, tmp_path, tmp_path / "save", corpus="season")
    assert [(row["id"], row["sample_rate"], row["duration"]) for row in scan.rows] == [
        (name, RATE, 0.01) for name in good
    ]
    reasons = dict(scan.skipped)
    assert set(reasons) == set(bad)
    assert all(word in reasons[name] for name, (_, word) in bad.items()), reasons
