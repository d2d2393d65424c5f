"""Token mixers: the part of an encoder layer that carries information along time. One file each, one contract."""

from lobes.mixers.base import Chunks, TokenMixer, mixers_that
from lobes.mixers.cgmlp import ConvolutionalGating
from lobes.mixers.convnext import ConvNeXt
from lobes.mixers.fastformer import Fastformer
from lobes.mixers.fnet import FNet
from lobes.mixers.hyper_mixing import HyperMixing
from lobes.mixers.linear_attention import LinearAttention
from lobes.mixers.linformer import Linformer
from lobes.mixers.local_sdpa import LocalSDPA
from lobes.mixers.luna import Luna
from lobes.mixers.mlp_mixer import MLPMixer
from lobes.mixers.pom import PoM
from lobes.mixers.sdpa import SDPA
from lobes.mixers.ssd import SSD
from lobes.mixers.summary import SummaryMixing

__all__ = [
    "Chunks",
    "ConvNeXt",
    "ConvolutionalGating",
    "FNet",
    "Fastformer",
    "HyperMixing",
    "LinearAttention",
    "Linformer",
    "LocalSDPA",
    "Luna",
    "MLPMixer",
    "PoM",
    "SDPA",
    "SSD",
    "SummaryMixing",
    "TokenMixer",
    "mixers_that",
]
