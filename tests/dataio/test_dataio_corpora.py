"""Corpora: tiny ones in exactly the layout in which the real ones are downloaded, with broken files among them."""

from __future__ import annotations

import json
import zipfile

import pytest

from lobes.dataio import audio_dataset, leave_one_group_out, read_manifest, validate_splits
from lobes.dataio.corpora import (
    fsdd,
    prepare_audio_folder,
    prepare_emodb,
    prepare_fsdd,
    prepare_gcompris_fr,
    prepare_librispeech,
)
from lobes.dataio.corpora.gcompris_fr import normalise_french, text_clusters
from lobes.errors import ConfigError, DataError


def skipped_of(path):
    meta = json.loads(path.with_suffix(".meta.json").read_text())
    return {entry["file"]: entry["reason"] for entry in meta["skipped"]}


def times(paths):
    return {name: path.stat().st_mtime_ns for name, path in paths.items()}


@pytest.fixture
def fsdd_folder(tmp_path, tone, broken):
    """recordings/{digit}_{speaker}_{take}.wav at 8 kHz."""
    folder = tmp_path / "fsdd"
    for digit in range(2):
        for speaker in ("jackson", "theo", "lucas"):
            for take in range(3):
                tone(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", 0.1 + 0.05 * take, 8000)
    broken(folder / "recordings", prefix="9_theo_")
    (folder / "recordings" / "9_theo_empty.wav").rename(folder / "recordings" / "9_theo_40.wav")
    (folder / "README.md").write_text("Free Spoken Digit Dataset")
    return folder


def test_fsdd(fsdd_folder, tmp_path):
    paths = prepare_fsdd(fsdd_folder, tmp_path / "save")
    manifest = read_manifest(paths["all"])
    assert len(manifest) == 18 and manifest.groups == ["jackson", "lucas", "theo"]
    row = {r["id"]: r for r in manifest.rows}["1_theo_2"]
    assert (row["digit"], row["speaker"], row["take"], row["group"]) == ("1", "theo", "2", "theo")
    assert row["sample_rate"] == 8000 and row["duration"] == pytest.approx(0.2)
    assert row["wav"] == "$data_root/recordings/1_theo_2.wav"
    skipped = skipped_of(paths["all"])
    assert skipped["recordings/9_theo_40.wav"] == "is empty (0 bytes)"
    assert "not named" in skipped["recordings/9_theo_nan.wav"]
    assert len(audio_dataset(paths["all"])[0]["sig"]) == 1600
    folds = leave_one_group_out(paths["all"], tmp_path / "folds")
    assert all(validate_splits(fold) for fold in folds.values())


def test_fsdd_is_prepared_once(fsdd_folder, tmp_path):
    save = tmp_path / "save"
    paths = prepare_fsdd(fsdd_folder, save)
    before, checksum = times(paths), read_manifest(paths["all"]).checksum
    assert times(prepare_fsdd(fsdd_folder, save)) == before
    # Another option, another file, an edited manifest and a moved corpus each make it new.
    assert len(read_manifest(prepare_fsdd(fsdd_folder, save, max_takes=2)["all"])) == 12
    assert len(read_manifest(prepare_fsdd(fsdd_folder, save)["all"])) == 18
    (fsdd_folder / "recordings" / "0_theo_2.wav").unlink()
    assert len(read_manifest(prepare_fsdd(fsdd_folder, save)["all"])) == 17
    assert read_manifest(paths["all"]).checksum != checksum
    before = paths["all"].read_text()
    paths["all"].write_text(before[:200])
    prepare_fsdd(fsdd_folder, save)
    assert paths["all"].read_text() == before
    moved = fsdd_folder.rename(tmp_path / "moved")
    manifest = read_manifest(prepare_fsdd(moved, save)["all"])
    assert manifest.audio_path(manifest.rows[0]).is_file()


def test_fsdd_comes_from_the_environment(fsdd_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOBES_DATA", str(tmp_path))
    assert len(read_manifest(prepare_fsdd(None, tmp_path / "save")["all"])) == 18


def test_fsdd_is_fetched_where_it_is_not(fsdd_folder, tmp_path, monkeypatch):
    archive = tmp_path / "master.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(fsdd_folder.rglob("*.*")):
            out.write(path, f"free-spoken-digit-dataset-master/{path.relative_to(fsdd_folder)}")
    monkeypatch.setattr(fsdd, "URL", archive.as_uri())
    paths = prepare_fsdd(tmp_path / "fetched", tmp_path / "save", download=True)
    assert len(read_manifest(paths["all"])) == 18
    archive.unlink()  # and it is not fetched again
    prepare_fsdd(tmp_path / "fetched", tmp_path / "save", download=True)


def test_wrong_folders_are_refused_in_one_line(tmp_path):
    (tmp_path / "readme.txt").touch()
    for prepare, word in [
        (prepare_fsdd, "recordings/{digit}_{speaker}_{take}.wav"),
        (prepare_emodb, "wav/03a01Fa.wav"),
        (prepare_librispeech, "LibriSpeech/train-clean-100"),
        (prepare_gcompris_fr, "transcripts.tsv"),
        (prepare_audio_folder, "no audio file"),
    ]:
        with pytest.raises(DataError) as caught:
            prepare(tmp_path, tmp_path / "save")
        message = str(caught.value)
        assert word in message and str(tmp_path) in message and "\n" not in message
        with pytest.raises(DataError, match="not a folder"):
            prepare(tmp_path / "none", tmp_path / "save")
    assert not (tmp_path / "save").exists()


@pytest.fixture
def emodb_folder(tmp_path, tone, broken):
    """wav/03a01Fa.wav at 16 kHz, beside the label files that the archive holds too."""
    folder = tmp_path / "emodb"
    for speaker in ("03", "16"):
        for text in ("a01", "a02", "b10"):
            for emotion in "WLEAFTN":
                tone(folder / "wav" / f"{speaker}{text}{emotion}a.wav", 0.1)
    tone(folder / "wav" / "03a01Fb.wav", 0.1)
    broken(folder / "wav", prefix="08")
    (folder / "wav" / "08empty.wav").rename(folder / "wav" / "08a01Wc.wav")
    (folder / "lablaut").mkdir()
    (folder / "lablaut" / "03a01Fa.lablaut").write_text("0 0 -\n")
    (folder / "erkennung.txt").write_text("03a01Fa.wav 90\n")
    return folder


def test_emodb_is_read_off_the_names(emodb_folder, tmp_path):
    path = prepare_emodb(emodb_folder, tmp_path / "save")["all"]
    manifest = read_manifest(path)
    assert len(manifest) == 43 and manifest.labels == ["speaker", "text", "emotion"]
    rows = {row["id"]: row for row in manifest.rows}
    row = rows["03a01Fa"]
    assert (row["speaker"], row["text"], row["emotion"], row["group"]) == ("03", "a01", "happiness", "03")
    assert row["wav"] == "$data_root/wav/03a01Fa.wav" and row["sample_rate"] == 16000
    german = {"Wut": "anger", "Langeweile": "boredom", "Ekel": "disgust", "Angst": "fear", "Freude": "happiness"}
    for word, emotion in {**german, "Trauer": "sadness", "Neutral": "neutral"}.items():
        assert rows[f"16b10{word[0]}a"]["emotion"] == emotion
    skipped = skipped_of(path)
    assert skipped["wav/08a01Wc.wav"] == "is empty (0 bytes)" and "not named by" in skipped["wav/08nan.wav"]
    assert "not stated" in manifest.meta["licence"]


def test_emodb_groups_by_what_must_not_be_on_both_sides(emodb_folder, tmp_path):
    groups = {"speaker": ["03", "16"], "text": ["a01", "a02", "b10"]}
    groups["emotion"] = ["anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness"]
    for group, expected in groups.items():  # into one folder: another group makes the manifest new
        path = prepare_emodb(emodb_folder, tmp_path / "save", group=group)["all"]
        assert read_manifest(path).groups == expected
        before = times({"all": path})
        assert times(prepare_emodb(emodb_folder, tmp_path / "save", group=group)) == before
    with pytest.raises(ConfigError, match="group is 'sentence': expected one of speaker, text, emotion"):
        prepare_emodb(emodb_folder, tmp_path / "save", group="sentence")


def test_emodb_is_found_where_it_lies_but_not_twice(emodb_folder, tmp_path, tone):
    there = read_manifest(prepare_emodb(emodb_folder / "wav", tmp_path / "save")["all"])
    assert len(there) == 43 and there.rows[0]["wav"].startswith("$data_root/03")
    tone(emodb_folder / "laryngo" / "03a01Fa.flac", 0.1)
    with pytest.raises(DataError, match="03a01Fa twice, laryngo/03a01Fa.flac and wav/03a01Fa.wav"):
        prepare_emodb(emodb_folder, tmp_path / "save")


@pytest.fixture
def librispeech(tmp_path, tone, broken):
    """LibriSpeech/<subset>/<speaker>/<chapter>/<id>.flac with <speaker>-<chapter>.trans.txt, as OpenSLR packs it."""
    speakers = {"train-clean-100": range(100, 110), "dev-clean": (84, 174), "test-clean": (61,)}
    for subset, numbers in speakers.items():
        for speaker in numbers:
            folder = tmp_path / "LibriSpeech" / subset / str(speaker) / "123"
            names = [f"{speaker}-123-{n:04d}" for n in range(3)]
            for name in names:
                tone(folder / f"{name}.flac", 0.2)
            lines = [f"{name} HELLO FROM {speaker}" for name in names]
            (folder / f"{speaker}-123.trans.txt").write_text("\n".join(lines) + "\n")
    folder = tmp_path / "LibriSpeech" / "train-clean-100" / "100" / "123"
    tone(folder / "100-123-0009.flac", 0.2)  # without a transcript
    with (folder / "100-123.trans.txt").open("a") as file:
        for number, name in enumerate(broken(folder, ".flac")):
            (folder / name).rename(folder / f"100-123-100{number}.flac")
            file.write(f"100-123-100{number} BROKEN\n")
    (tmp_path / "LibriSpeech" / "SPEAKERS.TXT").write_text("; ID |SEX|\n")
    return tmp_path


def test_librispeech_as_openslr_packs_it(librispeech, tmp_path):
    paths = prepare_librispeech(librispeech, tmp_path / "save")
    manifests = validate_splits(paths, check_files=True)
    assert {name: len(m) for name, m in manifests.items()} == {"train": 30, "valid": 6, "test": 3}
    assert manifests["valid"].groups == ["174", "84"]
    row = manifests["test"].rows[0]
    assert row["id"] == "61-123-0000" and row["text"] == "HELLO FROM 61" and row["subset"] == "test-clean"
    assert row["wav"] == "$data_root/test-clean/61/123/61-123-0000.flac"
    skipped = skipped_of(paths["train"])
    assert skipped["train-clean-100/100/123/100-123-0009.flac"] == "has no transcript"
    assert len(skipped) == 4
    assert prepare_librispeech(librispeech / "LibriSpeech", tmp_path / "save") == paths


def test_librispeech_can_hold_out_speakers_of_the_training_subsets(librispeech, tmp_path):
    options = {"valid": None, "test": None, "valid_share": 0.2}
    first = validate_splits(prepare_librispeech(librispeech, tmp_path / "a", **options, seed=1))
    assert set(first) == {"train", "valid"} and len(first["valid"].groups) == 2
    again = validate_splits(prepare_librispeech(librispeech, tmp_path / "b", **options, seed=1))
    assert again["valid"].rows == first["valid"].rows
    other = validate_splits(prepare_librispeech(librispeech, tmp_path / "c", **options, seed=2))
    assert other["valid"].groups != first["valid"].groups


def test_librispeech_names_the_subsets_that_there_are(librispeech, tmp_path):
    with pytest.raises(DataError, match="no subset train-clean-360: it has dev-clean, test-clean, train-clean"):
        prepare_librispeech(librispeech, tmp_path / "save", train=["train-clean-360"])
    with pytest.raises(ConfigError, match="each in one split"):
        prepare_librispeech(librispeech, tmp_path / "save", train=["dev-clean"])


def test_librispeech_has_phones_where_there_is_a_lexicon(librispeech, tmp_path):
    numbers = [f"{number}  N AH{number % 3}" for number in (84, 174, *range(101, 110))]
    first, second = tmp_path / "lexicon.txt", tmp_path / "more.txt"
    first.write_text("\n".join(["HELLO\tHH AH0 L OW1", "HELLO HH EH0 L OW1", "From\tF R AH1 M", *numbers, ""]))
    with pytest.raises(DataError, match=r"has not 1 words of utterances to validate and test on: 61 \(3\); add their"):
        prepare_librispeech(librispeech, tmp_path / "save", lexicon=first)
    second.write_text("61 S IH1\nHELLO(2) X\n")
    paths = prepare_librispeech(librispeech, tmp_path / "save", lexicon=[first, second])
    manifests = validate_splits(paths)
    assert {name: len(m) for name, m in manifests.items()} == {"train": 27, "valid": 6, "test": 3}
    row = manifests["test"].rows[0]
    assert (row["text"], row["phones"]) == ("HELLO FROM 61", "HH AH0 L OW1 F R AH1 M S IH1")
    reason = "has words that the lexicon has not: 100"
    assert [name for name, why in skipped_of(paths["train"]).items() if why == reason] == [
        f"train-clean-100/100/123/100-123-000{n}.flac" for n in range(3)
    ]
    second.write_text("61 Z IH1\n")
    again = prepare_librispeech(librispeech, tmp_path / "save", lexicon=[first, second])
    assert read_manifest(again["test"]).rows[0]["phones"].endswith("M Z IH1"), "made anew for another lexicon"


def test_utterances_with_unknown_words_leave_a_test_only_when_asked(librispeech, tmp_path, caplog):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("\n".join(["HELLO X", "FROM Y", *(f"{number} Z" for number in (174, 61, *range(100, 110)))]))
    asked = prepare_librispeech(librispeech, tmp_path / "save", lexicon=lexicon, missing="leave_out")
    assert {row["group"] for row in read_manifest(asked["valid"]).rows} == {"174"}
    assert "has not 1 words of utterances to validate and test on: 84 (3); these utterances are left out" in caplog.text
    with pytest.raises(ConfigError, match="missing is 'skip': expected one of refuse, leave_out"):
        prepare_librispeech(librispeech, tmp_path / "save", lexicon=lexicon, missing="skip")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("HELLO\n", "line 1 is 'HELLO'; expected a word and its phones"), ("\n", "has no word that is new")],
)
def test_a_lexicon_that_is_none_is_refused(librispeech, tmp_path, text, complaint):
    (tmp_path / "lexicon.txt").write_text(text)
    with pytest.raises(DataError, match=complaint):
        prepare_librispeech(librispeech, tmp_path / "save", lexicon=tmp_path / "lexicon.txt")
    with pytest.raises(DataError, match="nowhere.txt: cannot be read"):
        prepare_librispeech(librispeech, tmp_path / "save", lexicon=tmp_path / "nowhere.txt")


