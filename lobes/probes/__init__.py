"""What stands on a frozen encoder: layer sum, pooling, heads, CTC, attention, logistic regression, cached features."""

from __future__ import annotations

from lobes.probes.beam_search import Hypothesis, beam_search
from lobes.probes.ctc import CTCLoss, ctc_frames_needed, ctc_greedy, ctc_loss
from lobes.probes.downstream import Downstream, cache_features
from lobes.probes.features import collate_features, extract_features
from lobes.probes.fold import Decision, decision_records, probe_fold
from lobes.probes.heads import AttentiveHead, BiLSTMHead, FrameLinear, LinearHead, Probe
from lobes.probes.layer_sum import WeightedLayerSum
from lobes.probes.logistic import LogisticProbe, PooledLayers
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.seq2seq import AttentionHead, Seq2Seq, Seq2SeqOutput, attention_loss, seq2seq_loss
from lobes.probes.tokenizer import CharTokenizer
from lobes.probes.transformer_decoder import TransformerDecoder

__all__ = [
    "AttentionHead",
    "AttentiveHead",
    "AttentivePool",
    "BiLSTMHead",
    "CTCLoss",
    "CharTokenizer",
    "Decision",
    "Downstream",
    "FrameLinear",
    "Hypothesis",
    "LinearHead",
    "LogisticProbe",
    "MeanStdPool",
    "PooledLayers",
    "Probe",
    "Seq2Seq",
    "Seq2SeqOutput",
    "TransformerDecoder",
    "WeightedLayerSum",
    "attention_loss",
    "beam_search",
    "cache_features",
    "collate_features",
    "ctc_frames_needed",
    "ctc_greedy",
    "ctc_loss",
    "decision_records",
    "extract_features",
    "probe_fold",
    "seq2seq_loss",
]
