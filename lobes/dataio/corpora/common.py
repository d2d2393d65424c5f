"""What every corpus does once it knows its clips: reuse, scan, split, validate, write."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lobes.dataio.manifest import Manifest, Row, read_meta, validate_splits, write_manifest
from lobes.dataio.scan import Clip, find_audio, scan_clips
from lobes.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Short name, public source and licence."""

    name: str
    source: str
    licence: str


def clips_by_name(
    root: Path, pattern: re.Pattern[str], make: Callable[[str, re.Match[str]], Clip | str], named: str
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Make clips of the audio below a folder whose files' names tell all.

    Parameters
    ----------
    root : path
        Searched to any depth.
    pattern : Pattern
        What a name without its suffix must match from end to end.
    make : callable
        (path below `root`, match) -> clip, or the reason why there is none.
    named : str
        What the names are like, for the report.

    Returns
    -------
    clips : list of Clip
        The first of each id.
    skipped : list of (file, reason)
        Other names, reasons, and repeated ids.
    """
    clips: dict[str, Clip] = {}
    skipped = []
    for path in find_audio(root):
        match = pattern.fullmatch(PurePosixPath(path).stem)
        clip = make(path, match) if match else f"is not named {named}"
        if isinstance(clip, str):
            skipped.append((path, clip))
        elif clip.id in clips:
            skipped.append((path, f"has the name of {clips[clip.id].path}, which is taken"))
        else:
            clips[clip.id] = clip
    return list(clips.values()), skipped


def one_of(field: str, value: str, allowed: Sequence[str]) -> str:
    """Return an option's value, refusing one that there is not."""
    if value not in allowed:
        raise ConfigError(f"{field} is '{value}': expected one of {', '.join(allowed)}")
    return value


def prepare_clips(
    corpus: Corpus,
    clips: Sequence[Clip],
    root: Path,
    save_folder: str | os.PathLike[str],
    *,
    splits: Sequence[str],
    assign: Callable[[list[Row]], dict[str, list[Row]]],
    options: Mapping[str, Any],
    other_files: Iterable[str] = (),
    skipped: Sequence[tuple[str, str]] = (),
    allow_group_overlap: bool = False,
    **scan_options: Any,
) -> dict[str, Path]:
    """Write the manifests of a corpus, unless they are there already.

    Parameters
    ----------
    corpus : Corpus
        For messages and sidecars.
    clips : sequence of Clip
        All clips, of all splits.
    root : path
        The data root.
    save_folder : path
        Where manifests, sidecars and `skipped.csv` go.
    splits : sequence of str
        Names of the splits that `assign` returns.
    assign : callable
        Rows of the good clips -> split -> rows.
    options : mapping
        What the result depends on. Manifests are reused when these, the names and sizes of the audio, the content of
        `other_files`, and the CSVs themselves have not changed.
    other_files : iterable of str
        Files that the labels come from, relative to `root` or absolute.
    skipped : sequence of (file, reason)
        What was left out already.
    allow_group_overlap : bool
        As `validate_splits`; kept in the options.
    **scan_options
        As `scan_clips`.

    Returns
    -------
    dict
        Split -> CSV.
    """
    save_folder = Path(save_folder)
    limits: dict[str, Any] = {
        key: scan_options[key] for key in ("min_seconds", "max_seconds", "decode") if key in scan_options
    }
    options = {**options, **limits, "allow_group_overlap": allow_group_overlap}
    options = json.loads(json.dumps(options))
    files = _listing(root, (clip.path for clip in clips), other_files)
    paths = {name: save_folder / f"{name}.csv" for name in splits}
    if all(_is_current(path, root, options, files) for path in paths.values()):
        logger.info("%s: manifests in %s are up to date", corpus.name, save_folder)
        return paths
    scan = scan_clips(clips, root, save_folder, corpus=corpus.name, skipped=skipped, **scan_options)
    parts = assign(scan.rows)
    validate_splits(
        {name: Manifest(parts[name], {}, {"data_root": str(root)}) for name in splits},
        allow_group_overlap=allow_group_overlap,
    )
    for name in splits:
        write_manifest(
            paths[name],
            parts[name],
            data_root=root,
            source=corpus.source,
            licence=corpus.licence,
            options=options,
            skipped=scan.skipped,
            files_sha256=files,
        )
    return paths


def _listing(root: Path, audio: Iterable[str], other_files: Iterable[str]) -> str:
    """SHA-256 over names and sizes of the audio, which is cheap, and over the content of the rest, which is small."""
    digest = hashlib.sha256()
    for name in sorted(set(audio)):
        path = root / name
        digest.update(f"{name}\t{path.stat().st_size if path.is_file() else -1}\n".encode())
    for name in sorted(set(other_files)):
        path = root / name
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "-"
        digest.update(f"{name}\t{content}\n".encode())
    return digest.hexdigest()


def _is_current(path: Path, root: Path, options: Mapping[str, Any], files: str) -> bool:
    if not path.is_file():
        return False
    meta = read_meta(path)
    expected = (options, files, str(root), hashlib.sha256(path.read_bytes()).hexdigest())
    return (
        meta.get("options"),
        meta.get("files_sha256"),
        meta.get("data_root"),
        meta.get("csv_sha256"),
    ) == expected
