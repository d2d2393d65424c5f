"""An utterance head for words: each class is looked for everywhere, and scored by where it is likeliest."""

from __future__ import annotations

from torch import Tensor, nn

from lobes.errors import ConfigError
from lobes.probes.norms import FrameNorm


class PeakHead(nn.Module):
    """Scores from each frame's surroundings, pooled over time by log-mean-exp.

    Where mean and deviation over time dilute a word in what else is said, this asks whether it is said anywhere. The
    pooling is that of Pinheiro and Collobert 2015, "From image-level to pixel-level labeling with convolutional
    networks".

    Parameters
    ----------
    dim : int
        Dimension D of the frames.
    n_outputs : int
        Number of classes or targets.
    width : int
        Frames that a score depends on, an odd number: 15 are 0.6 s at 25 Hz.
    hidden : int
        Width of the layer on them.
    sharpness : float
        Of the pooling: towards 0 it is the mean over frames, the larger, the nearer to the maximum.
    dropout : float
        On the frames and on the hidden layer.

    Raises
    ------
    ConfigError
        `width` is not odd, or `sharpness` not positive.

    Example
    -------
    >>> import torch
    >>> PeakHead(8, 3)(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        dim: int,
        n_outputs: int,
        width: int = 15,
        hidden: int = 128,
        sharpness: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1 or width % 2 == 0:
            raise ConfigError(f"width is {width}: expected an odd number of frames, so that a frame has a middle")
        if not sharpness > 0:
            raise ConfigError(f"sharpness is {sharpness}: expected a positive number")
        self.dim = dim
        self.sharpness = sharpness
        self.norm = FrameNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.surroundings = nn.Conv1d(dim, hidden, width, padding=width // 2)
        self.activation = nn.GELU()
        self.output = nn.Linear(hidden, n_outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return logits (B, outputs) from frames (B, T, D) and mask (B, T); zero for an utterance without frames."""
        x = self.dropout(self.norm(x, valid))
        hidden = self.activation(self.surroundings(x.transpose(1, 2)).transpose(1, 2))
        scores = self.sharpness * self.output(self.dropout(hidden)).float()
        n_frames = valid.sum(1, keepdim=True)
        # The lowest finite number, not -inf: where all frames are padding the gradient would not be finite.
        pooled = scores.masked_fill(~valid.unsqueeze(-1), -1e9).logsumexp(1) - n_frames.clamp(min=1).log()
        return (pooled / self.sharpness).masked_fill(n_frames == 0, 0.0)
