"""Manifests: the clips of a split, as a CSV that SpeechBrain reads and a JSON sidecar on where they are from.

A row is a dict with the keys `id`, `wav`, `start`, `stop`, `duration` (seconds), `sample_rate` (Hz, of the
file), `channel` (from 0, or None for the mean of all), `group` (speaker, individual, recorder or whatever
statistics must be clustered by) and one string per label. `wav` begins with a variable,
`$data_root/recordings/0_theo_1.wav`, which is SpeechBrain's notation for CSV files; `{data_root}/…` is
accepted too. The sidecar says which folder it stood for.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lobes.errors import DataError

#: The columns that every manifest begins with; label columns follow.
COLUMNS = ("ID", "wav", "start", "stop", "duration", "sample_rate", "channel", "group")
_KEYS = ("id", *COLUMNS[1:])
_VARIABLE = re.compile(r"^(?:\$([\w.]+)|\{([\w.]+)\})/")
#: `duration` and `stop - start` may differ by this many seconds, as may `stop` and the end of the file.
_SLACK_SECONDS = 2e-3

Row = dict[str, Any]


@dataclass
class Manifest:
    """The rows of one split and what is known of them.

    Attributes
    ----------
    rows : list of dict
        As the module's docstring says.
    meta : dict
        The sidecar: `source`, `licence`, `generated`, `options`, `data_root`, `skipped`, `items`, `hours`,
        `groups` and `checksum`.
    roots : dict
        Variable in `wav` -> folder, which is also what `DynamicItemDataset.from_csv` takes as `replacements`.
    """

    rows: list[Row]
    meta: dict[str, Any] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> list[str]:
        """Names of the label columns."""
        return [key for key in self.rows[0] if key not in _KEYS] if self.rows else []

    @property
    def durations(self) -> list[float]:
        """Seconds of each row, which is what a `GlobalBatchSampler` takes."""
        return [row["duration"] for row in self.rows]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, sorted, each once."""
        return sorted({row["group"] for row in self.rows})

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return sum(self.durations) / 3600

    @property
    def checksum(self) -> str:
        """`data_checksum` of the rows, as the sidecar has it or else computed."""
        return self.meta.get("checksum") or data_checksum(self)

    def audio_path(self, row: Row) -> Path:
        """Return the file of a row.

        Raises
        ------
        DataError
            The folder that its variable stands for is not known.
        """
        match = _VARIABLE.match(row["wav"])
        if match is None:
            return Path(row["wav"])
        variable = match[1] or match[2]
        if variable not in self.roots:
            raise DataError(
                f"wav of {row['id']} needs the folder '{variable}', which the sidecar does not name: "
                f"pass data_root={{'{variable}': FOLDER}}"
            )
        return Path(self.roots[variable]) / row["wav"][match.end() :]


