"""Downstream heads, and the probe that puts one on a frozen encoder's layers.

Utterance heads give (B, outputs), frame heads (B, T, outputs), zero in padded frames. An utterance's output is the same
alone and padded with anything in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lobes.errors import ConfigError
from lobes.probes.layer_sum import WeightedLayerSum
from lobes.probes.norms import FrameNorm, PooledNorm
from lobes.probes.pooling import AttentivePool, MeanStdPool


class LinearHead(nn.Module):
    """Mean and deviation over time, standardised (`PooledNorm`), then one linear layer: what is linearly there.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Number of classes or targets.
    projection : int, optional
        Width of a linear layer on each frame before the pooling, as SUPERB has it (256); none by default.
    dropout : float
        On the pooled vector.

    Example
    -------
    >>> import torch
    >>> LinearHead(8, 3)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 3])
    """

    def __init__(self, dim: int, n_outputs: int, projection: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.projection = nn.Linear(dim, projection) if projection else nn.Identity()
        self.pool = MeanStdPool(projection or dim)
        self.norm = PooledNorm(self.pool.dim_out)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.pool.dim_out, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return logits (B, outputs) from frames (B, T, D) and mask (B, T)."""
        x = self.projection(x.masked_fill(~valid.unsqueeze(-1), 0.0))
        return self.output(self.dropout(self.norm(self.pool(x, valid), valid.any(1))))


class AttentiveHead(nn.Module):
    """Attentive statistics over time, standardised (`PooledNorm`), then one linear layer.

    Parameters
    ----------
    dim, n_outputs, dropout
        As for `LinearHead`.
    hidden : int
        Width of the layer that scores the frames.

    Example
    -------
    >>> import torch
    >>> AttentiveHead(8, 3)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 3])
    """

    def __init__(self, dim: int, n_outputs: int, hidden: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.pool = AttentivePool(dim, hidden)
        self.norm = PooledNorm(self.pool.dim_out)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.pool.dim_out, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return logits (B, outputs) from frames (B, T, D) and mask (B, T)."""
        return self.output(self.dropout(self.norm(self.pool(x, valid), valid.any(1))))


class FrameLinear(nn.Module):
    """Each frame standardised (`FrameNorm`), then a linear layer: for frame labels or CTC.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Number of classes; for CTC the vocabulary V, blank included.
    dropout : float
        On the frames.
    projection : int, optional
        Width of a linear layer before it, as SUPERB has it for phones (256); none by default.

    Example
    -------
    >>> import torch
    >>> FrameLinear(8, 30)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 30])
    """

    def __init__(self, dim: int, n_outputs: int, dropout: float = 0.0, projection: int | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.norm = FrameNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, projection) if projection else nn.Identity()
        self.output = nn.Linear(projection or dim, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return logits (B, T, outputs) from frames (B, T, D) and mask (B, T)."""
        return self.output(self.projection(self.dropout(self.norm(x, valid)))).masked_fill(~valid.unsqueeze(-1), 0.0)


class BiLSTMHead(nn.Module):
    """A bidirectional LSTM and a linear layer on standardised frames (SUPERB's head for recognition; CTC on top).

    Sequences are packed: the backward direction starts at each utterance's own last frame.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Number of classes; for CTC the vocabulary V, blank included.
    hidden : int
        Units per direction.
    layers : int
        Number of LSTM layers.
    dropout : float
        Between LSTM layers and before the linear one.

    Example
    -------
    >>> import torch
    >>> BiLSTMHead(8, 30, hidden=16)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 30])
    """

    def __init__(self, dim: int, n_outputs: int, hidden: int = 256, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.norm = FrameNorm(dim)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return logits (B, T, outputs) from frames (B, T, D) and mask (B, T), whose valid frames come first."""
        padding = ~valid.unsqueeze(-1)
        x = self.norm(x, valid)
        n_frames = x.shape[1]
        if n_frames == 0:
            x = nn.functional.pad(x, (0, 0, 0, 1))
        # Packing refuses length 0: such an utterance reads one frame of zeros, and its output is masked.
        lengths = valid.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.output(self.dropout(y[:, :n_frames])).masked_fill(padding, 0.0)


class Probe(nn.Module):
    """A weighted layer sum and a head: the module that a probe recipe trains, the encoder being frozen.

    Parameters
    ----------
    layer_dims : sequence of int
        The encoder's `layer_dims`; all of them equal.
    head : nn.Module
        `head(frames (B, T, D), valid (B, T))`, such as `LinearHead`, with the dimension it takes as `dim`.
    normalize : bool
        As for `WeightedLayerSum`.

    Raises
    ------
    ConfigError
        If the layers' dimensions differ from each other or from the head's.

    Example
    -------
    >>> import torch
    >>> probe = Probe([8, 8], LinearHead(8, 3))
    >>> layers = [torch.randn(2, 5, 8), torch.randn(2, 5, 8)]
    >>> probe(layers, torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 3])
    """

    def __init__(self, layer_dims: Sequence[int], head: nn.Module, normalize: bool = False) -> None:
        super().__init__()
        dims = set(layer_dims)
        if len(dims) != 1:
            raise ConfigError(f"layer_dims: {list(layer_dims)}, expected one for all; choose layers that agree")
        wanted = getattr(head, "dim", None)
        if wanted is not None and {wanted} != dims:
            raise ConfigError(f"head: dim={wanted}, expected {dims.pop()} as the layers have; set the head's dim to it")
        self.layer_sum = WeightedLayerSum(len(layer_dims), normalize)
        self.head = head

    def weights(self) -> list[float]:
        """Return the weight of each layer; see `WeightedLayerSum.weights`."""
        return self.layer_sum.weights()

    def forward(self, layers: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Return the head's output on the mixture of the layers [(B, T, D)...] with mask (B, T)."""
        return self.head(self.layer_sum(layers, valid), valid)
