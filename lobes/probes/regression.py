"""Heads and loss for continuous ratings: one value for each step of a recording.

The heads are those with which LeBenchmark and its successors rated emotion: a linear layer, small GRUs, and five
bidirectional LSTM layers. They give (B, S, outputs), zero in padded steps; a recording's output is the same alone and
padded with anything in a batch.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lobes.encoders import absolute_lengths, frame_mask
from lobes.errors import ConfigError
from lobes.probes.norms import FrameNorm
from lobes.probes.processes import sum_over_processes, training_processes

#: What a CCC may be over: all steps of a batch, or each of its files.
OVER = ("batch", "file")


class LinearRater(nn.Module):
    """Each step standardised (`FrameNorm`), one linear layer, tanh: "Lin-tanh".

    Parameters
    ----------
    dim : int
        Dimension D of the steps.
    n_outputs : int
        Number of targets.
    bounds : tuple of float
        Smallest and largest rating, which tanh is stretched to.
    dropout : float
        On the steps.

    Example
    -------
    >>> import torch
    >>> LinearRater(8, 1)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 1])
    """

    def __init__(
        self, dim: int, n_outputs: int, bounds: tuple[float, float] = (-1.0, 1.0), dropout: float = 0.0
    ) -> None:
        super().__init__()
        low, high = bounds
        if not low < high:
            raise ConfigError(f"bounds are {low} and {high}: expected the smallest and the largest rating")
        self.dim = dim
        self.middle, self.reach = (low + high) / 2, (high - low) / 2
        self.norm = FrameNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(dim, n_outputs)

    def hidden(self, x: Tensor, valid: Tensor) -> Tensor:
        """What the linear layer reads, (B, S, width), from standardised steps (B, S, D)."""
        return x

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Ratings (B, S, outputs) from steps (B, S, D) and mask (B, S), whose valid steps come first."""
        hidden = self.hidden(self.norm(x, valid), valid)
        rating = self.middle + self.reach * self.output(self.dropout(hidden)).tanh()
        return rating.masked_fill(~valid.unsqueeze(-1), 0.0)


class _RecurrentRater(LinearRater):
    """A recurrent network below the linear layer; recordings are packed."""

    directions = 1

    def __init__(
        self,
        kind: type[nn.GRU] | type[nn.LSTM],
        dim: int,
        n_outputs: int,
        hidden: int,
        layers: int,
        bounds: tuple[float, float],
        dropout: float,
    ) -> None:
        super().__init__(dim, n_outputs, bounds, dropout)
        self.output = nn.Linear(hidden * self.directions, n_outputs)
        between = dropout if layers > 1 else 0.0
        self.network = kind(dim, hidden, layers, batch_first=True, dropout=between, bidirectional=self.directions == 2)

    def hidden(self, x: Tensor, valid: Tensor) -> Tensor:
        """States of the last layer, (B, S, units); those of the backward direction begin at each recording's end."""
        n_steps = x.shape[1]
        if n_steps == 0:
            x = nn.functional.pad(x, (0, 0, 0, 1))
        # Packing refuses length 0: such a recording reads one step of zeros, and its output is masked.
        lengths = valid.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.network(packed)[0], batch_first=True, total_length=x.shape[1])
        return states[:, :n_steps]


