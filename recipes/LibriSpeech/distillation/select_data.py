"""Choose from the pool, and train nothing: `selected.csv`, and what was heard of the pool as `selected.parquet`.

    python select_data.py hparams/tiny.yaml --share 0.05 --strategy '!new:lobes.selection.ContrastiveLM'
    python select_data.py hparams/tiny.yaml --share 0.2 --strategy '!new:lobes.selection.FacilityLocation' --cap 0.1 \
        --filters '[!new:lobes.selection.InRange {column: snr_db, low: 10}]'

Before it chooses, it says whether pool and target differ at all. `train.py` chooses by itself, in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lobes.dataio import read_manifest
from lobes.distillation import Teacher
from lobes.errors import ConfigError
from lobes.export import load_encoder
from lobes.training import run, start_experiment
from lobes.training.students import choose


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the pool, choose from it, say what was chosen."""
    hparams, _ = start_experiment(argv, __file__)
    if hparams["strategy"] is None:
        raise ConfigError("strategy is null: expected one of lobes.selection, such as '!new:lobes.selection.TargetKNN'")
    teacher = Teacher(load_encoder(hparams["teacher"]), hparams["teacher_layers"])
    manifests = hparams["prepare"]()
    path = choose(hparams, teacher, manifests)
    whole, chosen = read_manifest(manifests["train"]), read_manifest(path)
    print(f"{path}: {len(chosen)} of {len(whole)} clips, {60 * chosen.hours:.1f} of {60 * whole.hours:.1f} minutes")
    label = "corpus" if "corpus" in chosen.labels else "group"
    seconds = Counter()
    for row in chosen.rows:
        seconds[row[label]] += row["duration"]
    print(", ".join(f"{name} {value / 36 / chosen.hours:.0f} %" for name, value in seconds.most_common(10)))


if __name__ == "__main__":
    run(main)
