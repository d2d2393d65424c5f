"""Encoders as folders, loaded without trust; behind SpeechBrain's and Hugging Face's classes; as ONNX files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lobes.export.card import ModelCard
from lobes.export.folder import (
    WEIGHTS_FOLDER,
    available_encoders,
    encoder_text,
    load_encoder,
    load_weights,
    replace_file,
    save_encoder,
)
from lobes.export.trusted import build_encoder, build_trusted, encoder_yaml

if TYPE_CHECKING:
    from lobes.export.huggingface import LobesConfig, LobesModel, load_hf, save_hf
    from lobes.export.onnx import export_onnx, export_step, quantise_onnx
    from lobes.export.onnx_encoder import OnnxEncoder, OnnxStep
    from lobes.export.onnx_report import OnnxReport, verify_onnx
    from lobes.export.speechbrain import SafetensorsPretrainer, SSLEncoder

__all__ = [
    "LobesConfig",
    "LobesModel",
    "ModelCard",
    "OnnxEncoder",
    "OnnxReport",
    "OnnxStep",
    "SSLEncoder",
    "SafetensorsPretrainer",
    "WEIGHTS_FOLDER",
    "available_encoders",
    "build_encoder",
    "build_trusted",
    "encoder_text",
    "encoder_yaml",
    "export_onnx",
    "export_step",
    "load_encoder",
    "load_hf",
    "load_weights",
    "quantise_onnx",
    "replace_file",
    "save_encoder",
    "save_hf",
    "verify_onnx",
]

# What takes seconds to import, or comes with an extra, and nobody needs to load an encoder.
_LATER = {
    "huggingface": ("LobesConfig", "LobesModel", "load_hf", "save_hf"),
    "onnx": ("export_onnx", "export_step", "quantise_onnx"),
    "onnx_encoder": ("OnnxEncoder", "OnnxStep"),
    "onnx_report": ("OnnxReport", "verify_onnx"),
    "speechbrain": ("SSLEncoder", "SafetensorsPretrainer"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"lobes.export.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
