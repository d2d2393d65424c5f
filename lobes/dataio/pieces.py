"""Clips cut into pieces of one length: more examples of each speaker, and trials of short speech."""

from __future__ import annotations

from lobes.dataio.manifest import Manifest, data_checksum
from lobes.errors import ConfigError


def cut_clips(manifest: Manifest, seconds: float | None) -> Manifest:
    """Cut each clip into as many pieces of one length as it holds; a shorter clip stays as it is.

    Parameters
    ----------
    manifest : Manifest
        What to cut.
    seconds : float, optional
        Length of a piece; None leaves all clips whole.

    Returns
    -------
    Manifest
        Piece k of the clip `a` is `a_k`, with the clip's labels. What is left at a clip's end is dropped.

    Raises
    ------
    ConfigError
        `seconds` is not positive.

    Example
    -------
    >>> row = dict(id="a", wav="a.wav", start=1.0, stop=3.5, duration=2.5, sample_rate=8000, channel=0, group="ann")
    >>> [(r["id"], r["start"], r["stop"]) for r in cut_clips(Manifest([row]), 1.0).rows]
    [('a_0', 1.0, 2.0), ('a_1', 2.0, 3.0)]
    """
    if seconds is None:
        return manifest
    if not seconds > 0:
        raise ConfigError(f"cut_seconds is {seconds}: expected a positive number of seconds, or null for whole clips")
    rows = []
    for row in manifest.rows:
        count = int((row["duration"] + 1e-6) // seconds)
        if count == 0:
            rows.append(row)
        for k in range(count):
            start = row["start"] + k * seconds
            place = {"start": start, "stop": start + seconds, "duration": float(seconds)}
            rows.append({**row, **place, "id": f"{row['id']}_{k}"})
    cut = Manifest(rows, {**manifest.meta}, manifest.roots)
    cut.meta.update(items=len(cut), hours=cut.hours, checksum=data_checksum(cut))
    return cut
