"""MiniFrench: a corpus of French speech that is generated on the spot, for demonstrations, tests and tutorials.

Sentences come from a small grammar of numbers, times and dates, voice commands and statements (about 600 words);
eSpeak NG speaks them in up to 45 voices; silence, level and background noise vary. No speaker and no sentence of a
split occurs in another one. It is *generated speech*: a result on it says that a recipe works, not how good it is on
real voices.

eSpeak NG is licensed under the GPL-3. It comes with the optional package `espeakng-loader`
(`pip install -e .[minifrench]`) and runs in a process of its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from lobes.dataio.manifest import write_manifest
from lobes.dataio.synthesis.store import SpeechStore, take_seconds
from lobes.dataio.synthesis.utterances import SAMPLE_RATE, Utterance
from lobes.dataio.synthesis.voices import VARIANTS, speakers
from lobes.errors import ConfigError

SPLITS = ("train", "valid", "test")
NOTE = "generated speech"
SOURCE = "MiniFrench: generated speech, sentences of a grammar spoken by eSpeak NG"
LICENCE = "generated on this machine, free of anyone's recordings"


def cache_folder() -> Path:
    """Where generated corpora are kept: `LOBES_CACHE`, or else `lobes` in the user's cache folder."""
    own = os.environ.get("LOBES_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lobes"


def prepare_minifrench(
    save_folder: str | os.PathLike[str],
    data_folder: str | os.PathLike[str] | None = None,
    hours: float = 0.75,
    n_utterances: int | None = None,
    seed: int = 0,
    n_speakers: int = 36,
    snr_db: tuple[float, float] = (15.0, 45.0),
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Generate MiniFrench, or as much of it as is not there yet, and write its manifests.

    Equal `seed`, `n_speakers` and `snr_db` give equal bytes (with one build of eSpeak NG and of numpy), whatever
    `n_jobs`; a larger corpus begins with all of a smaller one. What was generated before is reused, whole or in part.

    Parameters
    ----------
    save_folder : path
        Where `train.csv`, `valid.csv`, `test.csv` and their sidecars go.
    data_folder : path, optional
        Where the audio goes, into a sub-folder named after the options. By default `cache_folder()`.
    hours : float
        Hours of audio in all splits together, reached to within half an utterance.
    n_utterances : int, optional
        Ask for a number of utterances instead of `hours`.
    seed : int
        At least 0. The voices that are held out, and the sentences that are, do not depend on it.
    n_speakers : int
        4 to 45. Of each nine speakers six are for train, one for valid, two for test: 24, 4 and 8 of 36.
    snr_db : tuple of float
        Range of signal-to-noise ratios in dB.
    n_jobs : int, optional
        eSpeak NG processes; by default one for each processor that this process may use, at most 8.

    Returns
    -------
    dict
        `train`, `valid`, `test` -> manifest, with the labels `text` (in `FRENCH_ALPHABET`), `kind` (number, time,
        command, statement) and `gender` (f, m); `group` is the speaker.

    Raises
    ------
    ConfigError
        An option is out of its range.
    DataError
        The package espeakng-loader is missing while there is something to generate, or the folder cannot be written.

    Examples
    --------
    >>> manifests = prepare_minifrench("results/minifrench", hours=0.1)  # doctest: +SKIP
    """
    _check(hours, n_utterances, seed, n_speakers, n_jobs)
    parent = Path(data_folder or cache_folder()).expanduser()
    store = SpeechStore(parent, seed, speakers(n_speakers), _span("snr_db", snr_db))
    clips = _collect(store, hours, n_utterances, n_jobs or min(_usable_cores(), 8))
    rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for utterance, duration in clips:
        rows[utterance.speaker.split].append(_row(utterance, duration, store))
    if not all(rows.values()):
        raise ConfigError(f"hours={hours}: too little for an utterance in each split; ask for at least 0.01")
    size = {"hours": hours} if n_utterances is None else {"n_utterances": n_utterances}
    return {
        split: write_manifest(
            Path(save_folder) / f"{split}.csv",
            rows[split],
            data_root=store.folder.resolve(),
            source=SOURCE,
            licence=LICENCE,
            generated=True,
            options={**store.options, **size},
            note=NOTE,
        )
        for split in SPLITS
    }


def _collect(store: SpeechStore, hours: float, n_utterances: int | None, n_jobs: int) -> list[tuple[Utterance, float]]:
    """Make or find the first utterances, as many as were asked for, behind a progress bar."""
    indices = itertools.count() if n_utterances is None else range(n_utterances)
    total = 60.0 * hours if n_utterances is None else float(n_utterances)
    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}]"
    unit = "min" if n_utterances is None else "utterances"
    clips = []
    # The bar is for work: it does not show where everything is found within a second.
    with (
        closing(store.utterances(indices, n_jobs)) as made,
        tqdm(desc=f"MiniFrench ({NOTE})", total=total, unit=unit, bar_format=layout, delay=1.0, disable=None) as bar,
    ):
        for utterance, duration in made if n_utterances is not None else take_seconds(made, 3600 * hours):
            clips.append((utterance, duration))
            bar.update(min(duration / 60, total - bar.n) if n_utterances is None else 1)
    return clips


def _row(utterance: Utterance, duration: float, store: SpeechStore) -> dict:
    return {
        "id": utterance.id,
        "wav": "$data_root/" + store.path(utterance).relative_to(store.folder).as_posix(),
        "start": 0.0,
        "stop": duration,
        "duration": duration,
        "sample_rate": SAMPLE_RATE,
        "channel": 0,
        "group": utterance.speaker.name,
        "text": utterance.text,
        "kind": utterance.kind,
        "gender": utterance.speaker.gender,
    }


def _check(hours: float, n_utterances: int | None, seed: int, n_speakers: int, n_jobs: int | None) -> None:
    # The splits of the first four speakers are train, test, train, valid.
    for name, value, low, high in (
        ("n_speakers", n_speakers, 4, len(VARIANTS)),
        ("n_utterances", n_utterances, 4, None),
        ("seed", seed, 0, None),
        ("n_jobs", n_jobs, 1, None),
    ):
        if value is None:
            continue
        if not isinstance(value, int) or value < low or (high is not None and value > high):
            upto = "" if high is None else f" to {high}"
            raise ConfigError(f"{name}={value}: expected a whole number from {low}{upto}")
    if n_utterances is None and not 0 < hours < float("inf"):
        raise ConfigError(f"hours={hours}: expected hours of audio above 0, such as 0.75")


def _span(name: str, value: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise ConfigError(f"{name}={value}: expected two numbers, from low to high, such as [15, 45]")
    return low, high


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
