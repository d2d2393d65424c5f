"""Where a Hugging Face model comes from: a folder, the hub, or a configuration alone; offline unless asked."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lobes.errors import CheckpointError, ConfigError

PREFIX = "hf:"
#: Never used here, since no pretext task of its own runs.
UNUSED = ("masked_spec_embed", "mask_token")
#: Not of the model, or of code that is not run.
_NOT_SHAPE = ("auto_map", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path")


@dataclass
class Source:
    """A model that was found, and not yet built.

    Attributes
    ----------
    name : str
        Folder, hub id, or the model's type where there is a configuration only.
    where : dict, optional
        What Transformers is told besides to find it; None where there is a configuration only.
    config : transformers.PreTrainedConfig
        Its architecture.
    preprocessor : dict
        What its feature extractor is configured with; empty where nothing says.
    """

    name: str
    where: dict[str, Any] | None = None
    config: Any = None
    preprocessor: dict[str, Any] = field(default_factory=dict)

    def plain_config(self) -> dict[str, Any]:
        """The configuration as what `find_source` takes, without what does not shape the model."""
        values = {"model_type": self.config.model_type, **self.config.to_diff_dict()}
        return {name: value for name, value in values.items() if name not in _NOT_SHAPE}


def find_source(source: Any, types: Mapping[str, Any], options: Mapping[str, Any], download: bool = False) -> Source:
    """Read the configuration of a model.

    Arguments
    ---------
    source : str, Path, dict or PreTrainedConfig
        A local folder with a ``config.json``; the id of a model on the hub, with or without ``hf:`` before and
        ``@revision`` behind it, which has to be in the local cache unless ``download``; or a configuration, whose
        weights are random.
    types : mapping
        What ``model_type`` may be.
    options : dict
        Replaces values of the configuration, such as dropouts.
    download : bool
        Whether to ask the hub for what is not there.

    Returns
    -------
    Source

    Raises
    ------
    ConfigError
        If there is no such model, it is of another type, or an option is none of its configuration's.
    """
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if isinstance(source, PreTrainedConfig):
        source = source.to_dict()
    if isinstance(source, Mapping):
        values, found = dict(source), Source(str(source.get("model_type")))
    else:
        found = _located(str(source).removeprefix(PREFIX), download)
        values, found.preprocessor = _read(found.name, found.where or {}, download)
    kind = values.pop("model_type", None)
    if kind not in types:
        raise ConfigError(f"{found.name}: model_type is {kind!r}; expected one of {', '.join(sorted(types))}")
    values = {name: value for name, value in values.items() if name not in _NOT_SHAPE}
    try:
        found.config = CONFIG_MAPPING[kind](**values)
        _check_options(found, options)
        found.config = CONFIG_MAPPING[kind](**values | dict(options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{found.name}: {' '.join(str(error).split())}; expected a config of {kind}") from error
    return found


def _located(name: str, download: bool) -> Source:
    if Path(name).is_dir():
        return Source(name, {"local_files_only": True})
    name, _, revision = name.partition("@")
    return Source(name, {"local_files_only": not download, **({"revision": revision} if revision else {})})


def _read(name: str, where: Mapping[str, Any], download: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The files ``config.json`` and ``preprocessor_config.json``."""
    from transformers import FeatureExtractionMixin, PreTrainedConfig

    try:
        values, _ = PreTrainedConfig.get_config_dict(name, **where)
        if not values:
            raise OSError("no config.json")
    except (OSError, ValueError) as error:
        raise ConfigError(_not_there(name, download, error)) from error
    try:
        preprocessor, _ = FeatureExtractionMixin.get_feature_extractor_dict(name, **where)
    except (OSError, ValueError):
        preprocessor = {}
    return values, preprocessor


def _not_there(name: str, download: bool, error: BaseException) -> str:
    if Path(name).is_dir():
        return f"{name}: no config.json in this folder that can be read; expected what save_pretrained wrote"
    reason = str(error).strip().splitlines()[0] if download else "it is not in the local cache either"
    return (
        f"{name}: no such folder, and as a model of the Hugging Face hub: {reason}; give the path of a local copy, "
        f"or fetch it once where there is a network (`hf download {name}`, or download=True)"
    )


