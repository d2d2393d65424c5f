"""From a waveform to frames: features, stems, blocks and the encoder, every one blind to padding."""

from lobes.encoders.block import Block, BranchformerBlock, ConformerBlock, FeedForward, MixerBlock, PlainBlock
from lobes.encoders.convolution import MaskedConvolution
from lobes.encoders.efficientnet import EfficientNetV2
from lobes.encoders.encoder import Encoder, EncoderOutput, EncoderState
from lobes.encoders.faster import Downsampled, EarlyExit, first_blocks
from lobes.encoders.features import LogMel
from lobes.encoders.fitting import PitchShift, TimeExpansion
from lobes.encoders.huggingface import HuggingFaceEncoder
from lobes.encoders.lengths import absolute_lengths, frame_mask, relative_lengths
from lobes.encoders.logmel_encoder import LogMelEncoder
from lobes.encoders.pictures import PictureEncoder, PictureTransformer
from lobes.encoders.pruned import PrunedEncoder
from lobes.encoders.rate import RateBlock
from lobes.encoders.reused import ReusedAttention
from lobes.encoders.stem import ConvolutionStem, StackingStem, Stem
from lobes.encoders.streaming import StreamingEncoder
from lobes.encoders.torchaudio_encoder import TorchaudioEncoder
from lobes.encoders.vggish import VGGish

__all__ = [
    "Block",
    "BranchformerBlock",
    "ConformerBlock",
    "ConvolutionStem",
    "Downsampled",
    "EarlyExit",
    "EfficientNetV2",
    "Encoder",
    "EncoderOutput",
    "EncoderState",
    "FeedForward",
    "HuggingFaceEncoder",
    "LogMel",
    "LogMelEncoder",
    "MaskedConvolution",
    "MixerBlock",
    "PictureEncoder",
    "PictureTransformer",
    "PitchShift",
    "PlainBlock",
    "PrunedEncoder",
    "RateBlock",
    "ReusedAttention",
    "StackingStem",
    "Stem",
    "StreamingEncoder",
    "TimeExpansion",
    "TorchaudioEncoder",
    "VGGish",
    "absolute_lengths",
    "first_blocks",
    "frame_mask",
    "relative_lengths",
]
