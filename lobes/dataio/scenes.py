"""Calls mixed into backgrounds: recordings of which it is known exactly where each call begins and ends, and how loud.

In the manner of Scaper (J. Salamon et al., "Scaper: a library for soundscape synthesis and augmentation", WASPAA 2017),
from manifests to a manifest. What is there to be told from the background is only the call: with a `band`, whatever a
call's own recording holds outside of it is not pasted with it, and the signal-to-noise ratio is that inside the band.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lobes.dataio.audio import AudioError, read_audio
from lobes.dataio.background import BandOnly
from lobes.dataio.manifest import Manifest, Row, read_manifest, read_meta, write_manifest
from lobes.errors import ConfigError, DataError

#: Label of a scene in which nothing calls.
BACKGROUND = "background"
#: Seconds: over which a call rises and falls, over which one background goes over into the next, and between two calls.
FADE, CROSSFADE, GAP = 0.1, 0.5, 1.0
_PEAK = 0.95
_SILENCE = 1e-12


class _Call(NamedTuple):
    """A call of a scene: its waveform, where it begins (samples) and its ratio to the background, dB."""

    row: Row
    waveform: Tensor
    begin: int
    snr_db: float


def write_scenes(
    calls_csv: str | os.PathLike[str],
    backgrounds_csv: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    label: str = "call_type",
    n_scenes: int = 100,
    seconds: float = 60.0,
    calls: tuple[int, int] = (0, 4),
    snr_db: Sequence[float] = (-5.0, 0.0, 5.0, 10.0),
    every_level: bool = False,
    band: tuple[float, float] | None = None,
    sample_rate: int = 16000,
    seed: int = 0,
) -> Path:
    """Mix calls into backgrounds; write the scenes as FLAC beside a manifest that has a row for each call.

    A scene's background are clips of one group, chained; groups take turns. Its calls do not overlap; each is of a
    label that is drawn first, so that rare ones are as frequent. A scene without calls has one row, from end to end, of
    the label `background`. Everything is a pure function of the manifests, the options and `seed`; scenes that are
    there already and were made so are left alone.

    Parameters
    ----------
    calls_csv, backgrounds_csv : path
        Manifests. A scene's group is that of its background.
    path : path
        The CSV to write; the scenes go into a folder of its name, without the suffix.
    label : str
        The column of `calls_csv` to keep.
    n_scenes : int
        How many, with different calls or backgrounds.
    seconds : float
        Length of each.
    calls : tuple of int
        Fewest and most calls of a scene; fewer where they would not fit.
    snr_db : sequence of float
        Levels of a call above the background that it covers, dB; one is drawn for each call.
    every_level : bool
        Write each scene once for each level instead, all of its calls at that level: what detection loses with noise
        can then be compared scene by scene.
    band : tuple of float, optional
        Hz, low and high: see the module's docstring. None takes whole calls.
    sample_rate : int
        Hz, of the scenes.
    seed : int
        Decides what is drawn.

    Returns
    -------
    Path
        The CSV, with the labels `label`, `snr_db` and `recording`.

    Raises
    ------
    ConfigError
        An option is impossible.
    DataError
        A manifest cannot be read or has no such label, or no call or no background can be read.
    """
    _check(n_scenes, seconds, calls, snr_db)
    path, sources = Path(path), (read_manifest(calls_csv), read_manifest(backgrounds_csv))
    if label not in sources[0].labels:
        raise DataError(f"{calls_csv} has no label '{label}': expected one of {', '.join(sources[0].labels)}")
    options = {"label": label, "n_scenes": n_scenes, "seconds": seconds, "calls": list(calls), "snr_db": list(snr_db)}
    options |= {"every_level": every_level, "band": None if band is None else list(band), "seed": seed}
    options |= {"sample_rate": sample_rate, "sources": [source.checksum for source in sources]}
    if _is_current(path, options):
        return path
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    studio = _Studio(*sources, label, seconds, calls, list(snr_db), every_level, band, sample_rate, seed)
    rows: list[Row] = []
    for number in range(n_scenes):
        rows += studio.write(number, folder)
    meta = [source.meta for source in sources]
    return write_manifest(
        path,
        rows,
        data_root=folder,
        source="calls mixed into backgrounds: "
        + "; ".join(dict.fromkeys(str(m.get("source", "unknown")) for m in meta)),
        licence="; ".join(dict.fromkeys(str(m.get("licence", "unknown")) for m in meta)),
        options=options,
        skipped=sorted(studio.skipped.items()),
    )


class _Studio:
    """Draws scenes and writes them."""

    def __init__(
        self,
        calls: Manifest,
        backgrounds: Manifest,
        label: str,
        seconds: float,
        n_calls: tuple[int, int],
        levels: list[float],
        every_level: bool,
        band: tuple[float, float] | None,
        rate: int,
        seed: int,
    ) -> None:
        self.label, self.n_calls, self.levels, self.every_level = label, n_calls, levels, every_level
        self.rate, self.seed, self.samples = rate, seed, round(seconds * rate)
        self.filter = partial(BandOnly(*band), sample_rate=rate) if band is not None else None
        self.skipped: dict[str, str] = {}
        self._read = lru_cache(maxsize=64)(partial(read_audio, sample_rate=rate))
        self._calls, self._backgrounds = calls, backgrounds
        self.by_label = self._usable(label, calls.rows, longest=seconds - 2 * GAP)
        self.by_group = self._usable("group", backgrounds.rows, shortest=2 * CROSSFADE)

    def _usable(
        self, column: str, rows: Sequence[Row], shortest: float = 0.0, longest: float = math.inf
    ) -> dict[str, list[Row]]:
        """Rows of a fit length, by the value of a column."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if shortest < row["duration"] <= longest:
                found[row[column]].append(row)
            else:
                limit = f"longer than {longest:g}" if row["duration"] > longest else f"not longer than {shortest:g}"
                self.skipped[row["id"]] = f"is {limit} s"
        return dict(found)

    def write(self, number: int, folder: Path) -> list[Row]:
        """Draw a scene and write it, at one level or at all; return its rows."""
        rng = np.random.default_rng([self.seed, number])
        group, background = self._background(number, rng)
        calls = self._place(rng)
        rows: list[Row] = []
        for level in self.levels if self.every_level else [None]:
            name = f"{number:05d}" + ("" if level is None else f"_{level:g}dB")
            at_level = calls if level is None else [call._replace(snr_db=level) for call in calls]
            self._render(folder / f"{name}.flac", background, at_level)
            rows += self._rows(name, group, at_level, level)
        return rows

    def _background(self, number: int, rng: np.random.Generator) -> tuple[str, Tensor]:
        """Clips of one group, chained, until a scene is full; each group in its turn."""
        while self.by_group:
            group = sorted(self.by_group)[number % len(self.by_group)]
            fade = round(CROSSFADE * self.rate)
            scene, end = torch.zeros(self.samples + fade), 0
            while end < self.samples and self.by_group.get(group):
                row = self._part(_choice(rng, self.by_group[group]), rng)
                clip = self._audio(self._backgrounds, row, self.by_group, group)
                if clip is None:
                    continue
                begin = max(end - fade, 0)
                clip = clip[: len(scene) - begin]
                scene[begin : begin + len(clip)] += _faded(clip, fade, before=end > 0, power=True)
                end = begin + len(clip)
            if end >= self.samples:
                return group, scene[: self.samples]
        raise self._nothing("background")

    def _part(self, row: Row, rng: np.random.Generator) -> Row:
        """As much of a long background as a scene takes, from anywhere in it."""
        spare = row["duration"] - self.samples / self.rate - CROSSFADE
        start = row["start"] + float(rng.random()) * spare
        return {**row, "start": start, "stop": start + row["duration"] - spare} if spare > 0 else row

    def _place(self, rng: np.random.Generator) -> list[_Call]:
        """Draw calls, then where they are, in the order of time."""
        fewest, most = self.n_calls
        drawn: list[tuple[Row, Tensor]] = []
        gap, free = round(GAP * self.rate), self.samples - round(GAP * self.rate)
        for _ in range(int(rng.integers(fewest, most + 1))):
            row, waveform = self._call(rng)
            if len(waveform) + gap <= free:
                drawn.append((row, waveform))
                free -= len(waveform) + gap
        cuts = np.sort(rng.integers(0, free + 1, len(drawn)))
        calls, end = [], 0
        for (row, waveform), before in zip(drawn, np.diff(cuts, prepend=0), strict=True):
            begin = end + gap + int(before)
            calls.append(_Call(row, waveform, begin, float(_choice(rng, self.levels))))
            end = begin + len(waveform)
        return calls

    def _call(self, rng: np.random.Generator) -> tuple[Row, Tensor]:
        while self.by_label:
            label = _choice(rng, sorted(self.by_label))
            row = _choice(rng, self.by_label[label])
            waveform = self._audio(self._calls, row, self.by_label, label)
            if waveform is None:
                continue
            waveform = waveform if self.filter is None else self.filter(waveform)
            if _power(waveform) > _SILENCE:
                return row, _faded(waveform, round(FADE * self.rate))
            self._drop(row, self.by_label, label, "is silent in the band")
        raise self._nothing("call")

    def _render(self, path: Path, background: Tensor, calls: Sequence[_Call]) -> None:
        """Add calls to a background at their levels, and write it."""
        import soundfile

        scene = background.clone()
        heard = background if self.filter is None else self.filter(background)
        for call in calls:
            place = slice(call.begin, call.begin + len(call.waveform))
            ratio = max(_power(heard[place]), _SILENCE) / _power(call.waveform)
            scene[place] += call.waveform * math.sqrt(ratio * 10 ** (call.snr_db / 10))
        scene *= min(1.0, _PEAK / max(float(scene.abs().max()), _SILENCE))
        temporary = path.with_suffix(".part")
        soundfile.write(temporary, scene.numpy(), self.rate, "PCM_16", format="FLAC")
        os.replace(temporary, path)

    def _rows(self, name: str, group: str, calls: Sequence[_Call], level: float | None) -> list[Row]:
        def row(number: int, begin: int, end: int, kind: str, snr_db: float | None) -> Row:
            start, stop = round(begin / self.rate, 6), round(end / self.rate, 6)
            where = {"id": f"{name}:{number}", "wav": f"$data_root/{name}.flac", "start": start, "stop": stop}
            what = {"duration": stop - start, "sample_rate": self.rate, "channel": None, "group": group}
            labels = {self.label: kind, "snr_db": "" if snr_db is None else f"{snr_db:g}", "recording": name}
            return {**where, **what, **labels}

        if not calls:
            return [row(0, 0, self.samples, BACKGROUND, level)]
        return [
            row(number, call.begin, call.begin + len(call.waveform), call.row[self.label], call.snr_db)
            for number, call in enumerate(calls)
        ]

    def _audio(self, manifest: Manifest, row: Row, pool: dict[str, list[Row]], key: str) -> Tensor | None:
        """A clip's waveform; one that cannot be read is drawn no more, and reported."""
        try:
            path = manifest.audio_path(row)
            return self._read(path, start=row["start"], stop=row["stop"], channel=row["channel"])
        except AudioError as error:
            self._drop(row, pool, key, str(error))
            return None

    def _nothing(self, kind: str) -> DataError:
        first = next((f"; the first: {name}: {reason}" for name, reason in self.skipped.items()), "")
        return DataError(f"no {kind} can be used{first}")

    def _drop(self, row: Row, pool: dict[str, list[Row]], key: str, reason: str) -> None:
        self.skipped.setdefault(row["id"], reason)
        pool[key] = [other for other in pool[key] if other["id"] != row["id"]]
        if not pool[key]:
            del pool[key]


