"""Annotations as programs write them: read, written again, and named where they are damaged or impossible."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lobes.dataio.annotations import (
    Annotation,
    check_annotations,
    in_sequence,
    load_annotations,
    raven_name,
    read_annotations,
    recording_stem,
    write_annotations,
)
from lobes.errors import ConfigError, DataError

RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tDur 90% (s)\tCall.type\n"
    "1\tSpectrogram 1\t1\t171.311439720\t251.092843864\t658.635\t1365.462\t75.3000\tshort.argus\n"
    "2\tSpectrogram 1\t2\t1140.928949055\t1153.224028461\t449.799\t1429.719\t8.9000\t\n"
)


def put(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def test_a_selection_table_is_written_again_as_it_was(tmp_path):
    path = put(tmp_path / "a.Table.1.selections.txt", RAVEN)
    table = read_annotations(path)
    assert (table.format, table.label_column) == ("raven", "Call.type")
    extra = {"Selection": "1", "View": "Spectrogram 1", "Dur 90% (s)": "75.3000"}
    assert table[0] == Annotation(171.31143972, 251.092843864, "short.argus", 658.635, 1365.462, channel=0, extra=extra)
    assert table[1].label == "" and table[1].channel == 1
    assert write_annotations(tmp_path / "b.selections.txt", table).read_text() == RAVEN
    for text in (RAVEN.replace("\n", "\r\n"), "\ufeff" + RAVEN, RAVEN.replace("short.argus", "Ärgus")):
        assert len(read_annotations(put(path, text))) == 2
    assert read_annotations(put(path, RAVEN.replace("short.argus", "Ärgus"), "cp1252"))[0].label == "Ärgus"
    assert read_annotations(put(path, RAVEN, "utf-16"))[0].label == "short.argus"


def test_two_views_of_a_selection_are_one(tmp_path):
    header, first, second = RAVEN.splitlines()
    wave = first.replace("Spectrogram", "Waveform").replace("658.635\t1365.462", "0.000\t8000.000")
    path = put(tmp_path / "a.txt", "\n".join([header, wave, first, second]))
    table = read_annotations(path)
    assert [a.low_hz for a in table] == [658.635, 449.799] and table[0].extra["View"] == "Spectrogram 1"
    # The same number for another time, as in tables that were joined, or the very same line twice, is not one.
    other = first.replace("171.311", "180.311")
    assert len(read_annotations(put(path, "\n".join([header, first, other, first])))) == 3


def test_a_table_over_several_files_gives_positions_in_each(tmp_path):
    text = (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin Path\tBegin File\tFile Offset (s)\tSpecies\n"
        "1\tSpectrogram 1\t1\t7250.5\t7260.0\tD:\\rec\\two.wav\ttwo.wav\t50.5\tgibbon\n"
        "2\tSpectrogram 1\t1\t20.0\t21.0\tD:\\rec\\one.wav\tone.wav\t20.0\targus\n"
    )
    table = read_annotations(put(tmp_path / "all.selections.txt", text))
    assert [(a.start, a.end, a.file, a.label) for a in table] == [
        (50.5, 60.0, "D:\\rec\\two.wav", "gibbon"),
        (20.0, 21.0, "D:\\rec\\one.wav", "argus"),
    ]
    again = read_annotations(write_annotations(tmp_path / "b.selections.txt", table))
    assert list(again) == list(table) and again.columns == table.columns
    lines = (tmp_path / "b.selections.txt").read_text().splitlines()
    assert lines[1].split("\t")[3:8] == ["7250.5", "7260.000000000", "D:\\rec\\two.wav", "two.wav", "50.500000000"]
    only_file = text.replace("Begin Path\t", "").replace("D:\\rec\\two.wav\t", "").replace("D:\\rec\\one.wav\t", "")
    assert [a.file for a in read_annotations(put(tmp_path / "c.txt", only_file))] == ["two.wav", "one.wav"]


def test_detections_of_several_files_are_one_table(tmp_path):
    found = [
        Annotation(3, 4.5, "duet", file="x/b.wav", score=0.5),
        Annotation(5, 6, "solo", file="x/a.wav", score=0.75),
    ]
    table = in_sequence(found, {"x/a.wav": 7200.0, "x/b.wav": 600.0})
    path = write_annotations(tmp_path / "all.selections.txt", table)
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == [
        *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Begin Path", "File Offset (s)", "Score"),
        "Call type",
    ]
    assert [line[3:7] for line in lines[1:]] == [
        ["5.000000000", "6.000000000", "x/a.wav", "5.000000000"],
        ["7203.000000000", "7204.500000000", "x/b.wav", "3.000000000"],
    ]
    again = read_annotations(path)
    assert [(a.start, a.end, a.file, a.label, a.score) for a in again] == [
        (5.0, 6.0, "x/a.wav", "solo", 0.75),
        (3.0, 4.5, "x/b.wav", "duet", 0.5),
    ]
    with pytest.raises(DataError, match="seconds does not name the recording 'x/b.wav'"):
        in_sequence(found, {"x/a.wav": 7200.0})


def test_labels_are_in_the_usual_columns_or_in_the_one_named(tmp_path):
    for name in ("Call type", "Annotation", "Species", "label", "Common Name", "CLASS"):
        path = put(tmp_path / "a.txt", RAVEN.replace("Call.type", name))
        assert read_annotations(path)[0].label == "short.argus", name
    odd = put(tmp_path / "a.txt", RAVEN.replace("Call.type", "qui chante"))
    assert read_annotations(odd)[0].label == ""
    table = read_annotations(odd, label_column="qui chante")
    assert table[0].label == "short.argus"
    assert write_annotations(tmp_path / "b.selections.txt", table).read_text() == odd.read_text()
    renamed = write_annotations(tmp_path / "b.selections.txt", table, label_column="Species").read_text()
    assert renamed == RAVEN.replace("Call.type", "Species")
    with pytest.raises(ConfigError, match="label_column is 'Art'.*expected one of Selection, View"):
        read_annotations(odd, label_column="Art")


def test_detections_are_written_for_raven(tmp_path):
    found = [Annotation(1.5, 3.25, "duet", 400, 1800, 0.93125), Annotation(7, 9, "a\tb\nc", 500, 900, 0.5)]
    path = write_annotations(tmp_path / raven_name("x/S11.wav"), found)
    assert path.name == "S11.Table.1.selections.txt" and recording_stem(path) == "S11"
    header, first, second = path.read_text().splitlines()
    assert header.split("\t")[:5] == ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"]
    assert header.split("\t")[5:] == ["Low Freq (Hz)", "High Freq (Hz)", "Score", "Call type"]
    assert first.split("\t") == ["1", "Spectrogram 1", "1", "1.500000000", "3.250000000", *first.split("\t")[5:]]
    assert second.startswith("2\t") and second.endswith("\ta b c")
    assert [replace(a, extra={}, channel=None) for a in read_annotations(path)] == [
        found[0],
        replace(found[1], label="a b c"),
    ]
    empty = write_annotations(tmp_path / "none.selections.txt", [])
    assert len(empty.read_text().splitlines()) == 1 and read_annotations(empty) == []


def test_audacity_with_and_without_a_band(tmp_path):
    text = "1.000000\t2.500000\tgreat call, far\n\\\t450.000000\t1600.000000\n3.000000\t3.000000\t\n"
    text += "4.000000\t5.000000\tlow unknown\n\\\t-1.000000\t900.000000\n"
    table = read_annotations(put(tmp_path / "a.txt", text))
    assert [(a.start, a.end, a.label, a.low_hz, a.high_hz) for a in table] == [
        (1, 2.5, "great call, far", 450, 1600),
        (3, 3, "", None, None),
        (4, 5, "low unknown", None, 900),
    ]
    assert write_annotations(tmp_path / "b.txt", table).read_text() == text


SVL = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE sonic-visualiser>
<sv>
  <data>
    <model id="1" name="" sampleRate="48000" start="48000" end="480000" type="sparse" dimensions="{dimensions}"
     resolution="1" notifyOnAdd="true" dataset="0" subtype="{subtype}" units="Hz" />
    <dataset id="0" dimensions="{dimensions}">
      <point frame="48000" value="500" duration="72000" {extent} label="duet &amp; coda" />
      <point frame="96000" value="812.5" duration="24000" {extent} label="é" />
    </dataset>
  </data>
  <display><layer id="2" type="boxes" name="Boxes" model="1" /></display>
</sv>
"""


