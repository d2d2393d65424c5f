"""Distillation of self-supervised speech models, without labels: teachers, losses, targets that are computed once."""

from __future__ import annotations

from lobes.distillation.cache import TargetCache
from lobes.distillation.choice import Choice, choose_clips
from lobes.distillation.codebook import Codebook
from lobes.distillation.heads import LayerHeads
from lobes.distillation.inputs import front_end, student_output
from lobes.distillation.losses import explained, gram_distance, l1_cosine, mse, temporal_gram
from lobes.distillation.masked_units import MaskedUnits
from lobes.distillation.objectives import Distillation, DistillationObjective, STaR
from lobes.distillation.pool import describe, fit_codebook
from lobes.distillation.pruning import DistilAndPrune, Gates, HardConcrete, prune
from lobes.distillation.students import first_layers, thin
from lobes.distillation.teacher import Targets, Teacher
from lobes.distillation.two_way import MaskedTwoWay

__all__ = [
    "Choice",
    "Codebook",
    "DistilAndPrune",
    "Distillation",
    "DistillationObjective",
    "Gates",
    "HardConcrete",
    "LayerHeads",
    "MaskedTwoWay",
    "MaskedUnits",
    "STaR",
    "TargetCache",
    "Targets",
    "Teacher",
    "choose_clips",
    "describe",
    "explained",
    "first_layers",
    "fit_codebook",
    "front_end",
    "gram_distance",
    "l1_cosine",
    "mse",
    "prune",
    "student_output",
    "temporal_gram",
    "thin",
]
