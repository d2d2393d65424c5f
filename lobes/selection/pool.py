"""Pools of utterances as selection sees them: seconds, groups, discrete units and embeddings, but no audio."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lobes.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow

#: What a pool's Parquet files hold beside scores of their own (`Pool.columns`).
ID, SECONDS, GROUP, UNITS, EMBEDDING = "id", "seconds", "group", "units", "embedding"
_ROWS_PER_SHARD = 100_000


class Units:
    """Discrete units of N utterances, one after the other in one array: 1 million utterances are a few hundred MB.

    Parameters
    ----------
    values : array (total,)
        Whole numbers from 0; kept as uint16, or as int32 where they are too large.
    offsets : array (N + 1,)
        Where each utterance begins, and the end of the last.

    Raises
    ------
    DataError
        The two do not fit each other, or a unit is negative.

    Example
    -------
    >>> units = Units.of([[3, 3, 1], [], [2]])
    >>> len(units), units[0].tolist(), units.collapsed()[0].tolist()
    (3, [3, 3, 1], [3, 1])
    """

    def __init__(self, values: ArrayLike, offsets: ArrayLike) -> None:
        found, self.offsets = np.asarray(values), np.asarray(offsets, dtype=np.int64)
        if len(found) and found.min() < 0:
            raise DataError(f"units: {found.min()} is negative; expected whole numbers from 0")
        small = not len(found) or found.max() <= np.iinfo(np.uint16).max
        self.values: NDArray[Any] = found.astype(np.uint16 if small else np.int32, copy=False)
        if len(self.offsets) < 1 or self.offsets[-1] != len(found) or (np.diff(self.offsets) < 0).any():
            raise DataError(f"units: offsets do not divide {len(found)} values; expected N + 1 rising numbers from 0")

    @classmethod
    def of(cls, sequences: Iterable[ArrayLike]) -> Units:
        """From one sequence per utterance."""
        parts = [np.asarray(sequence, dtype=np.int64).reshape(-1) for sequence in sequences]
        values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return cls(values, np.concatenate([[0], np.cumsum([len(part) for part in parts])]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Units of each utterance, (N,)."""
        return np.diff(self.offsets)

    @property
    def size(self) -> int:
        """One more than the largest unit; 0 without any."""
        return int(self.values.max()) + 1 if len(self.values) else 0

    def rows(self) -> NDArray[np.int64]:
        """Which utterance each unit is of, (total,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, indices: ArrayLike) -> Units:
        """Those of some utterances, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # The place of each unit: the beginning of its utterance, and how far it is from there.
        places = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Units(self.values[places], offsets)

    def collapsed(self) -> Units:
        """Without repetitions: how long a unit lasts is left out, as is usual before language models."""
        if not len(self.values):
            return self
        first = np.ones(len(self.values), dtype=bool)
        first[1:] = self.values[1:] != self.values[:-1]
        first[self.offsets[:-1][self.lengths > 0]] = True
        kept = np.concatenate([[0], np.cumsum(first)])
        return Units(self.values[first], kept[self.offsets])


