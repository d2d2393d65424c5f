"""Training: the Brain, checkpoints, hyperparameter files and the start of an experiment."""

from __future__ import annotations

from lobes.training.brain import Brain
from lobes.training.checkpointer import Checkpointer
from lobes.training.costs import costs
from lobes.training.experiment import run, start_experiment
from lobes.training.folds import DecidingBrain, all_folds, cross_validate, save_folds, tune_fold
from lobes.training.hparams import Hparams, HparamsFile, load_hparams, load_part
from lobes.training.loaders import SeededItems
from lobes.training.parallel import gather, on_main
from lobes.training.pretraining import PretrainingBrain, save_pretrained
from lobes.training.schedules import WarmupCosine
from lobes.training.signals import EXIT_INTERRUPTED, EXIT_REQUEUE, Requeue

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_REQUEUE",
    "Brain",
    "Checkpointer",
    "DecidingBrain",
    "Hparams",
    "HparamsFile",
    "PretrainingBrain",
    "Requeue",
    "SeededItems",
    "WarmupCosine",
    "all_folds",
    "costs",
    "cross_validate",
    "gather",
    "load_hparams",
    "load_part",
    "on_main",
    "run",
    "save_folds",
    "save_pretrained",
    "start_experiment",
    "tune_fold",
]
