"""Hugging Face's speech models behind the Encoder contract."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lobes.encoders.family import FamilyEncoder
from lobes.encoders.filterbank import SAMPLE_RATE
from lobes.encoders.hf_families import FAMILIES
from lobes.encoders.hf_source import build_model, checkpoint_gradients, find_source, load_state


class HuggingFaceEncoder(FamilyEncoder):
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
        ``hf:`` before and ``@revision`` behind it, that is in the local cache; or a configuration with its
        ``model_type``: random weights.
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
    sample_rate : int, optional
        Hz; by default what ``preprocessor_config.json`` says, 16000 without one.
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
    >>> import torch
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
        sample_rate: int | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        found = find_source(source, FAMILIES, {} if options is None else options, download)
        # What stands behind the encoder has frames of another rate than the layers.
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
            load_state(self.model, weights, self.family.anchor)
        if gradient_checkpointing:
            checkpoint_gradients(self.model, context_fn=self.family.padding.contexts)
        self._source = found.plain_config()
        self.set_up(found.name, sample_rate or found.preprocessor.get("sampling_rate", SAMPLE_RATE), frozen)

    def arguments(self) -> dict[str, Any]:
        """See `UpstreamEncoder.arguments`."""
        names = ("normalise", "sample_rate", "frozen")
        return {"source": self._source, **{name: getattr(self, name) for name in names}}
