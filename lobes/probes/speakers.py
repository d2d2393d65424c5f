"""Heads that make speaker embeddings: x-vector and ECAPA-TDNN, with every frame that is read masked.

An utterance's embedding is the same alone and padded with anything in a batch: convolutions read zeros beyond its end,
statistics and attention are over its own frames, and batch normalisation, which in training is over the real frames of
the batch, uses running statistics in evaluation. SpeechBrain's models of these names pad by reflection at the end of
the batch's longest utterance and normalise over padding, so that theirs is not the same.

Both are called as the other heads are, `head(frames (B, T, D), valid (B, T))`, and give (B, n_outputs): embeddings, to
be compared by their cosine; `lobes.probes.AMSoftmax` and `AAMSoftmax` train them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lobes.errors import ConfigError
from lobes.probes.norms import FrameNorm, PooledNorm
from lobes.probes.pooling import MeanStdPool, masked_moments


class MaskedConv(nn.Module):
    """A convolution over time that reads zeros in place of padded frames; output as long as the input.

    Parameters
    ----------
    dim, dim_out : int
        Widths of the frames.
    kernel : int
        Odd number of frames.
    dilation : int
        Frames from one to the next that is read.
    """

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(f"kernel is {kernel}: expected an odd number of frames")
        self.conv = nn.Conv1d(dim, dim_out, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to (B, T, dim_out); what is in padded frames is not defined."""
        if x.shape[1] == 0:
            return x.new_zeros(len(x), 0, self.conv.out_channels) + 0.0 * x.sum()
        return self.conv(x.masked_fill(~valid.unsqueeze(-1), 0.0).transpose(1, 2)).transpose(1, 2)


