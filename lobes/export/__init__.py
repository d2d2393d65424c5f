"""Encoders as folders: saved, shipped, loaded without trust, and used through SpeechBrain's inference classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lobes.export.card import ModelCard
from lobes.export.folder import WEIGHTS_FOLDER, available_encoders, load_encoder, load_weights, save_encoder
from lobes.export.trusted import build_encoder, encoder_yaml

if TYPE_CHECKING:
    from lobes.export.speechbrain import SafetensorsPretrainer, SSLEncoder

__all__ = [
    "ModelCard",
    "SSLEncoder",
    "SafetensorsPretrainer",
    "WEIGHTS_FOLDER",
    "available_encoders",
    "build_encoder",
    "encoder_yaml",
    "load_encoder",
    "load_weights",
    "save_encoder",
]


def __getattr__(name: str) -> Any:
    # SpeechBrain takes seconds to import, and nobody needs it to load an encoder.
    if name in ("SSLEncoder", "SafetensorsPretrainer"):
        from lobes.export import speechbrain

        return getattr(speechbrain, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
