"""Unsupervised selection: which utterances of a pool, for a student or a pretraining, and how few of them."""

from __future__ import annotations

from lobes.selection.base import Filter, Scored, Selection, Strategy, by_score, described, select
from lobes.selection.filters import Duration, InRange, NoDuplicates
from lobes.selection.language_models import ContrastiveLM, TargetLM, UnitKL
from lobes.selection.neighbours import ClusterBalance, TargetKNN
from lobes.selection.ngram import NGramModel
from lobes.selection.pool import Pool, Units, concatenate, iterate_pool, pool_files, read_pool, with_scores, write_pool
from lobes.selection.sharded import score_shards
from lobes.selection.shift import Shift, shift_test
from lobes.selection.signal import active_share, wada_snr
from lobes.selection.simple import ByColumn, Longest, Random, RandomAsLong
from lobes.selection.submodular import FLMI, FLQMI, FacilityLocation

__all__ = [
    "FLMI",
    "ByColumn",
    "ClusterBalance",
    "ContrastiveLM",
    "Duration",
    "FacilityLocation",
    "Filter",
    "InRange",
    "Longest",
    "FLQMI",
    "NGramModel",
    "NoDuplicates",
    "Pool",
    "Random",
    "RandomAsLong",
    "Scored",
    "Selection",
    "Shift",
    "Strategy",
    "TargetKNN",
    "TargetLM",
    "UnitKL",
    "Units",
    "active_share",
    "by_score",
    "concatenate",
    "described",
    "iterate_pool",
    "pool_files",
    "read_pool",
    "score_shards",
    "select",
    "shift_test",
    "wada_snr",
    "with_scores",
    "write_pool",
]
