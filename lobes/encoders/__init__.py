"""From a waveform to frames: features, stems, blocks and the encoder, every one blind to padding."""

from lobes.encoders.block import Block, FeedForward
from lobes.encoders.convolution import MaskedConvolution
from lobes.encoders.encoder import Encoder, EncoderOutput
from lobes.encoders.features import LogMel
from lobes.encoders.lengths import absolute_lengths, frame_mask, relative_lengths
from lobes.encoders.logmel_encoder import LogMelEncoder
from lobes.encoders.stem import ConvolutionStem, StackingStem, Stem

__all__ = [
    "Block",
    "ConvolutionStem",
    "Encoder",
    "EncoderOutput",
    "FeedForward",
    "LogMel",
    "LogMelEncoder",
    "MaskedConvolution",
    "StackingStem",
    "Stem",
    "absolute_lengths",
    "frame_mask",
    "relative_lengths",
]
