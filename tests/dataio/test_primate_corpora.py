"""Corpora of gibbons and other primates: tiny ones in the layout of the real ones, with broken files among them."""

from __future__ import annotations

import json
import math

import pytest
from primate_corpora import HAINAN_CALLS, write_hainan, write_macaques, write_marmosets, write_yellow_cheeked

from lobes.dataio import audio_dataset, make_folds, read_manifest, validate_splits
from lobes.dataio.annotations import Annotation, read_annotations
from lobes.dataio.corpora import (
    prepare_annotated_folder,
    prepare_borneo_sulawesi,
    prepare_danum_clips,
    prepare_gibbon_females,
    prepare_hainan_gibbon,
    prepare_infant_marmosets,
    prepare_macaque_coos,
    prepare_siamang,
    prepare_yellow_cheeked_gibbon,
)
from lobes.dataio.corpora.danum_clips import DUET_OR_NOISE
from lobes.dataio.corpora.hainan_gibbon import window_types
from lobes.errors import ConfigError, DataError


def skipped_of(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


def rows_of(path):
    return {row["id"]: row for row in read_manifest(path).rows}


@pytest.fixture
def danum(tmp_path, tone, broken):
    """{class}_{recorder}_{date}_{time}_{start}_{end}_.wav beside a folder of selection tables."""
    folder = tmp_path / "danum"
    for recorder in ("S10", "S11", "S12"):
        for n, kind in enumerate(("duet", "noise", "hornbill.helmeted")):
            tone(folder / f"{kind}_{recorder}_20180620_080003_{n}.25_{n + 1}_.wav", 0.2)
    tone(folder / "solo_S10_20180621_060002_1800_1806.5_.wav", 0.2)
    broken(folder, prefix="duet_S10_")
    (folder / "duet_S10_empty.wav").rename(folder / "duet_S10_20180620_080003_5_6_.wav")
    (folder / "selection_tables").mkdir()
    (folder / "selection_tables" / "S10_20180620_080003.Table.1.selections.txt").write_text("Selection\n")
    return folder


def test_danum_clips_are_read_off_their_names(danum, tmp_path):
    path = prepare_danum_clips(danum, tmp_path / "save")["all"]
    rows = rows_of(path)
    row = rows["hornbill.helmeted_S11_20180620_080003_2.25_3_"]
    wanted = {"call_type": "hornbill.helmeted", "recorder": "S11", "recording": "S11_20180620_080003", "begin": "2.25"}
    assert {key: row[key] for key in wanted} == wanted and row["group"] == "S11"
    assert len(rows) == 10
    skipped = skipped_of(path)
    assert skipped["duet_S10_20180620_080003_5_6_.wav"] == "is empty (0 bytes)"
    assert "is not named {class}" in skipped["duet_S10_nan.wav"]
    two = read_manifest(prepare_danum_clips(danum, tmp_path / "save", classes=DUET_OR_NOISE, group="recording")["all"])
    assert len(two) == 6 and two.groups[0] == "S10_20180620_080003"
    with pytest.raises(ConfigError, match="classes names 'gibon'.*it has duet, hornbill.helmeted, noise, solo"):
        prepare_danum_clips(danum, tmp_path / "save", classes=["gibon"])
    with pytest.raises(ConfigError, match="group is 'clip': expected one of recorder, recording"):
        prepare_danum_clips(danum, tmp_path / "save", group="clip")


def test_a_clip_of_a_name_that_is_taken_is_left_out(danum, tmp_path, tone):
    tone(danum / "copy" / "duet_S10_20180620_080003_0.25_1_.flac", 0.2)
    path = prepare_danum_clips(danum, tmp_path / "save")["all"]
    assert len(rows_of(path)) == 10 and len([r for r in skipped_of(path).values() if "which is taken" in r]) == 1


def test_gibbon_females_are_grouped_by_recording_and_refuse_honest_folds(tmp_path, tone):
    folder = tmp_path / "females" / "data" / "FemaleGibbons"
    for female in ("DK02_021", "MB01_564"):
        for call in range(1, 4):
            tone(folder / f"{female}.{call:02d}.wav", 0.2)
    path = prepare_gibbon_females(tmp_path / "females", tmp_path / "save")["all"]
    row = rows_of(path)["MB01_564.02"]
    assert (row["individual"], row["recording"], row["call"], row["group"]) == ("MB01", "MB01_564", "02", "MB01_564")
    with pytest.raises(DataError, match="each individual occurs in one group only.*clips at random"):
        make_folds(path, tmp_path / "folds", label="individual")


@pytest.fixture
def siamang(tmp_path, tone):
    """original_data/audio with two crops of each call, and a table of annotations per session, in milliseconds."""
    folder = tmp_path / "siamang"
    for session, names in {"9_June_session1": ["Baju", "Fajar"], "11_June_session2": ["Fajar"] * 11}.items():
        lines = ['"Begin Time - msec","End Time - msec","Sequence","Sequence_number","Sequence_individual"']
        for n, name in enumerate(names):
            seconds = 0.2 + 0.05 * n
            tone(folder / "original_data" / "audio" / f"opp_{session}_{n}_{n + 1}.wav", seconds)
            tone(folder / "original_data" / "audio" / f"_opp_{session}_{n}_{n + 1}.wav", seconds + 0.5)
            lines.append(f'{n * 5000},{n * 5000 + seconds * 1000:.0f},""," {n + 1}","{name}"')
        table = folder / "R_scripts" / "processing_and_analyses" / "annotations"
        table.mkdir(parents=True, exist_ok=True)
        (table / f"opp_{session}_siamang_locomotionvocal_KePoV1.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_siamang_calls_are_joined_to_their_rows(siamang, tmp_path, tone):
    audio = siamang / "original_data" / "audio"
    tone(audio / "opp_9_June_session1_7_8.wav", 0.2)
    tone(audio / "opp_9_June_session1_1_2.wav", 0.9)  # another call's length
    path = prepare_siamang(siamang, tmp_path / "save")["all"]
    rows = rows_of(path)
    assert len(rows) == 12 and {row["crop"] for row in rows.values()} == {"call"}
    row = rows["opp_11_June_session2_10_11"]
    assert (row["individual"], row["group"], row["call"]) == ("Fajar", "11_June_session2", "11_June_session2_10")
    skipped = skipped_of(path)
    assert "has no row 7" in skipped["original_data/audio/opp_9_June_session1_7_8.wav"]
    assert "another call's" in skipped["original_data/audio/opp_9_June_session1_1_2.wav"]
    both = rows_of(prepare_siamang(siamang, tmp_path / "save", crops="both")["all"])
    calls = [row["call"] for row in both.values()]
    assert len(both) == 25 and all(calls.count(call) == 2 for call in set(calls) - {"9_June_session1_1"})
    after = rows_of(prepare_siamang(siamang, tmp_path / "save", crops="after")["all"])
    assert {round(row["duration"], 3) for row in after.values()} == {0.5}
    assert after["_opp_9_June_session1_1_2"]["start"] == 0.25
    folds = make_folds(tmp_path / "save" / "all.csv", tmp_path / "folds", label="individual")
    assert set(folds) == {"9_June_session1", "11_June_session2"}


def test_borneo_and_sulawesi(tmp_path, tone):
    for name in ("FemaleGibbon_1", "MaleSolo_2", "GreatArgus_4"):
        tone(tmp_path / "cc0" / "FocalRecordings" / f"{name}.wav", 0.2, 44100)
    for name in ("Borneo_Morning_01", "Borneo_Morning_02", "Sulawesi_Night_01"):
        tone(tmp_path / "cc0" / "SoundscapeRecordings" / f"{name}.wav", 0.2, 48000)
    rows = rows_of(prepare_borneo_sulawesi(tmp_path / "cc0", tmp_path / "save")["all"])
    assert len(rows) == 6
    assert rows["MaleSolo_2"]["call_type"] == "MaleSolo" and rows["MaleSolo_2"]["group"] == "MaleSolo_2"
    row = rows["Borneo_Morning_02"]
    assert (row["part"], row["site"], row["time_of_day"]) == ("soundscape", "Borneo", "Morning")
    assert row["group"] == rows["Borneo_Morning_01"]["group"] != rows["Sulawesi_Night_01"]["group"]
    focal = read_manifest(prepare_borneo_sulawesi(tmp_path / "cc0", tmp_path / "save", part="focal")["all"])
    assert len(focal) == 3 and focal.meta["licence"] == "CC0-1.0"


def test_yellow_cheeked_gibbons_by_folder_and_recorder(tmp_path, tone):
    names = ["Gibbons/Gibbons_H_R1023_20220426_060002_2749", "Gibbons/Gibbons__R1062_20220413_100003_2827"]
    names += ["Noise/Noise_R1062_20220413_100003_12.5_", "Noise/whatever", "Other/Other_R1062_20220413_100003_1"]
    write_yellow_cheeked(tmp_path / "yellow", tone, names)
    more = "Jahoo_trainingdata_manual_annotations_addDanum"
    grey = ["GreyGibbons/Gibbons_SW10_20180312_060002_6731.34_6738.04_"]
    write_yellow_cheeked(tmp_path / "yellow", tone, grey, more)
    path = prepare_yellow_cheeked_gibbon(tmp_path / "yellow", tmp_path / "save")["all"]
    rows = rows_of(path)
    assert sorted((row["call_type"], row["group"], row["recording"]) for row in rows.values()) == [
        ("crested_gibbon", "R1023", "R1023_20220426_060002"),
        ("crested_gibbon", "R1062", "R1062_20220413_100003"),
        ("noise", "R1062", "R1062_20220413_100003"),
    ]
    reasons = skipped_of(path)
    assert any("group is unknown" in reason for reason in reasons.values())
    assert any("in no folder of a class" in reason for reason in reasons.values())
    grey = prepare_yellow_cheeked_gibbon(tmp_path / "yellow", tmp_path / "save", clips_folder=more)["all"]
    assert [(row["call_type"], row["group"]) for row in rows_of(grey).values()] == [("grey_gibbon", "SW10")]


def test_marmosets_are_parts_of_recordings_grouped_by_session(tmp_path, tone):
    lines = [
        "20160907_Twin1_marmoset1,0.0,0.5,0.5,1,0",
        "20160907_Twin1_marmoset1,0.5,0.6,0.1,11,0",
        "20160907_Twin1_marmoset2,0.25,1.0,0.75,10,1",
        "20160910_Twin5_marmoset2,1.5,2.75,1.25,2,9",
        "20160910_Twin5_marmoset2,1.0,1.5,0.5,99,9",
        "20160910_Twin5_marmoset2,0.5,1.5,1.0,0,9",
        "20161001_Twin2_marmoset1,0.5,1.5,1.0,3,2",
        "20161001_Twin2_marmoset1,1.5,1.75,1.0,3,2",
    ]
    recordings = ("20160907_Twin1_marmoset1", "20160907_Twin1_marmoset2", "20160910_Twin5_marmoset2")
    folder = write_marmosets(tmp_path / "marmosets", tone, lines, recordings, 2.0)
    path = prepare_infant_marmosets(folder, tmp_path / "save")["all"]
    manifest = read_manifest(path)
    assert [(row["call_type"], row["individual"], row["group"]) for row in manifest.rows] == [
        ("phee", "twin1_marmoset1", "20160907_Twin1"),
        ("peep", "twin1_marmoset2", "20160907_Twin1"),
        ("peep_pre_phee", "twin5_marmoset2", "20160910_Twin5"),
    ]
    assert [(row["start"], row["stop"]) for row in manifest.rows] == [(0.0, 0.5), (0.25, 1.0), (0.5, 1.5)]
    assert len(audio_dataset(path, 16000)[1]["sig"]) == 12000
    text = json.dumps(manifest.meta["skipped"])
    assert "call type '11' is none of 0 to 10: 1 lines" in text and "call type '99'" in text
    assert text.count("20161001_Twin2_marmoset1") == 1 and "1.5-2.75 s" in text
    (folder / "labels.csv").write_text("\n".join(["filename,start,end,duration,calltype,caller", "someone,0,1,1,1,0"]))
    with pytest.raises(DataError, match="labels.csv, call 0: filename is 'someone'"):
        prepare_infant_marmosets(folder, tmp_path / "save")


def test_macaques_are_in_folders_of_their_names(tmp_path, tone):
    write_macaques(tmp_path / "macaques", tone, ("AL/AL1", "AL/AL2", "TW/TW1", "notes/x"))
    path = prepare_macaque_coos(tmp_path / "macaques", tmp_path / "save")["all"]
    assert [(row["individual"], row["group"]) for row in read_manifest(path).rows] == [("AL", "AL")] * 2 + [
        ("TW", "TW")
    ]
    with pytest.raises(DataError, match="no fold can test"):
        make_folds(path, tmp_path / "folds", label="individual")


@pytest.fixture
def hainan(tmp_path, tone):
    """Eleven recordings with their labels."""
    return write_hainan(tmp_path / "hainan", tone)


def beans_by_the_letter(seconds, calls):
    """BEANS's protocol, written down a second time: seconds -> {(start, stop of a window): types}."""
    per_chunk = {}
    for start, end, kind in calls:
        for chunk in range(int(start // 60), int(end // 60) + 1):
            first, last = chunk == int(start // 60), chunk == int(end // 60)
            per_chunk.setdefault(chunk, []).append(
                (start - chunk * 60 if first else 0, end - chunk * 60 if last else 60, kind)
            )
    windows = {}
    for chunk in range(math.ceil(seconds / 60)):
        length = min(60, seconds - chunk * 60)
        for n in range(int((length - 4) / 2) + 1 if chunk % 3 == 0 else 0):
            st, ed, kinds = 2 * n, 2 * n + 4, set()
            for a, b, kind in per_chunk.get(chunk, []):
                kind = kind if kind in (1, 2, 3) else 1
                if st <= a <= ed or st <= b <= ed:
                    denominator = min(ed - st, b - a)
                    if denominator and (min(ed, b) - max(st, a)) / denominator > 0.2:
                        kinds.add(kind)
                if a <= st and ed <= b:
                    kinds.add(kind)
            windows[chunk * 60 + st] = sorted(kinds)
    return windows


def test_hainan_by_the_protocol_of_beans(hainan, tmp_path):
    paths = prepare_hainan_gibbon(hainan, tmp_path / "save")
    splits = validate_splits(paths)
    assert [len(splits[name].groups) for name in ("train", "valid", "test")] == [6, 3, 2]
    names = sorted(path.stem for path in (hainan / "Train").iterdir())
    assert splits["train"].groups == names[:6] and splits["test"].groups == names[9:]
    for name, seconds in ((names[0], 247.5), (names[3], 67.0)):
        rows = [row for row in splits["train"].rows if row["recording"] == name]
        found = {row["start"]: [int(kind) for kind in row["types"].split()] for row in rows}
        assert found == beans_by_the_letter(seconds, HAINAN_CALLS)
    first = [row for row in splits["train"].rows if row["recording"] == names[0]]
    assert len(first) == 2 * 29 and {row["start"] // 60 for row in first} == {0, 3}
    assert {row["types"] for row in first} == {"", "1", "2"} and {row["duration"] for row in first} == {4.0}
    assert skipped_of(paths["test"]) == {}


def test_hainan_in_full_for_folds_by_recording_or_recorder(hainan, tmp_path):
    name = sorted(path.stem for path in (hainan / "Train").iterdir())[0]
    (hainan / "Train_Labels" / f"g_{name}.data").unlink()
    path = prepare_hainan_gibbon(hainan, tmp_path / "save", protocol="full", window=5.0, hop=5.0)["all"]
    whole = read_manifest(path)
    assert len(whole.groups) == 10 and len(whole) == 140
    assert skipped_of(path) == {f"Train/{name}.wav": f"has no labels g_{name}.data"}
    last = [row for row in whole.rows if row["recording"] == whole.groups[0]][-1]
    assert (last["start"], last["stop"]) == (65.0, 67.0), "the last window is kept"
    calls = read_annotations(hainan / "Train_Labels" / f"g_{whole.groups[0]}.data")
    for row in whole.rows[:14]:
        assert row["types"].split() == window_types(calls, row["start"], row["start"] + 5.0)
    recorders = read_manifest(
        prepare_hainan_gibbon(hainan, tmp_path / "save", protocol="full", group="recorder")["all"]
    )
    assert recorders.groups == ["HGSM3A", "HGSM3B", "HGSM3C", "HGSM3D"]
    with pytest.raises(ConfigError, match="BEANS has 4, 2 and recording"):
        prepare_hainan_gibbon(hainan, tmp_path / "save", window=5.0)
    for path in sorted((hainan / "Train").iterdir())[:2]:
        path.unlink()
    with pytest.raises(DataError, match="has 9 recordings: BEANS needs 10"):
        prepare_hainan_gibbon(hainan, tmp_path / "save")


def test_a_window_is_of_a_type_from_a_fifth_on():
    call = Annotation(10.0, 20.0, "3")
    assert window_types([call], 6.75, 10.75) == [] and window_types([call], 6.85, 10.85) == ["3"]
    assert window_types([Annotation(1.0, 1.0, "1")], 0, 4) == []
    assert window_types([Annotation(1.0, 3.0, "4"), Annotation(2.0, 3.0, "2.0")], 0, 4) == ["1", "2"]


def test_own_recordings_with_own_annotations(tmp_path, tone):
    folder, tables = tmp_path / "field", tmp_path / "tables"
    for name in ("S1/dawn.wav", "S2/dawn.wav", "S2/dusk.wav"):
        tone(folder / name, 10.0, 8000, channels=2)
    (tables / "S1").mkdir(parents=True)
    (tables / "S1" / "dawn.txt").write_text("1\t2\tduet\n\\\t400\t1600\n8\t9\targus\n9.5\t11\tduet\n30\t31\tduet\n")
    (tables / "dusk.csv").write_text("start,end,Species,channel\n0,1,deut,1\n2,3,,0\n")
    (tables / "night.csv").write_text("start,end,Species\n0,1,duet\n")
    options = {"annotations": tables, "rename": {"deut": "duet"}, "group": r"(S\d)/"}
    path = prepare_annotated_folder(folder, tmp_path / "save", **options)["all"]
    rows = rows_of(path)
    assert [(r["start"], r["stop"], r["call_type"], r["group"], r["low_hz"], r["channel"]) for r in rows.values()] == [
        (1.0, 2.0, "duet", "S1", "400", None),
        (8.0, 9.0, "argus", "S1", "", None),
        (9.5, 10.0, "duet", "S1", "", None),
        (0.0, 1.0, "duet", "S2", "", 1),
    ]
    text = json.dumps(read_manifest(path).meta["skipped"])
    assert "30-31 s 'duet': begins after the end" in text and "ends 1.000 s after the file" in text
    assert "night" in text and "no such recording" in text
    before = path.stat().st_mtime_ns
    assert prepare_annotated_folder(folder, tmp_path / "save", **options)["all"].stat().st_mtime_ns == before
    (tables / "dusk.csv").write_text("start,end,Species,channel\n0,1,solo,1\n2,3,,0\n")  # as long as before
    assert (
        rows_of(prepare_annotated_folder(folder, tmp_path / "save", **options)["all"])["S2/dusk.wav:0"]["call_type"]
        == "solo"
    )
    assert len(rows_of(prepare_annotated_folder(folder, tmp_path / "save", **options, classes=["argus"])["all"])) == 1
    with pytest.raises(DataError, match="none of 5 annotations can be used; labels are '', 'argus'"):
        prepare_annotated_folder(folder, tmp_path / "save", **options, classes=["hornbill"])


def test_recordings_without_annotations_are_silent_or_left_out(tmp_path, tone):
    folder = tmp_path / "field"
    for name in ("S1/call", "S1/header", "S2/blank", "S2/other", "S3/none", "S3/broken", "S3/late"):
        tone(folder / f"{name}.wav", 10.0, 8000)
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tCall type\n"
    row = "1\tSpectrogram 1\t1\t{}\t{}\t{}\n"
    (folder / "S1" / "call.Table.1.selections.txt").write_text(header + row.format(1, 4, "duet"))
    (folder / "S1" / "header.Table.1.selections.txt").write_text(header)
    (folder / "S2" / "blank.txt").write_text("")  # as of Audacity
    (folder / "S2" / "other.Table.1.selections.txt").write_text(header + row.format(1, 2, "argus"))
    (folder / "S3" / "broken.Table.1.selections.txt").write_text(header + row.format(1, "two", "duet"))
    (folder / "S3" / "late.Table.1.selections.txt").write_text(header + row.format(30, 31, "duet"))
    (folder / "gone.Table.1.selections.txt").write_text(header)
    options = {"group": "parent", "classes": ["duet"]}

    def prepared(**more):
        path = prepare_annotated_folder(folder, tmp_path / "save", **options, **more)["all"]
        rows = {row["recording"]: (row["call_type"], row["stop"]) for row in read_manifest(path).rows}
        return rows, {entry["file"]: entry["reason"] for entry in read_manifest(path).meta["skipped"]}

    call = {"S1/call.wav": ("duet", 4.0)}
    rows, skipped = prepared()
    assert rows == call and "is named by no annotation table" in skipped["S3/none.wav"]
    silent = {f"{name}.wav": ("background", 1.0) for name in ("S1/header", "S2/blank", "S2/other")}
    rows, skipped = prepared(silence="background")
    assert rows == {**call, **silent} and "S3/none.wav" in skipped
    assert "holds no annotation" in skipped[str(folder / "gone.Table.1.selections.txt")]
    assert any("line 2" in reason for reason in skipped.values()) and any("30-31 s" in r for r in skipped.values())
    rows, skipped = prepared(silence="background", unannotated="silence", min_seconds=2.0)
    silent = dict.fromkeys([*silent, "S3/none.wav"], ("background", 2.0))
    assert rows == {**call, **silent} and "S3/none.wav" not in skipped
    with pytest.raises(ConfigError, match="unannotated is 'silence' and silence is None: expected a label"):
        prepared(unannotated="silence")
    with pytest.raises(ConfigError, match="unannotated is 'ignore': expected one of skip, silence"):
        prepared(unannotated="ignore")


def test_corpora_are_prepared_once_and_wrong_folders_named(danum, siamang, tmp_path):
    for prepare, folder in ((prepare_danum_clips, danum), (prepare_siamang, siamang)):
        path = prepare(folder, tmp_path / "save" / folder.name)["all"]
        before = path.stat().st_mtime_ns
        assert prepare(folder, tmp_path / "save" / folder.name)["all"].stat().st_mtime_ns == before
    (tmp_path / "none").mkdir()
    for prepare, word in [
        (prepare_danum_clips, "duet_S10"),
        (prepare_gibbon_females, "FemaleGibbons/DK02_021.01.wav"),
        (prepare_siamang, "opp_11_June_session1_0_1.wav"),
        (prepare_borneo_sulawesi, "FocalRecordings/FemaleGibbon_1.wav"),
        (prepare_yellow_cheeked_gibbon, "Jahoo_trainingdata_manual_annotations/Gibbons"),
        (prepare_infant_marmosets, "labels.csv with data/twin_1"),
        (prepare_macaque_coos, "dataupload/AL"),
        (prepare_hainan_gibbon, "Train_Labels/g_"),
    ]:
        with pytest.raises(DataError, match="does not look like") as caught:
            prepare(tmp_path / "none", tmp_path / "nothing")
        assert word in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "nothing").exists()
