"""Trials of speaker verification: pairs of utterances, of one speaker (targets) or of two (non-targets).

A trial list is a plain text file, a line `1 <enrolment> <test>` or `0 <enrolment> <test>` for each trial, which is how
VoxCeleb publishes its lists; or, if its name ends in `.csv`, the same as columns `target,enrol,test`. Utterances are
named by their ids in a manifest, or, in a list that is read, by their files.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lobes.dataio.manifest import Manifest, Row, atomic_write, read_manifest
from lobes.dataio.splits import draw
from lobes.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_HEADER = ["target", "enrol", "test"]


class Trial(NamedTuple):
    """Whether two utterances, named by their ids, are of one speaker."""

    target: bool
    enrol: str
    test: str


def make_trials(
    manifest: Manifest | str | os.PathLike[str],
    path: str | os.PathLike[str],
    n_target: int | None = None,
    n_nontarget: int | None = None,
    seed: int = 0,
    *,
    speaker: str = "group",
    session: str | None = None,
    match: str | None = None,
    apart_from: Iterable[Manifest | str | os.PathLike[str]] = (),
) -> Path:
    """Write a list of trials between the utterances of a split.

    Speakers take turns, and so do the pairs of speakers: a speaker with many utterances is in no more target trials
    than one with few, as long as the latter has pairs left. Within a speaker, utterances take turns. No pair occurs
    twice. The list is a pure function of the manifest's ids and labels and of the options.

    Parameters
    ----------
    manifest : Manifest or path
        The split.
    path : path
        The list, `.csv` or text.
    n_target, n_nontarget : int, optional
        How many trials of each kind; None for all pairs that there are.
    seed : int
        Decides which.
    speaker : str
        Column with the speaker.
    session : str, optional
        Refuses target trials within one session (chapter, recording, day): the column that names it, or a regular
        expression whose group is found in the id, such as ``-(\\d+)-`` for LibriSpeech's chapters. Recorded in one
        go, two utterances have more in common than the voice.
    match : str, optional
        A column, such as ``gender``, in which the two speakers of a non-target trial must agree, for harder trials.
    apart_from : iterable of Manifest or path
        Splits that no speaker of this one may be in: those that a model is trained on, at least.

    Returns
    -------
    Path
        The list.

    Raises
    ------
    DataError
        No speaker has two utterances (of two sessions), there are fewer than two speakers, a speaker is in a split of
        `apart_from`, or there are fewer pairs than asked for.
    ConfigError
        A column does not exist, or a number is not positive.
    """
    manifest = _manifest(manifest)
    for name, column in {"speaker": speaker, "match": match}.items():
        _check_column(manifest, name, column)
    for name, number in {"n_target": n_target, "n_nontarget": n_nontarget}.items():
        if number is not None and number < 1:
            raise ConfigError(f"{name} is {number}: expected 1 or more trials, or null for all pairs")
    _check_apart(manifest, speaker, apart_from)
    of_speaker: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(manifest.rows, key=lambda row: (draw(seed, row["id"]), row["id"])):
        of_speaker[row[speaker]].append(row)
    order = sorted(of_speaker, key=lambda name: (draw(seed, "speaker", name), name))
    speakers = [of_speaker[name] for name in order]
    session_of = _session(manifest, session)
    targets = _take((_pairs_within(rows, session_of) for rows in speakers), n_target, "target", session)
    others = (
        _pairs_between(a, b, draw(seed, a[0][speaker], b[0][speaker]))
        for a, b in _pairs(speakers)
        if match is None or a[0][match] == b[0][match]
    )
    nontargets = _take(others, n_nontarget, "nontarget", match)
    trials = [Trial(True, *pair) for pair in targets] + [Trial(False, *pair) for pair in nontargets]
    logger.info(f"{path}: {len(targets)} target and {len(nontargets)} non-target trials of {len(speakers)} speakers")
    return write_trials(path, trials)


def write_trials(path: str | os.PathLike[str], trials: Iterable[Trial]) -> Path:
    """Write a trial list, as CSV where its name ends so and as text where not."""
    rows = [[str(int(trial.target)), trial.enrol, trial.test] for trial in trials]
    odd = [name for row in rows for name in row[1:] if re.search(r"\s", name)]
    text = io.StringIO(newline="")
    if Path(path).suffix == ".csv":
        csv.writer(text, lineterminator="\n").writerows([_HEADER, *rows])
    elif odd:
        raise DataError(f"id '{odd[0]}' has a space in it, which a trial list of text cannot hold: write a .csv")
    else:
        text.writelines(" ".join(row) + "\n" for row in rows)
    atomic_write(path, text.getvalue())
    return Path(path)


def read_trials(
    path: str | os.PathLike[str], manifest: Manifest | str | os.PathLike[str], speaker: str = "group"
) -> list[Trial]:
    """Read a trial list, ours or one that is published, on the utterances of a manifest.

    Parameters
    ----------
    path : path
        `.csv` with the columns `target,enrol,test`, or text with these three in each line.
    manifest : Manifest or path
        Has the utterances, by id or by the end of their file's path (`id10270/5r0dWxy17C8/00001.wav`).
    speaker : str
        Column with the speaker.

    Returns
    -------
    list of Trial
        By id, in the list's order, of both kinds.

    Raises
    ------
    DataError
        The list is missing, empty, or of one kind only; a line has other fields, names an utterance that the manifest
        does not have or one whose file is not there, or calls two speakers one or one two: the message names list,
        line and utterance.
    """
    manifest = _manifest(manifest)
    resolve = _resolver(manifest)
    trials = []
    for where, fields in _lines(Path(path)):
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise DataError(f"{where}: '{' '.join(fields)}', expected 1 or 0 and two utterances; mend the list")
        enrol, test = (resolve(name, where) for name in fields[1:])
        same = enrol[speaker] == test[speaker]
        if same != (fields[0] == "1"):
            raise DataError(
                f"{where}: {fields[1]} and {fields[2]} are of {speaker} {enrol[speaker]} and {test[speaker]} in the "
                f"manifest, but the list says {fields[0]}; is it a list for this corpus?"
            )
        trials.append(Trial(same, enrol["id"], test["id"]))
    kinds = Counter(trial.target for trial in trials)
    if len(kinds) < 2:
        raise DataError(
            f"trial list {path}: {kinds[True]} target and {kinds[False]} non-target trials, expected some of each"
        )
    return trials


# --------------------------------------------------------------------------- inside


def _manifest(manifest: Manifest | str | os.PathLike[str]) -> Manifest:
    return manifest if isinstance(manifest, Manifest) else read_manifest(manifest)


def _check_column(manifest: Manifest, name: str, column: str | None) -> None:
    if column is not None and column not in manifest.rows[0]:
        known = ", ".join(["group", *manifest.labels])
        raise ConfigError(f"{name} is '{column}': this manifest has no such column, expected one of {known}")


def _check_apart(manifest: Manifest, speaker: str, others: Iterable[Manifest | str | os.PathLike[str]]) -> None:
    here = {row[speaker] for row in manifest.rows}
    for other in others:
        shared = sorted(here & {row.get(speaker) for row in _manifest(other).rows})
        if shared:
            raise DataError(
                f"{speaker} {', '.join(map(str, shared[:3]))} ({len(shared)} in all) of the trials are in another split"
                " too: expected speakers that training has not heard; split the corpus by speaker"
            )


def _session(manifest: Manifest, session: str | None) -> Callable[[Row], str | None]:
    """What tells the session of a row."""
    if session is None:
        return lambda row: None
    if session in manifest.rows[0]:
        return lambda row: row[session]
    try:
        pattern = re.compile(session)
    except re.error as error:
        raise ConfigError(f"session is '{session}': not a regular expression ({error})") from error
    if pattern.groups != 1:
        _check_column(manifest, "session", session)

    def find(row: Row) -> str:
        found = pattern.search(row["id"])
        if found is None:
            raise ConfigError(f"session is '{session}': not found in the id {row['id']}, expected in all of them")
        return found[1]

    return find


def _pairs(items: list) -> Iterator[tuple]:
    """All pairs of a list, neighbours first, then those two apart, cyclically: items take turns from the start."""
    n = len(items)
    for step in range(1, n // 2 + 1):
        for k in range(n // 2 if 2 * step == n else n):
            yield items[k], items[(k + step) % n]


def _pairs_within(rows: list[Row], session_of: Callable[[Row], str | None]) -> Iterator[tuple[str, str]]:
    """Pairs of one speaker's utterances, of two sessions where they are told."""
    for a, b in _pairs(rows):
        if session_of(a) is None or session_of(a) != session_of(b):
            yield a["id"], b["id"]