@dataclass(frozen=True)
class Pool:
    """N utterances to choose from, or to resemble.

    Parameters
    ----------
    ids : array of str (N,)
        Each once.
    seconds : array (N,)
        Positive.
    groups : array of str (N,), optional
        Speaker, recording or whatever a cap counts by; each utterance's own id by default.
    units : Units, optional
        Discrete units of each.
    embeddings : array (N, D), optional
        One vector of each, kept as float32.
    columns : mapping of str to array (N,)
        Anything else to choose by: a proxy's loss, a signal-to-noise ratio.

    Raises
    ------
    DataError
        Lengths differ, there is no utterance, an id occurs twice, or seconds are not positive.

    Example
    -------
    >>> pool = Pool(["a", "b"], [2.0, 3.0], embeddings=[[1.0, 0.0], [0.0, 1.0]])
    >>> len(pool), pool.take([1]).ids.tolist(), pool.total_seconds
    (2, ['b'], 5.0)
    """

    ids: NDArray[Any]
    seconds: NDArray[np.float64]
    groups: Any = None
    units: Units | None = None
    embeddings: NDArray[np.float32] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("ids", np.asarray(self.ids, dtype=str))
        put("seconds", np.asarray(self.seconds, dtype=np.float64))
        put("groups", self.ids if self.groups is None else np.asarray(self.groups, dtype=str))
        put("columns", {name: np.asarray(values) for name, values in self.columns.items()})
        if self.embeddings is not None:
            put("embeddings", np.asarray(self.embeddings, dtype=np.float32))
        if not len(self.ids):
            raise DataError("pool: holds no utterance; expected one or more")
        lengths = {"seconds": len(self.seconds), "groups": len(self.groups)}
        lengths |= {"units": len(self.units)} if self.units is not None else {}
        lengths |= {"embeddings": len(self.embeddings)} if self.embeddings is not None else {}
        lengths |= {name: len(values) for name, values in self.columns.items()}
        for name, length in lengths.items():
            if length != len(self.ids):
                raise DataError(f"pool: {name} has {length} rows, ids {len(self.ids)}; expected as many")
        if not (np.isfinite(self.seconds) & (self.seconds > 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(self.seconds) & (self.seconds > 0)))[0])
            raise DataError(f"pool: {self.ids[row]} has {self.seconds[row]} seconds; expected a positive number")
        values, counts = np.unique(self.ids, return_counts=True)
        if len(values) < len(self.ids):
            raise DataError(f"pool: id '{values[counts > 1][0]}' occurs {counts.max()} times; expected each once")
        if self.embeddings is not None and not np.isfinite(self.embeddings).all():
            row = int(np.flatnonzero(~np.isfinite(self.embeddings).all(axis=1))[0])
            raise DataError(
                f"pool: the embedding of {self.ids[row]} holds nan or inf; leave it out, or compute it again"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total_seconds(self) -> float:
        """Of all utterances."""
        return float(self.seconds.sum())

    @property
    def checksum(self) -> str:
        """SHA-256 of ids, seconds, units and embeddings, whatever the order of the utterances."""
        digest = hashlib.sha256()
        for row in np.argsort(self.ids, kind="stable"):
            digest.update(f"{self.ids[row]}\t{self.seconds[row]:.6f}\n".encode())
            if self.units is not None:
                digest.update(self.units[row].astype("<i4").tobytes())
            if self.embeddings is not None:
                digest.update(self.embeddings[row].astype("<f4").tobytes())
        return digest.hexdigest()

    def take(self, indices: ArrayLike) -> Pool:
        """Some utterances, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            ids=self.ids[chosen],
            seconds=self.seconds[chosen],
            groups=self.groups[chosen],
            units=None if self.units is None else self.units.take(chosen),
            embeddings=None if self.embeddings is None else self.embeddings[chosen],
            columns={name: values[chosen] for name, values in self.columns.items()},
        )

    def with_columns(self, **columns: ArrayLike) -> Pool:
        """The same with further columns."""
        return replace(self, columns={**self.columns, **{name: np.asarray(v) for name, v in columns.items()}})

    def need_units(self, asker: str) -> Units:
        """The units, or an error that says who needs them."""
        if self.units is None:
            raise ConfigError(f"{asker}: needs discrete units, which the pool does not have; tokenise it first")
        return self.units

    def need_embeddings(self, asker: str) -> NDArray[np.float32]:
        """The embeddings, or an error that says who needs them."""
        if self.embeddings is None:
            raise ConfigError(f"{asker}: needs embeddings, which the pool does not have; compute them first")
        return self.embeddings

    def need_column(self, name: str, asker: str) -> NDArray[Any]:
        """A column, or an error that says who needs it."""
        if name not in self.columns:
            raise ConfigError(f"{asker}: needs the column '{name}'; the pool has {', '.join(self.columns) or 'none'}")
        return self.columns[name]


def write_pool(pool: Pool, path: str | os.PathLike[str], rows_per_shard: int = _ROWS_PER_SHARD) -> list[Path]:
    """Write a pool as Parquet: one file, or a folder of shards where `path` has no suffix.

    Returns
    -------
    list of Path
        The files, each written all at once or not at all.
    """
    import pyarrow.parquet

    path = Path(path)
    one = path.suffix == ".parquet"
    (path.parent if one else path).mkdir(parents=True, exist_ok=True)
    size = len(pool) if one else rows_per_shard
    files = []
    for number, start in enumerate(range(0, len(pool), size)):
        part = pool.take(np.arange(start, min(start + size, len(pool))))
        file = path if one else path / f"{number:05d}.parquet"
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        pyarrow.parquet.write_table(_table(part), temporary, compression="zstd")
        os.replace(temporary, file)
        files.append(file)
    return files


def read_pool(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Pool:
    """Read what `write_pool` wrote, or any Parquet with `id` and `seconds`.

    Parameters
    ----------
    path : path
        A file, or a folder of them.
    columns : sequence of str, optional
        Only these beside `id`, `seconds` and `group`: `units`, `embedding` or a column's name. All by default.

    Raises
    ------
    DataError
        There is no such file, or it has not the columns.
    """
    return concatenate(list(iterate_pool(path, columns)))


def iterate_pool(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Iterator[Pool]:
    """Yield a pool file by file, as `read_pool` reads it."""
    for file in pool_files(path):
        yield _read(file, columns)


def pool_files(path: str | os.PathLike[str]) -> list[Path]:
    """The Parquet files of a pool, in order."""
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise DataError(f"{path}: holds no .parquet; expected a pool that write_pool wrote")
    return files


def with_scores(pool: Pool, path: str | os.PathLike[str]) -> Pool:
    """Return the pool with the numbers that a CSV has of each utterance as further columns.

    Parameters
    ----------
    pool : Pool
    path : path
        A CSV with the column `id`; it may have further utterances.

    Raises
    ------
    DataError
        An utterance of the pool is not there, or a value is no number.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = {row["id"]: row for row in csv.DictReader(stream)}
    except (OSError, KeyError) as error:
        raise DataError(f"scores {path}: {error!r}; expected a csv with the column id and others of numbers") from error
    missing = [name for name in pool.ids if name not in rows]
    if missing:
        raise DataError(
            f"scores {path}: {len(missing)} of {len(pool)} utterances of the pool are not there, such as"
            f" '{missing[0]}'; score this pool"
        )
    found = {}
    for column in next(iter(rows.values())).keys() - {"id"}:
        try:
            found[column] = np.array([float(rows[name][column]) for name in pool.ids])
        except (TypeError, ValueError) as error:
            raise DataError(f"scores {path}, column {column}: {error}; expected a number in each row") from error
    return pool.with_columns(**found)


def concatenate(pools: Sequence[Pool]) -> Pool:
    """One pool of several, with what all of them have."""
    if len(pools) == 1:
        return pools[0]
    units = [pool.units for pool in pools if pool.units is not None]
    embeddings = [pool.embeddings for pool in pools if pool.embeddings is not None]
    names = [name for name in pools[0].columns if all(name in pool.columns for pool in pools)]
    joined = None
    if len(units) == len(pools):
        shifts = np.cumsum([0, *(len(part.values) for part in units)])
        offsets = [part.offsets[:-1] + shift for part, shift in zip(units, shifts, strict=False)]
        joined = Units(np.concatenate([part.values for part in units]), np.concatenate([*offsets, shifts[-1:]]))
    return Pool(
        np.concatenate([pool.ids for pool in pools]),
        np.concatenate([pool.seconds for pool in pools]),
        np.concatenate([pool.groups for pool in pools]),
        joined,
        np.concatenate(embeddings) if len(embeddings) == len(pools) else None,
        {name: np.concatenate([pool.columns[name] for pool in pools]) for name in names},
    )


def _table(pool: Pool) -> pyarrow.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {ID: pool.ids.tolist(), SECONDS: pool.seconds, GROUP: pool.groups.tolist()}
    if pool.units is not None:
        offsets = pa.array(pool.units.offsets.astype(np.int32))
        columns[UNITS] = pa.ListArray.from_arrays(offsets, pa.array(pool.units.values))
    if pool.embeddings is not None:
        flat = pa.array(pool.embeddings.reshape(-1))
        columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(flat, pool.embeddings.shape[1])
    return pa.table(columns | {name: pa.array(values) for name, values in pool.columns.items()})


def _read(file: Path, columns: Sequence[str] | None) -> Pool:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        known = pyarrow.parquet.read_schema(file).names
        missing = [name for name in (ID, SECONDS, *(columns or ())) if name not in known]
        if missing:
            raise DataError(f"{file}: has no column '{missing[0]}'; it has {', '.join(known)}")
        wanted = known if columns is None else [n for n in (ID, SECONDS, GROUP, *columns) if n in known]
        table = pyarrow.parquet.read_table(file, columns=wanted).combine_chunks()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error}); write it again") from error

    def array(name: str) -> Any:
        column = table.column(name)
        return column.chunk(0) if column.num_chunks else column.combine_chunks()

    units = embeddings = None
    if UNITS in wanted:
        lists = array(UNITS)
        offsets = lists.offsets.to_numpy(zero_copy_only=False)
        units = Units(lists.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]], offsets - offsets[0])
    if EMBEDDING in wanted:
        lists = array(EMBEDDING)
        embeddings = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)
    others = [name for name in wanted if name not in (ID, SECONDS, GROUP, UNITS, EMBEDDING)]
    return Pool(
        table.column(ID).to_pylist(),
        table.column(SECONDS).to_numpy(),
        table.column(GROUP).to_pylist() if GROUP in wanted else None,
        units,
        embeddings,
        {name: table.column(name).to_numpy() for name in others},
    )
