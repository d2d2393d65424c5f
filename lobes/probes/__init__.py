"""What stands on a frozen encoder: layer sum, pooling, heads, CTC, logistic regression, cached features."""

from __future__ import annotations

from lobes.probes.ctc import CTCLoss, ctc_frames_needed, ctc_greedy, ctc_loss
from lobes.probes.downstream import Downstream, cache_features
from lobes.probes.features import collate_features, extract_features
from lobes.probes.fold import Decision, decision_records, probe_fold
from lobes.probes.heads import AttentiveHead, BiLSTMHead, FrameLinear, LinearHead, Probe
from lobes.probes.layer_sum import WeightedLayerSum
from lobes.probes.logistic import LogisticProbe
from lobes.probes.mlp import MLPProbe
from lobes.probes.neighbours import KNNProbe
from lobes.probes.paced import PacedEncoder
from lobes.probes.pooled import PooledLayers, PooledProbe
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.regression import BiLSTMRater, GRURater, LinearRater, ccc_loss, rated_steps
from lobes.probes.tokenizer import CharTokenizer

__all__ = [
    "AttentiveHead",
    "AttentivePool",
    "BiLSTMHead",
    "BiLSTMRater",
    "CTCLoss",
    "CharTokenizer",
    "Decision",
    "Downstream",
    "FrameLinear",
    "GRURater",
    "KNNProbe",
    "LinearHead",
    "LinearRater",
    "LogisticProbe",
    "MLPProbe",
    "MeanStdPool",
    "PacedEncoder",
    "PooledLayers",
    "PooledProbe",
    "Probe",
    "WeightedLayerSum",
    "cache_features",
    "ccc_loss",
    "collate_features",
    "ctc_frames_needed",
    "ctc_greedy",
    "ctc_loss",
    "decision_records",
    "extract_features",
    "probe_fold",
    "rated_steps",
]