def write_manifest(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    data_root: str | os.PathLike[str] | Mapping[str, str] | None = None,
    source: str,
    licence: str,
    generated: bool = False,
    options: Mapping[str, Any] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    **extra: Any,
) -> Path:
    """Write `<split>.csv` and then `<split>.meta.json`, each all at once or not at all.

    Parameters
    ----------
    path : path
        The CSV; its folder is made.
    rows : sequence of dict
        As the module's docstring says, at least one.
    data_root : path or mapping
        Folder that `$data_root` stands for, or one folder for each variable.
    source, licence : str
        Public name and address of the corpus, and its licence.
    generated : bool
        True for synthesised speech; every table made from it then says so.
    options : mapping
        What the corpus was prepared with.
    skipped : sequence of (file, reason)
        What was left out and why.
    **extra
        Further entries of the sidecar.

    Returns
    -------
    Path
        The CSV.

    Raises
    ------
    DataError
        No rows, a missing column, an impossible range or a duplicate id.
    """
    path = Path(path)
    roots = _roots(data_root)
    rows = [{**row, "wav": _VARIABLE.sub(lambda m: f"${m[1] or m[2]}/", row.get("wav", ""))} for row in rows]
    check_rows(rows, str(path))
    text = _to_csv(rows)
    manifest = Manifest(rows, {}, roots)
    meta = {
        "source": source,
        "licence": licence,
        "generated": generated,
        "data_root": roots.get("data_root") if set(roots) <= {"data_root"} else roots,
        "items": len(rows),
        "hours": round(manifest.hours, 6),
        "groups": len(manifest.groups),
        "labels": manifest.labels,
        "checksum": data_checksum(manifest),
        "csv_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "options": dict(options or {}),
        "skipped": [{"file": file, "reason": reason} for file, reason in skipped],
        **extra,
    }
    atomic_write(path, text)
    atomic_write(meta_path(path), json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    return path


def read_manifest(
    path: str | os.PathLike[str], data_root: str | os.PathLike[str] | Mapping[str, str] | None = None
) -> Manifest:
    """Read a manifest and its sidecar, where there is one.

    Parameters
    ----------
    path : path
        `<split>.csv`.
    data_root : path or mapping, optional
        Folder(s) to use in place of those in the sidecar, for audio that has moved.

    Raises
    ------
    DataError
        The file is missing, empty or not a manifest; or a line has too few fields, a bad number, an
        impossible range or an id that occurred before: the message names file, line and field.
    """
    path = Path(path)
    meta = read_meta(path)
    roots = {**_roots(meta.get("data_root")), **_roots(data_root)}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"manifest {path} cannot be read: {reason}; prepare the corpus first") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"manifest {path} has no column {', '.join(missing)}: expected {','.join(COLUMNS)}")
    rows = [_parse(fields, f"manifest {path}, line {reader.line_num}") for fields in reader]
    check_rows(rows, str(path))
    return Manifest(rows, meta, roots)


