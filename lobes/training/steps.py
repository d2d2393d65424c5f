"""How the Brain takes an optimizer step: weighing, accumulating, clipping, skipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import DEFAULT_SAVE_HOOKS, get_default_hook
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lobes.errors import LobesError
from lobes.probes.processes import shared_backward
from lobes.training.accumulation import AccumulationGroup, Totals
from lobes.training.parallel import NormStatistics, average_gradients, broadcast_buffers, synchronise_norms, world_size
from lobes.training.rng import RandomState
from lobes.training.schedules import apply_schedule
from lobes.training.signals import StopSignals

logger = get_logger(__name__)

#: Run options whose default differs from SpeechBrain's; hparams and the command line go before both.
_DEFAULTS = {"compile_using_dynamic_shape_tracing": True, "skip_nonfinite_grads": True}


class StepBrain(sb.Brain):
    """The part of `lobes.training.Brain` that turns batches into optimizer steps; derive from `Brain` instead."""

    def __init__(
        self,
        modules: dict[str, nn.Module] | None = None,
        opt_class: Any = None,
        hparams: dict[str, Any] | None = None,
        run_opts: Any = None,
        checkpointer: Any = None,
    ) -> None:
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.hparams = getattr(self, "hparams", SimpleNamespace())
        given = getattr(run_opts, "overridden_args", run_opts) or ()
        for option, default in _DEFAULTS.items():
            if option not in given and not hasattr(self.hparams, option):
                setattr(self, option, default)
        self.lr_scheduler = getattr(self.hparams, "lr_scheduler", None)
        self.loss_sum = self.weight_sum = 0.0
        self.audio_seconds = 0.0
        self.nonfinite_count = 0
        self._weight: float | None = None
        self._stats: dict[str, Tensor | float] = {}
        self._group = AccumulationGroup()
        self._totals: Totals | None = None
        self._norms = NormStatistics(self.modules)
        self._stop = StopSignals()
        self._rng = RandomState(cuda=self.device_type == "cuda")
        if checkpointer is not None:
            self._add_recoverables(checkpointer)

    def _add_recoverables(self, checkpointer: Any) -> None:
        checkpointer.add_recoverable("random_state", self._rng, optional_load=True)
        stateful = self.lr_scheduler is not None and get_default_hook(self.lr_scheduler, DEFAULT_SAVE_HOOKS)
        if stateful and not any(known is self.lr_scheduler for known in checkpointer.recoverables.values()):
            checkpointer.add_recoverable("lr_scheduler", self.lr_scheduler)

    def weighted(self, loss: Tensor, weight: Tensor | float) -> Tensor:
        """Say how many predictions the loss of a batch is the mean of; call it once in `compute_objectives`.

        Training then follows the gradient of ``sum(loss * weight) / sum(weight)`` over all processes and all
        micro-batches of an optimizer step, and losses are averaged in the same way. A batch of weight 0 changes
        nothing, whatever its loss. Without this call every micro-batch has weight 1.

        Parameters
        ----------
        loss : Tensor, shape ()
            Mean loss of the batch.
        weight : Tensor of shape () or float
            Over how many predictions; 0 or more.

        Returns
        -------
        Tensor, shape ()
            The loss.

        Raises
        ------
        ValueError
            The weight is negative or not a number.
        RuntimeError
            It was called twice for one batch.
        """
        if self._weight is not None:
            raise RuntimeError("weighted() was called twice for one batch: call it once, on the total loss")
        value = float(weight)
        if not value >= 0 or math.isinf(value):
            raise ValueError(f"weight is {value}: expected a finite number, 0 or more")
        self._weight = value
        return loss

    def log_stats(self, stats: Mapping[str, Tensor | float]) -> None:
        """Add scalars of this training batch to `train_log.csv`: the mean over an optimizer step, weighted as the loss.

        Parameters
        ----------
        stats : dict
            Name -> scalar, a mean over the same predictions as the loss.
        """
        self._stats.update(stats)

    def on_optimizer_step(self) -> None:
        """Do something after every optimizer step that was taken, such as moving an averaged teacher."""

    def fit_batch(self, batch: Any) -> Tensor:
        """Add the gradients of a batch, and take a step when the accumulation group is complete."""
        should_step = len(self._group) + 1 == self.grad_accumulation_factor
        if isinstance(batch, PaddedBatch):
            batch.step = self.optimizer_step
        self.on_fit_batch_start(batch, should_step)
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            weight = self._take_weight() * (not getattr(batch, "placeholder", False))
            with shared_backward(counts=weight > 0):
                self.scaler.scale(self._to_sum(loss, weight)).backward()
        ids = getattr(batch, "id", ())
        seconds = float(sum(getattr(batch, "duration", ())))
        self._group.add(loss, weight, self._take_stats(), ids if isinstance(ids, list) else (), seconds)
        if should_step:
            self._finish_group()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return loss.detach()

    def evaluate_batch(self, batch: Any, stage: sb.Stage) -> Tensor:
        """The loss of a batch; of one in which nothing could be read none, so that no item of it is scored."""
        if getattr(batch, "placeholder", False):
            self._weight = 0.0
            return torch.zeros(())
        return super().evaluate_batch(batch, stage)  # type: ignore[no-any-return]

    def _take_weight(self) -> float:
        weight, self._weight = (1.0 if self._weight is None else self._weight), None
        return weight

    def _take_stats(self) -> dict[str, Tensor | float]:
        stats, self._stats = self._stats, {}
        return stats

    def _to_sum(self, loss: Tensor, weight: float) -> Tensor:
        """Undo the mean; the step divides by the total weight. See `AccumulationGroup`."""
        if weight > 0:
            return loss * weight
        # Even a loss of 0 * NaN would give gradients of NaN; and every process must go through a backward pass.
        return sum((parameter * 0).sum() for parameter in self.modules.parameters() if parameter.requires_grad)

    def _finish_group(self, synchronise: bool = False) -> None:
        """Take the step of a complete group, or of what there is of one at the end of an epoch.

        Parameters
        ----------
        synchronise : bool
            The group is incomplete, so that its gradients have not been averaged over processes yet.
        """
        if synchronise:
            average_gradients(p for p in self.modules.parameters() if p.requires_grad)
        totals = self._group.reduce(self._stop.requeue, self._stop.interrupt, self._wants_checkpoint())
        self._totals = totals
        if totals.nonfinite:
            items = ", ".join(self._group.nonfinite_ids[:4])
            self._skip_step("loss", f", in the batch of {items}" if items else "")
        elif totals.weight == 0:
            logger.warning("no item of this step could be used: the step is left out")
            self._clear_gradients()
            self._norms.put_back()
        else:
            norm = self.optimizers_step(world_size() / totals.weight)
            if norm is not None:
                self.audio_seconds += totals.seconds
                self.loss_sum += totals.loss_sum
                self.weight_sum += totals.weight
                self.avg_train_loss = self.loss_sum / self.weight_sum
                self._log_step(totals, norm)
                self.on_optimizer_step()

    def _wants_checkpoint(self) -> bool:
        """Whether this process asks for a checkpoint after the coming step."""
        return False

    def _log_step(self, totals: Totals, norm: float) -> None:
        """Note a step that was taken."""

    def _optimizers(self) -> dict[str, Optimizer]:
        if self.optimizers_dict is not None:
            return self.optimizers_dict
        return {"optimizer": self.optimizer} if self.opt_class is not None else {}

    def _clear_gradients(self) -> None:
        for optimizer in self._optimizers().values():
            optimizer.zero_grad(set_to_none=True)

    def optimizers_step(self, scale: float = 1.0) -> float | None:
        """Multiply the gradients, clip them and step.

        Every optimizer's gradients are clipped by one norm over all of its parameter groups.

        Parameters
        ----------
        scale : float
            Factor for the gradients.

        Returns
        -------
        float or None
            The norm of the gradients before clipping; None if the step was left out, because it is not finite.
        """
        active = self.freeze_optimizers(self._optimizers())
        squares = 0.0
        for optimizer in active.values():
            self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            if scale != 1.0 and gradients:
                torch._foreach_mul_(gradients, scale)
            norm = torch.nn.utils.get_total_norm(gradients)
            if self.max_grad_norm > 0:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)
            squares += float(norm) ** 2
        finite = math.isfinite(squares)
        if not finite and self.scaler.is_enabled():
            self.scaler.update()  # float16 overflowed: the next step takes a smaller scale
            self._clear_gradients()
            return None
        if not finite and self.skip_nonfinite_grads:
            self._skip_step("gradient", "")
            return None
        for optimizer in active.values():
            if self.lr_scheduler is not None:
                apply_schedule(self.lr_scheduler, optimizer, self.optimizer_step + 1)
            self.scaler.step(optimizer)
        self.scaler.update()
        self._clear_gradients()
        self._norms.keep()
        self.optimizer_step += 1
        return math.sqrt(squares) if squares >= 0 else squares

    def _skip_step(self, what: str, where: str) -> None:
        """Leave the weights as they are, and give up if that happens too often."""
        self._clear_gradients()
        self._norms.put_back()
        self.nonfinite_count += 1
        times = f"{self.nonfinite_count} time(s) in this epoch"
        if self.nonfinite_count > self.nonfinite_patience:
            raise LobesError(
                f"the {what} was not finite {times}, last after step {self.optimizer_step}{where}; expected at most "
                f"nonfinite_patience = {self.nonfinite_patience}: lower the learning rate, or look at those items"
            )
        logger.warning(f"the {what} is not finite, {times}{where}: the step is left out")

    def _train_mode(self) -> None:
        """Put modules in training mode, except those of which every parameter is frozen: they are features."""
        self.modules.train()
        for module in self.modules.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def _wrap_distributed(self) -> None:
        """Wrap trainable modules in DistributedDataParallel."""
        if not self.distributed_launch:
            super()._wrap_distributed()
            return
        on_cuda = self.device_type == "cuda"
        for name, module in self.modules.items():
            if not any(parameter.requires_grad for parameter in module.parameters()):
                continue
            broadcast_buffers(module)
            if on_cuda:  # there is no SyncBatchNorm on CPU: running statistics are averaged before evaluation
                module = synchronise_norms(module)
            self.modules[name] = DistributedDataParallel(
                module,
                device_ids=[self.device] if on_cuda else None,
                find_unused_parameters=self.find_unused_parameters,
                # Broadcasting in every forward pass would wait for ever in an evaluation of uneven length.
                broadcast_buffers=False,
            )
