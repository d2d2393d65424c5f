"""Self-supervised objectives (pretext tasks), one file each, behind one contract."""

from lobes.objectives.base import Objective, ObjectiveOutput, SSLModel
from lobes.objectives.best_rq import BestRQ
from lobes.objectives.disturbance import Disturbance
from lobes.objectives.hubert import HuBERT
from lobes.objectives.masked import MaskedPrediction
from lobes.objectives.masks import span_mask, utterance_generator
from lobes.objectives.monitors import perplexity
from lobes.objectives.quantiser import RandomProjectionQuantiser

__all__ = [
    "BestRQ",
    "Disturbance",
    "HuBERT",
    "MaskedPrediction",
    "Objective",
    "ObjectiveOutput",
    "RandomProjectionQuantiser",
    "SSLModel",
    "perplexity",
    "span_mask",
    "utterance_generator",
]
