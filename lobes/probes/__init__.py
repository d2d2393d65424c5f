"""What stands on a frozen encoder: layer sum, pooling, heads, CTC, logistic regression, cached features."""

from __future__ import annotations

from lobes.probes.beam_search import Hypothesis, beam_search
from lobes.probes.cosine import pooled_layers, training_free
from lobes.probes.ctc import CTCLoss, ctc_frames_needed, ctc_greedy, ctc_loss
from lobes.probes.ctc_alignment import ctc_align, word_segments
from lobes.probes.ctc_beam import CTCDecoder, TokenLM, ctc_beam
from lobes.probes.downstream import Downstream, cache_features
from lobes.probes.features import collate_features, extract_features
from lobes.probes.fold import Decision, decision_records, probe_fold, seeded
from lobes.probes.heads import AttentiveHead, BiLSTMHead, FrameLinear, LinearHead, Probe
from lobes.probes.layer_sum import WeightedLayerSum
from lobes.probes.logistic import LogisticProbe
from lobes.probes.margins import AAMSoftmax, AMSoftmax
from lobes.probes.mlp import MLPProbe
from lobes.probes.neighbours import KNNProbe
from lobes.probes.paced import PacedEncoder
from lobes.probes.parser import RecogniserHead, SpeechParser, WordParser, decode_trees, parse_loss, recognised_words
from lobes.probes.peak import PeakHead
from lobes.probes.pooled import PooledLayers, PooledProbe
from lobes.probes.pooling import AttentivePool, MeanStdPool
from lobes.probes.regression import BiLSTMRater, GRURater, LinearRater, ccc_loss, rated_steps
from lobes.probes.sentencepiece_tokenizer import SentencePieceTokenizer
from lobes.probes.seq2seq import AttentionHead, Seq2Seq, Seq2SeqOutput, attends, attention_loss, seq2seq_loss
from lobes.probes.speakers import ECAPA, XVector
from lobes.probes.tagged import SlotClasses, TagCTC, TaggedTokenizer, TagSeq2Seq
from lobes.probes.tokenizer import CharTokenizer, UnitTokenizer, unseen_characters
from lobes.probes.transformer_decoder import TransformerDecoder
from lobes.probes.trees import TreeLabels, greedy_heads, maximum_spanning_tree
from lobes.probes.word_lm import ArpaLM, CountedWordLM, WordFusion, WordLM, Words, word_lm

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
    "ArpaLM",
    "AttentionHead",
    "AttentiveHead",
    "AttentivePool",
    "BiLSTMHead",
    "BiLSTMRater",
    "CTCDecoder",
    "CTCLoss",
    "CharTokenizer",
    "CountedWordLM",
    "Decision",
    "Downstream",
    "ECAPA",
    "FrameLinear",
    "GRURater",
    "Hypothesis",
    "KNNProbe",
    "LinearHead",
    "LinearRater",
    "LogisticProbe",
    "MLPProbe",
    "MeanStdPool",
    "PacedEncoder",
    "PeakHead",
    "PooledLayers",
    "PooledProbe",
    "Probe",
    "RecogniserHead",
    "SentencePieceTokenizer",
    "Seq2Seq",
    "Seq2SeqOutput",
    "SlotClasses",
    "SpeechParser",
    "TagCTC",
    "TagSeq2Seq",
    "TaggedTokenizer",
    "TokenLM",
    "TransformerDecoder",
    "TreeLabels",
    "UnitTokenizer",
    "WeightedLayerSum",
    "WordFusion",
    "WordLM",
    "WordParser",
    "Words",
    "XVector",
    "attends",
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
    "pooled_layers",
    "probe_fold",
    "rated_steps",
    "recognised_words",
    "seeded",
    "seq2seq_loss",
    "training_free",
    "unseen_characters",
    "word_lm",
    "word_segments",
]
