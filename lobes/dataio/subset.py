"""Less of a manifest: the first so many hours of it, or clips of each label, in an order of its own."""

from __future__ import annotations

from collections import Counter

from lobes.dataio.manifest import Manifest, data_checksum
from lobes.dataio.splits import draw
from lobes.errors import ConfigError


def take_hours(manifest: Manifest, hours: float | None, seed: int = 0) -> Manifest:
    """Keep about so many hours, drawn utterance by utterance, to train with few labels.

    A smaller subset is contained in a larger one of the same seed.

    Parameters
    ----------
    manifest : Manifest
        What to take from.
    hours : float, optional
        How much; None for everything.
    seed : int
        Decides the order in which utterances are taken.

    Returns
    -------
    Manifest
        Rows in their old order; its checksum is that of what was kept.

    Raises
    ------
    ConfigError
        `hours` is not positive.
    """
    if hours is None:
        return manifest
    if not hours > 0:
        raise ConfigError(f"hours is {hours}: expected a positive number of hours, or null for all of them")
    order = sorted(manifest.rows, key=lambda row: draw(seed, row["id"]))
    kept: set[str] = set()
    seconds = 0.0
    for row in order:
        if kept and seconds + row["duration"] / 2 > hours * 3600:
            break
        kept.add(row["id"])
        seconds += row["duration"]
    return _subset(manifest, kept)


def take_clips(manifest: Manifest, clips: int | None, label: str, seed: int | str = 0) -> Manifest:
    """Keep so many clips of each value of a label, drawn clip by clip, to train with few labels.

    A smaller subset is contained in a larger one of the same seed.

    Parameters
    ----------
    manifest : Manifest
        What to take from.
    clips : int, optional
        How many clips of each; a value that has fewer keeps all of them. None for everything.
    label : str
        The label (`"speaker"`, `"digit"`).
    seed : int or str
        Decides the order in which clips are taken.

    Returns
    -------
    Manifest
        Rows in their old order; its checksum is that of what was kept.

    Raises
    ------
    ConfigError
        `clips` is not positive, or there is no such label.
    """
    if clips is None:
        return manifest
    if clips < 1:
        raise ConfigError(f"clips is {clips}: expected 1 or more of each {label}, or null for all of them")
    if label not in manifest.labels:
        raise ConfigError(f"label is '{label}': expected one of {', '.join(manifest.labels) or 'none'}")
    kept: set[str] = set()
    taken: Counter[str] = Counter()
    for row in sorted(manifest.rows, key=lambda row: draw(seed, row["id"])):
        if taken[row[label]] < clips:
            kept.add(row["id"])
            taken[row[label]] += 1
    return _subset(manifest, kept)


def _subset(manifest: Manifest, kept: set[str]) -> Manifest:
    """The rows with these ids, and what then is true of them."""
    subset = Manifest([row for row in manifest.rows if row["id"] in kept], {**manifest.meta}, manifest.roots)
    subset.meta.pop("checksum", None)
    subset.meta.update(items=len(subset), hours=subset.hours, checksum=data_checksum(subset))
    return subset
