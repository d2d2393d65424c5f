"""A small student of a speech model, distilled without labels on as little of a pool as it takes.

    python ../../LibriSpeech/SSL/train.py hparams/teacher.yaml        # the teacher: results/teacher/1
    python train.py hparams/tiny.yaml                                 # on all of the pool
    python train.py hparams/tiny.yaml --share 0.05 --strategy '!new:lobes.selection.ContrastiveLM' --name contrastive
    torchrun --nproc_per_node=2 train.py hparams/tiny.yaml

`result.json` holds the student's fidelity, R² of the teacher's layers on the test clips, which nothing was chosen or
trained on; `other_metrics` the digits that a probe reads off it and off the teacher. `encoder/` is the student.
"""

from __future__ import annotations

from collections.abc import Sequence

from lobes.dataio import audio_dataset, read_manifest
from lobes.distillation import Teacher
from lobes.export import load_encoder
from lobes.objectives import SSLModel
from lobes.training import FidelityBrain, on_main, run, start_experiment
from lobes.training.students import choose, inputs_of, save_student, score_pool, student_of, with_targets


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
    student = student_of(hparams, teacher)
    objective = hparams["objective"](student, teacher)
    manifests = on_main(hparams["prepare"])
    pool = manifests["train"]
    manifests["train"] = on_main(choose, hparams, teacher, manifests, run_opts["device"])

    rate, keys = student.sample_rate, ("id", "sig", "group")
    parts = [audio_dataset(manifests[name], rate, keys, transform=hparams["transform"]) for name in ("train", "test")]
    (train,) = with_targets(hparams, teacher, parts[:1], run_opts["device"], inputs_of(hparams, student, objective))
    (test,) = with_targets(hparams, teacher, parts[1:], run_opts["device"])  # the student is tested on audio
    objective.prepare(train)
    train.repeat(3600 * read_manifest(pool).hours)  # an epoch is as long, and its batches as full, whatever the share
    model = SSLModel(student, objective)
    hparams["checkpointer"].add_recoverable("model", model)
    brain = Distil({"ssl": model}, hparams["opt_class"], hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, None, None, hparams["train_loader"])
    hparams["checkpointer"].save_and_keep_only()  # what is tested is the last state, and no earlier one
    if hparams["score_pool"]:
        score_pool(hparams, brain, teacher, pool, run_opts["device"])
    brain.evaluate(test, test_loader_kwargs=hparams["test_loader"])
    on_main(save_student, hparams, brain, teacher, manifests)


if __name__ == "__main__":
    run(main)
