"""The pretext task of a finished pretraining run, again: to measure what tuning costs it, or to hold on to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lobes.adapters import EWC, Replay, fisher
from lobes.dataio import AudioDataset, GlobalBatchSampler, audio_dataset, collate
from lobes.encoders import Encoder
from lobes.errors import CheckpointError
from lobes.objectives import Objective
from lobes.training.hparams import HparamsFile
from lobes.training.parallel import rank


class Pretext(NamedTuple):
    """What a pretraining run ended with."""

    objective: Objective
    """With its trained heads, frozen, in evaluation mode."""
    encoder: Encoder
    """As pretrained."""
    train: AudioDataset
    valid: AudioDataset


def load_pretext(run: str | Path) -> Pretext:
    """Load objective, encoder and data of a run of an SSL recipe.

    Parameters
    ----------
    run : path
        Its output folder, with the last checkpoint. Its data is prepared again, if it is not there any more.

    Raises
    ------
    CheckpointError
        The folder holds no such run, or no checkpoint.
    """
    run = Path(run).resolve()
    if not (run / "hyperparams.yaml").is_file():
        raise CheckpointError(f"{run}: holds no hyperparams.yaml; expected the folder of a run of an SSL recipe")
    hparams = HparamsFile(run / "hyperparams.yaml", {"output_folder": str(run)}).load()
    modules = hparams.get("modules")
    if not isinstance(modules, dict) or "ssl" not in modules:
        raise CheckpointError(f"{run}: is no run of an SSL recipe, of which objective and data could be taken")
    if hparams["checkpointer"].recover_if_possible() is None:
        raise CheckpointError(f"{run}: holds no checkpoint, and so no heads of the objective; pretrain again")
    model, keys, rate = modules["ssl"], ("id", "sig", "group"), hparams["sample_rate"]
    manifests = hparams["prepare"]()
    train, valid = (
        audio_dataset(manifests[split], rate, keys, max_seconds=longest, seed=hparams["seed"])
        for split, longest in (("train", hparams["max_seconds"]), ("valid", None))
    )
    return Pretext(model.objective.requires_grad_(False).eval(), model.encoder, train, valid)


@torch.no_grad()
def pretext_loss(
    encoder: nn.Module,
    objective: Objective,
    dataset: AudioDataset,
    device: str | torch.device = "cpu",
    batch_seconds: float = 60.0,
) -> tuple[float, list[dict[str, Any]]]:
    """Evaluate an encoder on a pretext task, with the masks of step 0.

    Parameters
    ----------
    encoder : nn.Module
        That of the run, tuned or not; left in the mode in which it was.
    objective, dataset
        From `load_pretext`.
    device : str or torch.device
        Where it runs.
    batch_seconds : float
        Padded audio per batch.

    Returns
    -------
    tuple of float and list
        The mean loss over all predictions, nats; and a record per utterance, `correct` of so many `predictions`, for
        `lobes.training.MASKED_ACCURACY`.
    """
    modes = {module: module.training for module in encoder.modules()}
    encoder.to(device).eval(), objective.to(device).eval()
    total = weight = 0.0
    records: list[dict[str, Any]] = []
    try:
        for batch in _loader(dataset, batch_seconds, shuffle=False):
            output = objective(encoder, batch.to(device))
            total += float(output.loss * output.weight)
            weight += float(output.weight)
            counts = [output.items[name].tolist() for name in ("correct", "predictions")]
            for name, group, correct, predictions in zip(batch.id, batch.group, *counts, strict=True):
                records.append({"id": name, "group": group, "correct": correct, "predictions": predictions})
    finally:
        for module, mode in modes.items():
            module.training = mode
    return total / max(weight, 1.0), records


def replay_pretext(
    encoder: nn.Module, run: str | Path, strength: float = 1.0, batch_seconds: float = 30.0, seed: int = 0
) -> Replay:
    """A `control` for tuning: the pretext task on its own training data, in each step (`lobes.adapters.Replay`).

    Parameters
    ----------
    encoder : nn.Module
        That is tuned; pretrained by `run`.
    run : path
        As for `load_pretext`.
    strength : float
        What its loss counts beside the new task's.
    batch_seconds : float
        Padded audio in each step, of each process.
    seed : int
        Of the order.
    """
    pretext = load_pretext(run)
    batches = _Epochs(pretext.train, batch_seconds, seed + rank())
    return Replay(partial(_loss, encoder, pretext.objective.train()), batches, strength)


def ewc_pretext(encoder: nn.Module, run: str | Path, strength: float, n_utterances: int = 64) -> EWC:
    """A `control` for tuning: hold the weights that the pretext task needs (`lobes.adapters.EWC`).

    Parameters
    ----------
    encoder, run
        As for `replay_pretext`.
    strength : float
        λ.
    n_utterances : int
        Of the pretext task's training set, to estimate the Fisher information from.
    """
    pretext = load_pretext(run)
    part: Any = torch.utils.data.Subset(pretext.train, range(min(n_utterances, len(pretext.train))))
    one_by_one = DataLoader(part, batch_size=1, collate_fn=collate)
    return EWC(encoder, strength, fisher(encoder, partial(_loss, encoder, pretext.objective), one_by_one))


def _loss(encoder: nn.Module, objective: Objective, batch: Any) -> Tensor:
    device = next(encoder.parameters()).device
    return objective.to(device)(encoder, batch.to(device)).loss


class _Epochs:
    """A loader whose batches come in another order, with other masks, each time that it is begun."""

    def __init__(self, dataset: AudioDataset, batch_seconds: float, seed: int) -> None:
        self.dataset, self.batch_seconds, self.seed = dataset, batch_seconds, seed
        self.epoch = self.step = 0

    def __iter__(self) -> Iterator[Any]:
        loader = _loader(self.dataset, self.batch_seconds, shuffle=True, seed=self.seed, epoch=self.epoch)
        self.epoch += 1
        for batch in loader:
            batch.step = self.step
            self.step += 1
            yield batch


def _loader(
    dataset: AudioDataset, batch_seconds: float, shuffle: bool, seed: int = 0, epoch: int = 0
) -> DataLoader[Any]:
    dataset.set_epoch(epoch)
    sampler = GlobalBatchSampler(dataset.durations, batch_seconds, shuffle=shuffle, seed=seed)
    sampler.set_epoch(epoch)
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
