"""Token mixers: the part of an encoder layer that carries information along time. One file each, one contract."""

from lobes.mixers.base import Chunks, TokenMixer, mixers_that
from lobes.mixers.local_sdpa import LocalSDPA
from lobes.mixers.sdpa import SDPA
from lobes.mixers.summary import SummaryMixing

__all__ = ["Chunks", "LocalSDPA", "SDPA", "SummaryMixing", "TokenMixer", "mixers_that"]
