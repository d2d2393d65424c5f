"""Random-projection quantiser: the fixed targets of BEST-RQ."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lobes.objectives.masks import utterance_generator


class RandomProjectionQuantiser(nn.Module):
    """The nearest code, on the unit sphere, to a random projection (Chiu et al. 2022, "BEST-RQ", eq. 1).

    On the sphere the nearest code is the one of the largest product, and the projection's own length changes nothing:
    one matrix product per codebook, with no (frames, codes, dimensions) tensor. Nothing here is trained, and the
    codes are a function of the seed alone.

    Arguments
    ---------
    input_dim : int
        Width of the vectors to quantise.
    codebook_size : int
        Codes V per codebook.
    codebook_dim : int
        Width of the codes.
    n_codebooks : int
        Independent codebooks Q, each with its projection.
    seed : int
        Of the projections and codes.

    Example
    -------
    >>> RandomProjectionQuantiser(320, 1024, n_codebooks=2)(torch.randn(7, 320)).shape
    torch.Size([7, 2])
    """

    projection: Tensor
    codes: Tensor

    def __init__(
        self, input_dim: int, codebook_size: int = 8192, codebook_dim: int = 16, n_codebooks: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        self.codebook_size, self.n_codebooks = codebook_size, n_codebooks
        generator = utterance_generator(seed, "random-projection quantiser", 0)
        projection = torch.empty(n_codebooks, input_dim, codebook_dim)
        bound = (6.0 / (input_dim + codebook_dim)) ** 0.5  # Xavier, as in the paper
        projection.uniform_(-bound, bound, generator=generator)
        codes = torch.randn(n_codebooks, codebook_size, codebook_dim, generator=generator)
        self.register_buffer("projection", projection)
        self.register_buffer("codes", F.normalize(codes, dim=-1))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Codes of vectors: (N, input_dim) -> (N, Q), int64."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.projection.dtype)
            books = zip(self.projection, self.codes, strict=True)
            return torch.stack([(x @ projection @ codes.T).argmax(-1) for projection, codes in books], dim=-1)
