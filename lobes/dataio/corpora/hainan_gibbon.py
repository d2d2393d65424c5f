"""Hainan gibbons, the rarest of apes: day-long recordings of eight recorders with every call labelled to the second.

E. Dufourq et al., "Automated detection of Hainan gibbon calls for passive acoustic monitoring", Remote Sensing in
Ecology and Conservation 7(3), 2021; data https://zenodo.org/records/3991714. Calls are of the types 1, 2, 3 and,
rarely, others.

The protocol `beans` is that of the benchmark BEANS (M. Hagiwara et al., ICASSP 2023): recordings in the order of their
names, the first six to train on, three to validate, the others to test; each at 9.6 kHz in chunks of 60 s, of which
every third is kept, in windows of 4 s every 2 s; a window is of a type of call where the two overlap by more than a
fifth of the shorter one, and types other than 1, 2 and 3 count as 1.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from lobes.dataio.annotations import Annotation, read_annotations, recording_stem
from lobes.dataio.audio import AudioError, AudioInfo, audio_info
from lobes.dataio.corpora.common import Corpus, one_of, prepare_clips
from lobes.dataio.folders import data_root, wrong_layout
from lobes.dataio.manifest import Row
from lobes.dataio.scan import Clip, find_audio
from lobes.errors import ConfigError, DataError

CORPUS = Corpus("hainan_gibbon", "Hainan gibbon calls, https://zenodo.org/records/3991714", "CC BY-NC-SA 4.0")
PROTOCOLS = ("beans", "full")
GROUPS = ("recording", "recorder")
TYPES = ("1", "2", "3")
#: Hz: what BEANS resamples to, and what the lengths of its chunks are rounded to.
SAMPLE_RATE = 9600
_CHUNK_SECONDS = 60
_OVERLAP = 0.2
_TRAIN, _VALID = 6, 3
_RECORDER = re.compile(r"([A-Za-z0-9]+)_")


def prepare_hainan_gibbon(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    protocol: str = "beans",
    window: float = 4.0,
    hop: float = 2.0,
    group: str = "recording",
    decode: bool = False,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write a manifest of windows, with labels `types` (such as "1 2"; empty where no gibbon calls) and `recording`.

    Read the windows at 9,600 Hz for BEANS. Only a recording's last window can be shorter than the others: BEANS fills
    it up with zeros.

    Parameters
    ----------
    data_folder : path, optional
        The two archives, unpacked: `Train/{recording}.wav` and `Train_Labels/g_{recording}.data`; None means
        `LOBES_DATA`.
    save_folder : path
        Where the manifests go.
    protocol : str
        `beans`: `train.csv`, `valid.csv` and `test.csv` as above. `full`: `all.csv`, every window of every recording
        with labels below `data_folder`, for `lobes.dataio.make_folds`.
    window, hop : float
        Seconds; 4 and 2 in `beans`.
    group : str
        `recording`, or, in `full`, `recorder`, the first part of its name.
    decode : bool
        Decode all recordings (159 GB with those to test on) to check them; False reads the headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV.

    Raises
    ------
    ConfigError
        There is no such protocol or group, or BEANS is asked for with other windows or groups than its own.
    DataError
        The folder is missing or another, there are too few recordings, or no recording is good.
    """
    one_of("protocol", protocol, PROTOCOLS)
    one_of("group", group, GROUPS)
    if not 0 < hop or not 0 < window:
        raise ConfigError(f"window is {window} and hop is {hop}: expected positive numbers of seconds")
    beans = protocol == "beans"
    if beans and (window, hop, group) != (4.0, 2.0, "recording"):
        raise ConfigError(f"window {window}, hop {hop}, group {group}: BEANS has 4, 2 and recording; use protocol=full")
    root = data_root(CORPUS.name, data_folder)
    tables = {recording_stem(name): name for name in find_audio(root, suffixes=(".data",)) if "/g_" in f"/{name}"}
    recordings = find_audio(root, "Train" if beans else "")
    if not tables or not recordings:
        raise wrong_layout(CORPUS.name, root, "Train/*.wav with Train_Labels/g_*.data")
    if beans and len(recordings) <= _TRAIN + _VALID:
        raise DataError(f"{root}/Train has {len(recordings)} recordings: BEANS needs {_TRAIN + _VALID + 1} or more")
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    for path in recordings:
        table = tables.get(PurePosixPath(path).stem)
        info = _info(root / path) if table else f"has no labels g_{PurePosixPath(path).stem}.data"
        if table is None or isinstance(info, str):
            skipped.append((path, str(info)))
        else:
            calls = read_annotations(root / table, "hainan")
            clips += _windows(path, info, calls, window=window, hop=hop, group=group, beans=beans)
    split_of = {PurePosixPath(path).stem: _beans_split(n) if beans else "all" for n, path in enumerate(recordings)}
    splits = ["train", "valid", "test"] if beans else ["all"]

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return {name: [row for row in rows if split_of[row["recording"]] == name] for name in splits}

    return prepare_clips(
        CORPUS,
        clips,
        root,
        save_folder,
        splits=splits,
        assign=assign,
        options={"protocol": protocol, "window": window, "hop": hop, "group": group},
        other_files=tables.values(),
        skipped=skipped,
        decode=decode,
        n_jobs=n_jobs,
    )


