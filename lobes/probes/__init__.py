"""What stands on a frozen encoder: layer sum, pooling, heads, CTC, logistic regression, cached features."""

from __future__ import annotations

from lobes.probes.ctc import CTCLoss, ctc_frames_needed, ctc_greedy, ctc_loss
from lobes.probes.ctc_beam import CTCDecoder, TokenLM, ctc_beam
from lobes.probes.downstream import Downstream, cache_features
from lobes.probes.features import collate_features, extract_features
from lobes.probes.fold import Decision, decision_records, probe_fold
from lobes.probes.heads import AttentiveHead, BiLSTMHead, FrameLinear, LinearHead, Probe
from lobes.probes.layer_sum import WeightedLayerSum
from lobes.probes.logistic import LogisticProbe, PooledLayers
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.sentencepiece_tokenizer import SentencePieceTokenizer
from lobes.probes.tokenizer import CharTokenizer, unseen_characters

__all__ = [
    "AttentiveHead",
    "AttentivePool",
    "BiLSTMHead",
    "CTCDecoder",
    "CTCLoss",
    "CharTokenizer",
    "Decision",
    "Downstream",
    "FrameLinear",
    "LinearHead",
    "LogisticProbe",
    "MeanStdPool",
    "PooledLayers",
    "Probe",
    "SentencePieceTokenizer",
    "TokenLM",
    "WeightedLayerSum",
    "cache_features",
    "collate_features",
    "ctc_beam",
    "ctc_frames_needed",
    "ctc_greedy",
    "ctc_loss",
    "decision_records",
    "extract_features",
    "probe_fold",
    "unseen_characters",
]