def test_sonic_visualiser_boxes_and_regions(tmp_path):
    boxes = put(tmp_path / "a.svl", SVL.format(dimensions=2, subtype="box", extent='extent="1100"'))
    table = read_annotations(boxes)
    assert table[0] == Annotation(1.0, 2.5, "duet & coda", 500, 1600)
    assert (table[1].start, table[1].end, table[1].label, table[1].high_hz) == (2.0, 2.5, "é", 1912.5)
    assert read_annotations(write_annotations(tmp_path / "b.svl", table, sample_rate=48000)) == table
    regions = read_annotations(put(tmp_path / "c.svl", SVL.format(dimensions=3, subtype="region", extent="")))
    assert regions[1] == Annotation(2.0, 2.5, "é", extra={"value": "812.5"})
    assert read_annotations(write_annotations(tmp_path / "d.svl", regions, sample_rate=44100)) == regions
    scored = [Annotation(0.5, 1.0, 'a "b" <c>', score=0.75)]
    assert read_annotations(write_annotations(tmp_path / "e.svl", scored, sample_rate=16000)) == scored
    instants = SVL.replace('duration="72000"', "").replace('duration="24000"', "")
    assert (
        read_annotations(put(tmp_path / "f.svl", instants.format(dimensions=1, subtype="", extent="")))[0].duration == 0
    )
    with pytest.raises(ConfigError, match="sample_rate is None"):
        write_annotations(tmp_path / "g.svl", scored)


