"""A tiny experiment, and processes to run it in, for the tests of training."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
import torch._dynamo  # noqa: F401  torch.optim imports it, for seconds, which every forked process would repeat
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

from lobes import training

DIM = 4


def make_dataset(n_items: int = 24, dim: int = DIM) -> DynamicItemDataset:
    """Items of 1 to 4 s, with one frame of features per second, which the model is to sum up."""
    generator = torch.Generator().manual_seed(1)
    data = {}
    for number in range(n_items):
        seconds = 1 + number % 4
        frames = torch.randn(seconds, dim, generator=generator)
        data[f"item{number:02d}"] = {"duration": float(seconds), "frames": frames}
    dataset = DynamicItemDataset(data)
    dataset.set_output_keys(["id", "frames"])
    return dataset


class Model(nn.Module):
    """A regression with dropout, whose loss is a mean over frames."""

    def __init__(self, dim: int = DIM, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        frames, lengths = batch.frames
        valid = torch.arange(frames.shape[1]) < (lengths[:, None] * frames.shape[1]).round()
        errors = (self.layers(frames).squeeze(-1) - frames.sum(-1)).square()
        return (errors * valid).sum() / valid.sum(), valid.sum()


def toy_class(base: type = training.Brain) -> type:
    """A Brain on SpeechBrain's class or ours that records its training losses, batch by batch."""

    class Toy(base):
        def compute_forward(self, batch, stage):
            return self.modules.model(batch)

        def compute_objectives(self, output, batch, stage):
            loss, weight = output
            return self.weighted(loss, weight) if hasattr(self, "weighted") else loss

        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            self.seen = [*getattr(self, "seen", []), (tuple(batch.id), float(loss.detach()))]
            hook = getattr(self.hparams, "after_batch", None)
            if hook is not None:
                hook(self)

        def on_stage_end(self, stage, stage_loss, epoch=None):
            self.stage_losses = {**getattr(self, "stage_losses", {}), (stage.name, epoch): float(stage_loss)}
            if stage == sb.Stage.VALID and self.checkpointer is not None:
                self.checkpointer.save_and_keep_only(meta={"loss": stage_loss}, importance_keys=[])

    return Toy


def make_brain(
    folder: Path | None = None, base: type = training.Brain, epochs: int = 2, dropout: float = 0.0, **options: Any
) -> tuple[Any, EpochCounter]:
    """A Brain that begins as every other made here; with a folder, it saves checkpoints and logs there."""
    torch.manual_seed(3)
    model = Model(dropout=dropout)
    counter = EpochCounter(epochs)
    checkpointer = None
    hparams = {name: options.pop(name) for name in ("after_batch", "lr_scheduler", "seed") if name in options}
    if folder is not None:
        checkpointer_class = training.Checkpointer if base is training.Brain else sb.utils.checkpoints.Checkpointer
        checkpointer = checkpointer_class(folder / "save", {"model": model, "counter": counter})
        hparams["output_folder"] = str(folder)
    run_opts = {"device": "cpu", "noprogressbar": True, **options}
    if "RANK" in os.environ:
        run_opts["distributed_backend"] = "gloo"
    brain = toy_class(base)({"model": model}, lambda p: torch.optim.SGD(p, 0.02, 0.9), hparams, run_opts, checkpointer)
    return brain, counter


def fit(brain: Any, counter: Any, batch_seconds: float = 16, valid: bool = False, **options: Any) -> Any:
    """Train the toy on its data and return the brain."""
    loader = {"batch_seconds": batch_seconds, "collate_fn": PaddedBatch, **options}
    valid_set = make_dataset(9) if valid else None
    valid_loader = {"batch_seconds": 8, "collate_fn": PaddedBatch}
    brain.fit(counter, make_dataset(), valid_set, train_loader_kwargs=loader, valid_loader_kwargs=valid_loader)
    return brain


def in_child(function: Callable[..., None], *args: Any) -> int:
    """Run a function in a forked process, which has everything imported already; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{function.__name__} hangs")
    return process.exitcode


def in_ranks(function: Callable[..., None], *args: Any, world_size: int = 2) -> list[int]:
    """Run a function in several forked processes that form a gloo group, as torchrun would; return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    arguments = [(function, rank, world_size, port, args) for rank in range(world_size)]
    processes = [context.Process(target=_rank_main, args=argument) for argument in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    if hanging:
        raise TimeoutError(f"{function.__name__} hangs in {len(hanging)} process(es)")
    return [process.exitcode for process in processes]


def _rank_main(function: Callable[..., None], rank: int, world_size: int, port: int, args: tuple) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    function(*args)
    torch.distributed.destroy_process_group()