def _pairs_between(a: list[Row], b: list[Row], start: float) -> Iterator[tuple[str, str]]:
    """All pairs of two speakers' utterances, along diagonals from a drawn place on, so that utterances take turns."""
    cycle = math.lcm(len(a), len(b))
    first = int(start * len(a) * len(b))
    for number in range(len(a) * len(b)):
        k = (first + number) % (len(a) * len(b))
        yield a[k % len(a)]["id"], b[(k + k // cycle) % len(b)]["id"]


def _take(
    sources: Iterable[Iterator[tuple[str, str]]], wanted: int | None, kind: str, by: str | None
) -> list[tuple[str, str]]:
    """Pairs from each source in turn, until there are enough; no more sources are made than are needed."""
    taken: list[tuple[str, str]] = []
    again: deque[Iterator[tuple[str, str]]] = deque()
    fresh = iter(sources)
    while wanted is None or len(taken) < wanted:
        source = next(fresh, None) or (again.popleft() if again else None)
        if source is None:
            break
        pair = next(source, None)
        if pair is not None:
            taken.append(pair)
            again.append(source)
    if not taken or (wanted is not None and len(taken) < wanted):
        found = f"{len(taken)} {kind} pairs" + (f" with regard to '{by}'" if by else "")
        needed = "two utterances of one speaker" if kind == "target" else "two speakers"
        remedy = f"give n_{kind} of at most {len(taken)}" if taken else f"expected {needed} at least"
        raise DataError(f"n_{kind} is {wanted}, but this split has {found}: {remedy}")
    return taken


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where each line stands, and its fields."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"trial list {path} cannot be read: {reason}; give another, or null to make one") from error
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if not set(_HEADER) <= set(reader.fieldnames or ()):
            raise DataError(f"trial list {path} has the columns {reader.fieldnames}: expected {','.join(_HEADER)}")
        for row in reader:
            yield f"trial list {path}, line {reader.line_num}", [row[name] or "" for name in _HEADER]
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"trial list {path}, line {number}", line.split()


def _resolver(manifest: Manifest) -> Callable[[str, str], Row]:
    """The function that finds the row of an id or of a file, and refuses one whose file is not there."""
    by_id = {row["id"]: row for row in manifest.rows}
    by_tail: dict[str, list[Row]] = {}
    there: set[Path] = set()

    def find(name: str, where: str) -> Row:
        if name in by_id:
            return by_id[name]
        if not by_tail:
            for row in manifest.rows:
                parts = manifest.audio_path(row).parts
                for length in range(1, len(parts) + 1):
                    by_tail.setdefault("/".join(parts[-length:]).replace("//", "/"), []).append(row)
        found = by_tail.get(name, [])
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} utterances of the manifest" if found else "no utterance of the manifest, by id or file"
        raise DataError(f"{where}: '{name}' is {what}; is it a list for this corpus and split?")

    def resolve(name: str, where: str) -> Row:
        row = find(name, where)
        path = manifest.audio_path(row)
        if path not in there:
            if not path.is_file():
                raise DataError(f"{where}: the file of '{name}', {path}, is not there; fetch it, or prepare again")
            there.add(path)
        return row

    return resolve