class GRURater(_RecurrentRater):
    """A GRU on standardised steps, a linear layer, tanh: "GRU-32" and, with ``hidden=64``, "GRU-64".

    Parameters
    ----------
    dim, n_outputs, bounds
        As for `LinearRater`.
    hidden : int
        Units.
    layers : int
        GRU layers.
    dropout : float
        Between them and before the linear one.

    Example
    -------
    >>> import torch
    >>> GRURater(8, 1)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 1])
    """

    def __init__(
        self,
        dim: int,
        n_outputs: int,
        hidden: int = 32,
        layers: int = 1,
        bounds: tuple[float, float] = (-1.0, 1.0),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(nn.GRU, dim, n_outputs, hidden, layers, bounds, dropout)


class BiLSTMRater(_RecurrentRater):
    """Bidirectional LSTM layers on standardised steps, a linear layer, tanh; five layers on steps of 250 ms.

    Parameters
    ----------
    dim, n_outputs, bounds
        As for `LinearRater`.
    hidden : int
        Units per direction.
    layers : int
        LSTM layers.
    dropout : float
        Between them and before the linear one.

    Example
    -------
    >>> import torch
    >>> BiLSTMRater(8, 1, hidden=4)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 1])
    """

    directions = 2

    def __init__(
        self,
        dim: int,
        n_outputs: int,
        hidden: int = 64,
        layers: int = 5,
        bounds: tuple[float, float] = (-1.0, 1.0),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(nn.LSTM, dim, n_outputs, hidden, layers, bounds, dropout)


def rated_steps(output: Tensor, valid: Tensor, rating: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a head gave, and what it should have, where there are both.

    Parameters
    ----------
    output : Tensor
        (B, S, 1), from a head.
    valid : Tensor
        (B, S), bool.
    rating, lengths : Tensor
        Padded ratings (B, R) of the same period, and their relative lengths (B,).

    Returns
    -------
    tuple of Tensor
        Predictions, targets and validity, each (B, n) with n the smaller of S and R.
    """
    n = min(output.shape[1], rating.shape[1])
    rated = frame_mask(absolute_lengths(lengths, rating.shape[1]), rating.shape[1])
    return output[:, :n, 0], rating[:, :n], valid[:, :n] & rated[:, :n]


def ccc_loss(
    predicted: Tensor, target: Tensor, valid: Tensor, over: str = "batch", together: bool = False
) -> tuple[Tensor, float]:
    """1 minus the concordance correlation coefficient (Lin 1989; see `lobes.evaluation.agreement`).

    Parameters
    ----------
    predicted, target : Tensor
        (B, S); what stands in padded steps is not read.
    valid : Tensor
        (B, S), bool.
    over : str
        `batch`: of all real steps of the batch together. `file`: the mean over its files of each one's own.
    together : bool
        The batch is that of all processes, as in a training step, which all of them take. In evaluation they may have
        different numbers of batches.

    Returns
    -------
    tuple of Tensor and float
        The loss, shape (), from 0 to 2 and 1 where nothing varies, computed in float32 at least; and what it counts in
        a mean of batches, for `Brain.weighted`: steps, or files that have steps. A coefficient over a batch is no mean
        over its parts, so that training with accumulation follows another loss than without; so does training with
        several processes unless `together`. All processes then have the same loss and weight.

    Raises
    ------
    ConfigError
        `over` is another word.

    Example
    -------
    >>> import torch
    >>> target, valid = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[True, True, True]])
    >>> loss, weight = ccc_loss(target + 1, target, valid)
    >>> round(loss.item(), 3), weight
    (0.429, 3.0)
    """
    if over not in OVER:
        raise ConfigError(f"over is '{over}': expected one of {', '.join(OVER)}")
    wide = predicted if predicted.dtype.itemsize >= 4 else predicted.float()
    x, y = (values.to(wide.dtype).masked_fill(~valid, 0.0) for values in (target, wide))
    axes = (0, 1) if over == "batch" else (1,)
    together = together and over == "batch"

    def total(values: Tensor) -> Tensor:
        part = values.masked_fill(~valid, 0.0).sum(axes)
        if not together:
            return part
        # The processes' gradients are averaged, where those of the parts of one sum belong added.
        return sum_over_processes(part) + (training_processes() - 1) * (part - part.detach())

    steps = total(valid.to(wide.dtype))
    count = steps.clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return total(values) / count

    mean_x, mean_y = mean(x), mean(y)
    # Centred first: a difference of two large sums of squares would lose what it is about. What a mean does to sums of
    # centred values is nothing, so that its gradient there, of which a process would have a part, is not needed.
    centres = (m.detach() if over == "batch" else m.detach().unsqueeze(1) for m in (mean_x, mean_y))
    from_x, from_y = (values - centre for values, centre in zip((x, y), centres, strict=True))
    spread = mean(from_x.square()) + mean(from_y.square()) + (mean_x - mean_y).square()
    ccc = 2 * mean(from_x * from_y) / spread.clamp(min=1e-12)
    real = steps > 0
    files = real.sum().clamp(min=1)
    loss = ((1 - ccc) * real).sum() / files
    return loss, float(steps if over == "batch" else real.sum())
