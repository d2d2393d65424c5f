"""The Brain that every recipe derives from: SpeechBrain's, with its known faults guarded against."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import speechbrain as sb
import torch
import yaml
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.dataio.dataloader import LoopedLoader
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lobes.errors import DataError
from lobes.training import loaders, rng
from lobes.training.accumulation import Totals, to_floats
from lobes.training.checkpointer import plain
from lobes.training.logs import SkippedLog, TrainLog, seconds_since_start
from lobes.training.parallel import NormStatistics, gather, on_main, rank, sum_over_ranks, unwrap, world_size
from lobes.training.signals import EXIT_INTERRUPTED, EXIT_TERMINATED, Requeue
from lobes.training.steps import StepBrain
from lobes.training.trained_on import check_data

logger = get_logger(__name__)

_END = object()
#: What a checkpoint keeps of the Brain: of the epoch, which begins anew at its end, and of the whole run.
_OF_EPOCH = ("step", "avg_train_loss", "loss_sum", "weight_sum", "nonfinite_count")
_OF_RUN = ("optimizer_step", "audio_seconds", "wall_seconds")


@register_checkpoint_hooks
class Brain(StepBrain):
    """SpeechBrain's Brain for recipes that train on one or many processes and survive what happens to long runs.

    Override `compute_forward` and `compute_objectives` as in SpeechBrain; the latter best returns
    ``self.weighted(loss, weight)``. What differs:

    - Gradients of all parameter groups are clipped; ``max_grad_norm`` of 0 or less does not clip.
    - The last, incomplete accumulation group of an epoch is stepped too.
    - Modules whose parameters are all frozen stay in evaluation mode.
    - A step whose loss or gradient is not finite on any process is left out on all, `nonfinite_patience` times.
    - Validation and test are shared over processes, and the loss that `on_stage_end` gets is the mean over all of
      them; `gather` collects per-item results. They draw the same random numbers each time.
    - SIGTERM, SIGUSR1 and Ctrl-C finish the step, save a checkpoint and leave with `EXIT_REQUEUE` or 130.
    - A resumed run goes on exactly, sampler, random numbers, averages and logs included, and never on other data.
    - `train_log.csv` and `skipped.csv` are written to ``hparams["output_folder"]``.
    - ``hparams["lr_scheduler"]`` is applied before every optimizer step.
    - `ckpt_interval_steps` counts optimizer steps; compiling uses dynamic shapes.

    Takes the arguments of `speechbrain.Brain`.

    Examples
    --------
    >>> class Line(Brain):
    ...     def compute_forward(self, batch, stage):
    ...         return self.modules.line(batch[0])
    ...     def compute_objectives(self, predictions, batch, stage):
    ...         return self.weighted((predictions - batch[1]).square().mean(), len(predictions))
    >>> brain = Line({"line": nn.Linear(1, 1)}, lambda p: torch.optim.SGD(p, 0.1), run_opts={"device": "cpu"})
    >>> brain.fit(range(1, 3), [(torch.ones(1), torch.zeros(1))] * 4, progressbar=False)
    >>> brain.optimizer_step
    8
    """

    def __init__(
        self,
        modules: dict[str, nn.Module] | None = None,
        opt_class: Any = None,
        hparams: dict[str, Any] | None = None,
        run_opts: Any = None,
        checkpointer: Any = None,
    ) -> None:
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        folder = getattr(self.hparams, "output_folder", None)
        self._folder = Path(folder) if folder is not None and not self.debug else None
        self._seed = abs(int(getattr(self.hparams, "seed", None) or 0))
        self._skipped = SkippedLog(None)
        self._train_log: TrainLog | None = None
        self._epoch = 0
        self._checkpoint_time = time.monotonic()
        self._steps_since_checkpoint = 0
        self._steps_taken = 0
        self._wall_before, self._started = 0.0, math.nan  # the clock stands still out of `fit`

    @property
    def wall_seconds(self) -> float:
        """Seconds of training and validation so far, those before it was resumed included."""
        return self._wall_before + (0.0 if math.isnan(self._started) else time.monotonic() - self._started)

    def unwrapped(self, name: str) -> nn.Module:
        """Return a module without what `torch.compile` and DistributedDataParallel wrap it in."""
        return unwrap(self.modules[name])

    def gather(self, items: Any) -> Any:
        """Collect per-item results, a list or a dict by id, over all processes; every process gets them all."""
        return gather(items)

    def make_dataloader(
        self, dataset: Any, stage: sb.Stage, ckpt_prefix: str | None = "dataloader-", **loader_kwargs: Any
    ) -> Any:
        """Make a loader that shares the dataset over processes.

        Parameters
        ----------
        dataset : Dataset
            A map-style dataset, or an iterable one in a single process.
        stage : Stage
            What the loader is for.
        ckpt_prefix : str, optional
            As in SpeechBrain; None does not save the loader's position.
        **loader_kwargs
            `batch_seconds`, seconds of audio in the batch of one optimizer step over all processes, with the options
            of `lobes.dataio.GlobalBatchSampler`; or `batch_size` per process and micro-batch. And those of
            `torch.utils.data.DataLoader`.

        Raises
        ------
        ConfigError
            An option does not exist, or the dataset cannot be shared over processes.
        """
        dataset, options = loaders.prepare(
            dataset, stage, loader_kwargs, seed=self._seed, accumulation=self.grad_accumulation_factor
        )
        return super().make_dataloader(dataset, stage, ckpt_prefix, **options)

    def _train_loader_specifics(self, dataset: Any, loader_kwargs: dict[str, Any]) -> dict[str, Any]:
        if getattr(loader_kwargs.get("batch_sampler"), "world_size", None) == world_size():
            return loader_kwargs  # it shares the batches itself
        return super()._train_loader_specifics(dataset, loader_kwargs)

    def _loader(self, data: Any, stage: sb.Stage, ckpt_prefix: str | None, options: dict[str, Any] | None) -> Any:
        """Make a loader of a dataset; take a loader as it is."""
        if isinstance(data, DataLoader | LoopedLoader):
            loaders.check_shared(data, f"{stage.name.lower()} set")
            return data
        return self.make_dataloader(data, stage, **{"ckpt_prefix": ckpt_prefix, **(options or {})})

    def on_fit_start(self) -> None:
        """Compile and wrap modules, make optimizers, load the latest checkpoint."""
        super().on_fit_start()
        self._norms = NormStatistics(self.modules)

    def fit(
        self,
        epoch_counter: Iterable[int],
        train_set: Any,
        valid_set: Any = None,
        progressbar: bool | None = None,
        train_loader_kwargs: dict[str, Any] | None = None,
        valid_loader_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Train; see SpeechBrain's method for the arguments.

        Raises
        ------
        SystemExit
            The run was told to stop: `Requeue` after SIGTERM or SIGUSR1, code 130 after Ctrl-C.
        LobesError
            The loss was not finite more than `nonfinite_patience` times in an epoch; or the run was on other data.
        """
        on_main(check_data, self.checkpointer, train=train_set, valid=valid_set)
        if self.test_only:
            logger.info("test_only: training is left out")
            return
        with self._stop:
            train = self._loader(train_set, sb.Stage.TRAIN, "dataloader-", train_loader_kwargs)
            valid = None if valid_set is None else self._loader(valid_set, sb.Stage.VALID, None, valid_loader_kwargs)
            self.on_fit_start()
            self._open_logs()
            if self._optimizer_step_limit_exceeded and self.step == 0:
                logger.info(f"training is already complete, after {self.optimizer_step} steps")
                return
            self._started = time.monotonic()
            show = self._show_bars(progressbar)
            for epoch in epoch_counter:
                self._fit_train(train, epoch, show)
                self._fit_valid(valid, epoch, show)
                self._finish_epoch()
                if self._optimizer_step_limit_exceeded or (self.debug and epoch == self.debug_epochs):
                    break
            self._wall_before, self._started = self.wall_seconds, math.nan
            self._skipped.summarise()

    def _show_bars(self, progressbar: bool | None) -> bool:
        return (not self.noprogressbar if progressbar is None else progressbar) and if_main_process()

    def _bar(self, loader: Any, stage: str, show: bool, initial: int = 0) -> tqdm:
        try:
            total = len(loader)
        except TypeError:
            total = None
        colour = self.tqdm_barcolor[stage]
        return tqdm(total=total, initial=initial, dynamic_ncols=True, disable=not show, colour=colour)

    def _open_logs(self) -> None:
        if self._folder is not None:
            self._skipped = SkippedLog(self._folder / "skipped.csv")
            if rank() == 0:
                self._train_log = TrainLog(self._folder / "train_log.csv", self.optimizer_step)

    def _fit_train(self, train_set: Any, epoch: int, enable: bool) -> None:
        """Train for one epoch, or for what is left of it."""
        self._epoch = epoch
        self._rng.restore(mid_epoch=False)
        self.on_stage_start(sb.Stage.TRAIN, epoch)
        self._train_mode()
        self._clear_gradients()
        if self.step == 0:
            self.nonfinite_count = 0
        loaders.set_epoch(train_set, epoch)
        batches = iter(train_set)
        self._rng.restore(mid_epoch=True)
        self._checkpoint_time, self._steps_since_checkpoint = time.monotonic(), 0
        if self.profiler is not None:
            self.profiler.start()
        with self._bar(train_set, "train", enable, self.step) as bar:
            while not self._optimizer_step_limit_exceeded:
                batch = next(batches, _END)
                if batch is _END:
                    break
                self.step += 1
                self._skipped.add(getattr(batch, "skipped", ()))
                self.fit_batch(batch)
                bar.set_postfix(train_loss=self.avg_train_loss, refresh=False)
                bar.update()
                if len(self._group) == 0:
                    self._between_steps()
                if self.profiler is not None:
                    self._profile()
                if self.debug and self.step == self.debug_batches:
                    break
        if len(self._group) > 0:
            self._finish_group(synchronise=True)
        self._clear_gradients()
        self._norms.average()
        self._skipped.write()
        self.on_stage_end(sb.Stage.TRAIN, self.avg_train_loss, epoch)

    def _profile(self) -> None:
        self.profiler.step()
        if self.profiler.step_num > self.tot_prof_steps:
            self.profiler.stop()
            logger.info("the profile is written: training ends here")
            raise SystemExit(0)

    def _log_step(self, totals: Totals, norm: float) -> None:
        self._steps_taken += 1
        if self._steps_taken == 1:
            logger.info(f"first training step after {seconds_since_start():.1f} s")
        if self._train_log is not None:
            optimizer = next(iter(self._optimizers().values()), None)
            row = {
                "step": self.optimizer_step,
                "epoch": self._epoch,
                "loss": totals.loss_sum / totals.weight,
                "lr": float(optimizer.param_groups[0]["lr"]) if optimizer is not None else 0.0,
                "grad_norm": norm,
            }
            self._train_log.write({**row, **totals.stats})

    def _wants_checkpoint(self) -> bool:
        """Process 0 decides, as clocks differ."""
        self._steps_since_checkpoint += 1
        if self.checkpointer is None or rank() > 0:
            return False
        minutes = (time.monotonic() - self._checkpoint_time) / 60
        steps = self._steps_since_checkpoint
        return 0 < self.ckpt_interval_minutes <= minutes or 0 < self.ckpt_interval_steps <= steps

    def _between_steps(self) -> None:
        """Stop or save, where all processes agreed to in the step just taken."""
        totals = self._totals
        if totals is None:
            return
        if totals.requeue or totals.interrupt:
            self._leave(totals.requeue)
        if totals.save:
            self._save_intra_epoch_ckpt()

    def _save_intra_epoch_ckpt(self, end_of_epoch: bool = False) -> None:
        """Save a checkpoint that replaces the one before of this kind."""
        self._skipped.write()
        self.checkpointer.save_and_keep_only(
            meta={INTRA_EPOCH_CKPT_FLAG: True, "optimizer_step": self.optimizer_step},
            end_of_epoch=end_of_epoch,
            num_to_keep=1,
            importance_keys=[],
            ckpt_predicate=lambda checkpoint: INTRA_EPOCH_CKPT_FLAG in checkpoint.meta,
            verbosity=logging.DEBUG,
        )
        self._checkpoint_time, self._steps_since_checkpoint = time.monotonic(), 0

    def _leave(self, requeue: bool, end_of_epoch: bool = False) -> NoReturn:
        """Save and end the program, on all processes alike."""
        saved = self.checkpointer is not None
        if saved:
            self._save_intra_epoch_ckpt(end_of_epoch)
        kept = "a checkpoint is saved, the same command goes on from here" if saved else "nothing is saved"
        logger.warning(f"stopped after step {self.optimizer_step}: {kept}")
        self._skipped.summarise()
        if requeue and saved:
            raise Requeue
        raise SystemExit(EXIT_TERMINATED if requeue else EXIT_INTERRUPTED)

    def _fit_valid(self, valid_set: Any, epoch: int, enable: bool) -> None:
        """Validate after an epoch."""
        if valid_set is None:
            return
        self.on_stage_start(sb.Stage.VALID, epoch)
        loss = self._mean_loss(valid_set, sb.Stage.VALID, enable)
        self.on_stage_end(sb.Stage.VALID, loss, epoch)

    def _finish_epoch(self) -> None:
        self.step = 0
        self.loss_sum = self.weight_sum = self.avg_train_loss = 0.0
        requeue, interrupt = sum_over_ranks([self._stop.requeue, self._stop.interrupt])
        if requeue or interrupt:
            self._leave(requeue > 0, end_of_epoch=True)

    def _mean_loss(self, loader: Any, stage: sb.Stage, show: bool) -> float:
        """Mean loss over the items of all processes.

        Nothing waits for another process before the end, so that they may have different numbers of batches.
        """
        self.modules.eval()
        loss_sum = weight_sum = 0.0
        nonfinite = 0
        cuda = self.device_type == "cuda"
        with rng.isolated(self._seed, cuda=cuda), torch.no_grad(), self._bar(loader, stage.name.lower(), show) as bar:
            for number, batch in enumerate(loader, start=1):
                self._skipped.add(getattr(batch, "skipped", ()))
                (loss,) = to_floats([self.evaluate_batch(batch, stage=stage)])
                weight = self._take_weight()
                if weight > 0 and math.isfinite(loss):
                    loss_sum += loss * weight
                    weight_sum += weight
                elif weight > 0:
                    nonfinite += 1
                bar.update()
                if self._stop.received or (self.debug and number == self.debug_batches):
                    break
        sums = sum_over_ranks([loss_sum, weight_sum, nonfinite, self._stop.requeue, self._stop.interrupt])
        self._skipped.write()
        if sums[3] or sums[4]:
            self._leave(sums[3] > 0)
        if sums[2]:
            logger.warning(f"{stage.name.lower()}: the loss of {sums[2]:.0f} batch(es) is not finite and left out")
        if sums[1] == 0:
            raise DataError(f"{stage.name.lower()}: no item could be used, so there is no loss; see skipped.csv")
        return sums[0] / sums[1]

    def evaluate(
        self,
        test_set: Any,
        max_key: str | None = None,
        min_key: str | None = None,
        progressbar: bool | None = None,
        test_loader_kwargs: dict[str, Any] | None = None,
    ) -> float:
        """Load the best checkpoint and return the mean loss; see SpeechBrain's method for the arguments.

        Raises
        ------
        DataError
            No item of the test set could be used.
        """
        loader = self._loader(test_set, sb.Stage.TEST, None, test_loader_kwargs)
        self.on_evaluate_start(max_key=max_key, min_key=min_key)
        self._rng.forget()
        self.on_stage_start(sb.Stage.TEST, epoch=None)
        loss = self._mean_loss(loader, sb.Stage.TEST, self._show_bars(progressbar))
        self.on_stage_end(sb.Stage.TEST, loss, None)
        self.step = 0
        return loss

    @mark_as_saver
    def _save(self, path: Path) -> None:
        state = {name: plain(getattr(self, name)) for name in (*_OF_EPOCH, *_OF_RUN)}
        Path(path).write_text(yaml.safe_dump(state), encoding="utf-8")

    @mark_as_loader
    def _recover(self, path: Path, end_of_epoch: bool) -> None:
        state = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        self.optimizer_step = state["optimizer_step"]
        # The best checkpoint, loaded for a test, does not take back what the whole run has cost.
        self.audio_seconds = max(self.audio_seconds, state.get("audio_seconds", 0.0))
        self._wall_before = max(self._wall_before, state.get("wall_seconds", 0.0))
        for name in _OF_EPOCH:
            setattr(self, name, 0 if end_of_epoch else state.get(name, 0))
