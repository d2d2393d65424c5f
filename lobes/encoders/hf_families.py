"""How Hugging Face's speech models go from a waveform to hidden states, so that nothing of the padding reaches them.

What leaks in Transformers 5 where a mask is passed, by family, and what is done about it here:

=====================  ============================================  ==================================================
all                    SpecAugment and layer drop in training         not called; set to 0
group norm             its statistics are over the padding too        the convolutions run once per length
data2vec               convolutions upon convolutions for positions   padding set to zero after each
HuBERT, pos. b. norm   a batch norm before the positions              running statistics; zeros after it
Wav2Vec2-Conformer     the convolution of each block, and b. norm     zeros before it; running statistics
Wav2Vec2-BERT          none
Whisper                none: every piece is of one length
=====================  ============================================  ==================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.family import Family, FamilyEncoder
from lobes.encoders.filterbank import HOP, KaldiFilterbank, WhisperLogMel
from lobes.encoders.foreign_walk import PiecesWalk, first_call, joined
from lobes.encoders.layerwise import Walk
from lobes.encoders.lengths import relative_lengths
from lobes.encoders.upstream import normalise_waveforms, run_by_length


class Waveforms(Family):
    """Convolutions on the waveform and a transformer: Wav2Vec2, HuBERT, WavLM, UniSpeech(-SAT), data2vec-audio."""

    def __init__(self, config: Any, normalise: bool) -> None:
        super().__init__(config, normalise)
        self.kernels, self.strides = list(config.conv_kernel), list(config.conv_stride)
        self.stride = math.prod(self.strides)
        self.by_length = getattr(config, "feat_extract_norm", "layer") == "group"

    def prepare(self, model: Any) -> None:
        """See `Family.prepare`."""
        super().prepare(model)
        if self.config.model_type == "wavlm":  # in every call, of how Transformers calls PyTorch
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
        for module in self.leaks(model):
            module.register_forward_hook(self.padding)

    def leaks(self, model: Any) -> Iterable[nn.Module]:
        """What gives (B, C, T) to a convolution, and no zeros where there is padding."""
        positions = model.encoder.pos_conv_embed
        norm = getattr(positions, "batch_norm", None)
        return [*getattr(positions, "layers", []), *([norm] if norm is not None else [])]

    def front_end(self, model: Any) -> Iterable[nn.Module]:
        """See `Family.front_end`."""
        return [model.feature_extractor]

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """As many as fit without padding; 0 for what is shorter than the receptive field."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            n_samples = (torch.div(n_samples - kernel, stride, rounding_mode="floor") + 1).clamp_min(0)
        return n_samples

    def forward(self, model: Any, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Family.forward`."""
        if self.normalise:
            waveform = normalise_waveforms(waveform, n_samples)

        if self.by_length:
            convolve = partial(self.convolve, model)
            features = run_by_length(convolve, waveform, n_samples, valid.sum(1), valid.shape[1])
        else:
            features = self.convolve(model, waveform)
        return self.transform(model, self.project(model, features), valid)

    def convolve(self, model: Any, waveform: Tensor) -> Tensor:
        """Waveforms (b, s) to features (b, t, C)."""
        # Not by the forward of all of them, which in training refuses a waveform that has a gradient.
        x = waveform[:, None]
        for layer in model.feature_extractor.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)

    def project(self, model: Any, features: Tensor) -> Tensor:
        """Features (B, T, C) to what the transformer reads, (B, T, D)."""
        projected = model.feature_projection(features)
        return projected[0] if isinstance(projected, tuple) else projected

    def macs(self, samples: int, n_blocks: int) -> int:
        """See `Family.macs`."""
        config, total, channels = self.config, 0, 1
        if not self.n_frames(torch.tensor(samples)):
            return 0
        for kernel, stride, out in zip(self.kernels, self.strides, config.conv_dim, strict=True):
            samples = (samples - kernel) // stride + 1
            total, channels = total + samples * kernel * channels * out, out
        total += samples * channels * self.dim + self.position_macs(samples)
        return total + n_blocks * self.layer_macs(samples)

    def position_macs(self, n_frames: int) -> int:
        """Of the convolutional positions; one frame more than it keeps where the kernel is even."""
        depth, kernel = 1, self.config.num_conv_pos_embeddings
        if self.config.model_type == "data2vec-audio":
            depth, kernel = kernel, self.config.conv_pos_kernel_size
        weights = kernel * self.dim**2 // self.config.num_conv_pos_embedding_groups
        return depth * (n_frames + 1 - kernel % 2) * weights

    def layer_macs(self, n_frames: int) -> int:
        """Of one block."""
        inner = self.config.intermediate_size + (getattr(self.config, "adapter_attn_dim", None) or 0)
        gate = n_frames * self.dim * 8 if self.config.model_type == "wavlm" else 0
        return self.attention_macs(n_frames) + 2 * n_frames * self.dim * inner + gate


class Conformer(Waveforms):
    """Wav2Vec2-Conformer."""

    def prepare(self, model: Any) -> None:
        """See `Family.prepare`."""
        super().prepare(model)
        # Transformers builds it and never calls it, which DistributedDataParallel takes for an error.
        model.encoder.pos_conv_embed.requires_grad_(False)

    def leaks(self, model: Any) -> Iterable[nn.Module]:
        """See `Waveforms.leaks`."""
        return [layer.conv_module.glu for layer in model.encoder.layers]

    def position_macs(self, n_frames: int) -> int:
        """None: the convolution is not called."""
        return 0

    def layer_macs(self, n_frames: int) -> int:
        """See `Waveforms.layer_macs`."""
        return conformer_macs(self, n_frames)


class Filterbanks(Family):
    """Pairs of frames of normalised Kaldi features and a Conformer of causal convolutions: Wav2Vec2-BERT."""

    def __init__(self, config: Any, normalise: bool) -> None:
        super().__init__(config, normalise)
        self.stacked = 2
        self.stride = self.stacked * HOP
        self.features = KaldiFilterbank(config.feature_projection_input_dim // self.stacked, scale=32768.0)

    def front_end(self, model: Any) -> Iterable[nn.Module]:
        """See `Family.front_end`."""
        return [model.feature_projection]

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Whole pairs of whole windows."""
        return torch.div(self.features.n_frames(n_samples), self.stacked, rounding_mode="floor")

    def forward(self, model: Any, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Family.forward`."""
        x, real = self.features(waveform, relative_lengths(n_samples, waveform.shape[1]))
        if self.normalise:
            x = normalise_bands(x, real)
        x = x[:, : self.stacked * valid.shape[1]].unflatten(1, (-1, self.stacked)).flatten(2)
        projected, _ = model.feature_projection(x.to(waveform.dtype))
        return self.transform(model, projected, valid)

    def macs(self, samples: int, n_blocks: int) -> int:
        """See `Family.macs`."""
        n_features = int(self.features.n_frames(torch.tensor(samples)))
        n_frames = n_features // self.stacked
        if not n_frames:
            return 0
        projection = n_frames * self.config.feature_projection_input_dim * self.dim
        return self.features.macs(n_features) + projection + n_blocks * conformer_macs(self, n_frames)


class Pieces(Family):
    """Whisper's encoder, which takes pieces of one length, 30 s, and pads them with silence.

    Longer utterances are cut into pieces that do not see each other, and shorter ones cost as much as a whole piece.
    """

    anchor = "conv1.weight"
    depth_name = "encoder_layers"

    def __init__(self, config: Any, normalise: bool) -> None:
        super().__init__(config, normalise)
        self.stride = 2 * HOP
        self.frames = config.max_source_positions
        self.features = WhisperLogMel(config.num_mel_bins)

    def prepare(self, model: Any) -> None:
        """See `Family.prepare`."""
        model.layerdrop = 0.0

    def front_end(self, model: Any) -> Iterable[nn.Module]:
        """See `Family.front_end`."""
        return [model.conv1, model.conv2]

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """One for each 320 samples that were begun."""
        return torch.div(n_samples + self.stride - 1, self.stride, rounding_mode="floor")

    def stack(self, model: Any) -> Any:
        """See `Family.stack`."""
        return model

    def forward(self, model: Any, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Family.forward`."""
        size = self.frames * self.stride
        pieces = F.pad(waveform, (0, -waveform.shape[1] % size)).unflatten(1, (-1, size))
        heard = self.heard(waveform, n_samples)
        features = self.features(pieces[heard]).to(waveform.dtype)
        output = model(features, output_hidden_states=True)
        n_frames = valid.shape[1]
        states = [joined(x, heard, n_frames) for x in output.hidden_states]
        return joined(output.last_hidden_state, heard, n_frames), states

    def heard(self, waveform: Tensor, n_samples: Tensor) -> Tensor:
        """The pieces (B, P) of waveforms (B, S) in which utterances have samples."""
        starts = torch.arange(0, waveform.shape[1], self.frames * self.stride, device=n_samples.device)
        return n_samples[:, None] > starts

    def walk(self, encoder: FamilyEncoder, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> Walk:
        """See `Family.walk`."""
        model, heard = encoder.model, self.heard(waveform, n_samples)
        call = first_call(lambda: self(model, waveform, n_samples, valid), model.layers[0])
        norm = model.layer_norm
        return PiecesWalk(encoder, model.layers, call, valid, self.padding, heard=heard, norm=norm)

    def macs(self, samples: int, n_blocks: int) -> int:
        """See `Family.macs`."""
        config, n_pieces = self.config, -(-samples // (self.frames * self.stride))
        stem = 3 * self.dim * (2 * self.frames * config.num_mel_bins + self.frames * self.dim)
        layer = self.attention_macs(self.frames) + 2 * self.frames * self.dim * config.encoder_ffn_dim
        return n_pieces * (self.features.macs(2 * self.frames) + stem + n_blocks * layer)


def normalise_bands(features: Tensor, valid: Tensor) -> Tensor:
    """Zero mean and unit variance (of n - 1) for each band of each utterance over its real frames, zero elsewhere."""
    exact, counts = features.double(), valid.sum(1)[:, None, None]
    mean = exact.sum(1, keepdim=True) / counts.clamp_min(1)
    centred = (exact - mean).masked_fill(~valid[..., None], 0.0)
    variance = centred.square().sum(1, keepdim=True) / (counts - 1).clamp_min(1)
    return (centred / (variance + 1e-7).sqrt()).to(features.dtype)


def conformer_macs(family: Family, n_frames: int) -> int:
    """Of one Conformer block: two feed-forwards, attention with its positions, and the convolution."""
    config, dim = family.config, family.dim
    forwards = 4 * n_frames * dim * config.intermediate_size
    convolution = n_frames * dim * (3 * dim + config.conv_depthwise_kernel_size)
    positions = 0
    if config.position_embeddings_type == "relative":
        positions = (2 * n_frames - 1) * (dim**2 + n_frames * dim)
    if config.position_embeddings_type == "relative_key":
        positions = n_frames**2 * dim
    return forwards + family.attention_macs(n_frames) + convolution + positions


#: model_type -> family, class of Transformers, and where in that the encoder is.
FAMILIES: dict[str, tuple[type[Family], str, str]] = {
    "wav2vec2": (Waveforms, "Wav2Vec2Model", ""),
    "hubert": (Waveforms, "HubertModel", ""),
    "wavlm": (Waveforms, "WavLMModel", ""),
    "data2vec-audio": (Waveforms, "Data2VecAudioModel", ""),
    "unispeech": (Waveforms, "UniSpeechModel", ""),
    "unispeech-sat": (Waveforms, "UniSpeechSatModel", ""),
    "wav2vec2-conformer": (Conformer, "Wav2Vec2ConformerModel", ""),
    "wav2vec2-bert": (Filterbanks, "Wav2Vec2BertModel", ""),
    "whisper": (Pieces, "WhisperModel", "encoder"),
}
