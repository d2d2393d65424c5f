"""Large pools: the same scores as in one piece, resumed after a kill, and a million utterances within a minute."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from test_selection import made

from lobes.errors import ConfigError, DataError
from lobes.selection import ByColumn, ContrastiveLM, Pool, Units, read_pool, select, sharded, write_pool
from lobes.selection.sharded import score_shards


@pytest.fixture
def shards(tmp_path):
    write_pool(made(400, 5, 0, "pool"), tmp_path / "pool", rows_per_shard=90)
    return tmp_path / "pool"


TARGET = made(25, 5, 1, "target", only=2)


def test_shards_are_scored_as_the_whole(shards, tmp_path):
    strategy = ContrastiveLM(pool_share=1.0)
    out = score_shards(shards, TARGET, tmp_path / "scores", strategy, general=10_000, n_jobs=2)
    scores = read_pool(out, ["score"])
    pool = read_pool(shards)
    np.testing.assert_allclose(scores.columns["score"], strategy.scores(pool, TARGET, 0), rtol=1e-12)
    chosen = select(scores, None, 60.0, ByColumn("score"))
    assert chosen.pool.ids.tolist() == select(pool, TARGET, 60.0, strategy).pool.ids.tolist()


def test_parts_and_what_is_there_already(shards, tmp_path):
    out = tmp_path / "scores"
    score_shards(shards, TARGET, out, part=(0, 2))
    first = {file.name: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    assert len(first) == 3
    score_shards(shards, TARGET, out, part=(1, 2))
    assert len(list(out.glob("*.parquet"))) == 5
    assert {name: (out / name).stat().st_mtime_ns for name in first} == first
    whole = read_pool(score_shards(shards, TARGET, tmp_path / "at_once"), ["score"])
    assert np.array_equal(read_pool(out, ["score"]).columns["score"], whole.columns["score"])


def test_scores_of_something_else_are_not_overwritten(shards, tmp_path):
    out = score_shards(shards, TARGET, tmp_path / "scores")
    before = (out / "00000.parquet").read_bytes()
    with pytest.raises(DataError, match="holds scores of another target, seed; nothing was overwritten"):
        score_shards(shards, made(25, 5, 2, "other"), out, seed=1)
    assert (out / "00000.parquet").read_bytes() == before
    retold = Pool(TARGET.ids, TARGET.seconds, units=Units(TARGET.units.values[::-1], TARGET.units.offsets))
    with pytest.raises(DataError, match="another target; "):
        score_shards(shards, retold, out)
    with pytest.raises(ConfigError, match="part is"):
        score_shards(shards, TARGET, out, part=(2, 2))


def score_until_killed(shards, out) -> None:
    done, written = [], sharded.write_pool

    def write(pool, path, *more):
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(path)
        return written(pool, path, *more)

    sharded.write_pool = write
    score_shards(shards, TARGET, out)


def test_a_killed_scoring_goes_on(shards, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=score_until_killed, args=(shards, tmp_path / "scores"))
    process.start()
    process.join(100)
    assert process.exitcode == -signal.SIGKILL and len(list((tmp_path / "scores").glob("*.parquet"))) == 2
    out = score_shards(shards, TARGET, tmp_path / "scores")
    whole = read_pool(score_shards(shards, TARGET, tmp_path / "at_once"), ["score"])
    assert np.array_equal(read_pool(out, ["score"]).columns["score"], whole.columns["score"])


class Memory(threading.Thread):
    """The most that this process and all that it has started hold at once, in GiB, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.most = max(self.most, sum(map(self.held, self.family(os.getpid()))))

    def family(self, process: int) -> Iterator[int]:
        yield process
        for path in Path(f"/proc/{process}/task").glob("*/children"):
            with suppress(OSError):
                for child in path.read_text().split():
                    yield from self.family(int(child))

    @staticmethod
    def held(process: int) -> float:
        """Its share of what it holds with others, too."""
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 2**20
        return 0.0

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="memory is read from Linux's /proc")
def test_a_million_utterances(tmp_path):
    """Scoring and a budgeted selection: under a minute on two cores, under 2 GB (tokens are generated)."""
    random = np.random.default_rng(0)
    for number in range(10):
        lengths = random.integers(40, 160, 100_000)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        units = Units(random.integers(0, 200, offsets[-1]).astype(np.uint16), offsets)
        ids = [f"utterance{number:02d}{i:06d}" for i in range(100_000)]
        part = Pool(ids, lengths / 10, [f"s{i % 5000}" for i in range(100_000)], units)
        write_pool(part, tmp_path / "pool" / f"{number:05d}.parquet")
    lengths = random.integers(40, 160, 2000)
    values = random.integers(0, 100, lengths.sum())
    target = Pool([f"t{i}" for i in range(2000)], lengths / 10, units=Units(values, [0, *np.cumsum(lengths)]))
    started = time.perf_counter()
    with Memory() as memory:
        out = score_shards(tmp_path / "pool", target, tmp_path / "scores", n_jobs=2)
        scores = read_pool(out, ["score"])
        chosen = select(scores, None, 0.05 * scores.total_seconds, ByColumn("score"), cap=0.01)
        spent = time.perf_counter() - started
    print(f"\n{len(scores)} utterances, {len(chosen.indices)} chosen: {spent:.1f} s, {memory.most:.2f} GiB in all")
    assert len(scores) == 1_000_000 and memory.most < 2.0
    assert spent < 60.0
