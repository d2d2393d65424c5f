"""What stands on a frozen encoder: layer sum, pooling, heads, CTC, logistic regression, cached features."""

from __future__ import annotations

from lobes.probes.cosine import pooled_layers, training_free
from lobes.probes.ctc import CTCLoss, ctc_frames_needed, ctc_greedy, ctc_loss
from lobes.probes.downstream import Downstream, cache_features
from lobes.probes.features import collate_features, extract_features
from lobes.probes.fold import Decision, decision_records, probe_fold
from lobes.probes.heads import AttentiveHead, BiLSTMHead, FrameLinear, LinearHead, Probe
from lobes.probes.layer_sum import WeightedLayerSum
from lobes.probes.logistic import LogisticProbe, PooledLayers
from lobes.probes.margins import AAMSoftmax, AMSoftmax
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.speakers import ECAPA, XVector
from lobes.probes.tokenizer import CharTokenizer

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
    "AttentiveHead",
    "AttentivePool",
    "BiLSTMHead",
    "CTCLoss",
    "CharTokenizer",
    "Decision",
    "Downstream",
    "ECAPA",
    "FrameLinear",
    "LinearHead",
    "LogisticProbe",
    "MeanStdPool",
    "PooledLayers",
    "Probe",
    "WeightedLayerSum",
    "XVector",
    "cache_features",
    "collate_features",
    "ctc_frames_needed",
    "ctc_greedy",
    "ctc_loss",
    "decision_records",
    "extract_features",
    "pooled_layers",
    "probe_fold",
    "training_free",
]
