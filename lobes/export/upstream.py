"""Encoders from elsewhere by what they lie in: Hugging Face's folders and hub ids, other checkpoints."""

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
from lobes.errors import CheckpointError, ConfigError

#: Of weights that lie beside Hugging Face's configuration, and that Transformers does not look for.
CHECKPOINTS = (".ckpt", WEIGHTS)
#: What Transformers looks for.
_ITS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

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
        return (path / "config.json").is_file() or any(path.glob(f"*{CONFIG}")) or any(path.glob("*.ckpt"))
    return text.startswith(PREFIX) or text.endswith(CHECKPOINTS) or _HUB_ID.fullmatch(text) is not None


def load_upstream(source: str | Path, untrained: bool) -> nn.Module:
    """Load it with its defaults, without a network; `HuggingFaceEncoder` and its like have the options.

    Arguments
    ---------
    source : str or Path
        A folder with Hugging Face's ``config.json`` (of a speech model, ViT, AST, VideoMAE, or one that `save_hf`
        wrote), an id of the hub that is in the local cache, with or without ``hf:`` before and ``@revision`` behind
        it, or torchaudio's ``.pt`` with its ``.model_config.json``. Where weights that Transformers looks for are not
        beside ``config.json``, the one ``.ckpt`` or ``.pt`` that is there is loaded, in which the model may be part of
        another: SpeechBrain's, as LeBenchmark-14K-large's are. Such a file can be named itself.
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
        If its weights are missing or damaged, or there are several files of them.
    """
    folder, checkpoint = Path(str(source).removeprefix(PREFIX)), None
    if _is_torchaudio(folder):
        return TorchaudioEncoder(folder, untrained=untrained)
    if folder.suffix in CHECKPOINTS and not folder.is_dir():
        if not folder.is_file():
            raise ConfigError(f"{folder}: no such file; correct the path")
        folder, checkpoint = folder.parent, folder
        source = folder
    if checkpoint is not None or folder.is_dir():
        _check_config(folder, checkpoint)
    if _is_ours(folder / "config.json"):
        from lobes.export.huggingface import load_hf

        if untrained:
            raise CheckpointError(f"{folder}: untrained is True; expected the folder that this one was made from")
        return load_hf(folder)
    found = find_source(str(source), {**FAMILIES, **PICTURE_MODELS}, {})
    if found.config.model_type in PICTURE_MODELS:
        return PictureTransformer(str(source), untrained=untrained)
    if checkpoint is None and not untrained:
        checkpoint = _checkpoint_in(folder if folder.is_dir() else _in_cache(str(folder)))
    return HuggingFaceEncoder(str(source), untrained=untrained, weights=None if untrained else checkpoint)


def _is_torchaudio(path: Path) -> bool:
    """Whether its configuration is torchaudio's, or none is there of a file that may be."""
    if path.is_dir():
        return not (path / "config.json").is_file() and any(path.glob(f"*{CONFIG}"))
    return path.suffix == WEIGHTS and (
        path.with_suffix(CONFIG).is_file() or not (path.parent / "config.json").is_file()
    )


def _check_config(folder: Path, checkpoint: Path | None) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{checkpoint or folder}: no config.json beside the weights, which says what model they are of; expected"
            " Hugging Face's, such as that of LeBenchmark/wav2vec2-FR-7K-large for the large models"
        )


def _checkpoint_in(folder: Path | None) -> Path | None:
    """The checkpoint of a folder without weights that Transformers looks for; None where it has some, or nothing."""
    if folder is None or any(
        (folder / f"{name}{end}").is_file() for name in _ITS_WEIGHTS for end in ("", ".index.json")
    ):
        return None
    found = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINTS)
    if len(found) > 1:
        raise CheckpointError(
            f"{folder}: {len(found)} checkpoints ({', '.join(path.name for path in found)}), and none that Transformers"
            " looks for; name the one that is meant, with its folder"
        )
    return found[0] if found else None


def _in_cache(name: str) -> Path | None:
    """Where the hub's cache has a model's files."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = name.partition("@")
    found = try_to_load_from_cache(name, "config.json", revision=revision or None)
    return Path(found).parent if isinstance(found, str) else None


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
