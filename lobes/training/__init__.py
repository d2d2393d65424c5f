"""Training: the Brain, checkpoints, hyperparameter files and the start of an experiment."""

from __future__ import annotations

from lobes.training.averaging import average_checkpoints
from lobes.training.brain import Brain
from lobes.training.checkpointer import Checkpointer
from lobes.training.classifiers import MappedHead, build_classifier, load_classifier, map_labels
from lobes.training.costs import costs
from lobes.training.experiment import run, start_experiment
from lobes.training.folds import DecidingBrain, all_folds, cross_validate, save_folds, tune_fold
from lobes.training.hparams import Hparams, HparamsFile, load_hparams, load_part
from lobes.training.loaders import SeededItems
from lobes.training.parallel import gather, on_main, rank, world_size
from lobes.training.pretext import Pretext, ewc_pretext, load_pretext, pretext_loss, replay_pretext
from lobes.training.pretraining import MASKED_ACCURACY, FidelityBrain, PretrainingBrain, save_pretrained
from lobes.training.schedules import WarmupCosine
from lobes.training.signals import EXIT_INTERRUPTED, EXIT_REQUEUE, Requeue
from lobes.training.students import ReadOut, save_student

__all__ = [
    "Brain",
    "Checkpointer",
    "DecidingBrain",
    "EXIT_INTERRUPTED",
    "EXIT_REQUEUE",
    "FidelityBrain",
    "Hparams",
    "HparamsFile",
    "MASKED_ACCURACY",
    "MappedHead",
    "Pretext",
    "PretrainingBrain",
    "ReadOut",
    "Requeue",
    "SeededItems",
    "WarmupCosine",
    "all_folds",
    "average_checkpoints",
    "build_classifier",
    "costs",
    "cross_validate",
    "ewc_pretext",
    "gather",
    "load_classifier",
    "load_hparams",
    "load_part",
    "load_pretext",
    "map_labels",
    "on_main",
    "pretext_loss",
    "rank",
    "replay_pretext",
    "run",
    "save_folds",
    "save_pretrained",
    "save_student",
    "start_experiment",
    "tune_fold",
    "world_size",
]
