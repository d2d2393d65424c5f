"""Torchaudio's Wav2Vec2 and HuBERT behind the Encoder contract: the format of AVES and of other fairseq checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torchaudio
from torch import Tensor

from lobes.encoders.family import FamilyEncoder
from lobes.encoders.filterbank import SAMPLE_RATE
from lobes.encoders.hf_families import Waveforms
from lobes.encoders.hf_source import load_state
from lobes.encoders.upstream import attended, recorded
from lobes.errors import CheckpointError, ConfigError

WEIGHTS, CONFIG = ".pt", ".model_config.json"


class TorchaudioEncoder(FamilyEncoder):
    """A ``torchaudio.models.Wav2Vec2Model``, such as AVES (Hagiwara 2023): HuBERT pretrained on animal sounds.

    AVES and BirdAVES come as two files, ``aves-base-bio.torchaudio.pt`` and
    ``aves-base-bio.torchaudio.model_config.json``. Alone, an utterance gives what ``extract_features`` gives: these are
    ``layers``, after what the first block reads; ``frames`` are what the model's ``forward`` gives. In a batch it gives
    the same: a front-end with a group norm, as AVES has it, runs once for each length. Nothing is unpickled but
    tensors. Layer drop is off.

    Arguments
    ---------
    source : str, Path or dict
        The ``.pt`` file, whose ``.model_config.json`` lies beside it; a folder with one such pair; or the configuration
        itself, the arguments of ``torchaudio.models.wav2vec2_model``: random weights.
    untrained : bool
        Random weights, from PyTorch's seed, even where there are others.
    normalise : bool
        Whether utterances get zero mean and unit variance: so do models that fairseq trained with ``normalize``, not
        AVES.
    frozen : str
        ``nothing``, ``front-end`` (as AVES' authors do) or ``all``, which also stays in evaluation mode.

    Raises
    ------
    ConfigError
        If there are no such files, or they hold another configuration.
    CheckpointError
        If weights are missing or have other shapes.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any],
        *,
        untrained: bool = False,
        normalise: bool = False,
        frozen: str = "nothing",
    ) -> None:
        super().__init__()
        weights = None
        if isinstance(source, Mapping):
            name, values = "torchaudio", dict(source)
        else:
            weights, config = checkpoint_files(source)
            name, values = weights.name, _read(config)
        values.pop("aux_num_out", None)
        try:
            self.model = torchaudio.models.wav2vec2_model(**values, aux_num_out=None)
        except (TypeError, ValueError) as error:
            line = " ".join(str(error).split())
            raise ConfigError(f"{name}: {line}; expected the arguments of torchaudio.models.wav2vec2_model") from error
        if weights is not None and not untrained:
            load_state(self.model, weights, f"encoder.{_Torchaudio.anchor}")
        self.family = _Torchaudio(values, normalise)
        self._source = values
        self.set_up(name, SAMPLE_RATE, frozen)

    def arguments(self) -> dict[str, Any]:
        """See `UpstreamEncoder.arguments`."""
        return {"source": self._source, "normalise": self.normalise, "frozen": self.frozen}


class _Torchaudio(Waveforms):
    """The same architecture under other names."""

    depth_name = "encoder_num_layers"

    def __init__(self, values: Mapping[str, Any], normalise: bool) -> None:
        channels, kernels, strides = zip(*values["extractor_conv_layer_config"], strict=True)
        config = SimpleNamespace(
            model_type="torchaudio",
            hidden_size=values["encoder_embed_dim"],
            num_hidden_layers=values["encoder_num_layers"],
            intermediate_size=values["encoder_ff_interm_features"],
            conv_dim=channels,
            conv_kernel=kernels,
            conv_stride=strides,
            num_conv_pos_embeddings=values["encoder_pos_conv_kernel"],
            num_conv_pos_embedding_groups=values["encoder_pos_conv_groups"],
            feat_extract_norm="group" if values["extractor_mode"] == "group_norm" else "layer",
        )
        super().__init__(config, normalise)

    def prepare(self, model: Any) -> None:
        """Nothing to switch off: layer drop is not in the way that is taken here."""

    def stack(self, model: Any) -> Any:
        """See `Family.stack`."""
        return model.encoder.transformer

    def convolve(self, model: Any, waveform: Tensor) -> Tensor:
        """See `Waveforms.convolve`."""
        return model.feature_extractor(waveform, None)[0]

    def project(self, model: Any, features: Tensor) -> Tensor:
        """See `Waveforms.project`."""
        return model.encoder.feature_projection(features)

    def transform(self, model: Any, x: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Family.transform`."""
        transformer, mask = self.stack(model), attended(valid)
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)
            mask = mask[:, None, None].expand(-1, 1, x.shape[1], -1)
        with recorded(transformer.layers) as states:
            transformer.get_intermediate_outputs(x, attention_mask=mask)
        # Called so where the norm comes before the blocks, not in them.
        last = states[-1] if transformer.layer_norm_first else transformer.layer_norm(states[-1])
        return last, states


def checkpoint_files(source: str | Path) -> tuple[Path, Path]:
    """The two files of a checkpoint, weights and configuration.

    Raises
    ------
    ConfigError
        If one of them is missing, or a folder has several pairs.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob(f"*{CONFIG}"))
        if len(found) != 1:
            raise ConfigError(f"{path}: has {len(found)} files *{CONFIG}; expected one, or give the {WEIGHTS} file")
        path = found[0].with_name(found[0].name.removesuffix(CONFIG) + WEIGHTS)
    config = path.with_name(path.name.removesuffix(WEIGHTS) + CONFIG)
    for file in (path, config):
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; expected the weights, *{WEIGHTS}, and *{CONFIG} beside them")
    return path, config


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; expected an object of arguments")
    return values
