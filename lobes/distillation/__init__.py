"""Distillation of self-supervised speech models, without labels: teachers, losses, targets that are computed once."""

from __future__ import annotations

from lobes.distillation.cache import TargetCache
from lobes.distillation.heads import LayerHeads
from lobes.distillation.losses import explained, gram_distance, l1_cosine, mse, temporal_gram
from lobes.distillation.objectives import Distillation, DistillationObjective, STaR
from lobes.distillation.teacher import Targets, Teacher

__all__ = [
    "Distillation",
    "DistillationObjective",
    "LayerHeads",
    "STaR",
    "TargetCache",
    "Targets",
    "Teacher",
    "explained",
    "gram_distance",
    "l1_cosine",
    "mse",
    "temporal_gram",
]
