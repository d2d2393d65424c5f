"""Encoders from elsewhere, as small as they go and with random weights, for the contract tests and their own."""

from __future__ import annotations

from typing import Any

from lobes.encoders import HuggingFaceEncoder

DIM = 16
SIZES = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
# Convolutions as published, of few channels; positions over fewer frames.
WAVES = {**SIZES, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

CONFIGS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"model_type": "wav2vec2", **WAVES},
    "wav2vec2-layer-norm": {"model_type": "wav2vec2", **WAVES, **LAYER_NORM},
    "hubert": {"model_type": "hubert", **WAVES},
    "hubert-layer-norm": {"model_type": "hubert", **WAVES, **LAYER_NORM},
    "hubert-batch-norm": {"model_type": "hubert", **WAVES, "conv_pos_batch_norm": True},
    "wavlm": {"model_type": "wavlm", **WAVES, "num_buckets": 20, "max_bucket_distance": 50},
    "wavlm-layer-norm": {"model_type": "wavlm", **WAVES, **LAYER_NORM},
    "data2vec-audio": {
        "model_type": "data2vec-audio",
        **WAVES,
        "num_conv_pos_embeddings": 3,
        "conv_pos_kernel_size": 7,
    },
    "unispeech": {"model_type": "unispeech", **WAVES},
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
