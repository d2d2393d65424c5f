"""A small student of a speech model, distilled without labels on as little of a pool as it takes.

    python ../../LibriSpeech/SSL/train.py hparams/teacher.yaml        # the teacher: results/teacher/1
    python train.py hparams/tiny.yaml                                 # on all of the pool
    python train.py hparams/tiny.yaml --share 0.05 --strategy '!new:lobes.selection.ContrastiveLM' --name contrastive
    python sweep.py                                                   # all strategies, their cost and their gain

`result.json` holds the student's fidelity, R² of the teacher's layers on the test clips, which nothing was chosen or
trained on; `other_metrics` the digits that a probe reads off it and off the teacher.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from lobes.dataio import audio_dataset, read_manifest
from lobes.dataio.splits import write_part
from lobes.distillation import TargetCache, Teacher, describe, fit_codebook
from lobes.evaluation import r2, write_result
from lobes.export import load_encoder, save_encoder
from lobes.objectives import SSLModel
from lobes.probes import LogisticProbe, PooledLayers, cache_features
from lobes.selection import select, shift_test
from lobes.training import FidelityBrain, costs, on_main, rank, run, start_experiment, world_size


class Distil(FidelityBrain):
    """Trains the student and the objective's heads inside the module ``ssl``."""

    def compute_forward(self, batch, stage):
        """What the student makes of the batch, beside what the teacher does."""
        return self.modules.ssl(batch)

    def compute_objectives(self, output, batch, stage):
        """The objective's loss, weighed by the frames that it is the mean of."""
        self.record(output, batch, stage)
        return self.weighted(output.loss, output.weight)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the pool, choose from it, cache the teacher's targets, train the student, test it."""
    hparams, run_opts = start_experiment(argv, __file__)
    teacher = Teacher(load_encoder(hparams["teacher"]), hparams["teacher_layers"])
    manifests = on_main(hparams["prepare"])
    manifests["train"] = on_main(choose, hparams, teacher, manifests)
    student = hparams["encoder"]
    objective = hparams["objective"](student, teacher)
    train, test = (dataset(hparams, manifests[split], student) for split in ("train", "test"))
    if hparams["cache"] is not None:
        cache = TargetCache(hparams["cache"], teacher, preprocessing=repr(hparams["transform"]))
        for part in (train, test):
            cache.extract(part, run_opts["device"], part=(rank(), world_size()), progress=False)
        on_main(cache.refresh)
        cache.refresh()
        train, test = cache.attach(train), cache.attach(test)

    objective.prepare(train)
    model = SSLModel(student, objective)
    hparams["checkpointer"].add_recoverable("model", model)
    brain = Distil({"ssl": model}, hparams["opt_class"], hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, None, None, hparams["train_loader"])
    hparams["checkpointer"].save_and_keep_only()  # what is tested is the last state, and no earlier one
    brain.evaluate(test, test_loader_kwargs=hparams["test_loader"])
    on_main(save, hparams, brain, teacher, manifests)


def dataset(hparams, manifest, encoder, keys=("id", "sig", "group")):
    """Clips as they are, but for what the pool's transform does to those that say so."""
    return audio_dataset(manifest, encoder.sample_rate, keys, transform=hparams["transform"])


def choose(hparams, teacher, manifests) -> Path:
    """The manifest to train on: a share of the pool, by a strategy, or all of it."""
    if hparams["strategy"] is None:
        return manifests["train"]
    clips = {split: dataset(hparams, manifests[split], teacher) for split in ("train", "target")}
    codebook = fit_codebook(clips["train"], teacher.encoder, hparams["unit_layer"], hparams["n_units"])
    pool, target = (describe(part, teacher.encoder, codebook) for part in clips.values())
    shift, started = shift_test(pool, target, seed=hparams["seed"]), time.process_time()
    print(shift.advice)
    found = select(
        pool,
        target,
        hparams["share"] * pool.total_seconds,
        hparams["strategy"],
        filters=hparams["filters"],
        cap=hparams["cap"],
        seed=hparams["seed"],
    )
    found.provenance.update(cpu_seconds=time.process_time() - started, shift=shift._asdict())
    whole = read_manifest(manifests["train"])
    rows = {row["id"]: row for row in whole.rows}
    path = Path(hparams["output_folder"]) / "selected.csv"
    return write_part(path, [rows[name] for name in found.pool.ids], whole, selection=found.provenance)


def digits(hparams, encoder, manifests) -> float:
    """Share of the test's digits that a logistic regression tells, fitted on the takes that the target is of."""
    keys = ("id", "sig", "group", "digit", "take")
    parts = [dataset(hparams, manifests[split], encoder, keys) for split in ("valid", "test")]
    known, tested = (
        [part[i] for i in range(len(part))] for part in (cache_features(p, PooledLayers(encoder)) for p in parts)
    )
    features, wanted = ([item["layers"][0].numpy() for item in items] for items in (known, tested))
    probe = LogisticProbe(strengths=[0.01, 0.1]).fit(
        features, [item["digit"] for item in known], [item["take"] for item in known]
    )
    found = probe.predict(wanted)
    return sum(a == item["digit"] for a, item in zip(found, tested, strict=True)) / len(tested)


def save(hparams, brain, teacher, manifests) -> None:
    """Write ``encoder/`` and ``result.json``: fidelity, by clip."""
    folder, student = Path(hparams["output_folder"]), brain.unwrapped("ssl").encoder
    save_encoder(student, folder / "encoder", (folder / "hyperparams.yaml").read_text(encoding="utf-8"))
    student.eval()
    result = write_result(
        folder,
        task=hparams["task"],
        system=hparams["name"],
        metric=r2,
        records=brain.records,
        other_metrics={
            "digits": digits(hparams, student, manifests),
            "digits_teacher": digits(hparams, teacher.encoder, manifests),
            "pool_hours": read_manifest(manifests["train"]).hours,
            "teacher_macs_per_second": teacher.encoder.macs(10.0) / 10,
        },
        seed=hparams["seed"],
        data=manifests,
        data_name=hparams["data_name"],
        **costs(brain, student),
    )
    other = result["other_metrics"]
    print(f"R² {result['metric']['value']:.3f}; digits {other['digits']:.3f}, teacher {other['digits_teacher']:.3f}")


if __name__ == "__main__":
    run(main)