def test_sonic_visualiser_files_that_are_none(tmp_path):
    bomb = SVL.replace("<!DOCTYPE sonic-visualiser>", '<!DOCTYPE sv [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>')
    for text, word in [
        (SVL[:300], "is no XML"),
        (SVL.replace("48000", "quick"), "sampleRate .* is 'quick'"),
        (SVL.replace('value="500"', 'value="high"'), "value of a <point> is 'high'"),
        (SVL.replace('dataset="0"', 'dataset="7"'), "belongs to no model"),
        (bomb, "declares XML entities"),
        ("<?xml version='1.0'?><sv/>", "holds no layer"),
    ]:
        path = put(tmp_path / "a.svl", text.format(dimensions=2, subtype="box", extent='extent="1"'))
        with pytest.raises(DataError, match=word):
            read_annotations(path)


def test_tables_of_the_hainan_corpus(tmp_path):
    text = "Start,End,Duration,Type,Notes\n7271,7273,2,1,\n7412,7415,3,2,3 Calls\n"
    path = put(tmp_path / "Train_Labels/g_HGSM3D_0+1_20160429_051600.data", text)
    table = read_annotations(path)
    assert table.format == "hainan" and recording_stem(path) == "HGSM3D_0+1_20160429_051600"
    assert [(a.start, a.end, a.label, a.extra["Notes"]) for a in table] == [
        (7271, 7273, "1", ""),
        (7412, 7415, "2", "3 Calls"),
    ]
    assert write_annotations(tmp_path / "g_b.data", table).read_text() == text


def test_comma_separated_tables_of_many_hands(tmp_path):
    ours = [Annotation(1.25, 2.5, "a, b", 400, 900.5, 0.5, 1, "x/y.wav", {"note": "far"}), Annotation(3, 4, "c")]
    path = write_annotations(tmp_path / "a.csv", ours)
    assert path.read_text().splitlines()[0] == "start,end,label,low_hz,high_hz,score,channel,file,note"
    assert read_annotations(path) == [ours[0], replace(ours[1], extra={"note": ""})]
    birdnet = "Start (s),End (s),Scientific name,Common name,Confidence\n0.0,3.0,Hylobates muelleri,gibbon,0.91\n"
    assert read_annotations(put(tmp_path / "b.csv", birdnet))[0] == Annotation(
        0, 3, "gibbon", score=0.91, extra={"Scientific name": "Hylobates muelleri"}
    )
    elan = '"Begin Time - msec","End Time - msec","Sequence","Sequence_individual"\n979980,981170,""," Fajar"\n'
    table = read_annotations(put(tmp_path / "c.csv", elan), label_column="Sequence_individual")
    assert table[0] == Annotation(979.98, 981.17, "Fajar", extra={"Sequence": ""})
    assert "979980,981170,,Fajar" in write_annotations(tmp_path / "d.csv", table).read_text()
    assert read_annotations(put(tmp_path / "e.csv", "onset;offset;label\n1;2;x\n"))[0] == Annotation(1, 2, "x")


