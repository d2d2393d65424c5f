"""An encoder behind HEAR's interface: `load_model`, `get_scene_embeddings`, `get_timestamp_embeddings`.

J. Turian et al., "HEAR: Holistic evaluation of audio representations", 2022. An evaluation kit is told the module's
name, ``lobes.export.hear``, and what `lobes.export.load_encoder` takes as the model's path. Times are in milliseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError
from lobes.export.folder import load_encoder

_BATCH_SECONDS = 60.0


class HearModel(nn.Module):
    """An encoder with the attributes that HEAR asks for.

    The embedding of a frame is the mean of the encoder's layers, each normalised over its features, so that none
    outweighs the others; of a scene, mean and deviation over its frames.

    Attributes
    ----------
    sample_rate : int
        Hz.
    scene_embedding_size, timestamp_embedding_size : int
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        dims = set(encoder.layer_dims)
        if len(dims) != 1:
            raise ConfigError(f"HEAR: layers have widths {sorted(dims)}; expected one for all: take another encoder")
        self.sample_rate = int(encoder.sample_rate)
        self.timestamp_embedding_size = dims.pop()
        self.scene_embedding_size = 2 * self.timestamp_embedding_size

    @torch.no_grad()
    def frames(self, audio: Tensor) -> Tensor:
        """Embeddings (n, T, d) of sounds (n, samples) of one length."""
        output = self.encoder(audio, torch.ones(len(audio), device=audio.device))
        return torch.stack([F.layer_norm(layer.float(), layer.shape[-1:]) for layer in output.layers]).mean(0)


def load_model(model_file_path: str = "sm-tiny") -> HearModel:
    """Load an encoder, see `lobes.export.load_encoder`.

    Example
    -------
    >>> model = load_model("sm-tiny")
    >>> model.sample_rate, model.timestamp_embedding_size, model.scene_embedding_size
    (16000, 144, 288)
    """
    return HearModel(load_encoder(model_file_path or "sm-tiny"))


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding for each sound, (n, scene_embedding_size).

    Parameters
    ----------
    audio : Tensor
        (n, samples), at the model's `sample_rate`, in [-1, 1].
    model : HearModel
        From `load_model`.

    Raises
    ------
    ConfigError
        `audio` is not of two dimensions.
    """
    frames, _ = get_timestamp_embeddings(audio, model)
    if not frames.shape[1]:
        return frames.new_zeros(len(frames), model.scene_embedding_size)
    return torch.cat([frames.mean(1), frames.std(1, unbiased=False)], dim=-1)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings of each frame, (n, T, timestamp_embedding_size), and the middle of each, (n, T), milliseconds.

    Parameters
    ----------
    audio, model
        As for `get_scene_embeddings`.

    Raises
    ------
    ConfigError
        `audio` is not of two dimensions.
    """
    if audio.ndim != 2:
        raise ConfigError(f"HEAR: audio has shape {tuple(audio.shape)}; expected (sounds, samples)")
    device = next((p.device for p in model.parameters()), audio.device)
    size = max(1, int(_BATCH_SECONDS * model.sample_rate / max(1, audio.shape[1])))
    parts = [model.frames(part.to(device)).to(audio.device) for part in audio.split(size)]
    frames = torch.cat(parts) if parts else audio.new_zeros(0, 0, model.timestamp_embedding_size)
    middles = (torch.arange(frames.shape[1], device=audio.device) + 0.5) * (1000.0 / model.encoder.frame_rate)
    return frames, middles.expand(len(frames), -1)


class S3PRLUpstream(nn.Module):
    """An encoder as the upstream that s3prl's downstream tasks (SUPERB) call.

    ``S3PRLUpstream("sm-tiny")([wav, …])["hidden_states"]`` are its layers; s3prl weighs them itself. In a folder of
    one's own, ``hubconf.py`` with ``def lobes(ckpt, **_): return S3PRLUpstream(ckpt)`` makes it known to s3prl.

    Parameters
    ----------
    ckpt : str
        As for `lobes.export.load_encoder`.
    """

    def __init__(self, ckpt: str = "sm-tiny", **_: Any) -> None:
        super().__init__()
        model: Any = load_encoder(ckpt)
        self.model, self.sample_rate = model, int(model.sample_rate)

    def get_downsample_rates(self, key: str = "hidden_states") -> int:
        """Samples from frame to frame."""
        return round(self.sample_rate / self.model.frame_rate)

    def forward(self, wavs: list[Tensor]) -> dict[str, Any]:
        """Layers [(n, T, D), …] of waveforms [(samples,), …], zero where an utterance has ended."""
        longest = max(len(wav) for wav in wavs)
        lengths = torch.tensor([len(wav) / longest for wav in wavs], device=wavs[0].device)
        output = self.model(nn.utils.rnn.pad_sequence(list(wavs), batch_first=True), lengths)
        return {"hidden_states": list(output.layers), "last_hidden_state": output.frames}
