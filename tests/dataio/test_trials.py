"""Trial lists: balanced, of speakers apart, the same each time; and all that can be wrong with one that is read."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from lobes.dataio import Manifest, cut_clips, make_trials, read_trials, write_trials
from lobes.dataio.trials import Trial
from lobes.errors import ConfigError, DataError


@pytest.fixture
def split(tmp_path):
    """Makes a manifest of utterances `<speaker>-<chapter>-<n>` whose files are there."""

    def make(utterances: dict[str, int], chapters: int = 2) -> Manifest:
        rows = []
        for speaker, count in utterances.items():
            for number in range(count):
                name = f"{speaker}-{number % chapters}-{number:02d}"
                (tmp_path / speaker).mkdir(exist_ok=True)
                (tmp_path / speaker / f"{name}.flac").touch()
                row = {"id": name, "wav": f"$data_root/{speaker}/{name}.flac", "start": 0.0, "stop": 2.0}
                labels = {"group": speaker, "chapter": str(number % chapters), "gender": "fm"[ord(speaker[0]) % 2]}
                rows.append({**row, "duration": 2.0, "sample_rate": 16000, "channel": None, **labels})
        return Manifest(rows, {}, {"data_root": str(tmp_path)})

    return make


def pairs(trials, kind):
    return [frozenset(trial[1:]) for trial in trials if trial.target == kind]


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_all_pairs_once(split, tmp_path, name):
    utterances = {"a": 4, "b": 5, "c": 1, "d": 2}
    manifest = split(utterances)
    trials = read_trials(make_trials(manifest, tmp_path / name), manifest)
    speaker = {row["id"]: row["group"] for row in manifest.rows}
    every = [frozenset(pair) for pair in combinations(speaker, 2)]
    same = {pair for pair in every if len({speaker[name] for name in pair}) == 1}
    targets, others = pairs(trials, True), pairs(trials, False)
    assert len(targets) == len(same) == 6 + 10 + 0 + 1 and set(targets) == same
    assert len(others) == len(every) - len(same) and set(others) == set(every) - same


def test_trials_are_balanced_over_speakers_and_utterances(split, tmp_path):
    manifest = split({"a": 30, "b": 10, "c": 10, "d": 4})
    trials = read_trials(make_trials(manifest, tmp_path / "list.txt", 24, 60), manifest)
    speaker = {row["id"]: row["group"] for row in manifest.rows}
    assert Counter(speaker[t.enrol] for t in trials if t.target) == dict.fromkeys("abcd", 6), "all 6 pairs of d"
    between = Counter(frozenset((speaker[t.enrol], speaker[t.test])) for t in trials if not t.target)
    assert set(between.values()) == {10} and len(between) == 6
    assert len(set(map(frozenset, (t[1:] for t in trials)))) == len(trials) == 84, "none twice"
    used = Counter(name for t in trials if t.target for name in t[1:] if speaker[name] == "b")
    assert max(used.values()) <= 2, "12 places for 10 utterances"


def test_a_list_is_a_function_of_its_options(split, tmp_path):
    manifest = split({"a": 9, "b": 9, "c": 9})
    turned = Manifest(manifest.rows[::-1], {}, manifest.roots)
    texts = [
        make_trials(m, tmp_path / f"{k}.txt", 20, 20, seed).read_text()
        for k, (m, seed) in enumerate([(manifest, 0), (turned, 0), (manifest, 1)])
    ]
    assert texts[0] == texts[1] != texts[2]
    small = make_trials(manifest, tmp_path / "small.txt", 10, 10).read_text().splitlines()
    assert set(small) < set(texts[0].splitlines()), "fewer are some of more"


@pytest.mark.parametrize("session", ["chapter", r"^\w-(\d+)-"])
def test_pairs_of_one_session_are_refused(split, tmp_path, session):
    manifest = split({"a": 6, "b": 6}, chapters=3)
    trials = read_trials(make_trials(manifest, tmp_path / "list.txt", session=session), manifest)
    chapter = {row["id"]: row["chapter"] for row in manifest.rows}
    targets = [t for t in trials if t.target]
    assert len(targets) == 2 * (15 - 3) and all(chapter[t.enrol] != chapter[t.test] for t in targets)
    with pytest.raises(DataError, match="n_target is None, but this split has 0 target pairs with regard to"):
        make_trials(split({"a": 6, "b": 6}, chapters=1), tmp_path / "list.txt", session=session)


def test_non_targets_may_have_to_match(split, tmp_path):
    manifest = split({"a": 2, "b": 2, "c": 2, "d": 2})
    trials = read_trials(make_trials(manifest, tmp_path / "list.txt", match="gender"), manifest)
    found = {frozenset(name[0] for name in t[1:]) for t in trials if not t.target}
    assert found == {frozenset("ac"), frozenset("bd")}


def test_wrong_options_are_named(split, tmp_path):
    manifest, path = split({"a": 3, "b": 3}), tmp_path / "list.txt"
    for options, error, message in [
        ({"n_target": 7}, DataError, "n_target is 7, but this split has 6 target pairs: give n_target of at most 6"),
        ({"n_nontarget": 10}, DataError, "n_nontarget is 10, but this split has 9 nontarget pairs"),
        ({"n_target": 0}, ConfigError, "n_target is 0"),
        ({"session": "day"}, ConfigError, "session is 'day': this manifest has no such column"),
        ({"session": "x(.)"}, ConfigError, r"not found in the id [ab]-\d-\d+"),
        ({"session": "("}, ConfigError, "not a regular expression"),
        ({"match": "sex"}, ConfigError, "match is 'sex'.*expected one of group, chapter, gender"),
        ({"apart_from": [split({"b": 1, "c": 1})]}, DataError, "group b .1 in all. of the trials are in another split"),
    ]:
        with pytest.raises(error, match=message) as caught:
            make_trials(manifest, path, **options)
        assert "\n" not in str(caught.value) and not path.exists()
    with pytest.raises(DataError, match="expected two speakers at least"):
        make_trials(split({"a": 3}), path)


def test_a_published_list_names_files(split, tmp_path):
    manifest = split({"a": 2, "b": 1})
    path = tmp_path / "veri_test.txt"
    path.write_text("1 a/a-0-00.flac a/a-1-01.flac\n\n0 a/a-0-00.flac b-0-00\n")
    assert read_trials(path, manifest) == [(True, "a-0-00", "a-1-01"), (False, "a-0-00", "b-0-00")]
    cut = cut_clips(manifest, 0.9)
    with pytest.raises(DataError, match="line 1: 'a/a-0-00.flac' is 2 utterances of the manifest"):
        read_trials(path, cut)


def test_a_wrong_list_is_a_clear_line(split, tmp_path):
    manifest, path = split({"a": 2, "b": 2}), tmp_path / "list.txt"
    good = "1 a-0-00 a-1-01\n0 a-0-00 b-0-00\n"
    for text, message in [
        ("", "0 target and 0 non-target trials"),
        ("1 a-0-00 a-1-01\n", "1 target and 0 non-target trials"),
        (good + "1 a-0-00\n", "line 3: '1 a-0-00', expected 1 or 0 and two utterances"),
        (good + "yes a-0-00 a-1-01\n", "line 3: 'yes a-0-00 a-1-01', expected 1 or 0"),
        (good + "0 a-0-00 z-0-00\n", "line 3: 'z-0-00' is no utterance of the manifest, by id or file"),
        (good + "1 a-0-00 b-0-00\n", "line 3: .* of group a and b in the manifest, but the list says 1"),
        (good + "0 a-0-00 a-1-01\n", "line 3: .* of group a and a in the manifest, but the list says 0"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            read_trials(path, manifest)
        assert "\n" not in str(caught.value)
    path.write_text(good)
    (tmp_path / "b" / "b-0-00.flac").unlink()
    with pytest.raises(DataError, match="line 2: the file of 'b-0-00', .*b-0-00.flac, is not there"):
        read_trials(path, manifest)
    with pytest.raises(DataError, match="none.txt cannot be read: No such file"):
        read_trials(tmp_path / "none.txt", manifest)
    table = tmp_path / "list.csv"
    table.write_text("label,enrol,test\n1,a,b\n")
    with pytest.raises(DataError, match="expected target,enrol,test"):
        read_trials(table, manifest)


def test_ids_with_spaces_need_a_table(tmp_path):
    trials = [Trial(True, "a 1", "a 2")]
    with pytest.raises(DataError, match="id 'a 1' has a space"):
        write_trials(tmp_path / "list.txt", trials)
    assert write_trials(tmp_path / "list.csv", trials).read_text() == "target,enrol,test\n1,a 1,a 2\n"


def test_clips_are_cut(split):
    manifest = split({"a": 2})
    cut = cut_clips(manifest, 0.75)
    assert [(r["id"], r["start"], r["stop"]) for r in cut.rows[:2]] == [
        ("a-0-00_0", 0.0, 0.75),
        ("a-0-00_1", 0.75, 1.5),
    ]
    assert len(cut) == 4 and cut.checksum != manifest.checksum and {row["group"] for row in cut.rows} == {"a"}
    assert cut_clips(manifest, 1.0).rows[1]["stop"] == 2.0, "a whole number of pieces loses nothing"
    assert cut_clips(manifest, 3.0).rows == manifest.rows == cut_clips(manifest, None).rows
    with pytest.raises(ConfigError, match="cut_seconds is 0"):
        cut_clips(manifest, 0)
