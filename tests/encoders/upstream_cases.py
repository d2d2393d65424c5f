"""Encoders from elsewhere, as small as they go and with random weights, for the contract tests and their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lobes.encoders import HuggingFaceEncoder, PictureTransformer, TorchaudioEncoder, VGGish

DIM = 16
SIZES = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
# Convolutions as published, of few channels; positions over fewer frames.
WAVES = {**SIZES, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

CONFIGS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"model_type": "wav2vec2", **WAVES},
    "wav2vec2-layer-norm": {"model_type": "wav2vec2", **WAVES, **LAYER_NORM},
    "hubert": {"model_type": "hubert", **WAVES},
    "hubert-batch-norm": {"model_type": "hubert", **WAVES, "conv_pos_batch_norm": True},
    "wavlm": {"model_type": "wavlm", **WAVES, "num_buckets": 20, "max_bucket_distance": 50},
    "wavlm-layer-norm": {"model_type": "wavlm", **WAVES, **LAYER_NORM},
    "data2vec-audio": {
        "model_type": "data2vec-audio",
        **WAVES,
        "num_conv_pos_embeddings": 3,
        "conv_pos_kernel_size": 7,
    },
    "unispeech-sat": {"model_type": "unispeech-sat", **WAVES, **LAYER_NORM},
    "conformer": {"model_type": "wav2vec2-conformer", **WAVES, **LAYER_NORM, "conv_depthwise_kernel_size": 7},
    "conformer-rotary": {
        "model_type": "wav2vec2-conformer",
        **WAVES,
        "position_embeddings_type": "rotary",
        "conv_depthwise_kernel_size": 7,
    },
    "wav2vec2-bert": {"model_type": "wav2vec2-bert", **SIZES, "conv_depthwise_kernel_size": 7},
    "whisper": {
        "model_type": "whisper",
        "d_model": DIM,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 24,
        "max_source_positions": 50,
    },
}


def tiny(name: str, **options: Any) -> HuggingFaceEncoder:
    """One of `CONFIGS`, in evaluation mode."""
    return HuggingFaceEncoder(CONFIGS[name], **options).eval()


# As AVES' model_config.json, but for sizes and dropouts.
AVES: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[8, 10, 5]] + [[8, 3, 2]] * 4 + [[8, 2, 2]] * 2,
    "extractor_conv_bias": False,
    "encoder_embed_dim": DIM,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 24,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.5,
}
AVES_LARGE = AVES | {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}

PICTURES: dict[str, dict[str, Any]] = {
    "vit": {"model_type": "vit", **SIZES, "image_size": 32, "patch_size": 16},
    "ast": {
        "model_type": "audio-spectrogram-transformer",
        **SIZES,
        "num_mel_bins": 32,
        "max_length": 64,
        "patch_size": 16,
    },
    "videomae": {
        "model_type": "videomae",
        **SIZES,
        "image_size": 32,
        "patch_size": 16,
        "num_frames": 4,
        "tubelet_size": 2,
    },
}
SMALL_VGGISH: dict[str, Any] = {"channels": [4, 8, 8, 8], "hidden": 16, "dim": DIM}

#: Name -> what builds it; the cases of the contract tests.
UPSTREAMS: dict[str, Callable[[], Any]] = {name: partial(tiny, name) for name in CONFIGS}
UPSTREAMS["aves"] = lambda: TorchaudioEncoder(AVES).eval()
UPSTREAMS["aves-large"] = lambda: TorchaudioEncoder(AVES_LARGE, normalise=True).eval()
UPSTREAMS["vit"] = lambda: PictureTransformer(PICTURES["vit"], window=0.5, hop=0.2).eval()
UPSTREAMS["vit-mean"] = lambda: PictureTransformer(PICTURES["vit"], window=0.2, hop=0.3, pool="mean").eval()
UPSTREAMS["ast"] = lambda: PictureTransformer(PICTURES["ast"], hop=0.2).eval()
UPSTREAMS["videomae"] = lambda: PictureTransformer(PICTURES["videomae"], window=0.5).eval()
UPSTREAMS["vggish"] = lambda: VGGish(**SMALL_VGGISH, hop=0.32).eval()
