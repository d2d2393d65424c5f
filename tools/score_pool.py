"""Score a pool that is too large for one process by a contrastive language model, and choose from it.

    python tools/score_pool.py pool/ target.parquet --out scores/ --jobs 8          # goes on where it was stopped
    python tools/score_pool.py pool/ target.parquet --out scores/ --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
    python tools/score_pool.py pool/ target.parquet --out scores/ --hours 500 --cap 0.01 --chosen chosen.csv

The pool is a folder of Parquet files with `id`, `seconds`, `group` and discrete `units` (`lobes.selection.write_pool`;
a recipe's `selected.parquet` is one, too), the target one file with units of the same codebook. Each file of the pool
is scored once, by whichever process has it in its part. With --hours, when all are scored, the best are written, as a
CSV of `id`, `seconds`, `group` and `score`, with what they were chosen by beside it as JSON.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from lobes.dataio.manifest import atomic_write
from lobes.errors import DataError
from lobes.selection import ByColumn, ContrastiveLM, read_pool, score_shards, select
from lobes.selection.pool import pool_files
from lobes.training import run


def main(argv: Sequence[str] | None = None) -> None:
    """Score what has not been scored, then choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="folder of Parquet files with units")
    parser.add_argument("target", type=Path, help="Parquet of what is to be resembled")
    parser.add_argument("--out", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--n", type=int, default=3, help="of the n-gram models")
    parser.add_argument("--jobs", type=int, default=1, help="processes of this one")
    parser.add_argument("--part", default="0/1", metavar="INDEX/COUNT", help="of several processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hours", type=float, help="to choose; by default nothing is chosen")
    parser.add_argument("--cap", type=float, help="largest share of what is chosen that one group may have")
    parser.add_argument("--chosen", type=Path, default=Path("chosen.csv"))
    options = parser.parse_args(argv)
    index, count = map(int, options.part.split("/"))
    target, strategy = read_pool(options.target), ContrastiveLM(n=options.n)
    given = {"part": (index, count), "n_jobs": options.jobs, "seed": options.seed}
    scored = pool_files(score_shards(options.pool, target, options.out, strategy, **given))
    missing = {file.name for file in pool_files(options.pool)} - {file.name for file in scored}
    print(f"{options.out}: {len(scored)} files are scored, {len(missing)} are not yet")
    if options.hours is None:
        return
    if missing:
        raise DataError(
            f"{options.out}: {len(missing)} files are not scored yet, {min(missing)} first; run their parts"
        )
    scores = read_pool(options.out, ["score"])
    # Which needs no target any more, but refuses one that is in the pool.
    found = select(scores, target, 3600 * options.hours, ByColumn("score"), cap=options.cap, seed=options.seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "seconds", "group", "score"])
    chosen = found.pool
    columns = (chosen.ids, chosen.seconds, chosen.groups, chosen.columns["score"])
    writer.writerows([name, f"{s:.3f}", group, f"{x:.6g}"] for name, s, group, x in zip(*columns, strict=True))
    atomic_write(options.chosen, text.getvalue())
    atomic_write(options.chosen.with_suffix(".json"), json.dumps(found.provenance, indent=1) + "\n")
    print(f"{options.chosen}: {len(chosen)} of {len(scores)} utterances, {found.seconds / 3600:.2f} hours")


if __name__ == "__main__":
    run(main)