def read_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the sidecar of a manifest; an empty dict where there is none."""
    sidecar = meta_path(path)
    try:
        meta = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"sidecar {sidecar} is not JSON ({error}): delete it and prepare the corpus again") from error
    if not isinstance(meta, dict):
        raise DataError(f"sidecar {sidecar} is not a JSON object: delete it and prepare the corpus again")
    return meta


def meta_path(path: str | os.PathLike[str]) -> Path:
    """Path of the sidecar: `train.csv` -> `train.meta.json`."""
    return Path(path).with_suffix(".meta.json")


def check_rows(rows: Sequence[Row], name: str) -> None:
    """Refuse no rows, missing keys, impossible ranges and duplicate ids, naming the manifest and the row."""
    if not rows:
        raise DataError(f"manifest {name} holds no items: check the split's options and the skipped files")
    seen: set[str] = set()
    keys = set(rows[0])
    for row in rows:
        if row.keys() != keys or not keys.issuperset(_KEYS):
            odd = sorted((keys ^ row.keys()) | (set(_KEYS) - row.keys()))
            raise DataError(f"manifest {name}, {row.get('id')}: columns {odd} are not in every row")
        if row["id"] in seen or not row["id"]:
            raise DataError(f"manifest {name}: id '{row['id']}' occurs twice or is empty; ids must be unique")
        seen.add(row["id"])
        if not row["group"]:
            raise DataError(
                f"manifest {name}, {row['id']}: group is empty: expected the speaker, individual, recorder, session or "
                "recording, which no split may have on two sides"
            )
        _check_range(row, name)


def _check_range(row: Row, name: str) -> None:
    start, stop, duration = row["start"], row["stop"], row["duration"]
    where = f"manifest {name}, {row['id']}"
    if not (math.isfinite(start) and math.isfinite(stop) and 0 <= start < stop):
        raise DataError(f"{where}: range {start}-{stop} s is impossible: expected 0 <= start < stop")
    if not duration > 0 or abs(stop - start - duration) > _SLACK_SECONDS:
        raise DataError(f"{where}: duration is {duration} s: expected stop - start = {stop - start:g} s")
    if not row["sample_rate"] > 0:
        raise DataError(f"{where}: sample_rate is {row['sample_rate']}: expected Hz, a positive number")


def validate_splits(
    splits: Mapping[str, Manifest | str | os.PathLike[str]],
    *,
    allow_group_overlap: bool = False,
    check_files: bool = False,
) -> dict[str, Manifest]:
    """Refuse splits that would make a result wrong.

    Parameters
    ----------
    splits : mapping
        Name of the split -> manifest or path of its CSV.
    allow_group_overlap : bool
        Accept that a group (a speaker, an individual) occurs in two splits.
    check_files : bool
        Also open every file and refuse a range that ends after it.

    Returns
    -------
    dict
        Name of the split -> Manifest.

    Raises
    ------
    DataError
        An empty split, an impossible range, an id in two splits, overlapping groups or, with `check_files`,
        an unreadable file: the message names them.
    """
    manifests = {name: m if isinstance(m, Manifest) else read_manifest(m) for name, m in splits.items()}
    owner_of_id: dict[str, str] = {}
    owner_of_group: dict[str, str] = {}
    for name, manifest in manifests.items():
        check_rows(manifest.rows, name)
        for row in manifest.rows:
            first = owner_of_id.setdefault(row["id"], name)
            if first != name:
                raise DataError(f"id '{row['id']}' is in both splits '{first}' and '{name}'; ids must be unique")
        shared = [group for group in manifest.groups if owner_of_group.setdefault(group, name) != name]
        if shared and not allow_group_overlap:
            listed = ", ".join(f"'{group}' (also in '{owner_of_group[group]}')" for group in shared[:5])
            raise DataError(
                f"{len(shared)} groups of split '{name}' are in another split: {listed}; "
                "split by group, or pass allow_group_overlap=True"
            )
        if check_files:
            _check_files(name, manifest)
    return manifests


def _check_files(name: str, manifest: Manifest) -> None:
    from lobes.dataio.audio import audio_info

    durations: dict[Path, float] = {}
    for row in manifest.rows:
        path = manifest.audio_path(row)
        if path not in durations:
            durations[path] = audio_info(path).duration
        if row["stop"] > durations[path] + _SLACK_SECONDS:
            raise DataError(
                f"split '{name}', {row['id']}: stop is {row['stop']:g} s, "
                f"after the end of {path} ({durations[path]:g} s)"
            )


def data_checksum(manifest: Manifest) -> str:
    """SHA-256 over (id, duration, bytes of the file) of all rows, whatever their order or their folder.

    A file that is not there counts as 0 bytes.
    """
    sizes: dict[Path, int] = {}
    lines = []
    for row in manifest.rows:
        path = manifest.audio_path(row)
        if path not in sizes:
            sizes[path] = path.stat().st_size if path.is_file() else 0
        lines.append(f"{row['id']}\t{row['duration']:.6f}\t{sizes[path]}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def atomic_write(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file so that a reader sees the old content or the new, never a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _roots(data_root: str | os.PathLike[str] | Mapping[str, str] | None) -> dict[str, str]:
    if data_root is None:
        return {}
    if isinstance(data_root, Mapping):
        return {name: str(folder) for name, folder in data_root.items()}
    return {"data_root": str(data_root)}


def _to_csv(rows: Iterable[Row]) -> str:
    rows = list(rows)
    labels = [key for key in rows[0] if key not in _KEYS]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *labels])
    for row in rows:
        seconds = [round(float(row[key]), 6) for key in ("start", "stop", "duration")]
        channel = "" if row["channel"] is None else row["channel"]
        rest = [row["sample_rate"], channel, row["group"], *(row[label] for label in labels)]
        writer.writerow([row["id"], row["wav"], *seconds, *rest])
    return text.getvalue()


def _parse(fields: dict[str, Any], where: str) -> Row:
    """Turn one line of the CSV into a row."""
    if None in fields or None in fields.values():
        raise DataError(f"{where}: the number of fields differs from the header's")
    row: Row = {"id": fields.pop("ID"), "wav": fields.pop("wav")}
    for key in ("start", "stop", "duration"):
        row[key] = _number(float, key, fields.pop(key), where)
    row["sample_rate"] = _number(int, "sample_rate", fields.pop("sample_rate"), where)
    channel = fields.pop("channel")
    row["channel"] = None if channel == "" else _number(int, "channel", channel, where)
    return {**row, **fields}


def _number(kind: type, key: str, value: str, where: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise DataError(f"{where}: {key} is '{value}': expected a number") from error
