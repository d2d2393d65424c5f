"""Encoders from elsewhere by what they lie in: Hugging Face's folders and hub ids, torchaudio's checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

from torch import nn

from lobes.encoders import HuggingFaceEncoder, PictureTransformer, TorchaudioEncoder
from lobes.encoders.hf_families import FAMILIES
from lobes.encoders.hf_source import PREFIX, find_source
from lobes.encoders.pictures import PICTURE_MODELS
from lobes.encoders.torchaudio_encoder import CONFIG, WEIGHTS
from lobes.encoders.upstream import UpstreamEncoder
from lobes.errors import CheckpointError

#: What a model of the hub is called, of an organisation and with its own name.
_HUB_ID = re.compile(r"[\w-]+/[\w][\w.-]*(@[\w./-]+)?")


def is_upstream(source: str | Path) -> bool:
    """Whether a source that is no encoder of ours may be one from elsewhere.

    Example
    -------
    >>> [is_upstream(source) for source in ("hf:facebook/hubert-base-ls960", "LeBenchmark/wav2vec2-FR-7K-base")]
    [True, True]
    >>> is_upstream("sm-tiny")
    False
    """
    path, text = Path(source), str(source)
    if path.is_dir():
        return (path / "config.json").is_file() or any(path.glob(f"*{CONFIG}"))
    return text.startswith(PREFIX) or text.endswith(WEIGHTS) or _HUB_ID.fullmatch(text) is not None


def load_upstream(source: str | Path, untrained: bool) -> nn.Module:
    """Load it with its defaults, without a network; `HuggingFaceEncoder` and its like have the options.

    Arguments
    ---------
    source : str or Path
        A folder with Hugging Face's ``config.json`` (of a speech model, ViT, AST, VideoMAE, or one that `save_hf`
        wrote), an id of the hub that is in the local cache, with or without ``hf:`` before and ``@revision`` behind
        it, or torchaudio's ``.pt`` with its ``.model_config.json``.
    untrained : bool
        Random weights.

    Returns
    -------
    nn.Module

    Raises
    ------
    ConfigError
        If there is no such model, or it is of another type.
    CheckpointError
        If its weights are missing or damaged.
    """
    folder = Path(str(source).removeprefix(PREFIX))
    if folder.suffix == WEIGHTS or folder.is_dir() and not (folder / "config.json").is_file():
        return TorchaudioEncoder(folder, untrained=untrained)
    if _is_ours(folder / "config.json"):
        from lobes.export.huggingface import load_hf

        if untrained:
            raise CheckpointError(f"{folder}: untrained is True; expected the folder that this one was made from")
        return load_hf(folder)
    found = find_source(str(source), {**FAMILIES, **PICTURE_MODELS}, {})
    build = PictureTransformer if found.config.model_type in PICTURE_MODELS else HuggingFaceEncoder
    return build(str(source), untrained=untrained)


def upstream_text(source: str | Path, encoder: nn.Module) -> str:
    """The HyperPyYAML text of an encoder that `load_upstream` gave: see `lobes.export.encoder_text`."""
    folder = Path(str(source).removeprefix(PREFIX))
    if _is_ours(folder / "config.json"):
        from lobes.export.huggingface import hf_text

        return hf_text(folder)
    return cast(UpstreamEncoder, encoder).hparams_text()


def _is_ours(config: Path) -> bool:
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("model_type") == "lobes"
    except (OSError, ValueError, AttributeError):
        return False
