"""An encoder and a probe as one module, on waveforms or on features that were computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lobes.dataio import AudioDataset, GlobalBatchSampler, collate
from lobes.encoders import absolute_lengths, frame_mask
from lobes.probes.features import extract_features
from lobes.probes.heads import Probe


class Downstream(nn.Module):
    """Encoder and probe.

    Parameters
    ----------
    encoder : nn.Module
        Keeps the Encoder contract.
    probe : Probe
        Weighted layer sum and head.
    frozen : bool, optional
        Whether the encoder's weights stay as they are; `lobes.training.Brain` then keeps it in evaluation mode. None
        for an encoder that `lobes.adapters` has adapted, which knows what of it trains.
    """

    def __init__(self, encoder: nn.Module, probe: Probe, frozen: bool | None = True) -> None:
        super().__init__()
        self.encoder = encoder if frozen is None else encoder.requires_grad_(not frozen)
        self.probe = probe

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits of a batch, with the validity of its frames.

        Parameters
        ----------
        batch : PaddedBatch
            With ``layers`` (frames of all layers (B, T, L, D), relative lengths (B,)) from `cache_features`, or else
            with ``sig`` (waveforms (B, samples), relative lengths (B,)).

        Returns
        -------
        tuple of Tensor
            What the head gives, (B, outputs) or (B, T, outputs), and valid (B, T).
        """
        if hasattr(batch, "layers"):
            frames, lengths = batch.layers
            valid = frame_mask(absolute_lengths(lengths, frames.shape[1]), frames.shape[1])
            return self.probe(frames.float().unbind(2), valid), valid  # from disk they are float16
        output = self.encoder(*batch.sig)
        return self.probe(output.layers, output.valid), output.valid

    def parameter_groups(self, encoder_lr: float) -> list[dict[str, Any]]:
        """Groups for an optimizer: the probe as the optimizer itself says, a tuned encoder without weight decay.

        Decay pulls towards 0. Of a tuned encoder that is away from what was pretrained, and of IA3's scales, which
        begin at 1, away from doing nothing; what holds an encoder near the pretrained one is `lobes.adapters.L2SP`.

        Parameters
        ----------
        encoder_lr : float
            Learning rate of what trains in the encoder.
        """
        probe, tuned = ([p for p in part.parameters() if p.requires_grad] for part in (self.probe, self.encoder))
        groups: list[dict[str, Any]] = [{"params": probe}] if probe else []
        return [*groups, {"params": tuned, "lr": encoder_lr, "weight_decay": 0.0}] if tuned else groups


def cache_features(
    dataset: AudioDataset,
    encoder: nn.Module,
    device: str | torch.device = "cpu",
    batch_seconds: float = 60.0,
    features_gib: float = 4.0,
    known: dict[str, Tensor] | None = None,
) -> AudioDataset:
    """Run a frozen encoder over a dataset once; its items then hold ``layers`` (T, L, D) in place of ``sig``.

    Items whose audio cannot be read are left out.

    Parameters
    ----------
    dataset : AudioDataset
        From `lobes.dataio.audio_dataset`; changed in place.
    encoder : nn.Module
        Keeps the Encoder contract.
    device : str or torch.device
        Where it runs; the features are kept in main memory.
    batch_seconds : float
        Padded audio per batch.
    features_gib : float
        Most memory that what is computed here may take, GiB.
    known : dict, optional
        Features by utterance id that need not be computed again; those computed are added to it.

    Returns
    -------
    AudioDataset
        The dataset.

    Raises
    ------
    DataError
        The features take more memory, said as soon as that is foreseen.
    """
    features = {} if known is None else known
    missing = [index for index, name in enumerate(dataset.data_ids) if name not in features]
    keys = [key for key in dataset.pipeline.output_mapping if key not in ("sig", "skip_reason")]
    if missing:
        dataset.set_output_keys(["id", "sig", "skip_reason"])
        sampler = GlobalBatchSampler([dataset.durations[i] for i in missing], batch_seconds, shuffle=False)
        part: torch.utils.data.Subset = torch.utils.data.Subset(dataset, missing)
        loader = torch.utils.data.DataLoader(part, batch_sampler=sampler, collate_fn=collate)
        extracted = extract_features(encoder, loader, device, features_gib=features_gib)
        features.update({name: torch.stack(layers, dim=1) for name, layers in extracted.items()})
    kept = [name in features for name in dataset.data_ids]
    dataset.durations = [d for d, keep in zip(dataset.durations, kept, strict=True) if keep]
    dataset.data_ids = [name for name, keep in zip(dataset.data_ids, kept, strict=True) if keep]
    dataset.add_dynamic_item(features.__getitem__, ["id"], ["layers"])
    dataset.set_output_keys([*keys, "layers"])
    return dataset
