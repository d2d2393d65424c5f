"""Hugging Face's speech models behind the Encoder contract."""

from __future__ import annotations

import importlib
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lobes.encoders.hf_families import DEFAULT_RATE, FAMILIES
from lobes.encoders.hf_source import build_model, find_source, load_state
from lobes.encoders.upstream import UpstreamEncoder

logger = logging.getLogger(__name__)


class HuggingFaceEncoder(UpstreamEncoder):
    """Wav2Vec2, HuBERT, WavLM, data2vec-audio, UniSpeech(-SAT), Wav2Vec2-Conformer, Wav2Vec2-BERT or Whisper's encoder.

    An utterance alone gives what the model's own forward gives for its feature extractor's output, and the same in any
    batch, whatever the padding (`lobes.encoders.hf_families` says what would leak and how that is mended). Front-ends
    with a group norm over time run once for each length in a batch: sort by length where speed matters. ``layers`` are
    the model's ``hidden_states``, ``frames`` its ``last_hidden_state``.

    In training, dropout is the configuration's (see ``options``), while SpecAugment and layer drop are off; so is the
    adapter that some checkpoints have behind the encoder. Whisper reads pieces of 30 s: longer utterances are cut into
    pieces that do not see each other, and shorter ones cost as much as a whole one. All weights are read as tensors,
    nothing is unpickled, no code of a checkpoint runs, and without ``download`` there is no network.

    Arguments
    ---------
    source : str, Path, dict or PreTrainedConfig
        A local folder that ``save_pretrained`` wrote; a hub id such as ``facebook/hubert-base-ls960``, with or without
        ``hf:`` before it, that is in the local cache; or a configuration with its ``model_type``: random weights.
    untrained : bool
        Random weights, from PyTorch's seed, even where there are others.
    weights : str or Path, optional
        A checkpoint to load instead, in which the model may be part of another: SpeechBrain's ``.ckpt`` of a Wav2Vec2
        (such as LeBenchmark-14K-large's), ``.bin``, ``.safetensors``.
    normalise : bool, optional
        Whether utterances get zero mean and unit variance (for Wav2Vec2-BERT: its features, by band); by default what
        ``preprocessor_config.json`` says of ``do_normalize``, True without one, as in Transformers.
    options : dict, optional
        Replaces values of the configuration, such as ``{hidden_dropout: 0.0}`` or ``{num_hidden_layers: 2}``.
    frozen : str
        ``nothing``, ``front-end`` (as ``freeze_feature_encoder``) or ``all``, which also stays in evaluation mode.
    gradient_checkpointing : bool
        In training, compute blocks again in the backward pass rather than keep what they gave.
    download : bool
        Whether to ask the hub for what is not there.

    Raises
    ------
    ConfigError
        If there is no such model, it is of another type, or an argument is wrong.
    CheckpointError
        If weights are missing or have other shapes.

    Example
    -------
    >>> tiny = {"model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...         "intermediate_size": 32, "conv_dim": [8] * 7}
    >>> encoder = HuggingFaceEncoder(tiny)
    >>> output = encoder(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> output.frames.shape, output.valid.sum(1), len(output.layers), encoder.frame_rate
    (torch.Size([2, 49, 16]), tensor([49, 24]), 3, 50.0)
    """

    def __init__(
        self,
        source: Any,
        *,
        untrained: bool = False,
        weights: str | Path | None = None,
        normalise: bool | None = None,
        options: Mapping[str, Any] | None = None,
        frozen: str = "nothing",
        gradient_checkpointing: bool = False,
        download: bool = False,
    ) -> None:
        super().__init__()
        # What stands behind the encoder has frames of another rate than the layers.
        found = find_source(source, FAMILIES, {} if options is None else options, download)
        for name in ("add_adapter", "use_intermediate_ffn_before_adapter"):
            if hasattr(found.config, name):
                setattr(found.config, name, False)
        kind = found.config.model_type
        family, class_name, part = FAMILIES[kind]
        if normalise is None:
            normalise = bool(found.preprocessor.get("do_normalize", True))
        self.family = family(found.config, normalise)
        model_class = getattr(importlib.import_module("transformers"), class_name)
        model = build_model(model_class, found, untrained or weights is not None)
        self.model = getattr(model, part) if part else model
        if weights is not None:
            load_state(
                self.model, weights, "conv1.weight" if kind == "whisper" else "feature_projection.projection.weight"
            )
        self.family.prepare(self.model)
        if gradient_checkpointing:
            enable = (
                getattr(self.model, "activation_checkpointing_enable", None) or self.model.gradient_checkpointing_enable
            )
            enable({"use_reentrant": False, "context_fn": self.family.padding.contexts})
        self.sample_rate = int(found.preprocessor.get("sampling_rate", DEFAULT_RATE))
        self.frame_rate = self.sample_rate / self.family.stride
        self.by_length = self.family.by_length
        self.dim = self.family.dim
        self.layer_dims = [self.dim] * (self.family.depth + 1)
        self.freeze(frozen)
        if self.by_length:
            logger.warning(
                "%s: its front-end normalises over time, so that it runs once for each length in a batch; "
                "this is exact, and fast where a batch has few lengths",
                found.name,
            )

    @property
    def normalise(self) -> bool:
        """Whether utterances get zero mean and unit variance."""
        return self.family.normalise

    def hidden_states(self, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `UpstreamEncoder.hidden_states`."""
        return self.family(self.model, waveform, n_samples, valid)

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """See `UpstreamEncoder.n_frames`; 0 for utterances shorter than the first frame's receptive field."""
        return self.family.n_frames(n_samples)

    def macs(self, seconds: float) -> int:
        """See `UpstreamEncoder.macs`."""
        return self.family.macs(round(seconds * self.sample_rate))

    def front_end(self) -> Iterable[nn.Module]:
        """See `UpstreamEncoder.front_end`."""
        return self.family.front_end(self.model)

    def hparams_text(self) -> str:
        """HyperPyYAML text of this encoder as a configuration, for `lobes.export.save_encoder`.

        A folder that ``save_encoder(encoder, folder, encoder.hparams_text())`` writes needs neither hub nor source.
        """
        from ruamel.yaml import YAML

        values = {"model_type": self.family.config.model_type, **self.family.config.to_diff_dict()}
        for name in ("transformers_version", "architectures", "dtype", "_name_or_path"):
            values.pop(name, None)
        text = io.StringIO()
        arguments = {"source": values, "normalise": self.normalise, "frozen": self.frozen}
        YAML(typ="safe", pure=True).dump(arguments, text)
        body = "".join(f"    {line}\n" for line in text.getvalue().splitlines())
        return f"encoder: !new:{type(self).__module__.rpartition('.')[0]}.{type(self).__name__}\n{body}"
