"""The weighted sum of an encoder's layers, on which every probe stands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.errors import ConfigError


class WeightedLayerSum(nn.Module):
    """Mix an encoder's layers by learnt softmax weights (SUPERB: Yang et al., Interspeech 2021).

    Parameters
    ----------
    n_layers : int
        Number of layers.
    normalize : bool
        Give each layer zero mean and unit variance over its dimensions, frame by frame and without affine weights, so
        that the weights compare layers of different scale.

    Raises
    ------
    ConfigError
        If there is no layer.

    Example
    -------
    >>> layers = [torch.zeros(1, 3, 4), torch.ones(1, 3, 4)]
    >>> valid = torch.tensor([[True, True, False]])
    >>> WeightedLayerSum(2)(layers, valid)[0, :, 0].tolist()
    [0.5, 0.5, 0.0]
    """

    def __init__(self, n_layers: int, normalize: bool = False) -> None:
        super().__init__()
        if n_layers < 1:
            raise ConfigError(f"n_layers: {n_layers}, expected at least 1; pass the number of layers of the encoder")
        self.n_layers = n_layers
        self.normalize = normalize
        self.scores = nn.Parameter(torch.zeros(n_layers))

    def weights(self) -> list[float]:
        """Return the weights as they are now, one per layer, summing to 1; for plots."""
        return self.scores.detach().float().softmax(0).tolist()

    def forward(self, layers: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Return the mixture (B, T, D), zero where a frame is not valid.

        Parameters
        ----------
        layers : sequence of tensor (B, T, D)
            All of one shape; what stands in padded frames is never read, NaN included.
        valid : bool tensor (B, T)
            True for real frames.

        Raises
        ------
        ConfigError
            If the number of layers is another one, or their shapes differ.
        """
        if len(layers) != self.n_layers:
            raise ConfigError(f"layers: {len(layers)}, expected n_layers={self.n_layers}; rebuild the probe for them")
        shapes = {tuple(layer.shape) for layer in layers}
        if len(shapes) > 1:
            raise ConfigError(
                f"layers: shapes {sorted(shapes)}, expected one (B, T, D) for all; choose layers that agree"
            )
        padding = ~valid.unsqueeze(-1)
        weights = self.scores.softmax(0)
        total = layers[0].new_zeros(())
        for weight, layer in zip(weights, layers, strict=True):
            # Before anything else: NaN in padding would come back through the gradient of a later mask.
            layer = layer.masked_fill(padding, 0.0)
            if self.normalize:
                layer = F.layer_norm(layer, layer.shape[-1:])  # leaves 0 as it is
            total = total + weight * layer
        return total