def _check(n_scenes: int, seconds: float, calls: tuple[int, int], snr_db: Sequence[float]) -> None:
    if n_scenes < 1:
        raise ConfigError(f"n_scenes is {n_scenes}: expected 1 or more")
    if not seconds > 2 * CROSSFADE:
        raise ConfigError(f"seconds is {seconds}: expected more than {2 * CROSSFADE:g} s")
    if len(calls) != 2 or not 0 <= calls[0] <= calls[1]:
        raise ConfigError(f"calls is {calls}: expected the fewest and the most calls of a scene, such as [0, 4]")
    if not snr_db or not all(math.isfinite(level) for level in snr_db):
        raise ConfigError(f"snr_db is {snr_db}: expected at least one level in dB, such as [-5, 0, 5, 10]")


def _is_current(path: Path, options: dict[str, Any]) -> bool:
    if not path.is_file() or read_meta(path).get("options") != options:
        return False
    manifest = read_manifest(path)
    return all(manifest.audio_path(row).is_file() for row in manifest.rows)


def _choice(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _power(waveform: Tensor) -> float:
    return float(waveform.double().square().mean()) if len(waveform) else 0.0


def _faded(waveform: Tensor, fade: int, before: bool = True, power: bool = False) -> Tensor:
    """Let a waveform rise, if `before`, and fall over `fade` samples; with `power`, so that two of them keep it."""
    fade = min(fade, len(waveform) // 2)
    ramp = torch.sin(torch.linspace(0, math.pi / 2, fade)) ** (1 if power else 2)
    faded = waveform.clone()
    if before:
        faded[:fade] *= ramp
    if fade:
        faded[-fade:] *= ramp.flip(0)
    return faded