def test_librispeech_clips_without_transcripts(tmp_path, tone, broken):
    clips = tmp_path / "librispeech_clips"
    for speaker in (533, 367):
        for n in range(2):
            tone(clips / "librispeech_test-other" / str(speaker) / f"{speaker}-1-{n:04d}.flac", 0.2)
    for speaker in range(10, 20):
        tone(clips / "librispeech_train-clean-100" / f"{speaker}-7-0000.flac", 0.2)
    broken(clips / "librispeech_train-clean-100", ".flac")
    chosen = {"train": ["train-clean-100", "test-other"], "valid": None, "test": None}
    manifests = validate_splits(prepare_librispeech(clips, tmp_path / "save", **chosen, valid_share=0.2))
    assert sum(map(len, manifests.values())) == 14
    assert manifests["train"].labels == ["subset"]
    assert {row["subset"] for row in manifests["train"].rows} == {"train-clean-100", "test-other"}
    assert len(manifests["train"].meta["skipped"]) == 3


@pytest.fixture
def gcompris(tmp_path, tone, broken):
    """fr/{words,intro}/*.ogg at 44.1 kHz and transcripts.tsv with path, duration_s, source, text_fr, text_en."""
    folder = tmp_path / "gcompris_fr"
    nouns = "lune pomme maison chat chien fleur livre table porte jardin nuage bateau train arbre".split()
    texts = {f"fr/words/{noun}{n}.ogg": f"{a} {noun}" for noun in nouns for n, a in enumerate(("une", "la"))}
    texts["fr/intro/line.ogg"] = "Forme une ligne de 4 jetons identiques !"
    texts["fr/intro/year.ogg"] = "En 1984, clique."
    texts["fr/intro/none.ogg"] = "…"
    for path in texts:
        tone(folder / path, 0.3, 44100)
    texts["fr/words/gone.ogg"] = "un fantôme"
    for name in broken(folder / "fr/words", ".ogg"):
        texts[f"fr/words/{name}"] = "du bruit"
    tone(folder / "fr/words/untold.ogg", 0.3, 44100)
    lines = [f"{path}\t0.30\tcontent-fr.json\t{text}\t" for path, text in texts.items()]
    header = "path\tduration_s\tsource\ttext_fr\ttext_en"
    (folder / "transcripts.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def test_gcompris_holds_out_texts(gcompris, tmp_path):
    paths = prepare_gcompris_fr(gcompris, tmp_path / "save")
    manifests = validate_splits(paths)
    assert set(manifests) == {"train", "valid", "test"}
    rows = [row for manifest in manifests.values() for row in manifest.rows]
    assert len(rows) == 29
    nouns = [{row["text"].split()[-1] for row in m.rows if row["part"] == "words"} for m in manifests.values()]
    assert not (nouns[0] & nouns[1] or nouns[0] & nouns[2] or nouns[1] & nouns[2])
    line = next(row for row in rows if row["id"] == "intro/line")
    assert line["text"] == "forme une ligne de quatre jetons identiques" and line["part"] == "intro"
    assert line["raw_text"] == "Forme une ligne de 4 jetons identiques !"
    skipped = skipped_of(paths["train"])
    assert "digits" in skipped["fr/intro/year.ogg"] and "empty transcript" in skipped["fr/intro/none.ogg"]
    assert "No such file" in skipped["fr/words/gone.ogg"]
    assert skipped["fr/words/untold.ogg"] == "has no transcript"
    assert len(skipped) == 7


def test_gcompris_names_a_missing_column(gcompris, tmp_path):
    table = gcompris / "transcripts.tsv"
    table.write_text(table.read_text().replace("text_fr", "texte"))
    with pytest.raises(DataError, match="no column text_fr"):
        prepare_gcompris_fr(gcompris, tmp_path / "save")


def test_french_texts_are_reduced_to_what_is_heard():
    assert normalise_french("  À l’école : œuf, NOËL ?") == "à l'école œuf noël"
    assert normalise_french("E\u0301coute 16 fois") == "écoute seize fois"
    for text in ("17 fois", "!?", "' '"):
        with pytest.raises(ValueError, match="digits|empty"):
            normalise_french(text)


def test_texts_with_the_same_content_are_one_cluster():
    texts = {
        "un chapeau",
        "le chapeau",
        "une lune",
        "multiplie les deux nombres et saisis ta réponse",
        "additionne les deux nombres et saisis ta réponse",
        "clique vite sur le cheval blanc",
        "clique vite sur le cheval blanc qui traverse lentement la grande plaine déserte sans jamais tomber",
        "clique pour commencer une partie nouvelle",
    }
    clusters = text_clusters(texts)
    assert len(set(clusters.values())) == 5
    assert clusters["un chapeau"] == clusters["le chapeau"] == "le chapeau"
    assert len({clusters[text] for text in texts if text.startswith("clique vite")}) == 1


def test_folders_of_audio_side_by_side(tmp_path, tone, broken):
    data = tmp_path / "data"
    for speaker in ("anna", "bob", "carl"):
        for n in range(4):
            tone(data / "digits" / "recordings" / f"{n}_{speaker}_{n}.wav", 0.2)
    for bird in range(6):
        tone(data / "calls" / f"recorder{bird % 3}" / f"{bird}.flac", 0.2)
        tone(data / "calls" / "noise" / f"{bird}.flac", 0.2)
    tone(data / "other" / "x.wav", 0.2)
    broken(data / "calls" / "recorder0")
    include = {"digits": r"\d_([a-z]+)_\d+", "calls": None}
    paths = prepare_audio_folder(
        data, tmp_path / "save", include=include, exclude=["*/noise/*"], valid_share=0.2, licence="CC0"
    )
    manifests = validate_splits(paths)
    rows = [row for manifest in manifests.values() for row in manifest.rows]
    assert len(rows) == 18 and set(manifests) == {"train", "valid"}
    assert {row["group"] for row in rows} == {
        *(f"digits/{name}" for name in ("anna", "bob", "carl")),
        *(f"calls/recorder{n}" for n in range(3)),
    }
    assert {row["corpus"] for row in rows} == {"digits", "calls"}
    assert len(skipped_of(paths["train"])) == 5
    assert manifests["train"].meta["licence"] == "CC0"
    assert len(audio_dataset(paths["valid"])[0]["sig"]) == 3200


def test_one_group_cannot_be_split_and_the_remedy_is_named(tmp_path, tone):
    for n in range(3):
        tone(tmp_path / "flat" / f"{n}.wav", 0.2)
    with pytest.raises(DataError, match="finer group"):
        prepare_audio_folder(tmp_path, tmp_path / "save", include=["flat"])
    manifests = validate_splits(prepare_audio_folder(tmp_path, tmp_path / "save", include=["flat"], group="file"))
    assert {name: len(m) for name, m in manifests.items()} == {"train": 2, "valid": 1}
    with pytest.raises(DataError, match="include names 'flta'"):
        prepare_audio_folder(tmp_path, tmp_path / "save", include=["flta"])
    with pytest.raises(ConfigError, match="regular expression"):
        prepare_audio_folder(tmp_path, tmp_path / "save", group="(")