def test_one_format_becomes_another(tmp_path):
    table = read_annotations(put(tmp_path / "a.txt", RAVEN))
    for name, options in [("b.csv", {}), ("b.selections.txt", {}), ("b.txt", {}), ("b.svl", {"sample_rate": 16000})]:
        again = read_annotations(write_annotations(tmp_path / name, table, **options))
        assert [a.label for a in again] == ["short.argus", ""]
        assert [a.start for a in again] == pytest.approx([a.start for a in table], abs=1e-4)
        assert [a.high_hz for a in again] == pytest.approx([a.high_hz for a in table])
    assert read_annotations(tmp_path / "b.csv")[0].extra["Dur 90% (s)"] == "75.3000"


def test_damage_is_named_by_file_line_field_and_value(tmp_path):
    cases = [
        (RAVEN.replace("1140.928949055", "1140,93"), "a.txt, line 3: Begin Time .* is '1140,93': .* decimal point"),
        (RAVEN.replace("658.635", "low"), "a.txt, line 2: Low Freq .* is 'low': expected a number"),
        (RAVEN.replace("8.9000", "8.9000\textra\tmore"), "line 3: 11 fields, the header has 9"),
        (RAVEN.replace("Call.type", "Channel"), "'Channel' occurs twice"),
        ("1.0\t2.0\tx\nsecond\t3\ty\n", "line 2: start is 'second'"),
        ("1.0\t2.0\tx\nnonsense\n", "line 2: 'nonsense' is no label"),
        ("start,end,label\n1,2,x\n1,zwei,x\n", "line 3: end is 'zwei'"),
        ("start,end,label\n1,2,x,y\n", "line 2: 4 fields"),
        ("start,end\n1,inf\n", "line 2: end is 'inf'"),
        ("Once upon a time\n", "is of no format that is known"),
        ("", "is empty: pass format=audacity"),
    ]
    for text, word in cases:
        with pytest.raises(DataError, match=word) as caught:
            read_annotations(put(tmp_path / "a.txt", text))
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match="is no text file"):
        read_annotations(put(tmp_path / "a.txt", "\x00\x01"))
    with pytest.raises(DataError, match="No such file"):
        read_annotations(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="format is 'praat': expected one of raven"):
        read_annotations(tmp_path / "a.txt", "praat")
    with pytest.raises(ConfigError, match="pass format"):
        write_annotations(tmp_path / "a.xyz", [])
    assert read_annotations(put(tmp_path / "a.txt", ""), "audacity") == []


def test_what_is_impossible_is_named_and_nothing_is_fatal(tmp_path, tone):
    audio = tone(tmp_path / "a.wav", 10.0, 8000)
    good = Annotation(1, 2, "good", 100, 900, channel=0)
    cases = {
        "past the end": (Annotation(9, 12.5, "x"), "ends 2.500 s after the file, which holds 10.000 s", True),
        "begins past it": (Annotation(10, 11, "x"), "begins after the end", False),
        "negative": (Annotation(5, 4, "x"), "has a negative duration", False),
        "point": (Annotation(5, 5, "x"), "has no duration", False),
        "before": (Annotation(-1, 2, "x"), "begins before the file", True),
        "band": (Annotation(5, 6, "x", 900, 100), "band of 900-100 Hz is empty", False),
        "channel": (Annotation(5, 6, "x", channel=1), "channel is 1, counted from 0, and the file has 1", True),
        "other file": (Annotation(5, 6, "x", file="b.wav"), "another recording", False),
        "no number": (Annotation(float("nan"), 6, "x"), "not finite", False),
    }
    kept, problems = check_annotations([good, *(case[0] for case in cases.values())], audio)
    assert kept[0] == replace(good, file=str(audio))
    assert [(a.start, a.end, a.channel) for a in kept[1:]] == [(9, 10, None), (0, 2, None), (5, 6, None)]
    for annotation, words, is_kept in cases.values():
        named = [p for p in problems if p.annotation == replace(annotation, file=str(audio)) or words in p.reason]
        assert len(named) == 1 and words in named[0].reason and named[0].kept is is_kept, words
        assert named[0].reason in str(named[0]) and ("kept" if is_kept else "left out") in str(named[0])
    assert len(problems) == len(cases)
    rounded = Annotation(9, 10.004, "x")
    assert check_annotations([rounded], audio)[1] == []


