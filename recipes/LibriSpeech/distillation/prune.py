"""Prune a HuBERT or its kin while it is distilled from what it was (DPHuBERT): fewer heads, units and channels.

    python train.py hparams/hubert.yaml                       # a small HuBERT, sm-tiny's student: results/hubert/1
    python prune.py hparams/prune.yaml --sparsity 0.5         # half of its parameters: results/pruned/1
    python train.py hparams/prune.yaml --name again --encoder '!apply:lobes.export.load_encoder [results/pruned/1]'

The last line distils what is left once more, as DPHuBERT does. `encoder/` is the pruned model, physically smaller;
`result.json` holds its fidelity to the teacher, the share of parameters that is gone, how many times as fast it is on
one thread, and how far its output is from that of the gated model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch

from lobes.dataio import audio_dataset, read_manifest
from lobes.distillation import DistilAndPrune, Teacher, prune
from lobes.evaluation.cost import time_in_turns
from lobes.export import load_encoder
from lobes.objectives import SSLModel
from lobes.training import FidelityBrain, on_main, run, start_experiment
from lobes.training.students import choose, save_student, with_targets


class Prune(FidelityBrain):
    """Trains the model, its gates and the objective's heads inside the module ``ssl``."""

    def compute_forward(self, batch, stage):
        """What the gated model makes of the batch, beside what the whole one does."""
        return self.modules.ssl(batch)

    def compute_objectives(self, output, batch, stage):
        """The objective's loss, weighed by the frames that it is the mean of."""
        self.record(output, batch, stage)
        return self.weighted(output.loss, output.weight)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the pool, train model and gates, leave out what is shut, test what is left."""
    hparams, run_opts = start_experiment(argv, __file__)
    teacher = Teacher(load_encoder(hparams["teacher"]), hparams["teacher_layers"])
    model = load_encoder(hparams["teacher"]).requires_grad_(True).train()
    inner = hparams["objective"](model, teacher)
    objective = DistilAndPrune(model, inner, hparams["sparsity"], hparams["sparsity_warmup"])
    manifests = on_main(hparams["prepare"])
    pool = manifests["train"]
    manifests["train"] = on_main(choose, hparams, teacher, manifests, run_opts["device"])

    rate, keys = model.sample_rate, ("id", "sig", "group")
    parts = [audio_dataset(manifests[name], rate, keys, transform=hparams["transform"]) for name in ("train", "test")]
    train, test = with_targets(hparams, teacher, parts, run_opts["device"])
    objective.prepare(train)
    train.repeat(3600 * read_manifest(pool).hours)  # an epoch is as long, and its batches as full, whatever the share
    ssl = SSLModel(model, objective)
    hparams["checkpointer"].add_recoverable("model", ssl)

    def optimizer(_):
        return hparams["opt_class"](objective.groups(model, hparams["gate_lr"]))

    brain = Prune({"ssl": ssl}, optimizer, hparams, run_opts, hparams["checkpointer"])
    brain.fit(hparams["epoch_counter"], train, None, None, hparams["train_loader"])

    gone = objective.gates.eval().settle(hparams["sparsity"])
    pruned = prune(model.eval(), objective.gates)
    figures = {"sparsity": gone, **compared(model, pruned, load_encoder(hparams["teacher"]))}
    ssl.encoder, ssl.objective = pruned, inner
    brain.checkpointer = None  # what it keeps is of the whole model
    brain.evaluate(test, test_loader_kwargs=hparams["test_loader"])
    on_main(save_student, hparams, brain, teacher, manifests, **figures)
    print(", ".join(f"{name} {value:.3g}" for name, value in figures.items()))


@torch.inference_mode()
def compared(gated, pruned, whole) -> dict[str, float]:
    """How far the pruned model is from the gated one, and how many times as fast as the whole one, on 5 s and a CPU."""
    threads, audio = torch.get_num_threads(), (0.1 * torch.randn(1, 5 * gated.sample_rate), torch.ones(1))
    gated, pruned = copy.deepcopy(gated).cpu(), copy.deepcopy(pruned).cpu()
    difference = (gated(*audio).frames - pruned(*audio).frames).abs().max().item()
    torch.set_num_threads(1)
    models = {"whole": whole.eval(), "pruned": pruned}
    times = time_in_turns({name: partial(model, *audio) for name, model in models.items()}, rounds=10)
    torch.set_num_threads(threads)
    return {"faster": times["whole"].best / times["pruned"].best, "largest_difference": difference}


if __name__ == "__main__":
    run(main)
