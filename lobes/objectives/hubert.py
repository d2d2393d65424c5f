"""HuBERT: predict, where speech is masked, the clusters of another encoder's features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lobes.dataio import AudioDataset, GlobalBatchSampler, collate
from lobes.encoders import Encoder
from lobes.errors import ConfigError, DataError
from lobes.objectives.disturbance import Disturbance
from lobes.objectives.masked import MaskedPrediction


class HuBERT(MaskedPrediction):
    """Masked prediction of hidden units (Hsu et al. 2021), from their second iteration on.

    The units are k-means clusters of a layer of a teacher: an encoder pretrained before, by BEST-RQ or by this.
    They hold more of what is said, and less of who says it, than codes of the features themselves. The teacher hears
    the whole of the clean utterance, and is not trained.

    Arguments
    ---------
    encoder : Encoder
        The encoder to train, asked here for its widths only and not kept.
    teacher : nn.Module
        Keeps the Encoder contract, with the encoder's frame rate.
    layer : int
        Of the teacher.
    n_clusters, n_codebooks : int
        Clusters, and how many times they are sought, from other starts; one head each.
    mask_probability, mask_span, noise, disturbance, seed, chunks
        As for `BestRQ`.

    Raises
    ------
    ConfigError
        If the teacher has another sample or frame rate, or no such layer.
    """

    centres: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        encoder: Encoder,
        teacher: nn.Module,
        layer: int = 3,
        n_clusters: int = 256,
        n_codebooks: int = 2,
        mask_probability: float = 0.08,
        mask_span: int = 6,
        noise: float = 0.1,
        disturbance: Disturbance | None = None,
        seed: int = 0,
        chunks: Any = None,
    ) -> None:
        super().__init__(
            encoder, n_clusters, n_codebooks, mask_probability, mask_span, noise, disturbance, seed, chunks
        )
        rates = [(module.sample_rate, module.frame_rate) for module in (teacher, encoder)]
        if rates[0] != rates[1]:
            raise ConfigError(f"HuBERT: teacher at {rates[0]} (Hz, frames per second), encoder at {rates[1]}")
        dims: list[int] = cast(Any, teacher).layer_dims
        if not -len(dims) <= layer < len(dims):
            raise ConfigError(f"HuBERT: layer {layer}; the teacher has {len(dims)}, the first is 0")
        self.teacher, self.layer = teacher.requires_grad_(False).eval(), layer
        dim = dims[layer]
        self.register_buffer("centres", torch.full((n_codebooks, n_clusters, dim), float("nan")))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def train(self, mode: bool = True) -> HuBERT:
        """As for every module, but the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def prepare(self, dataset: AudioDataset, max_frames: int = 50_000, batch_seconds: float = 60.0) -> None:
        """Find the clusters: k-means on the standardised frames of randomly drawn utterances.

        The same on every process, for the draws depend on the seed alone.
        """
        from sklearn.cluster import KMeans

        sampler = GlobalBatchSampler(dataset.durations, batch_seconds, shuffle=True, seed=self.seed)
        loader: Iterable[Any] = torch.utils.data.DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
        frames: list[Tensor] = []
        for batch in loader:
            output = self._hear(batch)
            frames.append(output.layers[self.layer][output.valid].float().cpu())
            if sum(map(len, frames)) >= max_frames:
                break
        x = torch.cat(frames) if frames else torch.zeros(0, len(self.mean))
        if len(x) < self.n_codes:
            raise DataError(f"HuBERT: {len(x)} frames for {self.n_codes} clusters; give more audio or fewer clusters")
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0).clamp_min(1e-5))
        points = ((x[:max_frames] - self.mean.cpu()) / self.deviation.cpu()).numpy()
        for book in range(len(self.centres)):
            start = np.random.default_rng([self.seed, book]).integers(2**31)
            found = KMeans(self.n_codes, init="random", n_init=1, max_iter=20, random_state=int(start)).fit(points)
            self.centres[book] = torch.from_numpy(found.cluster_centers_)

    def targets(self, batch: Any, features: Tensor, mask: Tensor) -> Tensor:
        """See `MaskedPrediction.targets`."""
        heard = (self._hear(batch).layers[self.layer][mask].float() - self.mean) / self.deviation
        # |x - c|² without its first term, which is the same for all clusters.
        return torch.stack([(heard @ c.T - c.square().sum(1) / 2).argmax(-1) for c in self.centres], dim=-1)

    @torch.no_grad()
    def _hear(self, batch: Any) -> Any:
        waveform, lengths = batch.sig
        return self.teacher(waveform.to(self.mean.device), lengths.to(self.mean.device))
