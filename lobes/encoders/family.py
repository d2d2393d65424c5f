"""Models from elsewhere by their families: one way from a waveform to hidden states for all models of a kind."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from lobes.encoders.foreign_walk import ForeignWalk, first_call
from lobes.encoders.layerwise import BlockWalk, Walk
from lobes.encoders.upstream import PaddingHook, UpstreamEncoder, attended, recorded

logger = logging.getLogger(__name__)


class Family(nn.Module):
    """One way from waveforms to hidden states; it has no weights: the model is given in each call.

    Arguments
    ---------
    config : PreTrainedConfig
        Of the model.
    normalise : bool
        Whether utterances are brought to zero mean and unit variance.
    """

    by_length = False
    stride: int  # samples from frame to frame
    anchor = "feature_projection.projection.weight"  # a weight by which a checkpoint shows where the model is in it
    depth_name = "num_hidden_layers"  # what the configuration calls the number of blocks

    def __init__(self, config: Any, normalise: bool) -> None:
        super().__init__()
        self.config, self.normalise, self.padding = config, normalise, PaddingHook()
        self.dim, self.depth = config.hidden_size, config.num_hidden_layers

    def prepare(self, model: Any) -> None:
        """Once, for a new model: hooks, and switches in its configuration."""
        model.config.layerdrop = 0.0

    def front_end(self, model: Any) -> Iterable[nn.Module]:
        """What comes before the transformer."""
        raise NotImplementedError

    def n_frames(self, n_samples: Tensor) -> Tensor:
        """Frames of utterances of so many samples."""
        raise NotImplementedError

    def forward(self, model: Any, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last hidden state (B, T, D) and all of them; see `UpstreamEncoder.hidden_states`."""
        raise NotImplementedError

    def macs(self, samples: int, n_blocks: int) -> int:
        """Multiply-accumulates for one utterance of so many samples, up to a block."""
        raise NotImplementedError

    def stack(self, model: Any) -> Any:
        """The module whose ``layers`` are the blocks."""
        return model.encoder

    def cut(self, model: Any, n_blocks: int) -> None:
        """Leave the model its first blocks only."""
        stack = self.stack(model)
        stack.layers = stack.layers[:n_blocks]
        self.depth = self.config.num_hidden_layers = n_blocks

    def walk(self, encoder: FamilyEncoder, waveform: Tensor, n_samples: Tensor, valid: Tensor) -> Walk:
        """Through the blocks of an encoder's model, with the arguments of `forward`."""
        blocks = self.stack(encoder.model).layers
        call = first_call(lambda: self(encoder.model, waveform, n_samples, valid), blocks[0])
        return ForeignWalk(encoder, blocks, call, valid, self.padding)

    def transform(self, model: Any, x: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The transformer on projected features (B, T, D)."""
        mask = attended(valid)
        with self.padding.of(mask), recorded(self.stack(model).layers) as states:
            last = model.encoder(x, attention_mask=mask).last_hidden_state
        return last, states

    def attention_macs(self, n_frames: int) -> int:
        """Of one layer: four projections, scores and sums."""
        return 4 * n_frames * self.dim**2 + 2 * n_frames**2 * self.dim


class FamilyEncoder(UpstreamEncoder):
    """An encoder that is a model and its family; a subclass builds both and then calls `set_up`."""

    family: Family
    _source: dict[str, Any]

    def set_up(self, name: str, sample_rate: int, frozen: str) -> None:
        """Make the model ready, take over the family's sizes, freeze, and say where batches are slow."""
        self.family.prepare(self.model)
        self.sample_rate, self.frame_rate = sample_rate, sample_rate / self.family.stride
        self.by_length, self.dim = self.family.by_length, self.family.dim
        self.layer_dims = [self.dim] * (self.family.depth + 1)
        self.freeze(frozen)
        if self.by_length:
            logger.warning(
                "%s: its front-end normalises over time, so that it runs once for each length in a batch; "
                "this is exact, and fast where a batch has few lengths",
                name,
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

    def macs(self, seconds: float, n_blocks: int | None = None) -> int:
        """See `UpstreamEncoder.macs`; up to a block, or through all of them."""
        return self.family.macs(round(seconds * self.sample_rate), self.n_blocks if n_blocks is None else n_blocks)

    @property
    def n_blocks(self) -> int:
        """How many blocks it has."""
        return self.family.depth

    def first_blocks(self, n_blocks: int) -> FamilyEncoder:
        """A copy with its first blocks only, see `lobes.encoders.layerwise`."""
        kept = copy.deepcopy(self)
        kept.family.cut(kept.model, n_blocks)
        kept._source = {**kept._source, kept.family.depth_name: n_blocks}
        kept.layer_dims = kept.layer_dims[: n_blocks + 1]
        return kept

    def walk(self, waveform: Tensor, lengths: Tensor) -> Walk:
        """Its blocks one by one, see `lobes.encoders.layerwise`."""
        waveform, n_samples, valid = self._without_padding(waveform, lengths)
        if valid.any():
            return self.family.walk(self, waveform, n_samples, valid)
        # As in `forward`, nothing is computed of utterances that are too short.
        return BlockWalk(self, [_unchanged] * self.n_blocks, waveform.new_zeros(*valid.shape, self.dim), valid)

    def front_end(self) -> Iterable[nn.Module]:
        """See `UpstreamEncoder.front_end`."""
        return self.family.front_end(self.model)


def _unchanged(x: Tensor, valid: Tensor, chunks: None) -> Tensor:
    return x
