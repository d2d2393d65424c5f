"""Token mixers: the part of an encoder layer that carries information along time. One file each, one contract."""

from lobes.mixers.base import TokenMixer
from lobes.mixers.sdpa import SDPA
from lobes.mixers.summary import SummaryMixing

__all__ = ["SDPA", "SummaryMixing", "TokenMixer"]
