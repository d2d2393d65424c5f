"""Image and video models on log-mel pictures: one picture of a fixed size, and one frame, for each window of audio."""

from __future__ import annotations

import importlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders.features import LogMel
from lobes.encoders.filterbank import KaldiFilterbank
from lobes.encoders.hf_source import Source, build_model, checkpoint_gradients, find_source
from lobes.encoders.lengths import relative_lengths
from lobes.encoders.upstream import UpstreamEncoder
from lobes.errors import ConfigError


class PictureEncoder(UpstreamEncoder):
    """Log-mel features, cut into windows that a model of pictures looks at one by one.

    Window t begins at t · ``hop`` seconds and exists where a feature frame does at its beginning, so that no end of an
    utterance is dropped. What a last window lacks is the features' floor, a constant: a window never shows anything of
    the batch. A subclass sets ``model``, calls `set_up` and writes `look`.
    """

    features: Any
    at_once = 32
    """Pictures that are looked at together: memory for long recordings is bounded by them where nothing is trained."""

    def set_up(
        self, features: Any, floor: float, centre: float, spread: float, window: float, hop: float | None, frozen: str
    ) -> None:
        """Take over the features and their scale.

        Arguments
        ---------
        features : nn.Module
            Of waveforms and relative lengths, as `LogMel`.
        floor : float
            What they are in silence.
        centre, spread : float
            A picture is (features - centre) / spread.
        window, hop : float
            Seconds; whole numbers of feature frames. The hop is the window if it is None.
        frozen : str
            As for `HuggingFaceEncoder`.
        """
        self.features, self.floor, self.centre, self.spread = features, floor, centre, spread
        rate = features.frame_rate
        self.window, self.hop = round(window * rate), round((window if hop is None else hop) * rate)
        if min(self.window, self.hop) < 1:
            raise ConfigError(
                f"{type(self).__name__}: window is {window} s and hop {hop} s; expected {1 / rate:g} s at least"
            )
        self.sample_rate, self.frame_rate = features.sample_rate, rate / self.hop
        self.freeze(frozen)

    @abstractmethod
    def look(self, pictures: Tensor) -> list[Tensor]:
        """(N, T, F) pictures to the (N, D) of each layer and, last of all, of the frames."""

    @abstractmethod
    def picture_macs(self) -> int:
        """Multiply-accumulates for one picture."""

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """One for each window that begins in the utterance."""
        return torch.div(self.features.n_frames(n_samples) + self.hop - 1, self.hop, rounding_mode="floor")

    def hidden_states(self, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `UpstreamEncoder.hidden_states`."""
        features, real = self.features(waveform, relative_lengths(n_samples, waveform.shape[1]))
        features = features.masked_fill(~real[..., None], self.floor)
        missing = (valid.shape[1] - 1) * self.hop + self.window - features.shape[1]
        features = F.pad(features, (0, 0, 0, missing), value=self.floor)
        pictures = features.unfold(1, self.window, self.hop).transpose(2, 3)[valid]
        pictures = ((pictures - self.centre) / self.spread).to(waveform.dtype)
        seen = zip(*(self.look(some) for some in pictures.split(self.at_once)), strict=True)
        *layers, frames = (self._placed(torch.cat(parts), valid) for parts in seen)
        return frames, layers

    @staticmethod
    def _placed(x: Tensor, valid: Tensor) -> Tensor:
        whole = x.new_zeros(*valid.shape, x.shape[1])
        whole[valid] = x
        return whole

    def macs(self, seconds: float) -> int:
        """See `UpstreamEncoder.macs`."""
        n_samples = torch.tensor(round(seconds * self.sample_rate))
        n_windows = int(self.n_frames(n_samples))
        return self.features.macs(int(self.features.n_frames(n_samples))) + n_windows * self.picture_macs()


class PictureTransformer(PictureEncoder):
    """Hugging Face's ViT, AST (Audio Spectrogram Transformer) or VideoMAE on log-mel pictures.

    AST reads Kaldi features of the length that it was built for, 10.24 s as a rule, scaled as its feature extractor
    does: a window gives what the extractor and the model give. ViT and VideoMAE were made for photographs and films:
    the features of a window, low bands at the bottom and scaled to about -1 to 1, are resized to the model's image and
    repeated in its channels; for VideoMAE a window is a film, of as many images as the model takes. Layers are the
    model's hidden states at its class token (AST: the mean of its two), or their mean over all tokens; frames are the
    same of its normalised last.

    Arguments
    ---------
    source : str, Path, dict or PreTrainedConfig
        As for `HuggingFaceEncoder`, as are ``untrained``, ``options``, ``frozen``, ``gradient_checkpointing`` and
        ``download``.
    window : float, optional
        Seconds; by default 1 for ViT, 2 for VideoMAE. AST has its own.
    hop : float, optional
        Seconds from window to window; the window by default.
    pool : str, optional
        ``cls`` or ``mean``; by default ``cls`` where the model has a class token.
    scale : tuple of float, optional
        Centre and spread: a picture is (features - centre) / spread. By default what the feature extractor says (AST),
        or what brings silence to -1 and a tone of full scale to 1.
    features : LogMel, optional
        For ViT and VideoMAE, not normalised; by default 80 bands at 16 kHz.

    Example
    -------
    >>> tiny = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...         "intermediate_size": 32, "image_size": 32, "patch_size": 16}
    >>> encoder = PictureTransformer(tiny, window=1.0, hop=0.5)
    >>> output = encoder(torch.randn(2, 16000), torch.tensor([1.0, 0.4]))
    >>> output.frames.shape, output.valid.sum(1), len(output.layers), encoder.frame_rate
    (torch.Size([2, 2, 16]), tensor([2, 1]), 3, 2.0)
    """

    def __init__(
        self,
        source: Any,
        *,
        window: float | None = None,
        hop: float | None = None,
        pool: str | None = None,
        scale: Sequence[float] | None = None,
        features: LogMel | None = None,
        untrained: bool = False,
        options: Mapping[str, Any] | None = None,
        frozen: str = "nothing",
        gradient_checkpointing: bool = False,
        download: bool = False,
    ) -> None:
        super().__init__()
        found = find_source(source, PICTURE_MODELS, {} if options is None else options, download)
        self.config, self.kind = found.config, found.config.model_type
        model_class = getattr(importlib.import_module("transformers"), PICTURE_MODELS[self.kind])
        extra = {"add_pooling_layer": False} if self.kind == "vit" else {}
        self.model = build_model(model_class, found, untrained, **extra)
        if gradient_checkpointing:
            checkpoint_gradients(self.model)
        self.pool = pool or ("mean" if self.film else "cls")
        if self.pool != "mean" and (self.pool != "cls" or self.film):
            expected = "mean, since it has no class token" if self.film else "cls or mean"
            raise ConfigError(f"{found.name}: pool is {pool!r}; expected {expected}")
        self.dim = self.config.hidden_size
        self.layer_dims = [self.dim] * (self.config.num_hidden_layers + 1)
        self._source, self._own_features = found.plain_config(), features is not None
        choose = self._ast if self.kind == "audio-spectrogram-transformer" else self._images
        features, floor, own_scale, seconds = choose(found, features, window)
        centre, spread = own_scale if scale is None else scale
        self.set_up(features, floor, centre, spread, seconds, hop, frozen)

    def _ast(self, found: Source, features: Any, window: float | None) -> tuple[Any, float, Sequence[float], float]:
        """Features, their floor and scale, and seconds."""
        own, n_mels = self.config.max_length / 100, self.config.num_mel_bins
        if features is not None or window not in (None, own):
            given = "given" if features else "None"
            raise ConfigError(
                f"{found.name}: window is {window} and features {given}; expected neither: AST reads {own:g} s of "
                f"Kaldi's {n_mels} bands (untrained, also options={{max_length: 200}})"
            )
        mean, deviation = (found.preprocessor.get(name, value) for name, value in AST_SCALE.items())
        return KaldiFilterbank(n_mels, "hanning"), 0.0, (mean, 2 * deviation), own

    def _images(self, found: Source, features: Any, window: float | None) -> tuple[Any, float, Sequence[float], float]:
        """The same."""
        if features is not None and features.normalise:
            raise ConfigError(f"{found.name}: features.normalise is {features.normalise!r}; expected False")
        features = LogMel(normalise=False) if features is None else features
        return features, math.log(1e-6), (-3.3, 10.5), window or {"vit": 1.0, "videomae": 2.0}[self.kind]

    def arguments(self) -> dict[str, Any]:
        """See `UpstreamEncoder.arguments`; ConfigError where ``features`` are the user's own."""
        if self._own_features:
            raise ConfigError("PictureTransformer: features are given; expected None: write them as YAML yourself")
        seconds = {"window": self.window / self.features.frame_rate, "hop": 1 / self.frame_rate}
        scale = [self.centre, self.spread]
        return {"source": self._source, **seconds, "pool": self.pool, "scale": scale, "frozen": self.frozen}

    def look(self, pictures: Tensor) -> list[Tensor]:
        """See `PictureEncoder.look`."""
        if self.kind == "audio-spectrogram-transformer":
            output = self.model(input_values=pictures, output_hidden_states=True)
        else:
            output = self.model(pixel_values=self.images(pictures), output_hidden_states=True)
        return [self._pooled(tokens) for tokens in (*output.hidden_states, output.last_hidden_state)]

    def images(self, pictures: Tensor) -> Tensor:
        """(N, T, F) to ViT's (N, channels, height, width) or VideoMAE's (N, images, channels, height, width)."""
        height, width = _pair(self.config.image_size)
        number = self.config.num_frames if self.film else 1
        upright = pictures.transpose(1, 2).flip(1)[:, None].float()
        resized = F.interpolate(upright, (height, number * width), mode="bilinear", antialias=True).to(pictures.dtype)
        images = resized.expand(-1, self.config.num_channels, -1, -1)
        return images.unflatten(3, (number, width)).permute(0, 3, 1, 2, 4) if self.film else images

    def _pooled(self, tokens: Tensor) -> Tensor:
        if self.pool == "mean":
            return tokens.mean(1)
        return tokens[:, : self._class_tokens].mean(1)

    @property
    def film(self) -> bool:
        """Whether a window is several images."""
        return self.kind == "videomae"

    @property
    def _class_tokens(self) -> int:
        return {"vit": 1, "audio-spectrogram-transformer": 2, "videomae": 0}[self.kind]

    def picture_macs(self) -> int:
        """See `PictureEncoder.picture_macs`."""
        config = self.config
        if self.kind == "audio-spectrogram-transformer":
            size = config.patch_size
            high = (config.num_mel_bins - size) // config.frequency_stride + 1
            n_patches, weights = high * ((config.max_length - size) // config.time_stride + 1), size**2
        else:
            (height, width), (tall, wide) = _pair(config.image_size), _pair(config.patch_size)
            tubes, depth = (config.num_frames // config.tubelet_size, config.tubelet_size) if self.film else (1, 1)
            n_patches = tubes * (height // tall) * (width // wide)
            weights = depth * config.num_channels * tall * wide
        n = n_patches + self._class_tokens
        layer = 4 * n * self.dim**2 + 2 * n**2 * self.dim + 2 * n * self.dim * config.intermediate_size
        return n_patches * weights * self.dim + config.num_hidden_layers * layer

    def front_end(self) -> Iterable[nn.Module]:
        """See `UpstreamEncoder.front_end`."""
        return [self.model.embeddings]


def _pair(size: Any) -> tuple[int, int]:
    return tuple(size) if isinstance(size, Iterable) else (size, size)  # type: ignore[return-value]


#: model_type -> class of Transformers.
PICTURE_MODELS = {"vit": "ViTModel", "audio-spectrogram-transformer": "ASTModel", "videomae": "VideoMAEModel"}
#: AudioSet's, which AST was trained with, where no preprocessor_config.json says otherwise.
AST_SCALE = {"mean": -4.2677393, "std": 4.5689974}