def _check_options(found: Source, options: Mapping[str, Any]) -> None:
    known = found.config.to_dict()
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ConfigError(f"{found.name}: options has '{name}', which its configuration has not{hint}")


def build_model(model_class: Any, found: Source, untrained: bool, **options: Any) -> nn.Module:
    """Build a model, with its weights where it has some and they are wanted.

    Arguments
    ---------
    model_class : type
        A class of Transformers.
    found : Source
        What `find_source` gives.
    untrained : bool
        Leave the weights random, as PyTorch's seed has them.
    **options
        For the class.

    Returns
    -------
    nn.Module
        In float32.

    Raises
    ------
    CheckpointError
        If weights are missing or have other shapes.
    """
    with quiet_transformers():
        try:
            if untrained or found.where is None:
                model = model_class(found.config, **options)
            else:
                model, told = model_class.from_pretrained(
                    found.name,
                    config=found.config,
                    dtype=torch.float32,
                    output_loading_info=True,
                    **found.where,
                    **options,
                )
                _check_loaded(found.name, [*told["missing_keys"]])
        except (OSError, RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())
            raise CheckpointError(f"{found.name}: {line[:300]}; expected its weights beside config.json") from error
    for name, parameter in model.named_parameters():
        if name.endswith(UNUSED):
            parameter.requires_grad_(False)
    return model


def checkpoint_gradients(model: Any, **options: Any) -> None:
    """Compute blocks again in the backward pass; options are those of `torch.utils.checkpoint.checkpoint`."""
    # Its new name, and that before Transformers 5.23.
    new = hasattr(model, "activation_checkpointing_enable")
    enable = model.activation_checkpointing_enable if new else model.gradient_checkpointing_enable
    enable({"use_reentrant": False, **options})


def load_state(model: nn.Module, path: str | Path, anchor: str) -> None:
    """Load a checkpoint in which the model may be part of another, such as SpeechBrain's ``.ckpt`` of a Wav2Vec2.

    Arguments
    ---------
    model : nn.Module
        Changed in place.
    path : str or Path
        ``.safetensors``, or what ``torch.save`` wrote; nothing but tensors is unpickled.
    anchor : str
        A name of the model's; what stands before it in the file is cut off all names, and names without it are left.

    Raises
    ------
    CheckpointError
        If it cannot be read, or does not hold the model's tensors.
    """
    from safetensors.torch import load_file

    state: Any
    try:
        if Path(path).suffix == ".safetensors":
            state = load_file(str(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip have errors of their own
        line = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: cannot be read ({line[:200]}); expected a file of tensors: what else is pickled, as in fairseq's"
            " checkpoints, is never run"
        ) from error
    for inner in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    at = next((name for name in state if str(name).endswith(anchor)), None) if isinstance(state, dict) else None
    if at is None:
        theirs = isinstance(state, dict) and any(".self_attn.k_proj" in str(name) for name in state)
        hint = ", under Transformers' names: these are fairseq's, which it can convert" if theirs else ""
        raise CheckpointError(f"{path}: no tensor is called {anchor}; expected weights of {type(model).__name__}{hint}")
    prefix = at.removesuffix(anchor)
    state = {_new_name(k.removeprefix(prefix)): v for k, v in state.items() if k.startswith(prefix)}
    expected = model.state_dict()
    wrong = [name for name, tensor in state.items() if name in expected and expected[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} is of shape {tuple(state[wrong[0]].shape)}; expected "
            f"{tuple(expected[wrong[0]].shape)}: the configuration is another model's"
        )
    _check_loaded(str(path), [name for name in expected if name not in state])
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in expected}, strict=False)


def _new_name(name: str) -> str:
    """Weight norm's tensors had other names before PyTorch 2.1."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if name.endswith(f".{old}"):
            return f"{name.removesuffix(old)}parametrizations.weight.{new}"
    return name


def _check_loaded(name: str, missing: list[str]) -> None:
    missing = sorted(key for key in missing if not key.endswith(UNUSED))
    if missing:
        raise CheckpointError(
            f"{name}: {len(missing)} weights are missing (first: {missing[0]}); expected all of the model's: "
            "take a checkpoint of this architecture, or ask for untrained=True"
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, no progress bar for weights that lie on the disk, and no report of heads that are not used."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
