"""Encoder folders behind SpeechBrain's inference classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import Tensor, nn

from lobes.dataio import read_audio
from lobes.encoders import EncoderOutput
from lobes.export.folder import load_encoder, load_weights


class SSLEncoder(Pretrained):
    """A pretrained encoder in the manner of SpeechBrain's ``EncoderClassifier``.

    Arguments
    ---------
    modules : dict[str, nn.Module]
        Has ``encoder``.
    hparams : dict
        Has ``sample_rate`` in Hz.
    run_opts : dict, optional
        As in SpeechBrain, such as ``{"device": "cuda"}``.
    freeze_params : bool
        Evaluation mode without gradients, as in SpeechBrain.

    Example
    -------
    >>> from lobes.encoders import Encoder, LogMel, StackingStem
    >>> from lobes.mixers import SummaryMixing
    >>> encoder = Encoder(LogMel(), StackingStem(80, 16), 16, 1, SummaryMixing)
    >>> model = SSLEncoder({"encoder": encoder}, {"sample_rate": 16000}, {"device": "cpu"})
    >>> model.encode_batch(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).frames.shape
    torch.Size([2, 25, 16])
    """

    HPARAMS_NEEDED = ["sample_rate"]
    MODULES_NEEDED = ["encoder"]

    def __init__(
        self,
        modules: dict[str, nn.Module],
        hparams: dict[str, Any],
        run_opts: dict[str, Any] | None = None,
        freeze_params: bool = True,
    ) -> None:
        hparams = {"audio_normalizer": AudioNormalizer(hparams["sample_rate"]), **hparams}
        super().__init__(modules, hparams, run_opts, freeze_params)

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        run_opts: dict[str, Any] | None = None,
        freeze_params: bool = True,
        untrained: bool = False,
        seed: int = 0,
    ) -> SSLEncoder:
        """Load an encoder folder or a shipped encoder. No network, no links, no code out of the folder.

        Arguments
        ---------
        source : str or Path
            As for `lobes.export.load_encoder`, as are ``untrained`` and ``seed``.
        run_opts : dict, optional
            As in SpeechBrain, such as ``{"device": "cuda"}``.
        freeze_params : bool
            Evaluation mode without gradients.
        untrained : bool
            Fresh weights instead of the stored ones.
        seed : int
            Of those.

        Returns
        -------
        SSLEncoder

        Raises
        ------
        CheckpointError
            As `lobes.export.load_encoder`.
        """
        encoder = load_encoder(source, untrained=untrained, seed=seed)
        return cls({"encoder": encoder}, {"sample_rate": encoder.sample_rate}, run_opts, freeze_params)

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        """Encode a padded batch.

        Arguments
        ---------
        wavs : Tensor
            (B, samples), at the encoder's sample rate.
        wav_lens : Tensor, optional
            (B,), relative to the longest; all of full length if not given.

        Returns
        -------
        EncoderOutput
            ``frames`` (B, T, D), ``valid`` (B, T), ``layers``.
        """
        wavs = wavs.to(self.device)
        lengths = torch.ones(len(wavs)) if wav_lens is None else wav_lens
        with self.inference_ctx:
            return self.mods.encoder(wavs, lengths.to(self.device))

    def encode_file(self, path: str | Path) -> Tensor:
        """Encode an audio file of any rate and number of channels.

        Arguments
        ---------
        path : str or Path
            A local file.

        Returns
        -------
        Tensor
            (T, D), at the encoder's frame rate.

        Raises
        ------
        AudioError
            If the file cannot be read.
        """
        waveform = read_audio(path, self.hparams.sample_rate)
        return self.encode_batch(waveform[None]).frames[0]

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None) -> EncoderOutput:
        """As `encode_batch`."""
        return self.encode_batch(wavs, wav_lens)


class SafetensorsPretrainer(Pretrainer):
    """What lets any of SpeechBrain's own ``from_hparams`` classes read an encoder folder.

    SpeechBrain's looks for ``encoder.ckpt``, links it into another folder and unpickles it; this one reads
    ``encoder.safetensors`` where it lies.

    Arguments
    ---------
    loadables : dict[str, nn.Module]
        Modules by the stem of their file's name.
    """

    def __init__(self, loadables: dict[str, nn.Module]) -> None:
        super().__init__(loadables=loadables)

    def collect_files(
        self,
        default_source: str | Path | None = None,
        local_strategy: LocalStrategy = LocalStrategy.NO_LINK,
        fetch_config: FetchConfig | None = None,
    ) -> dict[str, Path]:
        """Find the files; a remote source goes through SpeechBrain's cache, and nothing is ever linked.

        Arguments
        ---------
        default_source : str or Path
            The folder, or what else SpeechBrain's ``fetch`` understands.
        local_strategy : LocalStrategy
            Ignored, since nothing needs to be copied or linked.
        fetch_config : FetchConfig, optional
            As in SpeechBrain.

        Returns
        -------
        dict[str, Path]
            Path of each loadable.
        """
        config = fetch_config or FetchConfig()
        for name in self.loadables:
            self.paths[name] = fetch(f"{name}.safetensors", str(default_source), fetch_config=config)
        return dict(self.paths)

    def load_collected(self) -> None:
        """Load each module; see `lobes.export.load_weights` for the errors."""
        for name, module in self.loadables.items():
            load_weights(module, self.paths[name])