def window_types(calls: Sequence[Annotation], start: float, stop: float) -> list[str]:
    """Return the types of the calls that a window from `start` to `stop` seconds counts as, by BEANS's rule.

    Examples
    --------
    >>> call = Annotation(3.0, 8.0, "2")
    >>> window_types([call], 0.0, 4.0), window_types([call], 0.0, 3.5)
    (['2'], [])
    """
    types = set()
    for call in calls:
        shorter = min(stop - start, call.duration)
        overlap = min(stop, call.end) - max(start, call.start)
        if shorter > 0 and overlap / shorter > _OVERLAP:
            label = call.label.removesuffix(".0")
            types.add(label if label in TYPES else TYPES[0])
    return sorted(types)


def _windows(
    path: str,
    info: AudioInfo,
    calls: Sequence[Annotation],
    *,
    window: float,
    hop: float,
    group: str,
    beans: bool,
) -> Iterator[Clip]:
    """Yield the windows of a recording; those of BEANS do not cross the edges of its chunks, nor do its calls."""
    name = PurePosixPath(path).stem
    recorder = _RECORDER.match(name)
    labels = {"recording": name, "recorder": recorder[1] if recorder else name}
    # The number of samples after resampling, as BEANS counts.
    seconds = math.ceil(info.frames * SAMPLE_RATE / info.sample_rate) / SAMPLE_RATE if beans else info.duration
    chunk = float(_CHUNK_SECONDS) if beans else seconds
    for number in range(math.ceil(seconds / chunk)):
        if beans and number % 3:
            continue
        begin, end = number * chunk, min((number + 1) * chunk, seconds)
        near: dict[int, list[Annotation]] = defaultdict(list)  # number of a window -> calls that it may hold
        for call in calls:
            cut = Annotation(max(call.start, begin), min(call.end, begin + chunk), call.label)
            for n in range(math.floor((cut.start - begin - window) / hop), math.floor((cut.end - begin) / hop) + 1):
                near[n].append(cut)
        count = int((end - begin - window) / hop) + 1 if beans else max(1, math.ceil((end - begin - window) / hop) + 1)
        for n in range(count):
            start = begin + n * hop
            types = {"types": " ".join(window_types(near[n], start, start + window)), **labels}
            stop = min(start + window, info.duration)
            yield Clip(path, f"{name}_{start:09.3f}", labels[group], types, start=start, stop=stop)


def _beans_split(number: int) -> str:
    """Return the split of the recording of a number, from 0, in the order of names."""
    return "train" if number < _TRAIN else "valid" if number < _TRAIN + _VALID else "test"


def _info(path: Path) -> AudioInfo | str:
    try:
        return audio_info(path)
    except AudioError as error:
        return error.reason
