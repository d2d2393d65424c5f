"""Masked prediction: what BEST-RQ and HuBERT have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.encoders import Encoder
from lobes.encoders.stem import stack_frames
from lobes.errors import ConfigError
from lobes.evaluation.representations import effective_rank
from lobes.mixers import Chunks
from lobes.objectives.base import Objective, ObjectiveOutput
from lobes.objectives.disturbance import Disturbance
from lobes.objectives.masks import span_mask, utterance_generator
from lobes.objectives.monitors import perplexity


class MaskedPrediction(Objective):
    """Spans of an utterance's features are replaced by noise, and the encoder predicts the codes of what was there.

    Each utterance has its own masks, in its own length. A subclass says what the codes are.

    Arguments
    ---------
    encoder : Encoder
        The encoder to train, asked here for its widths only and not kept.
    n_codes, n_codebooks : int
        Codes of a codebook; there is one head per codebook, the loss is their mean.
    mask_probability : float
        That a frame (of the encoder's rate) begins a masked span.
    mask_span : int
        Frames of a span.
    noise : float
        Deviation of the noise in place of masked features.
    disturbance : Disturbance, optional
        What happens to the audio that is heard in training; the codes to predict stay those of the clean audio.
    seed : int
        Of masks and noise.
    chunks : DynChunkTrainConfigRandomSampler, optional
        SpeechBrain's: trains for streaming, under chunks drawn anew for each step, the same in all processes; its
        sizes are rounded up to multiples of the encoder's `granularity`.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_codes: int,
        n_codebooks: int,
        mask_probability: float,
        mask_span: int,
        noise: float,
        disturbance: Disturbance | None,
        seed: int,
        chunks: Any = None,
    ) -> None:
        super().__init__()
        if chunks is not None:
            encoder.checked(Chunks(encoder.granularity))
        self.chunks = chunks
        if not 0 < mask_probability <= 1 or mask_span < 1:
            raise ConfigError(
                f"{type(self).__name__}: mask_probability {mask_probability}, mask_span {mask_span}; "
                "expected (0, 1] and at least 1"
            )
        self.mask_probability, self.mask_span, self.noise, self.seed = mask_probability, mask_span, noise, seed
        self.disturbance, self.n_codes = disturbance, n_codes
        self.feature_dim = encoder.features.n_mels * encoder.stem.factor
        self.heads = nn.ModuleList(nn.Linear(encoder.dim, n_codes) for _ in range(n_codebooks))

    @abstractmethod
    def targets(self, batch: Any, features: Tensor, mask: Tensor) -> Tensor:
        """Codes of the masked frames.

        Arguments
        ---------
        batch : PaddedBatch
            As for `forward`.
        features : Tensor
            (B, T, feature_dim), the stacked features of the clean audio, at the encoder's rate.
        mask : Tensor
            (B, T), bool.

        Returns
        -------
        Tensor
            (masked frames, codebooks), int64.
        """

    def forward(self, encoder: Encoder, batch: Any) -> ObjectiveOutput:
        """Loss over the masked frames; see `Objective.forward`. Out of training the masks are those of step 0."""
        waveform, lengths = batch.sig
        step = getattr(batch, "step", 0) if self.training else 0
        with torch.no_grad():
            log_mel, valid = encoder.features.log_mel(waveform, lengths)
            stacked, frame_valid = stack_frames(encoder.features.finish(log_mel, valid), valid, encoder.stem.factor)
            mask, noise = self.draw(batch.id, frame_valid, step)
            targets = self.targets(batch, stacked, mask)
            if self.disturbance and self.training:
                log_mel = self.disturbance(log_mel, valid, batch.id, step)
                stacked, _ = stack_frames(encoder.features.finish(log_mel, valid), valid, encoder.stem.factor)
            stacked[mask] = noise.to(stacked.dtype)
            masked = stacked.unflatten(-1, (encoder.stem.factor, -1)).flatten(1, 2)[:, : valid.shape[1]]
        output = encoder.encode(masked, valid, self.draw_chunks(encoder.granularity, step))
        return self._loss(output.frames, output.valid, mask, targets)

    def draw(self, ids: list[str], valid: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Masks and noise of a batch.

        Arguments
        ---------
        ids : list[str]
            B utterance ids.
        valid : Tensor
            (B, T), bool, at the encoder's rate.
        step : int
            Training step.

        Returns
        -------
        tuple[Tensor, Tensor]
            The mask (B, T), bool, and the noise (masked frames, feature_dim).
        """
        mask, noise = torch.zeros(valid.shape, dtype=torch.bool), []
        for row, (utterance, n_frames) in enumerate(zip(ids, valid.sum(1).tolist(), strict=True)):
            generator = utterance_generator(self.seed, utterance, step)
            mask[row, :n_frames] = span_mask(n_frames, self.mask_probability, self.mask_span, generator)
            noise.append(torch.randn(int(mask[row].sum()), self.feature_dim, generator=generator))
        return mask.to(valid.device), self.noise * torch.cat(noise).to(valid.device)

    def draw_chunks(self, granularity: int, step: int) -> Chunks | None:
        """Chunks of a training step (out of training ``valid_config``), or None for the whole utterance."""
        if self.chunks is None:
            return None
        from speechbrain import Stage

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(utterance_generator(self.seed, "chunks", step).initial_seed())
            config = self.chunks(Stage.TRAIN if self.training else Stage.VALID)
        if config is None:
            return None
        size = -(-config.chunk_size // granularity) * granularity
        return Chunks(size, None if config.left_context_size is None else size * config.left_context_size)

    def _loss(self, frames: Tensor, valid: Tensor, mask: Tensor, targets: Tensor) -> ObjectiveOutput:
        predicted = frames[mask]
        n_masked, n_codebooks = targets.shape
        total, hits = frames.new_zeros(()), frames.new_zeros(n_masked)
        for head, target in zip(self.heads, targets.unbind(-1), strict=True):
            logits = head(predicted).float()
            total = total + F.cross_entropy(logits, target, reduction="sum")
            # The target's logit is the largest: cheaper than an argmax, in the same cases.
            hits += (logits.detach().gather(-1, target[:, None])[:, 0] == logits.detach().amax(-1)) / n_codebooks
        stats = {
            "masked_accuracy": hits.sum() / max(n_masked, 1),
            "masked_share": torch.tensor(n_masked / max(int(valid.sum()), 1)),
            "code_perplexity": perplexity(targets[:, 0], self.n_codes),
        }
        items = {}
        if not self.training:
            stats["embedding_rank"] = effective_rank(frames[valid][:2048].detach().float())
            items["correct"] = torch.zeros_like(mask, dtype=hits.dtype).masked_scatter(mask, hits).sum(1)
            items["predictions"] = mask.sum(1)
        weight = frames.new_tensor(float(n_masked))
        return ObjectiveOutput(total / max(n_masked * n_codebooks, 1), weight, stats, items)
