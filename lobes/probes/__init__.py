"""What stands on a frozen encoder: layer sum, pooling, heads, CTC, attention, logistic regression, cached features."""

from __future__ import annotations

from lobes.probes.cosine import pooled_layers, training_free
from lobes.probes.beam_search import Hypothesis, beam_search
from lobes.probes.ctc import CTCLoss, ctc_frames_needed, ctc_greedy, ctc_loss
from lobes.probes.ctc_alignment import ctc_align, word_segments
from lobes.probes.ctc_beam import CTCDecoder, TokenLM, ctc_beam
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
from lobes.probes.logistic import LogisticProbe, PooledLayers
from lobes.probes.parser import RecogniserHead, SpeechParser, WordParser, decode_trees, parse_loss, recognised_words
from lobes.probes.peak import PeakHead
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.tagged import SlotClasses, TagCTC, TaggedTokenizer
from lobes.probes.regression import BiLSTMRater, GRURater, LinearRater, ccc_loss, rated_steps
from lobes.probes.margins import AAMSoftmax, AMSoftmax
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.speakers import ECAPA, XVector
from lobes.probes.tokenizer import CharTokenizer
from lobes.probes.trees import TreeLabels, greedy_heads, maximum_spanning_tree
from lobes.probes.sentencepiece_tokenizer import SentencePieceTokenizer
from lobes.probes.tokenizer import CharTokenizer, unseen_characters

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
from lobes.probes.seq2seq import AttentionHead, Seq2Seq, Seq2SeqOutput, attention_loss, seq2seq_loss
from lobes.probes.tokenizer import CharTokenizer
from lobes.probes.transformer_decoder import TransformerDecoder

__all__ = [
    "AttentionHead",
    "AttentiveHead",
    "AttentivePool",
    "BiLSTMHead",
    "CTCDecoder",
    "BiLSTMRater",
    "CTCLoss",
    "CharTokenizer",
    "Decision",
    "Downstream",
    "ECAPA",
    "FrameLinear",
    "GRURater",
    "KNNProbe",
    "Hypothesis",
    "LinearHead",
    "LinearRater",
    "LogisticProbe",
    "MLPProbe",
    "MeanStdPool",
    "PeakHead",
    "PacedEncoder",
    "PooledLayers",
    "PooledProbe",
    "Probe",
    "RecogniserHead",
    "SpeechParser",
    "TreeLabels",
    "SentencePieceTokenizer",
    "TokenLM",
    "SlotClasses",
    "TagCTC",
    "TaggedTokenizer",
    "WeightedLayerSum",
    "WordParser",
    "XVector",
    "Seq2Seq",
    "Seq2SeqOutput",
    "TransformerDecoder",
    "WeightedLayerSum",
    "attention_loss",
    "beam_search",
    "cache_features",
    "ccc_loss",
    "collate_features",
    "ctc_align",
    "ctc_beam",
    "ctc_frames_needed",
    "ctc_greedy",
    "ctc_loss",
    "decision_records",
    "decode_trees",
    "extract_features",
    "greedy_heads",
    "maximum_spanning_tree",
    "parse_loss",
    "probe_fold",
    "recognised_words",
    "word_segments",
    "unseen_characters",
    "rated_steps",
    "pooled_layers",
    "probe_fold",
    "training_free",
    "seq2seq_loss",
]