def test_recordings_are_found_by_as_much_of_their_path_as_it_takes(tmp_path, tone, broken):
    rec = tmp_path / "rec"
    for name in ("S1/dawn.flac", "S2/dawn.flac", "S2/dusk.wav"):
        tone(rec / name, 1.0, 8000)
    broken(rec / "S3")

    def found(file):
        kept, problems = check_annotations([Annotation(0, 0.5, "x", file=file)], rec)
        return kept[0].file.removeprefix(f"{rec}/") if kept else problems[0].reason

    assert found("dusk.wav") == found("dusk") == found("D:\\old\\disk\\dusk.WAV") == "S2/dusk.wav"
    assert found("C:\\field\\S1\\dawn.wav") == "S1/dawn.flac" and found("S2/dawn") == "S2/dawn.flac"
    assert "2 such recordings" in found("dawn.wav") and "name the folder too" in found("dawn.wav")
    assert "no such recording" in found("noon.wav") and "empty" in found("bad_empty.wav")
    mapped, problems = check_annotations(
        [Annotation(0, 0.5, "x", file="one"), Annotation(0, 0.5, "x", file="two")] * 2, {"one": rec / "S2/dusk.wav"}
    )
    assert len(mapped) == 2 and [p.reason for p in problems] == ["there is no such recording; 2 annotations"]


def test_a_folder_of_tables_is_joined_to_a_folder_of_recordings(tmp_path, tone):
    rec, tables = tmp_path / "rec", tmp_path / "tables"
    for name in ("a", "b", "c.d", "S1/e", "S2/e"):
        tone(rec / f"{name}.wav", 3.0, 8000)
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tCall type\n"
    lines = "1\tSpectrogram 1\t1\t1.0\t2.0\targus\n2\tSpectrogram 1\t1\t7.0\t8.0\targus\n"
    put(tables / "a.Table.1.selections.txt", header + lines)
    put(tables / "b.txt", "0.5\t1.5\tduet\n")
    put(tables / "c.d.svl", SVL.format(dimensions=2, subtype="box", extent='extent="1100"'))
    put(tables / "S2/g_e.data", "Start,End,Duration,Type,Notes\n0,1,1,2,\n")
    put(tables / "S2/n_e.data", "Start,End,Duration,Type\n1,2,1,3\n")
    put(tables / "gone.txt", "0.5\t1.5\tduet\n0.5\t1.5\tduet\n")
    put(tables / "README.txt", "These are the tables.\n")
    annotations, problems = load_annotations(tables, rec)
    assert sorted((a.file.removeprefix(f"{rec}/"), a.label) for a in annotations) == [
        ("S2/e.wav", "2"),
        ("a.wav", "argus"),
        ("b.wav", "duet"),
        ("c.d.wav", "duet & coda"),
        ("c.d.wav", "é"),
    ]
    text = "\n".join(map(str, problems))
    assert "README.txt" in text and "gone: there is no such recording" in text and "2 annotations" in text
    assert "a.wav, 7-8 s 'argus': begins after the end" in text and len(problems) == 3
    named, problems = load_annotations(tables, rec, label_column="Call type")
    assert len(named) == 4 and any("label_column is 'Call type'" in p.reason for p in problems)  # g_e.data has none
    with pytest.raises(ConfigError, match="format is 'praat'"):
        load_annotations(tables, rec, "praat")
    one, none = load_annotations(tables / "b.txt", rec)
    assert [a.label for a in one] == ["duet"] and none == []
    with pytest.raises(DataError, match="audio_folder is .* does not exist"):
        load_annotations(tables, tmp_path / "nowhere")
