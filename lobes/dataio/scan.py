"""From files to manifest rows: every file is decoded once, bad ones are left out, counted and named.

A part that ends after its file is cut where the file ends, if at least half of it is there: archives have segments
whose end is off by a little, and a test split that is to be compared should not shrink for it. These are counted and
named too.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lobes.dataio.audio import AudioError, AudioInfo, audio_info, check_audio
from lobes.dataio.manifest import Row, atomic_write
from lobes.errors import DataError

logger = logging.getLogger(__name__)

#: Seconds that the `stop` of a clip may exceed its file by: tables round.
_SLACK_SECONDS = 0.01
#: What `find_audio` takes for audio, in any case.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
_CHUNK = 4096


@dataclass(frozen=True)
class Clip:
    """A file, or a part of one, that may become a row.

    Attributes
    ----------
    path : str
        Relative to the data root, with forward slashes.
    id : str
        Unique in the corpus.
    group : str
        Speaker, individual, recorder, ...
    labels : mapping
        Label -> string; the same labels for all clips of a corpus.
    start, stop : float
        Seconds from the beginning of the file; by default the whole file.
    channel : int, optional
        From 0; by default the mean of all.
    """

    path: str
    id: str
    group: str
    labels: Mapping[str, str] = field(default_factory=dict)
    start: float = 0.0
    stop: float | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Scan:
    """Rows of the good files, in the order of the clips; (file, reason) of those left out, and of parts cut short."""

    rows: list[Row]
    skipped: list[tuple[str, str]]
    cut: list[tuple[str, str]] = field(default_factory=list)


def scan_clips(
    clips: Sequence[Clip],
    data_root: str | os.PathLike[str],
    save_folder: str | os.PathLike[str],
    *,
    corpus: str,
    skipped: Iterable[tuple[str, str]] = (),
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    decode: bool = True,
    n_jobs: int | None = None,
) -> Scan:
    """Check the files of `clips` and make one row of each good one.

    Parameters
    ----------
    clips : sequence of Clip
        What to look at.
    data_root : path
        Folder that the clips' paths are relative to.
    save_folder : path
        Where `skipped.csv` and, if there are any, `cut.csv` (file, reason) go.
    corpus : str
        For messages and the progress bar.
    skipped : iterable of (file, reason)
        What was left out before, for the same report.
    min_seconds, max_seconds : float
        Clips outside are left out.
    decode : bool
        True decodes every file from end to end, False reads the headers only (very large corpora).
    n_jobs : int, optional
        Threads (decoding runs outside Python's lock); all cores that this process may use by default.

    Returns
    -------
    Scan

    Raises
    ------
    DataError
        Not one file is good.
    """
    check = partial(_check, root=Path(data_root), decode=decode)
    paths = list(dict.fromkeys(clip.path for clip in clips))  # of which many clips may be parts
    outcomes = dict(zip(paths, _progress(paths, check, corpus, n_jobs or _cores()), strict=True))
    rows: list[Row] = []
    cut: list[tuple[str, str]] = []
    found_bad: dict[tuple[str, str], None] = {}  # each file and reason once, however many clips are parts of it
    for clip in clips:
        outcome = outcomes[clip.path]
        row = _row(clip, outcome) if isinstance(outcome, AudioInfo) else outcome
        if isinstance(row, dict) and not min_seconds <= row["duration"] <= max_seconds:
            short = row["duration"] < min_seconds
            row = f"is shorter than {min_seconds:g} s" if short else f"is longer than {max_seconds:g} s"
        part = isinstance(outcome, AudioInfo) and clip.stop is not None
        name = f"{clip.path}, {clip.start:g}-{clip.stop:g} s" if part else clip.path
        if isinstance(row, str):
            found_bad[name, row] = None
            continue
        rows.append(row)
        if clip.stop is not None and clip.stop > row["stop"] + _SLACK_SECONDS:
            cut.append((name, f"is cut at {row['stop']:g} s, where the file ends"))
    left_out = [*skipped, *found_bad]
    _report(left_out, Path(save_folder) / "skipped.csv")
    if cut or (Path(save_folder) / "cut.csv").is_file():
        _report(cut, Path(save_folder) / "cut.csv")
    if not rows:
        first = f"; the first: {left_out[0][0]} {left_out[0][1]}" if left_out else ""
        raise DataError(f"{corpus}: none of {len(left_out)} files under {data_root} can be used{first}")
    hours = sum(row["duration"] for row in rows) / 3600
    logger.info("%s: %d clips, %.2f h; %d files left out%s", corpus, len(rows), hours, len(left_out), _why(left_out))
    if cut:
        logger.warning(
            "%s: %d parts are cut where their file ends, the first: %s (cut.csv)", corpus, len(cut), cut[0][0]
        )
    return Scan(rows, left_out, cut)


def find_audio(folder: str | os.PathLike[str], below: str = "", suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[str]:
    """List audio files under `folder/below`, sorted, relative to `folder`, without hidden ones."""
    found = []
    seen: set[str] = set()  # links are followed, but not round and round
    folder = Path(folder)
    for parent, folders, files in os.walk(folder / below, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        base = Path(parent).relative_to(folder)
        found += [
            (base / name).as_posix()
            for name in files
            if name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
        ]
    return sorted(found)


def _progress(
    paths: Sequence[str], check: partial[AudioInfo | str], corpus: str, n_jobs: int
) -> Iterator[AudioInfo | str]:
    from tqdm import tqdm

    with tqdm(total=len(paths), desc=f"Reading {corpus}", unit="file", disable=None) as bar:
        with ThreadPoolExecutor(max(1, n_jobs)) as pool:
            # In chunks, because map() would otherwise queue a million futures at once.
            for first in range(0, len(paths), _CHUNK):
                for outcome in pool.map(check, paths[first : first + _CHUNK]):
                    bar.update()
                    yield outcome


def _check(path: str, root: Path, decode: bool) -> AudioInfo | str:
    """Return the size of a file, or the reason why it cannot be used."""
    try:
        return (check_audio if decode else audio_info)(root / path)
    except AudioError as error:
        return error.reason


def _row(clip: Clip, info: AudioInfo) -> Row | str:
    """Return the row of a clip, or the reason why its file has no such part."""
    stop = info.duration if clip.stop is None else clip.stop
    if not 0 <= clip.start < stop:
        return "is an impossible range: expected 0 <= start < stop"
    # Half of it is enough, but for a rounding.
    if info.duration - clip.start < (stop - clip.start) / 2 - 1e-9:
        return f"ends after the file, which holds {info.duration:.3f} s"
    if clip.channel is not None and not 0 <= clip.channel < info.channels:
        return f"is of channel {clip.channel}, counted from 0, of a file that has {info.channels}"
    start, stop = round(clip.start, 6), round(min(stop, info.duration), 6)
    return {
        "id": clip.id,
        "wav": f"$data_root/{clip.path}",
        "start": start,
        "stop": stop,
        "duration": round(stop - start, 6),
        "sample_rate": info.sample_rate,
        "channel": clip.channel,
        "group": clip.group,
        **clip.labels,
    }


def _report(skipped: list[tuple[str, str]], path: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("file", "reason"), *skipped])
    atomic_write(path, text.getvalue())


def _why(skipped: list[tuple[str, str]]) -> str:
    """Summarise the reasons: `: 3 is empty (0 bytes), 1 is a folder`."""
    reasons = Counter(reason for _, reason in skipped).most_common(3)
    return ": " + ", ".join(f"{count} {reason}" for reason, count in reasons) + " …" if reasons else ""


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux knows
        return os.cpu_count() or 1
