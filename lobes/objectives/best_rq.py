"""BEST-RQ: predict the codes of masked speech."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lobes.encoders import Encoder
from lobes.objectives.disturbance import Disturbance
from lobes.objectives.masked import MaskedPrediction
from lobes.objectives.quantiser import RandomProjectionQuantiser


class BestRQ(MaskedPrediction):
    """BERT-based speech pretraining with a random-projection quantiser (Chiu et al. 2022).

    `MaskedPrediction` of the codes of the features themselves, computed from each utterance's features alone, padded on
    the right.

    Arguments
    ---------
    encoder : Encoder
        The encoder to train, asked here for its widths only and not kept.
    codebook_size, codebook_dim, n_codebooks : int
        Of the `RandomProjectionQuantiser`; one head per codebook, the loss is their mean.
    mask_probability : float
        That a frame (of the encoder's rate) begins a masked span.
    mask_span : int
        Frames of a span.
    noise : float
        Deviation of the noise in place of masked features (0.1 in the paper, on features of unit deviation).
    disturbance : Disturbance, optional
        What happens to the audio that is heard in training; the codes to predict stay those of the clean audio.
    seed : int
        Of the codebooks, masks and noise.
    chunks : DynChunkTrainConfigRandomSampler, optional
        SpeechBrain's: trains for streaming, under chunks drawn anew for each step, the same in all processes; its
        sizes are rounded up to multiples of the encoder's `granularity`.
    """

    def __init__(
        self,
        encoder: Encoder,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        n_codebooks: int = 1,
        mask_probability: float = 0.08,
        mask_span: int = 6,
        noise: float = 0.1,
        disturbance: Disturbance | None = None,
        seed: int = 0,
        chunks: Any = None,
    ) -> None:
        super().__init__(
            encoder, codebook_size, n_codebooks, mask_probability, mask_span, noise, disturbance, seed, chunks
        )
        self.quantiser = RandomProjectionQuantiser(self.feature_dim, codebook_size, codebook_dim, n_codebooks, seed)

    def targets(self, batch: Any, features: Tensor, mask: Tensor) -> Tensor:
        """See `MaskedPrediction.targets`."""
        return self.quantiser(features[mask])