class TDNNBlock(nn.Module):
    """Convolution, ReLU, and batch normalisation over real frames, with a scale and offset of its own.

    Parameters
    ----------
    dim, dim_out, kernel, dilation
        As for `MaskedConv`.
    """

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = MaskedConv(dim, dim_out, kernel, dilation)
        self.norm = FrameNorm(dim_out)
        self.scale = nn.Parameter(torch.ones(dim_out))
        self.offset = nn.Parameter(torch.zeros(dim_out))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to (B, T, dim_out), zero in padded frames."""
        x = self.norm(self.conv(x, valid).relu(), valid) * self.scale + self.offset
        return x.masked_fill(~valid.unsqueeze(-1), 0.0)


class XVector(nn.Module):
    """A TDNN, mean and deviation over time, one linear layer (Snyder et al., ICASSP 2018, "X-vectors").

    The embedding is taken right after the statistics, as in the paper, without its second segment layer, whose place
    a loss with a margin takes.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Width of the embedding (512 in the paper).
    channels : int
        Width of the frame layers (512 in the paper).
    pooled : int, optional
        Width of the last of them; by default three times `channels` (1,500 in the paper).
    dropout : float
        On the statistics.

    Example
    -------
    >>> XVector(8, 16, channels=12)(torch.randn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self, dim: int, n_outputs: int, channels: int = 512, pooled: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.norm = FrameNorm(dim)
        self.layers = nn.ModuleList(
            [
                TDNNBlock(dim, channels, 5),
                TDNNBlock(channels, channels, 3, dilation=2),
                TDNNBlock(channels, channels, 3, dilation=3),
                TDNNBlock(channels, channels),
                TDNNBlock(channels, pooled or 3 * channels),
            ]
        )
        self.pool = MeanStdPool(pooled or 3 * channels)
        self.pooled_norm = PooledNorm(self.pool.dim_out)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.pool.dim_out, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return embeddings (B, n_outputs) from frames (B, T, D) and mask (B, T)."""
        x = self.norm(x, valid)
        for layer in self.layers:
            x = layer(x, valid)
        return self.output(self.dropout(self.pooled_norm(self.pool(x, valid), valid.any(1))))


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the mean over real frames says of them (Hu et al., CVPR 2018).

    Parameters
    ----------
    dim : int
        Channels.
    hidden : int
        Width between the two linear layers.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim), nn.Sigmoid())

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, D), zero where not valid, and mask (B, T) to (B, T, D)."""
        mean = x.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        return x * self.gate(mean).unsqueeze(1)


class SERes2Block(nn.Module):
    """ECAPA's block: dilated convolutions over groups of channels, each on the sum of its group and the one before.

    Parameters
    ----------
    dim : int
        Channels, in and out.
    kernel, dilation
        As for `MaskedConv`.
    groups : int
        Into which the channels are cut ("scale" in Res2Net: Gao et al. 2019); the first is passed on as it is.
    hidden : int
        Of the squeeze-excitation.
    """

    def __init__(self, dim: int, kernel: int = 3, dilation: int = 2, groups: int = 8, hidden: int = 128) -> None:
        super().__init__()
        if groups < 2 or dim % groups:
            raise ConfigError(f"channels is {dim}, groups {groups}: expected a multiple of 2 or more groups")
        width = dim // groups
        self.width = width
        self.before = TDNNBlock(dim, dim)
        self.convs = nn.ModuleList(TDNNBlock(width, width, kernel, dilation) for _ in range(groups - 1))
        self.after = TDNNBlock(dim, dim)
        self.excite = SqueezeExcitation(dim, hidden)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, D), zero where not valid, and mask (B, T) to (B, T, D), zero where not valid."""
        first, *others = self.before(x, valid).split(self.width, dim=-1)
        done = [first]
        for number, (conv, part) in enumerate(zip(self.convs, others, strict=True)):
            done.append(conv(part if number == 0 else part + done[-1], valid))
        return x + self.excite(self.after(torch.cat(done, dim=-1), valid), valid)


class ChannelAttentivePool(nn.Module):
    """Mean and deviation over time, each channel with attention of its own (Desplanques et al., Interspeech 2020).

    A frame is scored together with the utterance's plain mean and deviation ("global context").

    Parameters
    ----------
    dim : int
        Dimension D of the frames; the output has `dim_out` = 2·D.
    hidden : int
        Width of the layer that scores the frames.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.dim_out = 2 * dim
        self.plain = MeanStdPool(dim)
        self.hidden = TDNNBlock(3 * dim, hidden)
        self.score = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Frames (B, T, D), zero where not valid, and mask (B, T) to (B, 2·D), mean before deviation."""
        padding = ~valid.unsqueeze(-1)
        context = self.plain(x, valid).unsqueeze(1).expand(-1, x.shape[1], -1)
        score = self.score(self.hidden(torch.cat([x, context], dim=-1), valid).tanh())
        score = score if score.dtype == torch.float64 else score.float()
        weights = score.masked_fill(padding, torch.finfo(score.dtype).min).softmax(1).masked_fill(padding, 0.0)
        return masked_moments(x, weights)


class ECAPA(nn.Module):
    """ECAPA-TDNN (Desplanques, Thienpondt & Demuynck, Interspeech 2020).

    Each block reads the sum of all before it; what the blocks give is joined, pooled by attention and mapped.

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Width of the embedding (192 in the paper).
    channels : int
        Width of the blocks (512 or 1,024 in the paper), a multiple of `groups`.
    dilations : sequence of int
        Of the blocks, one each.
    groups, hidden
        As for `SERes2Block`; `hidden` for the pooling too.
    pooled : int, optional
        Width of the frames that are pooled; by default three times `channels` (1,536 in the paper, for 512).
    dropout : float
        On the pooled vector.

    Example
    -------
    >>> ECAPA(8, 16, channels=8, groups=2)(torch.randn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        dim: int,
        n_outputs: int,
        channels: int = 512,
        dilations: Sequence[int] = (2, 3, 4),
        groups: int = 8,
        hidden: int = 128,
        pooled: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.norm = FrameNorm(dim)
        self.first = TDNNBlock(dim, channels, 5)
        self.blocks = nn.ModuleList(SERes2Block(channels, 3, d, groups, hidden) for d in dilations)
        self.join = MaskedConv(len(self.blocks) * channels, pooled or 3 * channels)
        self.pool = ChannelAttentivePool(pooled or 3 * channels, hidden)
        self.pooled_norm = PooledNorm(self.pool.dim_out)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(self.pool.dim_out, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return embeddings (B, n_outputs) from frames (B, T, D) and mask (B, T)."""
        total = self.first(self.norm(x, valid), valid)
        outputs = []
        for block in self.blocks:
            outputs.append(block(total, valid))
            total = total + outputs[-1]
        joined = self.join(torch.cat(outputs, dim=-1), valid).relu().masked_fill(~valid.unsqueeze(-1), 0.0)
        return self.output(self.dropout(self.pooled_norm(self.pool(joined, valid), valid.any(1))))
