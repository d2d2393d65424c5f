"""Encoders for Hugging Face's Transformers: after importing this, ``AutoModel.from_pretrained(folder)`` knows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from lobes.encoders import frame_mask
from lobes.errors import CheckpointError, ConfigError
from lobes.export.folder import CARD_FILE, HPARAMS_FILE, find_encoder, load_encoder, load_weights, replace_file
from lobes.export.trusted import build_encoder

CODE_FILE = "modeling_lobes.py"
_CODE = '''"""Lets AutoModel.from_pretrained(..., trust_remote_code=True) find the classes; pip install lobes first."""

from lobes.export.huggingface import LobesConfig, LobesModel  # noqa: F401
'''
_AUTO_MAP = {"AutoConfig": "modeling_lobes.LobesConfig", "AutoModel": "modeling_lobes.LobesModel"}


class LobesConfig(PreTrainedConfig):
    """Configuration of an encoder.

    Arguments
    ---------
    encoder_yaml : str
        What `lobes.export.encoder_yaml` gives. It can name modules of ours and of torch.nn, and nothing else.
    **options
        As of every configuration.
    """

    model_type = "lobes"

    def __init__(self, encoder_yaml: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.encoder_yaml = encoder_yaml


@dataclass
class LobesOutput(BaseModelOutput):
    """What a `LobesModel` gives: besides the frames and the layers, which frames are real."""

    valid: Tensor | None = None
    """(B, T), bool."""


class LobesModel(PreTrainedModel):
    """An encoder as a model of Transformers.

    Arguments
    ---------
    config : LobesConfig
        Names the encoder.

    Example
    -------
    >>> text = "encoder: !new:lobes.encoders.LogMelEncoder {features: !new:lobes.encoders.LogMel {}, factor: 4}"
    >>> LobesModel(LobesConfig(text))(torch.randn(1, 16000)).last_hidden_state.shape
    torch.Size([1, 25, 320])
    """

    config_class = LobesConfig
    main_input_name = "input_values"

    def __init__(self, config: LobesConfig) -> None:
        super().__init__(config)
        # from_pretrained would have tensors without memory here, and mel filters could not be computed.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            self.encoder: Any = build_encoder(config.encoder_yaml, "encoder_yaml")
        stored = self.encoder.state_dict()
        self._constants = {name: buffer.clone() for name, buffer in self.encoder.named_buffers() if name not in stored}
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters; an encoder without any, such as log-mel, is in float32."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> LobesOutput:
        """Encode a batch that is padded at its end.

        Arguments
        ---------
        input_values : Tensor
            (B, samples), float, at ``encoder.sample_rate``.
        attention_mask : Tensor, optional
            (B, samples), 1 at real samples; all are real if not given.
        output_hidden_states : bool, optional
            Whether to give the layers; by default what the configuration says.

        Returns
        -------
        LobesOutput
            ``last_hidden_state`` (B, T, D), ``hidden_states``, a tuple of (B, T, D), and ``valid`` (B, T), bool.

        Raises
        ------
        ConfigError
            If the mask has padding anywhere but at the end.
        """
        samples = input_values.shape[1]
        lengths = torch.full((len(input_values),), samples, device=input_values.device)
        if attention_mask is not None:
            lengths = attention_mask.long().sum(1)
            if not torch.equal(frame_mask(lengths, samples), attention_mask.bool()):
                raise ConfigError("attention_mask: zeros before ones; expected an utterance's padding at its end")
        output = self.encoder(input_values, lengths / max(samples, 1))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return LobesOutput(output.frames, tuple(output.layers) if wanted else None, valid=output.valid)

    def init_weights(self) -> None:
        """Nothing to do in a new model: its encoder has drawn its weights."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give back the constants that from_pretrained emptied; weights that it did not find are an error."""
        name = next(name for name, part in self.named_modules() if part is module).removeprefix("encoder")
        for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            full = f"{name}.{key}".removeprefix(".")
            if full in self._constants:
                tensor.copy_(self._constants[full])
            elif not getattr(tensor, "_is_hf_initialized", False):
                raise CheckpointError(f"model.safetensors: encoder.{full} is missing; expected what save_hf wrote")


def save_hf(source: str | Path, folder: str | Path) -> Path:
    """Write an encoder as a folder that Transformers reads.

    With lobes installed, ``AutoModel.from_pretrained(folder)`` reads it after ``import lobes.export.huggingface``, or
    at once with ``trust_remote_code=True``: the code in the folder is one import.

    Arguments
    ---------
    source : str or Path
        As for `lobes.export.load_encoder`, but for ONNX files.
    folder : str or Path
        Where to; made if missing, its files replaced if not.

    Returns
    -------
    Path
        The folder, with ``config.json``, ``model.safetensors``, the code and the model card.

    Raises
    ------
    CheckpointError
        As `lobes.export.load_encoder`.
    """
    stored, folder = find_encoder(source), Path(folder)
    encoder = load_encoder(source)
    config = LobesConfig((stored / HPARAMS_FILE).read_text(encoding="utf-8"), auto_map=_AUTO_MAP)
    model = LobesModel(config)
    model.encoder.load_state_dict(encoder.state_dict())
    model.save_pretrained(folder)
    if not model.state_dict():  # Transformers writes no file for what has no weights, and reads none without it
        save_file({}, folder / "model.safetensors", metadata={"format": "pt"})
    replace_file(folder / CODE_FILE, lambda path: path.write_text(_CODE, encoding="utf-8"))
    card = stored / CARD_FILE
    if card.is_file():
        replace_file(folder / CARD_FILE, lambda path: path.write_bytes(card.read_bytes()))
    return folder


def load_hf(folder: str | Path) -> nn.Module:
    """Load such a folder as an encoder of ours; nothing is unpickled and nothing foreign is run.

    Arguments
    ---------
    folder : str or Path
        What `save_hf` wrote.

    Returns
    -------
    nn.Module
        In float32 on the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or not to be trusted, or they do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(hf_text(folder), str(Path(folder) / "config.json"))
    load_weights(encoder, Path(folder) / "model.safetensors", prefix="encoder.")
    return encoder.float().eval()


def hf_text(folder: str | Path) -> str:
    """The HyperPyYAML text of the encoder in such a folder.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["encoder_yaml"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: no encoder_yaml in it ({error}); expected what save_hf wrote") from error


AutoConfig.register("lobes", LobesConfig, exist_ok=True)
AutoModel.register(LobesConfig, LobesModel, exist_ok=True)
