"""Any tree of audio files, of one corpus or of many side by side, without labels: what pretraining takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from lobes.dataio.corpora.common import Corpus, prepare_clips
from lobes.dataio.folders import data_root
from lobes.dataio.manifest import Row
from lobes.dataio.scan import AUDIO_SUFFIXES, Clip, find_audio
from lobes.dataio.splits import split_by_group
from lobes.errors import ConfigError, DataError


def prepare_audio_folder(
    data_folder: str | os.PathLike[str] | None,
    save_folder: str | os.PathLike[str],
    *,
    include: Sequence[str] | Mapping[str, str | None] = ("",),
    exclude: Sequence[str] = (),
    group: str = "parent",
    valid_share: float = 0.05,
    test_share: float = 0.0,
    seed: int = 0,
    min_seconds: float = 0.0,
    max_seconds: float = float("inf"),
    source: str = "local files",
    licence: str = "unknown",
    decode: bool = True,
    n_jobs: int | None = None,
) -> dict[str, Path]:
    """Write `train.csv`, and by default `valid.csv`, of all audio files below some folders.

    Parameters
    ----------
    data_folder : path, optional
        The root of the tree; None means `LOBES_DATA` itself, all corpora side by side.
    save_folder : path
        Where the manifests go.
    include : sequence or mapping
        Sub-folders of the root; all of it by default. A mapping gives each sub-folder its own `group` rule,
        or None for the common one: `{"fsdd": r"\\d_(\\w+)_\\d+", "picovoice_intents": "file"}`.
    exclude : sequence of str
        Patterns such as `"*/noise/*"`; a file whose path below the root matches one is not looked at.
    group : str
        `"parent"`, the folder a file is in; `"file"`, each file for itself; or a regular expression that is
        searched in the path below the root, whose first bracket (or whole match) is the group, below the
        sub-folder's name; files without a match fall back on the folder.
    valid_share, test_share : float
        Shares of the seconds, in whole groups; 0 makes no such split.
    seed : int
        Decides which groups are held out.
    min_seconds, max_seconds : float
        Clips outside are left out.
    source, licence : str
        For the sidecar and everything that is made from the data.
    decode : bool
        Decode every file; False reads headers only.
    n_jobs : int, optional
        Threads that check the files.

    Returns
    -------
    dict
        Split -> CSV. The label `corpus` is the sub-folder of `include`.

    Raises
    ------
    DataError
        A folder is missing or holds no audio, or there are fewer groups than splits.
    ConfigError
        `group` is not a regular expression.
    """
    root = data_root("", data_folder)
    rules = dict(include) if isinstance(include, Mapping) else dict.fromkeys(_as_list(include))
    compiled = {folder.strip("/"): group_rule(rule or group) for folder, rule in rules.items()}
    clips: dict[str, Clip] = {}
    for folder, rule in compiled.items():
        if not (root / folder).is_dir():
            raise DataError(f"include names '{folder}', which is not a folder of {root}: check --data_folder")
        files = [f for f in find_audio(root, folder) if not any(fnmatch(f, pattern) for pattern in exclude)]
        if not files:
            raise DataError(
                f"{root / folder} holds no audio file ({' '.join(AUDIO_SUFFIXES)}): check include and exclude"
            )
        for path in files:
            clips.setdefault(path, Clip(path, path, group_of(path, folder, rule), {"corpus": folder or root.name}))
    shares = {name: share for name, share in (("valid", valid_share), ("test", test_share)) if share}

    def assign(rows: list[Row]) -> dict[str, list[Row]]:
        return split_by_group(rows, shares, seed=seed)

    return prepare_clips(
        Corpus("audio_folder", source, licence),
        list(clips.values()),
        root,
        save_folder,
        splits=["train", *shares],
        assign=assign,
        options={
            "include": rules,
            "exclude": list(exclude),
            "group": group,
            "valid_share": valid_share,
            "test_share": test_share,
            "seed": seed,
            "source": source,
            "licence": licence,
        },
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        decode=decode,
        n_jobs=n_jobs,
    )


def _as_list(include: Sequence[str]) -> list[str]:
    return [include] if isinstance(include, str) else list(include)


def group_rule(rule: str) -> str | re.Pattern[str]:
    """Return `parent`, `file` or a compiled regular expression; a ConfigError if it is none of them."""
    if rule in ("parent", "file"):
        return rule
    try:
        return re.compile(rule)
    except re.error as error:
        raise ConfigError(f"group is '{rule}': expected parent, file or a regular expression ({error})") from error


def group_of(path: str, folder: str, rule: str | re.Pattern[str]) -> str:
    """Return the group of a file below the root, of which `folder` is the part that it was found in."""
    if rule == "file":
        return path
    match = rule.search(path) if isinstance(rule, re.Pattern) else None
    if match is None:
        return str(PurePosixPath(path).parent)
    return f"{folder}/{match[1] if match.re.groups else match[0]}".lstrip("/")
